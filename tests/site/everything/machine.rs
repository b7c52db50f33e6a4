//! What the machine does: it has little room, little time, stands still, tells the boxes to end.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{Trial, coming_up};
use crate::adaptive_timeout::term;
use crate::boxes::TestBox;
use crate::harness::until;
use crate::net::small_disk::SmallDisk;

/// So many samples that each box has written more of log than it may have on the disk.
fn fill_the_log(trial: &Trial<'_>) {
    let mut client = trial.site.boxes[trial.site.follower()].client();
    let epoch = client.post("/v1/sources/filler/epochs", "").unwrap().ok()["epoch"].clone();
    for number in 1.. {
        let cell = |place: u32| {
            let value = f64::from(number * 1000 + place) / 7.0;
            let sample = json!({"count": 3, "sum": value * 3.0, "min": value, "max": value, "last": value});
            json!({"series": format!("filler/{}", place % 50), "sample": sample})
        };
        let cells: Vec<Value> = (0..1000).map(cell).collect();
        let report =
            json!({"source": "filler", "epoch": epoch, "number": number, "cells": cells}).to_string();
        until("a report is taken", || {
            let answer = client.post("/v1/reports", &report).ok()?;
            (answer.status == 200).then_some(())
        });
        let is_enough = |one: &TestBox| {
            let (storage, _) = storage(one);
            storage("bytes_written") > storage("bytes_max") + (1 << 20)
        };
        if number % 20 == 0 && trial.site.boxes.iter().all(is_enough) {
            return;
        }
        assert!(number < 1000, "a thousand reports are not enough");
    }
}

/// What a box tells of its disk, by numbers and as a whole.
fn storage(one: &TestBox) -> (impl Fn(&str) -> u64, String) {
    let storage = one.status()["storage"].clone();
    let text = storage.to_string();
    (move |what: &str| storage[what].as_u64().unwrap(), text)
}

/// More log than may be on the disk: of the one box by a quarter of its small partition, of the others by a bound.
pub(super) fn little_room(trial: &mut Trial<'_>, disk: &SmallDisk) {
    fill_the_log(trial);
    for one in &trial.site.boxes {
        let (storage, text) = storage(one);
        assert!(storage("bytes_max") == 8 << 20 && storage("bytes_used") <= storage("bytes_max"), "{text}");
    }
    trial.goes_on("more log than may be on the disk");
    disk.fill();
    trial.goes_on("a disk that is full");
    disk.free();
    until("its box takes writes", || {
        (trial.site.boxes[0].try_status()?["storage"]["state"] == "ok").then_some(())
    });
    trial.goes_on("that disk has room");
}

pub(super) fn signals_without_a_meaning(trial: &mut Trial<'_>) {
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::PIPE, Signal::XFSZ] {
        for one in &trial.site.boxes {
            one.process.as_ref().unwrap().signal(signal);
        }
    }
    trial.goes_on("signals without a meaning");
}

/// One box after the other ends in good order, whatever its log and its polled files do, and comes up with a log that
/// can be read.
pub(super) fn orderly_restarts(trial: &mut Trial<'_>) {
    for at in 0..3 {
        let one = &mut trial.site.boxes[at];
        one.end_by(Signal::TERM);
        trial.polled.grow(1);
        let one = &mut trial.site.boxes[at];
        one.start_by(coming_up::command(one, "warning"), None);
        one.until_ready();
        trial.goes_on("an orderly restart");
    }
}

/// A process that takes all the processor time it gets, until this is dropped.
struct Burner(Child);

impl Burner {
    fn start() -> Burner {
        Burner(Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for Burner {
    fn drop(&mut self) {
        // An error means that it is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Other programs take the processor.
pub(super) fn a_starved_machine(trial: &mut Trial<'_>) {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let burners: Vec<Burner> = (0..cores * 2).map(|_| Burner::start()).collect();
    trial.goes_on("other programs took the processor");
    until("the boxes are as patient as they are late", || {
        let adaptive_timeouts: Option<Vec<Value>> =
            trial.site.boxes.iter().map(|one| Some(one.try_status()?["adaptive_timeout"].clone())).collect();
        let (adaptive_timeouts, of) = (adaptive_timeouts?, |adaptive_timeout: &Value, what: &str| {
            adaptive_timeout[what].as_u64().unwrap()
        });
        let late_us =
            adaptive_timeouts.iter().map(|adaptive_timeout| of(adaptive_timeout, "late_us")).max()?;
        adaptive_timeouts
            .iter()
            .all(|adaptive_timeout| of(adaptive_timeout, "election_timeout_ms") * 1000 >= 3 * late_us)
            .then_some(())
    });
    until("all go on without an election", || {
        let before = term(&trial.site)?;
        trial.counts_go_on("they were late");
        (term(&trial.site)? == before).then_some(())
    });
    drop(burners);
    trial.goes_on("the processor is free");
}

/// A leader stands still until another box leads, and says so.
pub(super) fn a_leader_that_is_late(trial: &mut Trial<'_>) {
    let leader = trial.site.leader();
    let process = trial.site.boxes[leader].process.as_ref().unwrap();
    let number = |adaptive_timeout: &Value, what: &str| adaptive_timeout[what].as_u64().unwrap();
    let before = trial.site.boxes[leader].status()["adaptive_timeout"].clone();
    process.signal(Signal::STOP);
    let held = Instant::now();
    until("another box leads", || {
        let others = trial.site.boxes.iter().enumerate().filter(|(at, _)| *at != leader);
        let mut roles = others.filter_map(|(_, one)| Some(one.try_status()?["role"].clone()));
        // Late is what comes after it was due, and by more than a timeout.
        let is_late = held.elapsed() > Duration::from_millis(number(&before, "election_timeout_ms") * 2);
        (is_late && roles.any(|role| role == "leader")).then_some(())
    });
    process.signal(Signal::CONT);
    let adaptive_timeout = until("it says that it was late", || {
        let adaptive_timeout = trial.site.boxes[leader].try_status()?["adaptive_timeout"].clone();
        (number(&adaptive_timeout, "leader_late") > number(&before, "leader_late"))
            .then_some(adaptive_timeout)
    });
    assert!(
        adaptive_timeout["text"].as_str().unwrap().contains("longer than an election timeout"),
        "{adaptive_timeout}"
    );
    trial.goes_on("a leader that stood still");
}
