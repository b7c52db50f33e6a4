//! `cargo xtask verify`: one read-only command that says whether a change may land.

mod proofs;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::proofs::{Proofs, Said};
use crate::tools::Tool;
use crate::{run, targets, tools};

/// What became of a step.
enum Step {
    Passed(String),
    Failed(String),
    /// It could not be tried here; says why. Not a failure of the change.
    NotRun(String),
}

/// A runner's counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
}

struct Report {
    lines: Vec<String>,
    failed: usize,
}

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also what takes long or needs root: the package, made now, on machines with a real systemd.
    #[arg(long)]
    full: bool,
}

pub(crate) fn verify(arguments: &Arguments) -> Result<()> {
    let began = Instant::now();
    let mut report = Report { lines: Vec::new(), failed: 0 };
    let (mut counts, mut said, mut found) = (Counts::default(), Said::default(), Proofs::default());
    report.step("format", || quiet(&["fmt", "--all", "--check"], &[]));
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    report.step("lints", || quiet(&clippy, &[]));
    // What ships is without what the tests have built in, and optimised, which the compiler has to be able to check.
    let shipped = [
        "clippy",
        "--locked",
        "--release",
        "--package",
        "tallyd",
        "--lib",
        "--bins",
        "--quiet",
        "--",
        "-D",
        "warnings",
    ];
    report.step("lints of the shipped code", || quiet(&shipped, &[]));
    let doc = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items", "--quiet"];
    report.step("documentation", || quiet(&doc, &[("RUSTDOCFLAGS", "-D warnings")]));
    report.step("tests", || tests(&mut counts, &mut said));
    report.step("all proofs present", || proofs(&said, &mut found));
    report.step("documentation's tests", || doc_tests(&mut counts));
    for target in targets::CORE_TARGETS {
        report.step(&format!("core for {target}"), || targets::build_core(target, false).map(Step::Passed));
    }
    report.step("size", || crate::size::check().map(Step::Passed));
    report.step("dependencies", dependencies);
    report.step("locks of the other workspaces", locks);
    if arguments.full {
        report.step("the package on real systemd", || crate::system::test(None).map(Step::Passed));
    }
    report.print(counts, &found, began.elapsed());
    if report.failed > 0 {
        bail!("{} of the steps above failed", report.failed);
    }
    Ok(())
}

impl Report {
    fn step(&mut self, name: &str, run: impl FnOnce() -> Result<Step>) {
        println!("==> {name}");
        let began = Instant::now();
        let step = run().unwrap_or_else(|error| Step::Failed(format!("{error:#}")));
        let (word, detail) = match step {
            Step::Passed(detail) => ("ok", detail),
            Step::NotRun(why) => ("not run", why),
            Step::Failed(why) => {
                self.failed += 1;
                println!("{why}");
                ("FAILED", String::new())
            }
        };
        let dash = if detail.is_empty() { "" } else { ": " };
        let line = format!("{word:8}{:>7.1} s  {name}{dash}{detail}", began.elapsed().as_secs_f64());
        println!("    {line}");
        self.lines.push(line);
    }

    fn print(&self, counts: Counts, found: &Proofs, took: Duration) {
        println!("\nsummary, after {:.0} s:", took.as_secs_f64());
        for line in &self.lines {
            println!("  {line}");
        }
        println!("proofs:");
        for line in found.table() {
            println!("  {line}");
        }
        println!("{} passed, {} failed", counts.passed, counts.failed);
    }
}

/// Whether the lock files of the workspaces beside the main one fit what they build on.
fn locks() -> Result<Step> {
    for workspace in ["fuzz", "firmware"] {
        let manifest = format!("{workspace}/Cargo.toml");
        let resolve = ["metadata", "--locked", "--format-version", "1", "--manifest-path", &manifest];
        if let failed @ Step::Failed(_) = quiet(&resolve, &[])? {
            return Ok(failed);
        }
    }
    Ok(Step::Passed(String::new()))
}

/// Runs cargo and shows what it prints only if it fails.
fn quiet(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Step> {
    let outcome = run::collect(run::cargo(arguments).envs(environment.iter().copied()))?;
    Ok(if outcome.ok { Step::Passed(String::new()) } else { Step::Failed(outcome.text) })
}

fn tests(counts: &mut Counts, said: &mut Said) -> Result<Step> {
    // Tests of the way out speak to a real broker; those of cut links and full disks make networks and disks.
    let broker = [Tool::Mosquitto, Tool::MosquittoClients];
    let certificates = [Tool::Openssl];
    // How far the units may reach is judged by systemd's own analysis.
    let units = [Tool::Systemd];
    let rooms = [Tool::Iproute, Tool::UtilLinux, Tool::Mount, Tool::Mkfs];
    // The page is looked at as a browser shows it.
    let browser = [Tool::Chromium];
    let needed = [broker.as_slice(), &certificates, &units, &rooms, &browser].concat();
    tools::ensure(&needed, tools::Consent::Given)?;
    if tools::has_cargo_tool("cargo-nextest") {
        proofs::forget()?;
        let arguments = ["nextest", "run", "--profile", proofs::PROFILE, "--locked", "--workspace"];
        let more = ["--no-fail-fast", "--status-level", "fail"];
        let (step, _) = run_tests(&[&arguments[..], &more].concat(), counts)?;
        *said = Said::ToNextest;
        return Ok(step);
    }
    let arguments = ["test", "--locked", "--workspace", "--all-targets", "--no-fail-fast"];
    let (step, text) = run_tests(&[&arguments[..], &["--", "--show-output"]].concat(), counts)?;
    *said = Said::ToCargo(text);
    Ok(step)
}

/// A proof that did not run says nothing: none may be missing.
fn proofs(said: &Said, found: &mut Proofs) -> Result<Step> {
    *found = said.proofs()?;
    let lacking = found.lacking();
    Ok(if lacking.is_empty() { Step::Passed(String::new()) } else { Step::Failed(lacking.join("\n")) })
}

/// nextest does not run the examples in the documentation; cargo does.
fn doc_tests(counts: &mut Counts) -> Result<Step> {
    run_tests(&["test", "--locked", "--workspace", "--doc", "--no-fail-fast", "--quiet"], counts)
        .map(|(step, _)| step)
}

/// What became of them, and what was printed.
fn run_tests(arguments: &[&str], counts: &mut Counts) -> Result<(Step, String)> {
    let outcome = run::follow(&mut run::cargo(arguments))?;
    let here = Counts::read(&outcome.text);
    counts.passed += here.passed;
    counts.failed += here.failed;
    let line = format!("{} passed, {} failed", here.passed, here.failed);
    let passed = outcome.ok && here.failed == 0;
    Ok((if passed { Step::Passed(line) } else { Step::Failed(line) }, outcome.text))
}

impl Counts {
    /// Sums up what the runners say at their ends: `test result: ok. 3 passed; 0 failed; ...` of each
    /// of cargo's, `Summary [ 1.2s] 4 tests run: 3 passed (1 slow), 1 failed, 0 skipped` of nextest.
    fn read(text: &str) -> Counts {
        let mut counts = Counts::default();
        // nextest's sum holds what it shows of single tests, too.
        let is_sum = |line: &str| line.trim_start().starts_with("Summary [");
        let mark = if text.lines().any(is_sum) { "Summary [" } else { "test result:" };
        for line in text.lines().map(str::trim_start) {
            let Some(rest) = line.strip_prefix(mark) else { continue };
            for part in rest.split([';', ',', ':', '.']) {
                let mut words = part.split_whitespace();
                let (number, word) = (words.next().and_then(|word| word.parse::<u64>().ok()), words.next());
                match (number, word) {
                    (Some(number), Some("passed")) => counts.passed += number,
                    (Some(number), Some("failed" | "timed")) => counts.failed += number,
                    _ => {}
                }
            }
        }
        counts
    }
}

/// Advisories, licences, bans and sources by cargo-deny; without its database, what needs none.
fn dependencies() -> Result<Step> {
    if let Err(error) = tools::ensure_cargo_tool("cargo-deny") {
        return Ok(Step::NotRun(format!("{error:#}")));
    }
    let rest =
        run::collect(&mut run::cargo(&["deny", "--color", "never", "check", "bans", "licenses", "sources"]))?;
    if !rest.ok {
        return Ok(Step::Failed(rest.text));
    }
    let advisories = run::collect(&mut run::cargo(&["deny", "--color", "never", "check", "advisories"]))?;
    if advisories.ok {
        return Ok(Step::Passed("advisories, licences, bans, sources".to_owned()));
    }
    if advisories.text.contains("failed to fetch advisory database") {
        let detail = "licences, bans, sources; advisories NOT checked: their database cannot be reached";
        return Ok(Step::Passed(detail.to_owned()));
    }
    Ok(Step::Failed(advisories.text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_both_runners() {
        let cargo = "running 3 tests\n...\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                     test result: FAILED. 10 passed; 2 failed; 0 ignored; 0 measured; finished in 0.1s\n";
        assert_eq!(Counts::read(cargo), Counts { passed: 13, failed: 2 });
        let nextest =
            "     Summary [   8.449s] 34 tests run: 31 passed (2 slow), 2 failed, 1 timed out, 3 skipped\n";
        assert_eq!(Counts::read(nextest), Counts { passed: 31, failed: 3 });
        let shown = format!("    test result: ok. 1 passed; 0 failed; 0 ignored\n{nextest}");
        assert_eq!(Counts::read(&shown), Counts { passed: 31, failed: 3 });
        assert_eq!(Counts::read("nothing ran"), Counts::default());
    }
}
