//! A box on a small partition does not fill it with its own log, and one that finds it full of that, as an older
//! release left it, makes room and starts.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Value, json};

use super::lab::{in_lab, run};
use super::small_disk::SmallDisk;
use crate::boxes::Site;
use crate::harness::until;

const MIB: u64 = 1 << 20;

/// A source whose reports fill the log by some 45 KiB each, and count by one each.
struct Source {
    epoch: String,
    number: u64,
    cells: Value,
}

impl Source {
    fn open(site: &Site) -> Source {
        let opened = until("the source is open", || {
            let answer = site.boxes[0].client().post("/v1/sources/filler/epochs", "").ok()?;
            (answer.status == 200).then(|| answer.json())
        });
        let sample = json!({"count": 2, "sum": 1234.567891011, "min": 567.891011, "max": 666.67688,
                            "last": 666.67688});
        let mut cells: Vec<Value> =
            (0..999).map(|series| json!({"series": format!("fill/{series}"), "sample": sample})).collect();
        cells.push(json!({"series": "reports", "add": 1}));
        Source { epoch: opened["epoch"].as_str().unwrap().to_owned(), number: 0, cells: Value::Array(cells) }
    }

    /// Reports until it is enough; the box may stop and start in between.
    fn report_until(&mut self, site: &mut Site, mut enough: impl FnMut(&mut Site, u64) -> bool) {
        for _ in 0..3000 {
            self.number += 1;
            let body =
                json!({"source": "filler", "epoch": self.epoch, "number": self.number, "cells": self.cells});
            let body = body.to_string();
            until("a report is taken", || {
                let answer = site.boxes[0].client().post("/v1/reports", &body).ok()?;
                (answer.status == 200).then_some(())
            });
            if self.number.is_multiple_of(8) && enough(site, self.number) {
                return;
            }
        }
        panic!("3,000 reports were not enough");
    }

    fn assert_exact(&self, site: &Site) {
        site.boxes[0].until_total("reports", i64::try_from(self.number).unwrap());
    }
}

fn storage(site: &Site, what: &str) -> u64 {
    site.boxes[0].status()["storage"][what].as_u64().unwrap_or_else(|| panic!("storage has no {what}"))
}

/// What is there: not what the box says.
fn bytes_in(directory: &Path) -> u64 {
    let files = std::fs::read_dir(directory).unwrap();
    // One may be renamed or removed meanwhile.
    files.filter_map(|file| Some(file.ok()?.metadata().ok()?.len())).sum()
}

#[test]
fn a_box_on_a_small_partition_counts_for_as_long_as_one_likes() {
    in_lab("net::bounded_disk::a_box_on_a_small_partition_counts_for_as_long_as_one_likes", || {
        let scratch = tempfile::tempdir().unwrap();
        let mut site = Site::provision(1, "60s", "");
        let disk = SmallDisk::mount(scratch.path(), "small", 20);
        site.boxes[0].directory = disk.take_in(&site.boxes[0].directory);
        let directory = site.boxes[0].directory.clone();
        site.start_all();
        let bytes_max = storage(&site, "bytes_max");
        assert_eq!(bytes_max, 8 * MIB, "the least");
        let mut source = Source::open(&site);
        let mut most = 0;
        source.report_until(&mut site, |site, number| {
            if number.is_multiple_of(400) {
                site.boxes[0].kill();
                site.boxes[0].start();
                site.boxes[0].until_ready();
            }
            let there = bytes_in(&directory.join("log")) + bytes_in(&directory.join("snapshots"));
            most = most.max(there);
            assert!(there <= bytes_max, "{there} bytes after {number} reports");
            assert!(storage(site, "bytes_used") <= bytes_max);
            // More than twice the partition.
            number >= 1000
        });
        let status = site.boxes[0].status()["storage"].clone();
        assert_eq!((&status["state"], &status["beyond"]), (&json!("ok"), &Value::Null), "{status}");
        assert_eq!((&status["failures"], &status["snapshot_failures"]), (&json!(0), &json!(0)), "{status}");
        site.boxes[0].kill();
        site.start_all();
        source.assert_exact(&site);
        eprintln!("{} reports on 20 MiB ({}); at most {most} bytes", source.number, disk.kind);
    });
}

#[test]
fn a_box_that_finds_its_partition_full_of_its_own_log_makes_room_and_starts() {
    in_lab(
        "net::bounded_disk::a_box_that_finds_its_partition_full_of_its_own_log_makes_room_and_starts",
        || {
            let scratch = tempfile::tempdir().unwrap();
            let mut site = Site::provision(1, "60s", "");
            // As large as a release without a bound let it grow.
            site.boxes[0].start_with(&[("TALLYD_STORAGE_BYTES_MAX", Path::new("256MiB"))]);
            site.boxes[0].until_ready();
            let mut source = Source::open(&site);
            source.report_until(&mut site, |site, _| {
                storage(site, "log_bytes") >= 40 * MIB && storage(site, "snapshot_index") > 0
            });
            site.boxes[0].kill();
            let directory = site.boxes[0].directory.clone();
            // What a snapshot had when the box was killed in the middle of it.
            std::fs::write(directory.join("snapshots/new.tmp"), vec![1; 1 << 20]).unwrap();
            // The blocks that nothing was written to yet are not there: even the note of a start needs space.
            for file in std::fs::read_dir(directory.join("log")).unwrap() {
                let file = file.unwrap().path();
                let sparse = file.with_extension("sparse");
                run("cp", [OsString::from("--sparse=always"), file.clone().into(), sparse.clone().into()]);
                std::fs::rename(sparse, file).unwrap();
            }
            let disk = SmallDisk::mount(scratch.path(), "small", 64);
            site.boxes[0].directory = disk.take_in(&directory);
            disk.fill();
            site.start_all();
            source.assert_exact(&site);
            let bytes_max = storage(&site, "bytes_max");
            assert!((12 * MIB..=16 * MIB).contains(&bytes_max), "a quarter of the partition: {bytes_max}");
            source.report_until(&mut site, |site, number| {
                number.is_multiple_of(64) && storage(site, "bytes_used") <= bytes_max
            });
            assert_eq!(site.boxes[0].status()["storage"]["state"], "ok");
            site.boxes[0].kill();
            site.start_all();
            source.assert_exact(&site);
            eprintln!("{} reports; {}", source.number, disk.kind);
        },
    );
}
