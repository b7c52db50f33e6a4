//! Polled files: long ones, those of another system's line ends, and such that cannot be read or do not answer.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::Value;

use super::{BOXES, Trial};
use crate::boxes::TestBox;
use crate::harness::until;
use crate::stops::hangs::HungDirectory;

/// Those that are counted.
const COUNTED: [&str; 2] = ["deep", "crlf"];
/// What they showed first.
const BASE: u64 = 1000;

/// The files.
#[derive(Debug)]
pub(super) struct Polled {
    /// One for each box: whoever asks while another process does cannot even be killed. They go before the directory.
    hung: Option<Vec<HungDirectory>>,
    directory: tempfile::TempDir,
    shows: u64,
}

impl Polled {
    pub(super) fn new() -> Polled {
        let directory = tempfile::tempdir().unwrap();
        let hung = (1..=BOXES).map(|number| {
            let place = directory.path().join(format!("hung{number}"));
            std::fs::create_dir(&place).unwrap();
            HungDirectory::mount(&place)
        });
        let hung = hung.collect();
        let polled = Polled { hung, directory, shows: BASE };
        polled.write();
        std::fs::write(polled.file("beyond"), "cpu 1 2 3\n".repeat(150_000) + "ctxt 1000\n").unwrap();
        mknodat(CWD, polled.file("pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        polled
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Has these boxes poll them.
    pub(super) fn configure(&self, boxes: &[TestBox]) {
        let entry = |name: &str, file: &Path| {
            format!(
                "[[ingest.poll]]\nseries = \"polled/{name}\"\nfile = \"{}\"\npattern = '^ctxt (\\d+)$'\n\
                 kind = \"counter\"\nevery = \"250ms\"\n",
                file.display()
            )
        };
        for (at, one) in boxes.iter().enumerate() {
            let mut entries =
                ["deep", "crlf", "beyond", "pipe"].map(|name| entry(name, &self.file(name))).concat();
            if let Some(hung) = &self.hung {
                entries += &entry("hung", &hung[at].path.join("stat"));
            }
            let file = one.directory.join("tallyd.toml");
            let text = std::fs::read_to_string(&file).unwrap();
            std::fs::write(file, text + "\n" + &entries).unwrap();
        }
    }

    /// Writes the counted ones, each at once.
    fn write(&self) {
        let shows = self.shows;
        for (name, end) in [("deep", "\n"), ("crlf", "\r\n")] {
            // The number stands beyond 64 KiB.
            let text = format!("cpu 1 2 3{end}").repeat(10_000) + &format!("ctxt {shows}{end}more{end}");
            let new = self.file("new");
            std::fs::write(&new, text).unwrap();
            std::fs::rename(new, self.file(name)).unwrap();
        }
    }

    /// They count on.
    pub(super) fn grow(&mut self, by: u64) {
        self.shows += by;
        self.write();
    }

    /// By how much each of them has grown.
    pub(super) fn grown(&self) -> u64 {
        self.shows - BASE
    }
}

/// The series that are counted.
pub(super) fn series() -> impl Iterator<Item = String> {
    COUNTED.into_iter().map(|name| format!("polled/{name}"))
}

fn poll(one: &TestBox, name: &str) -> Option<Value> {
    let polls = one.try_status()?["ingest"]["poll"].as_array()?.clone();
    polls.into_iter().find(|poll| poll["series"] == format!("polled/{name}"))
}

/// What can be read is counted, and what is wrong with the others is said.
pub(super) fn files_of_all_kinds(trial: &mut Trial<'_>) {
    for one in &trial.site.boxes {
        let says = |name: &str, what: &str| {
            until(&format!("{} says of {name}: {what}", one.name), || {
                let poll = poll(one, name)?;
                poll["error"].as_str()?.contains(what).then_some(poll)
            })
        };
        says("beyond", "first 1 MiB");
        says("pipe", "pipe");
        if trial.polled.hung.is_some() {
            assert!(says("hung", "has not answered")["reading_since"].is_u64());
        }
    }
    // From its base on: each box has a meter of its own for each.
    let meters = (trial.site.boxes.len() * COUNTED.len()) as u64;
    until("each has its base", || {
        (trial.leader_status()?["meters"]["count"].as_u64()? == meters).then_some(())
    });
    counts_on(trial, 11);
    trial.goes_on("files that are long, of another system, no files, or do not answer");
}

/// The files grow, and that is read.
pub(super) fn counts_on(trial: &mut Trial<'_>, by: u64) {
    trial.polled.grow(by);
    let shows = trial.polled.shows as f64;
    for one in &trial.site.boxes {
        for name in COUNTED {
            until(&format!("{} reads {name}", one.name), || {
                let poll = poll(one, name)?;
                (poll["last"].as_f64() == Some(shows) && poll["error"].is_null()).then_some(())
            });
        }
    }
}
