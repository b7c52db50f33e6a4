//! `cargo xtask system`: the package on machines with a real systemd. Installed, started, hung, reloaded, stopped, upgraded,
//! refused, removed and purged, with a data disk of its own.

mod container;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use self::container::Container;
use crate::tools::{self, Tool};
use crate::{dist, run};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The package to test; default: one that is built now, for this machine.
    #[arg(long, value_name = "FILE")]
    package: Option<PathBuf>,
}

/// The packages, in the folder that each machine sees as /files.
struct Packages {
    folder: PathBuf,
}

type Test = fn(&Container) -> Result<()>;

/// Each on a machine of its own.
const TESTS: [(&str, Test); 6] = [
    ("installed, it says what it lacks, and counts once it has it", install),
    ("the service reloads, hangs, crashes and stops as it should", service),
    ("a wrong configuration is told once, and mended by a restart", wrong_configuration),
    ("a data disk that is mounted late is waited for", late_disk),
    ("an upgrade keeps all counts, a downgrade is refused", upgrade),
    ("a purge with a data disk leaves nothing, not even half of the package", purge),
];

pub(crate) fn system(arguments: &Arguments) -> Result<()> {
    println!("{}", test(arguments.package.as_deref())?);
    Ok(())
}

/// Runs all tests; says how many.
pub(crate) fn test(package: Option<&Path>) -> Result<String> {
    tools::ensure(&[Tool::Nspawn, Tool::Debootstrap, Tool::Lintian], tools::Consent::Given)?;
    let package = match package {
        Some(package) => package.to_owned(),
        None => dist::native_package()?,
    };
    lint(&package)?;
    let packages = Packages::make(&package)?;
    let root = container::debian()?;
    let mut wrong = Vec::new();
    for (name, test) in TESTS {
        let began = Instant::now();
        let done = Container::boot(&root, &packages.folder).and_then(|container| test(&container));
        let took = began.elapsed().as_secs_f64();
        match done {
            Ok(()) => println!("    ok {took:6.1} s  {name}"),
            Err(error) => {
                println!("    FAILED {took:6.1} s  {name}\n{error:#}");
                wrong.push(name);
            }
        }
    }
    ensure!(wrong.is_empty(), "{} of {} tests failed", wrong.len(), TESTS.len());
    Ok(format!("{} tests on real systemd passed", TESTS.len()))
}

/// What Debian asks of a package.
fn lint(package: &Path) -> Result<()> {
    let mut command = Command::new("lintian");
    command.args(["--fail-on", "error", "--allow-root", "--tag-display-limit", "0"]).arg(package);
    let outcome = run::collect(&mut command)?;
    ensure!(outcome.ok, "{} found errors:\n{}", run::show(&command), outcome.text);
    Ok(())
}

impl Packages {
    /// The package, a newer and an older one of the same content.
    fn make(package: &Path) -> Result<Packages> {
        let folder = run::root().join("target/dist/packages");
        dist::remove(&folder)?;
        dist::copy(package, &folder.join("tallyd.deb"))?;
        for (name, version) in [("newer", "999.0.0-1"), ("older", "0.0.1-1")] {
            let unpacked = folder.join(name);
            run::output(Command::new("dpkg-deb").arg("--raw-extract").arg(package).arg(&unpacked))?;
            let control = unpacked.join("DEBIAN/control");
            let text = std::fs::read_to_string(&control).context("the package has no control file")?;
            let line = |line: &str| match line.starts_with("Version:") {
                true => format!("Version: {version}\n"),
                false => format!("{line}\n"),
            };
            dist::write(&control, &text.lines().map(line).collect::<String>())?;
            let file = folder.join(format!("{name}.deb"));
            run::output(
                Command::new("dpkg-deb").args(["--root-owner-group", "--build"]).arg(&unpacked).arg(&file),
            )?;
        }
        Ok(Packages { folder })
    }
}

/// A site of one box with a configuration in /etc, its files as root's copy of what `provision` made.
const PROVISION: &str = "rm -rf /root/plant
    tallyd provision --site plant --box box1=127.0.0.1:7400 --out /root/plant >/dev/null
    rm -f /root/plant/box1/tallyd.toml
    cp -r /root/plant/box1/. /var/lib/tallyd/";
const INSTALL: &str = "dpkg -i /files/tallyd.deb >/dev/null 2>&1";
/// Succeeds once a count is in.
const COUNT: &str = "tallyd add coffee 1 --timeout 10s";

/// A box that counts.
fn installed(it: &Container) -> Result<()> {
    it.sh(INSTALL)?;
    it.sh(PROVISION)?;
    it.sh("chown -R tallyd: /var/lib/tallyd && systemctl restart tallyd")?;
    it.until(COUNT).map(|_| ())
}

fn total(it: &Container) -> Result<u64> {
    let said = it.sh("tallyd get coffee --json")?;
    let value: serde_json::Value =
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
    value["total"].as_u64().with_context(|| format!("no total: {said}"))
}

fn main_pid(it: &Container) -> Result<String> {
    it.sh("systemctl show -P MainPID tallyd")
}

/// What must be in a text.
fn says(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "{word:?} is not in:\n{text}");
    }
    Ok(())
}

fn install(it: &Container) -> Result<()> {
    it.sh(INSTALL)?;
    it.sh("id tallyd && systemctl is-enabled tallyd && test -f /usr/share/man/man1/tallyd.1.gz")?;
    // Disabled, and there.
    it.refused("systemctl is-enabled tallyd-witness")?;
    it.sh("systemctl cat tallyd-witness >/dev/null")?;
    ensure!(!it.try_sh("test -e /var/lib/tallyd/identity.json")?.ok, "it founded a site of its own");
    it.sh(PROVISION)?;
    // Root made the copy: the journal says what to do.
    let _ = it.try_sh("systemctl restart tallyd")?;
    it.until("journalctl -u tallyd -o cat | grep 'chown -R tallyd: /var/lib/tallyd'")?;
    it.sh("chown -R tallyd: /var/lib/tallyd && systemctl restart tallyd")?;
    it.until(COUNT)?;
    ensure!(total(it)? == 1);
    it.until("systemctl show -P StatusText tallyd | grep '^leader; '")?;
    let errors = it.sh("journalctl -u tallyd _COMM=tallyd -p warning -o cat")?;
    says(&errors, &["Permission denied"])?;
    let all = it.sh("journalctl -u tallyd _COMM=tallyd -o cat")?;
    let wrong: Vec<&str> = all
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_digit() || first == '<'))
        .collect();
    ensure!(
        wrong.is_empty(),
        "lines with a time of their own, or with their priority:\n{}",
        wrong.join("\n")
    );
    ensure!(!errors.contains("INFO"), "{errors}");
    let exposure = it.sh("systemd-analyze security --no-pager tallyd.service | tail -1")?;
    let figure = exposure
        .split_once("tallyd.service: ")
        .and_then(|(_, rest)| rest.split(' ').next()?.parse::<f64>().ok());
    ensure!(figure.is_some_and(|figure| figure <= 1.5), "{exposure}");
    Ok(())
}

fn service(it: &Container) -> Result<()> {
    installed(it)?;
    // So that nobody waits for half a minute.
    it.sh("mkdir -p /etc/systemd/system/tallyd.service.d
        printf '[Service]\\nWatchdogSec=3\\nRestartSec=1\\n' > /etc/systemd/system/tallyd.service.d/test.conf
        systemctl daemon-reload && systemctl restart tallyd")?;
    it.until(COUNT)?;

    it.sh("sed -i 's/^#= interval = \"1s\"/interval = \"2s\"/' /etc/tallyd/tallyd.toml && systemctl reload tallyd")?;
    it.until("journalctl -u tallyd -o cat | grep 'commit.interval is now 2s'")?;

    let before = main_pid(it)?;
    it.sh(&format!("kill -STOP {before}"))?;
    it.until(&format!("test \"$(systemctl show -P MainPID tallyd)\" != {before} && {COUNT}"))?;
    says(&it.sh("journalctl -u tallyd -o cat")?, &["Watchdog timeout"])?;

    let before = main_pid(it)?;
    it.sh(&format!("kill -KILL {before}"))?;
    it.until(&format!("test \"$(systemctl show -P MainPID tallyd)\" != {before} && {COUNT}"))?;
    ensure!(total(it)? == 4, "{}", total(it)?);

    let begun = Instant::now();
    it.sh("systemctl stop tallyd")?;
    ensure!(begun.elapsed().as_secs() < 10, "the stop took {:?}", begun.elapsed());
    let result = it.sh("systemctl show -P Result tallyd; systemctl show -P ActiveState tallyd")?;
    ensure!(result == "success\ninactive", "{result}");
    Ok(())
}

fn wrong_configuration(it: &Container) -> Result<()> {
    installed(it)?;
    it.sh("echo 'bytes_maxx = 1' >> /etc/tallyd/tallyd.toml")?;
    it.refused("systemctl restart tallyd")?;
    let cursor = it.sh("journalctl --show-cursor -n 0 | sed -n 's/-- cursor: //p'")?;
    let state = it.sh("systemctl show -P ActiveState tallyd; systemctl show -P ExecMainStatus tallyd")?;
    ensure!(state == "failed\n2", "{state}");
    says(&it.sh("journalctl -u tallyd -p err -o cat")?, &["tallyd.toml, line", "bytes_maxx"])?;
    // Twice as long as the wait after a crash, to see that nothing comes.
    it.sh("sleep 11")?;
    let more = it.sh(&format!("journalctl -u tallyd --after-cursor='{cursor}' -o cat"))?;
    ensure!(more.lines().filter(|line| !line.starts_with("-- ")).count() == 0, "it is told again:\n{more}");
    it.sh("sed -i '/bytes_maxx/d' /etc/tallyd/tallyd.toml && systemctl restart tallyd")?;
    it.until(COUNT)?;
    ensure!(total(it)? == 2);
    Ok(())
}

fn late_disk(it: &Container) -> Result<()> {
    it.sh(INSTALL)?;
    it.sh("systemctl stop tallyd")?;
    // The disk, with the box's files.
    it.sh("mkdir -p /disk && mount -t tmpfs tmpfs /disk && mkdir -p /var/lib/tallyd")?;
    it.sh(&PROVISION.replace("/var/lib/tallyd/", "/disk/"))?;
    it.sh("chown -R tallyd: /disk")?;
    let _ = it.try_sh("systemctl start tallyd --no-block")?;
    it.until("journalctl -u tallyd _COMM=tallyd -o cat | grep -i tally")?;
    ensure!(!it.try_sh("test -e /var/lib/tallyd/identity.json")?.ok, "it founded a rival site");
    it.sh("mount --move /disk /var/lib/tallyd || mount --bind /disk /var/lib/tallyd")?;
    it.until(COUNT)?;
    ensure!(total(it)? == 1);
    it.sh("mountpoint -q /var/lib/tallyd && test -d /var/lib/tallyd/log")?;
    Ok(())
}

fn upgrade(it: &Container) -> Result<()> {
    installed(it)?;
    it.sh("echo '# mine' >> /etc/tallyd/tallyd.toml")?;
    let before = main_pid(it)?;
    it.sh("dpkg -i /files/newer.deb")?;
    it.until(&format!("test \"$(systemctl show -P MainPID tallyd)\" != {before} && {COUNT}"))?;
    ensure!(total(it)? == 2);
    it.sh("grep -q '^# mine' /etc/tallyd/tallyd.toml")?;
    // To one that cannot read the data. dpkg asks both.
    let said = it.refused("dpkg -i /files/older.deb")?;
    says(&said, &["tallyd 0.0.1-1 cannot read the data of this release", "nothing was changed"])?;
    let installed = it.sh("dpkg-query -W -f '${db:Status-Status} ${Version}' tallyd")?;
    ensure!(installed == "installed 999.0.0-1", "{installed}");
    it.sh(COUNT)?;
    it.sh("dpkg -r tallyd")?;
    it.sh("test -f /var/lib/tallyd/identity.json && test -f /etc/tallyd/tallyd.toml")?;
    it.sh(INSTALL)?;
    it.until(COUNT)?;
    ensure!(total(it)? == 4);
    Ok(())
}

fn purge(it: &Container) -> Result<()> {
    it.sh("mkdir -p /var/lib/tallyd && mount -t tmpfs tmpfs /var/lib/tallyd")?;
    installed(it)?;
    it.sh("dpkg -P tallyd")?;
    let left = it.try_sh("dpkg-query -W -f '${db:Status-Status}' tallyd")?;
    ensure!(!left.ok || left.text == "not-installed", "{}", left.text);
    it.sh("mountpoint -q /var/lib/tallyd && test -z \"$(ls -A /var/lib/tallyd)\"")?;
    it.sh("test ! -e /etc/tallyd/tallyd.toml")?;
    let masked = it.try_sh("systemctl is-enabled tallyd")?.text;
    if masked.contains("masked") {
        bail!("the unit stays masked");
    }
    // Without a disk nothing is left, and it can be installed again.
    it.sh("umount /var/lib/tallyd")?;
    installed(it)?;
    it.sh("dpkg -P tallyd && test ! -e /var/lib/tallyd")?;
    Ok(())
}
