//! Polled files: what another program counts in a file is counted on.

use serde_json::Value;

use crate::boxes::Site;
use crate::harness::until;

struct Polled {
    site: Site,
    file: std::path::PathBuf,
    _directory: tempfile::TempDir,
}

impl Polled {
    fn start() -> Polled {
        Polled::start_with(1, "")
    }

    /// With so many boxes, all of which poll the file, and more in the counter's configuration.
    fn start_with(boxes: usize, more: &str) -> Polled {
        let mut polled = Polled::provision(boxes, more);
        polled.site.start_all();
        polled
    }

    fn provision(boxes: usize, more: &str) -> Polled {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("stat");
        let entry = |series: &str, key: &str, kind: &str| {
            format!(
                "[[ingest.poll]]\nseries = \"{series}\"\nfile = \"{}\"\npattern = '^{key} (\\S+)$'\n\
                 kind = \"{kind}\"\nevery = \"20ms\"\n",
                file.display()
            )
        };
        let polls =
            entry("host/switches", "ctxt", "counter") + more + "\n" + &entry("host/load", "load", "sample");
        let extra = format!("[commit]\ninterval = \"50ms\"\n{polls}");
        std::fs::write(&file, "cpu 1 2 3\nctxt 1000\nload 0.5\n").unwrap();
        Polled { site: Site::provision(boxes, "1s", &extra), file, _directory: directory }
    }

    /// Writes the number and waits until it has been read, and until what it came to has.
    fn count(&self, ctxt: u64, total: i64) {
        self.write(&ctxt.to_string());
        self.until_read(ctxt as f64);
        self.site.boxes[0].until_total("host/switches", total);
    }

    /// The number has been read at least twice more: what it comes to is on its way.
    fn until_read_again(&self) {
        let readings = || self.poll("host/switches")?["readings"].as_u64();
        let before = until("it is read", readings);
        until("it is read again", || (readings()? > before + 2).then_some(()));
    }

    /// The total stays while the number is read on and batches go.
    fn assert_stays(&self, total: i64) {
        let batches = || self.site.boxes[0].status()["accumulator"]["batches"].as_u64().unwrap();
        let before = batches();
        until("batches go", || (batches() > before + 2).then_some(()));
        self.until_read_again();
        assert_eq!(self.site.boxes[0].total("host/switches"), total);
    }

    /// Writes the file at once, as /proc shows it, and waits until it has been read.
    fn write(&self, ctxt: &str) {
        let text = format!("cpu 1 2 3\nctxt {ctxt}\nload 0.5\n");
        let beside = self.file.with_extension("new");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(&beside, &self.file).unwrap();
    }

    fn poll(&self, series: &str) -> Option<Value> {
        let status = self.site.boxes[0].try_status()?;
        let polls = status["ingest"]["poll"].as_array()?.clone();
        polls.into_iter().find(|poll| poll["series"] == series)
    }

    fn until_read(&self, last: f64) {
        until(&format!("{last} is read"), || {
            (self.poll("host/switches")?["last"].as_f64() == Some(last)).then_some(())
        });
    }
}

#[test]
fn a_polled_counter_counts_on_through_resets_and_nonsense() {
    let polled = Polled::start();
    polled.until_read(1000.0);
    let one = &polled.site.boxes[0];
    polled.write("1050");
    one.until_total("host/switches", 50);
    // Began again at 0, as after a reboot.
    polled.write("7");
    one.until_total("host/switches", 57);
    polled.write("many");
    let broken = until("the reading fails", || {
        polled.poll("host/switches").filter(|poll| poll["errors"].as_u64() > Some(0))
    });
    assert!(broken["error"].as_str().unwrap().contains("\"many\""), "{broken}");
    polled.write("10");
    one.until_total("host/switches", 60);
    until("the error is gone", || polled.poll("host/switches")?["error"].is_null().then_some(()));
    std::fs::remove_file(&polled.file).unwrap();
    until("the missing file shows", || polled.poll("host/switches")?["error"].as_str().map(|_| ()));
    polled.write("11");
    one.until_total("host/switches", 61);
}

#[test]
fn a_polled_value_is_observed_again_and_again() {
    let polled = Polled::start();
    let mut client = polled.site.boxes[0].client();
    let read = until("ten values are observed", || {
        let answer = client.get("/v1/series/host/load").ok().filter(|answer| answer.status == 200)?;
        Some(answer.json()).filter(|read| read["count"].as_u64() >= Some(10))
    });
    for member in ["min", "max", "last", "mean"] {
        assert_eq!(read[member], 0.5, "{read}");
    }
    assert_eq!(read["kind"], "sample");
}

#[test]
fn a_restarted_box_does_not_count_a_polled_counter_twice() {
    let mut polled = Polled::start();
    polled.until_read(1000.0);
    polled.write("1010");
    polled.site.boxes[0].until_total("host/switches", 10);
    polled.site.boxes[0].terminate();
    polled.site.start_all();
    polled.until_read(1010.0);
    polled.write("1015");
    polled.site.boxes[0].until_total("host/switches", 15);
}

#[test]
fn what_a_polled_counter_grew_by_while_the_box_was_down_is_counted_once() {
    let mut polled = Polled::start();
    polled.until_read(1000.0);
    polled.count(1011, 11);
    for (at_once, grown, total) in [(false, 1501, 501), (true, 1601, 601), (false, 1601, 601)] {
        let one = &mut polled.site.boxes[0];
        if at_once {
            one.kill()
        } else {
            one.terminate()
        }
        polled.write(&grown.to_string());
        polled.site.start_all();
        polled.until_read(grown as f64);
        polled.site.boxes[0].until_total("host/switches", total);
    }
    polled.count(1602, 602);
    polled.assert_stays(602);
}

#[test]
fn a_polled_counter_that_steps_back_shows_zero_or_restarts_counts_what_it_grew() {
    let polled = Polled::start();
    polled.until_read(1000.0);
    polled.count(109_446_502, 109_445_502);
    polled.count(109_446_501, 109_445_502);
    polled.count(109_446_503, 109_445_503);
    polled.count(0, 109_445_503);
    polled.count(109_446_510, 109_445_510);
    // Fallen to a value between: restarted.
    polled.count(500_000, 109_945_510);
    polled.count(500_001, 109_945_511);
    polled.assert_stays(109_945_511);
}

#[test]
fn a_reset_of_a_polled_counter_with_a_ceiling_is_no_wrap_and_a_wrap_is() {
    let polled = Polled::start_with(1, "ceiling = 4294967296\nglitch_window = \"100ms\"");
    polled.until_read(1000.0);
    polled.count(5, 5);
    polled.count(10, 10);
    // By step_max nothing is held here, so a long way is counted at once.
    polled.count(4_294_967_293, 4_294_967_293);
    polled.count(2, 4_294_967_298);
    polled.count(3, 4_294_967_299);
}

#[test]
fn after_a_reboot_a_polled_counter_began_at_zero_however_much_it_shows() {
    let boot = tempfile::tempdir().unwrap();
    let boot_id = boot.path().join("boot_id");
    std::fs::write(&boot_id, "first\n").unwrap();
    let mut polled = Polled::start_with(1, &format!("boot_id = \"{}\"", boot_id.display()));
    polled.until_read(1000.0);
    polled.count(1010, 10);
    polled.site.boxes[0].terminate();
    std::fs::write(&boot_id, "second\n").unwrap();
    polled.write("3000");
    polled.site.start_all();
    polled.until_read(3000.0);
    polled.site.boxes[0].until_total("host/switches", 3010);
    polled.count(3001, 3011);
}

#[test]
fn growth_of_polled_counters_is_counted_once_over_changes_of_leader() {
    let mut polled = Polled::start_with(3, "");
    polled.until_read(1000.0);
    // Each box has a meter of its own: three count.
    let boxes = polled.site.boxes.len() as i64;
    until("each box has its base", || {
        (polled.site.boxes[0].try_status()?["meters"]["count"].as_i64()? == boxes).then_some(())
    });
    polled.count(1010, 10 * boxes);
    for round in 1..=3 {
        let leader = polled.site.leader();
        polled.write(&(1010 + round * 100).to_string());
        if round == 2 {
            polled.site.boxes[leader].terminate();
        } else {
            polled.site.boxes[leader].kill();
        }
        polled.write(&(1011 + round * 100).to_string());
        polled.site.start_all();
        let total = (11 + round * 100) * boxes;
        polled.site.boxes[leader].until_total("host/switches", total);
    }
    polled.assert_stays(311 * boxes);
    polled.site.assert_same_digests();
}

#[test]
fn a_jump_of_a_polled_counter_is_held_shown_and_counted_when_it_stands() {
    let polled = Polled::start_with(1, "step_max = 100\nglitch_window = \"2s\"");
    polled.until_read(1000.0);
    polled.count(1050, 50);
    polled.write("9000");
    let held = until("the jump is shown", || {
        let meters = polled.site.boxes[0].try_status()?["meters"].clone();
        (meters["held"] == 1).then_some(meters)
    });
    let jump = &held["jumps"][0];
    assert_eq!(
        (&jump["series"], jump["from"].as_u64(), jump["to"].as_u64()),
        (&Value::from("host/switches"), Some(1050), Some(9000)),
        "{held}"
    );
    polled.site.boxes[0].until_total("host/switches", 8000);
    let metrics = polled.site.boxes[0].client().get("/metrics").unwrap();
    assert!(metrics.text().contains("tallyd_meter_jumps_held 0\n"));
}

#[test]
fn a_failing_poll_shows_in_the_metrics_by_series() {
    let polled = Polled::start();
    polled.until_read(1000.0);
    let line = |text: &'static str| {
        until(text, || {
            let metrics = polled.site.boxes[0].client().get("/metrics").ok()?;
            metrics.text().contains(text).then_some(())
        });
    };
    line("tallyd_poll_failing{series=\"host/switches\",poll=\"0\"} 0\n");
    line("tallyd_poll_errors_total{series=\"host/switches\",poll=\"0\"} 0\n");
    std::fs::remove_file(&polled.file).unwrap();
    line("tallyd_poll_failing{series=\"host/switches\",poll=\"0\"} 1\n");
    line("tallyd_poll_failing{series=\"host/load\",poll=\"1\"} 1\n");
}

#[test]
fn a_meter_that_two_sources_report_is_counted_once() {
    let site = Site::start(3);
    let mut clients: Vec<_> = site.boxes.iter().map(|one| one.client()).collect();
    let epochs: Vec<String> = ["gateway-1", "gateway-2"]
        .iter()
        .zip(&mut clients)
        .map(|(source, client)| {
            let opened = client.post(&format!("/v1/sources/{source}/epochs"), "").unwrap().ok();
            opened["epoch"].as_str().unwrap().to_owned()
        })
        .collect();
    let now = site.boxes[0].status()["clock"]["site_ms"].as_u64().unwrap();
    let mut send = |at: usize, number: u64, reading: u64, heard: u64, refused: usize| {
        let (source, epoch) = (format!("gateway-{}", at + 1), &epochs[at]);
        let body = serde_json::json!({"source": source, "epoch": epoch, "number": number, "cells": [
            {"series": "energy", "meter": "e1", "reading": reading, "heard": heard}]});
        let receipt = clients[at].post("/v1/reports", &body.to_string()).unwrap().ok();
        assert_eq!(receipt["refused"].as_array().unwrap().len(), refused, "{receipt}");
    };
    send(0, 1, 5_000, now - 60_000, 0);
    send(1, 1, 5_000, now - 60_000, 0);
    send(1, 2, 5_030, now - 30_000, 0);
    send(0, 2, 5_030, now - 30_000, 0);
    // Late: heard long before, whatever it says.
    send(0, 3, 6_000, now - 50_000, 0);
    send(0, 4, 5_042, now - 1_000, 0);
    site.boxes[2].until_total("energy", 42);
}

#[test]
fn a_site_of_the_release_before_counts_on_and_its_counters_become_meters() {
    let mut polled = Polled::provision(3, "");
    polled.site.age();
    // Two of three go on as they did: not all members can read what is new.
    polled.site.boxes[0].start();
    polled.site.boxes[1].start();
    polled.site.until_ready();
    polled.until_read(1000.0);
    until("both have read the base", || {
        let polls = polled.site.boxes[1].try_status()?["ingest"]["poll"].clone();
        (polls[0]["readings"].as_u64()? > 0).then_some(())
    });
    polled.count(1010, 20);
    let status = polled.site.boxes[0].status();
    assert_eq!((&status["level"]["site"], &status["meters"]["count"]), (&1.into(), &0.into()), "{status}");
    let mut client = polled.site.boxes[1].client();
    let epoch = client.post("/v1/sources/gateway/epochs", "").unwrap().ok()["epoch"].clone();
    let reading = serde_json::json!({"series": "energy", "meter": "e1", "reading": 5});
    let body = serde_json::json!({"source": "gateway", "epoch": epoch, "number": 1, "cells": [reading]});
    let answer = client.post("/v1/reports", &body.to_string()).unwrap();
    assert_eq!((answer.status, answer.problem()), (503, "not-committed".to_owned()));
    // The third comes: its base is what it reads first.
    polled.site.start_all();
    until("the level is raised", || (polled.site.boxes[0].try_status()?["level"]["site"] == 3).then_some(()));
    until("all are meters", || (polled.site.boxes[0].try_status()?["meters"]["count"] == 3).then_some(()));
    polled.count(1015, 35);
    client.post("/v1/reports", &body.to_string()).unwrap().ok();
    polled.site.boxes[0].kill();
    polled.write("1020");
    polled.site.start_all();
    polled.site.boxes[0].until_total("host/switches", 50);
    polled.site.assert_same_digests();
}
