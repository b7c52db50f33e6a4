//! How many of each proof ran: summed up from what the tests said themselves, never from what should have run.
//!
//! A test that is part of a proof prints a line `proof: KIND: FIGURES` when it passed: `FIGURES` are numbers with what
//! they count, such as `proof: exploration: 1 sites, 48213 states`. Numbers of the same things are added up over
//! all tests of a kind. A deliberate bug that was found is named instead, `proof: mutations: GRANT_TWICE caught by the
//! exploration`, since several tests may find the same; how many there are to be found is a number, `53 bugs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::run;

/// Of nextest: what all tests printed is in its report, `target/nextest/PROFILE/NAME` (`.config/nextest.toml`).
pub(super) const PROFILE: &str = "verify";

const MARK: &str = "proof: ";

/// Each of these must have run: its number where it was asked for, the kind, and what must not be none.
const KINDS: [(&str, &str, &[&str]); 9] = [
    ("1", "golden scenarios", &["scenarios"]),
    ("2", "simulation", &["seeds", "events", "kinds of events met"]),
    ("2", "core simulation", &["seeds", "events", "kinds of events met"]),
    ("3", "exploration", &["sites", "states"]),
    ("4", MUTATIONS, &[BUGS]),
    ("4", "deliberate bugs of boxes", &["bugs", "found"]),
    ("5", "quorum arithmetic", &["cases"]),
    ("6", "real processes in namespaces", &["tests"]),
    ("", "unit tests of the core", &["tests"]),
];

const MUTATIONS: &str = "mutations";
const BUGS: &str = "bugs";
const CAUGHT: &str = "caught by ";

/// What ran, by kind.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Proofs {
    /// Of each kind how many of what, in the order in which that was named first.
    kinds: BTreeMap<String, Vec<(String, u64)>>,
    /// Which deliberate bugs were caught, by what caught them.
    caught: BTreeMap<String, BTreeSet<String>>,
}

/// Where nextest leaves its report.
fn report() -> PathBuf {
    run::root().join("target/nextest").join(PROFILE).join("verify.xml")
}

/// Takes away the report of an earlier run, which proves nothing about this one.
pub(super) fn forget() -> Result<()> {
    let report = report();
    match std::fs::remove_file(&report) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", report.display()))
        }
        _ => Ok(()),
    }
}

/// Where the words of the tests are.
#[derive(Debug, Default)]
pub(super) enum Said {
    /// They were not run.
    #[default]
    Nothing,
    /// In nextest's report.
    ToNextest,
    /// In what `cargo test -- --show-output` printed.
    ToCargo(String),
}

impl Said {
    pub(super) fn proofs(&self) -> Result<Proofs> {
        let (text, core_tests) = match self {
            Said::Nothing => return Ok(Proofs::default()),
            Said::ToNextest => (&read(&report())?, core_tests as fn(&str) -> u64),
            Said::ToCargo(text) => (text, core_tests_of_cargo as fn(&str) -> u64),
        };
        let mut proofs = Proofs::read(text)?;
        proofs.add("unit tests of the core", "tests", core_tests(text));
        Ok(proofs)
    }
}

fn read(file: &Path) -> Result<String> {
    std::fs::read_to_string(file).with_context(|| format!("nextest wrote no report at {}", file.display()))
}

impl Proofs {
    fn read(text: &str) -> Result<Proofs> {
        let mut proofs = Proofs::default();
        for line in text.lines() {
            let Some(said) = said(line) else { continue };
            let unreadable =
                || format!("a test says {said:?}, which is not `KIND: NUMBER THINGS, NUMBER THINGS`");
            let (kind, figures) = said.split_once(": ").with_context(unreadable)?;
            if !KINDS.iter().any(|(_, known, _)| *known == kind) {
                bail!("a test reports a proof of the unknown kind {kind:?}");
            }
            for figure in figures.split(", ") {
                let (number, what) = figure.split_once(' ').with_context(unreadable)?;
                match (what.strip_prefix(CAUGHT), number.parse()) {
                    (Some(by), _) if kind == MUTATIONS => {
                        proofs.caught.entry(by.to_owned()).or_default().insert(number.to_owned());
                    }
                    (_, number) => proofs.add(kind, what, number.ok().with_context(unreadable)?),
                }
            }
        }
        proofs.sum_up_caught();
        Ok(proofs)
    }

    fn sum_up_caught(&mut self) {
        let caught = self.all_caught().len() as u64;
        if self.number(MUTATIONS, BUGS) == 0 && caught > 0 {
            self.add(MUTATIONS, BUGS, caught);
        }
        if caught > 0 {
            self.add(MUTATIONS, "caught", caught);
        }
        for (by, bugs) in self.caught.clone() {
            self.add(MUTATIONS, &format!("{CAUGHT}{by}"), bugs.len() as u64);
        }
    }

    /// By whatever.
    fn all_caught(&self) -> BTreeSet<&String> {
        self.caught.values().flatten().collect()
    }

    fn add(&mut self, kind: &str, what: &str, number: u64) {
        let figures = self.kinds.entry(kind.to_owned()).or_default();
        match figures.iter_mut().find(|(known, _)| known == what) {
            Some((_, sum)) => *sum += number,
            None => figures.push((what.to_owned(), number)),
        }
    }

    fn number(&self, kind: &str, what: &str) -> u64 {
        let of = |(known, number): &(String, u64)| (known == what).then_some(*number);
        self.kinds.get(kind).and_then(|figures| figures.iter().find_map(of)).unwrap_or(0)
    }

    /// What did not run, or found less than it must.
    pub(super) fn lacking(&self) -> Vec<String> {
        let none = |kind: &'static str, whats: &'static [&'static str]| {
            let is_none = move |what: &&&str| self.number(kind, what) == 0;
            whats.iter().filter(is_none).map(move |what| format!("{kind}: no {what}"))
        };
        let mut lacking: Vec<String> =
            KINDS.into_iter().flat_map(|(_, kind, whats)| none(kind, whats)).collect();
        let (bugs, caught) = (self.number(MUTATIONS, BUGS), self.all_caught().len() as u64);
        if caught != bugs {
            lacking.push(format!("{MUTATIONS}: of {bugs} bugs {caught} were caught"));
        }
        lacking
    }

    /// One line a kind.
    pub(super) fn table(&self) -> Vec<String> {
        let line = |(number, kind, _): (&str, &str, &[&str])| {
            let figures: Vec<String> = self
                .kinds
                .get(kind)
                .into_iter()
                .flatten()
                .map(|(what, number)| format!("{} {what}", grouped(*number)))
                .collect();
            let figures = if figures.is_empty() { "did not run".to_owned() } else { figures.join(", ") };
            format!("{number:1} {kind:29} {figures}")
        };
        KINDS.into_iter().map(line).collect()
    }
}

/// What stands behind the mark: at the beginning of a line, or behind the name of a test whose result is still to come.
fn said(line: &str) -> Option<&str> {
    let line = line.trim();
    line.strip_prefix(MARK).or_else(|| {
        let (test, rest) = line.split_once(" ... ")?;
        rest.strip_prefix(MARK).filter(|_| test.starts_with("test "))
    })
}

/// Those of the package's own binary that passed, in nextest's report: one element a test, with an element inside
/// for what went wrong.
fn core_tests(report: &str) -> u64 {
    let elements = report.split("<testcase ").skip(1);
    let passed = |element: &&str| {
        let element = element.split("</testcase>").next().unwrap_or_default();
        let (head, inside) = element.split_once('>').unwrap_or((element, ""));
        let went_wrong = ["<failure", "<error", "<skipped"].iter().any(|mark| inside.contains(mark));
        head.contains("classname=\"tally-core\"") && !went_wrong
    };
    elements.filter(passed).count() as u64
}

/// The sum that cargo's runner prints after it has said which binary runs.
fn core_tests_of_cargo(text: &str) -> u64 {
    let mut is_core = false;
    let mut tests = 0;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("Running ") {
            is_core = line.contains("deps/tally_core-");
        } else if let Some(passed) =
            line.strip_prefix("test result:").filter(|_| is_core).and_then(|rest| rest.split(". ").nth(1))
        {
            tests += passed.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
        }
    }
    tests
}

/// A number with its thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = "\
proof: golden scenarios: 1 scenarios
    proof: golden scenarios: 1 scenarios
test the_invariants_hold ... proof: simulation: 2000 seeds, 31000000 events, 35 kinds of events met
proof: core simulation: 2000 seeds, 9000000 events, 72 kinds of events met
proof: exploration: 1 sites, 4100 states
proof: exploration: 1 sites, 900 states
proof: mutations: GRANT_TWICE caught by the exploration
proof: mutations: UNBOUNDED_TAIL caught by the simulation
proof: mutations: GRANT_TWICE caught by the simulation
proof: mutations: FORGET_VOTE caught by the exploration
proof: mutations: 3 bugs
proof: deliberate bugs of boxes: 23 bugs, 23 found
proof: quorum arithmetic: 256 cases
proof: real processes in namespaces: 1 tests, 812 adds
     Running unittests src/lib.rs (target/debug/deps/tally_core-0b1)
test result: ok. 212 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
     Running unittests src/lib.rs (target/debug/deps/tallyd-0b1)
test result: ok. 99 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s
";

    fn of_cargo(text: &str) -> Result<Proofs> {
        Said::ToCargo(text.to_owned()).proofs()
    }

    #[test]
    fn what_tests_say_is_added_up_by_kind() {
        let proofs = of_cargo(ALL).unwrap();
        assert_eq!(proofs.lacking(), [""; 0]);
        assert_eq!(
            proofs.table(),
            [
                "1 golden scenarios              2 scenarios",
                "2 simulation                    2,000 seeds, 31,000,000 events, 35 kinds of events met",
                "2 core simulation               2,000 seeds, 9,000,000 events, 72 kinds of events met",
                "3 exploration                   2 sites, 5,000 states",
                "4 mutations                     3 bugs, 3 caught, 2 caught by the exploration, 2 caught by the simulation",
                "4 deliberate bugs of boxes      23 bugs, 23 found",
                "5 quorum arithmetic             256 cases",
                "6 real processes in namespaces  1 tests, 812 adds",
                "  unit tests of the core        212 tests",
            ]
        );
    }

    #[test]
    fn a_proof_that_did_not_run_is_lacking() {
        for (_, kind, _) in KINDS.into_iter().take(8) {
            let rest: Vec<&str> =
                ALL.lines().filter(|line| !line.contains(&format!("proof: {kind}:"))).collect();
            let lacking = of_cargo(&rest.join("\n")).unwrap().lacking();
            assert!(!lacking.is_empty() && lacking.iter().all(|what| what.starts_with(kind)), "{lacking:?}");
        }
        let lacking = Proofs::read(ALL).unwrap().lacking();
        assert_eq!(lacking, ["unit tests of the core: no tests"]);
        let none = ALL.replace("900 states", "0 states").replace("4100 states", "0 states");
        assert_eq!(of_cargo(&none).unwrap().lacking(), ["exploration: no states"]);
    }

    #[test]
    fn a_bug_that_nothing_catches_is_lacking() {
        let text = ALL.replace("3 bugs", "4 bugs");
        assert_eq!(of_cargo(&text).unwrap().lacking(), ["mutations: of 4 bugs 3 were caught"]);
        let text = ALL.replace("UNBOUNDED_TAIL", "GRANT_TWICE");
        assert_eq!(of_cargo(&text).unwrap().lacking(), ["mutations: of 3 bugs 2 were caught"]);
    }

    #[test]
    fn what_cannot_be_read_is_an_error_and_other_words_are_none() {
        for line in ["proof: exploration", "proof: exploration: many states", "proof: luck: 1 cases"] {
            assert!(Proofs::read(line).is_err(), "{line}");
        }
        assert_eq!(Proofs::read("the proof: simulation: 1 seeds").unwrap(), Proofs::default());
    }

    #[test]
    fn the_core_s_tests_are_those_of_its_binary_that_passed() {
        let report = r#"<testsuite name="tally-core">
            <testcase name="a" classname="tally-core" time="0.1"/>
            <testcase name="b" classname="tally-core" time="0.1">
                <system-out>running 1 test</system-out>
            </testcase>
            <testcase name="c" classname="tally-core" time="0.1">
                <failure type="test failure">no</failure>
            </testcase>
        </testsuite>
        <testsuite name="tallyd::sim"><testcase name="d" classname="tallyd::sim" time="0.1"/></testsuite>"#;
        assert_eq!(core_tests(report), 2);
        assert_eq!(grouped(1_000_000), "1,000,000");
    }
}
