//! A site of boxes of three kinds of machines: what `dist` makes for x86-64, for 64-bit ARM and for ARMv6 counts together. The
//! foreign ones are run by qemu-user, the last as the processor of a Raspberry Pi Zero.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::cross::{self, Target};
use crate::site::{Plan, Site};
use crate::tools::{self, Consent, Tool};
use crate::{dist, http, run};

/// A target, and what runs its programs here.
const BOXES: [(&str, &[&str]); 3] =
    [("x86_64", &[]), ("aarch64", &["qemu-aarch64"]), ("armv6", &["qemu-arm", "-cpu", "arm1176"])];
const SERIES: &str = "line1/press3/parts";
/// Added at each box in each round.
const ADDS: u64 = 20;
/// An emulated box is slow, and others may use this machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Builds the three programs and has them count together; says what was seen.
pub(crate) fn test() -> Result<String> {
    tools::ensure(&[Tool::Qemu], Consent::Given)?;
    let folder = run::root().join("target/dist/mixed");
    dist::remove(&folder)?;
    let mut programs = Vec::new();
    for (name, runner) in BOXES {
        let program = cross::build(&Target::find(name)?)?;
        programs.push(wrapped(&folder, name, runner, &program)?);
    }
    let programs: [PathBuf; 3] = programs.try_into().ok().context("there are three boxes")?;
    let plan =
        Plan { name: "mixed", window: Duration::from_secs(60), broker_port: None, more: |_| String::new() };
    let mut site = Site::start_each(&programs, &folder, &plan)?;
    site.wait_ready()?;
    let mut total = 0;
    let names = site.names();
    count(&mut site, &names, &mut total)?;
    // Each is killed once, the others go on, and it catches up.
    for killed in &names {
        site.kill(killed)?;
        let others: Vec<&str> = names.iter().copied().filter(|name| name != killed).collect();
        count(&mut site, &others, &mut total)?;
        site.revive(killed)?;
        site.wait_ready()?;
    }
    count(&mut site, &names, &mut total)?;
    agreed(&site, total)?;
    site.stop();
    Ok(format!("x86-64, aarch64 and ARMv6 counted {total} together, each killed once"))
}

/// A program that runs another machine's program, in its place, so that signals reach it.
fn wrapped(folder: &Path, name: &str, runner: &[&str], program: &Path) -> Result<PathBuf> {
    if runner.is_empty() {
        return Ok(program.to_owned());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let script = folder.join(format!("tallyd-{name}"));
    dist::write(&script, &format!("#!/bin/sh\nexec {} {} \"$@\"\n", runner.join(" "), program.display()))?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot make {} executable", script.display()))?;
    Ok(script)
}

/// Adds at each of these boxes until the adds are acknowledged.
fn count(site: &mut Site, names: &[&'static str], total: &mut u64) -> Result<()> {
    for name in names {
        let to = site.api_address(name)?;
        for _ in 0..ADDS {
            let (began, key) = (Instant::now(), format!("mixed-{total}"));
            loop {
                match http::post(to, &format!("/v1/counters/{SERIES}"), &key, "{\"add\":1}") {
                    Ok(answer) if answer.status == 200 => break,
                    // An election goes on; the key makes it safe to ask again.
                    Ok(answer) if matches!(answer.status, 503 | 504) => {}
                    Ok(answer) => bail!("{name} refused an add: {} {}", answer.status, answer.body),
                    Err(_) => site.check()?,
                }
                ensure!(began.elapsed() < PATIENCE, "{name} did not acknowledge an add within {PATIENCE:?}");
                std::thread::sleep(Duration::from_millis(50));
            }
            *total += 1;
        }
    }
    Ok(())
}

/// Waits until all boxes hold the total, with equal digests of their states.
fn agreed(site: &Site, total: u64) -> Result<()> {
    let began = Instant::now();
    loop {
        let totals = site.api_addresses().into_iter().map(|to| {
            let answer = http::get(to, &format!("/v1/counters/{SERIES}")).ok()?;
            answer.body["total"].as_u64()
        });
        let states: Vec<_> = site.views().into_iter().filter_map(|view| view.status).collect();
        let state =
            |place: usize| Some((states.get(place)?["applied"].as_u64()?, &states.get(place)?["digest"]));
        if totals.into_iter().all(|found| found == Some(total))
            && state(0).is_some()
            && state(0) == state(1)
            && state(1) == state(2)
        {
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!("the boxes do not agree on a total of {total}: {states:?}");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
