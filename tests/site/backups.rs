//! Backup, restore and export by the real command line, and a card that is put back to an older image.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::boxes::{SITE, Site};
use crate::broker::{Broker, Subscriber};
use crate::harness::{Process, free_port, tallyd, until};
use crate::series::retained;

/// The exit status of `tallyd restore`, and what it says on standard error.
fn restore(file: &Path, data: &Path) -> (i32, String) {
    let output = tallyd().arg("restore").arg(file).arg("--data-dir").arg(data).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

/// A box that was restored, and runs.
struct Restored {
    process: Process,
    url: String,
}

impl Restored {
    fn start(data: &Path, log: &Path, extra: &str) -> Restored {
        let (http, statsd) = (free_port(), free_port());
        let text = format!(
            "[api]\nlisten = \"127.0.0.1:{http}\"\n[ingest.statsd]\nlisten = \"127.0.0.1:{statsd}\"\n{extra}"
        );
        std::fs::write(data.join("tallyd.toml"), text).unwrap();
        let mut command = tallyd();
        command.arg("run").arg("--data-dir").arg(data);
        Restored { process: Process::start(&mut command, log), url: format!("http://127.0.0.1:{http}") }
    }

    fn ask(&self, args: &[&str]) -> Option<String> {
        let output = tallyd().args(args).args(["--url", &self.url]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    fn json(&self, args: &[&str]) -> Value {
        let text = until("the restored site answers", || self.ask(&[args, &["--json"]].concat()));
        serde_json::from_str(&text).unwrap()
    }
}

#[test]
fn a_backup_founds_a_site_with_the_same_totals_and_another_id() {
    let site = Site::start(3);
    for one in &site.boxes {
        one.add("line1/parts", 7);
    }
    site.boxes[0].add("line1,\"odd\"", 1);
    let scratch = tempfile::tempdir().unwrap();
    let (file, data) = (scratch.path().join("plant7.tallyd"), scratch.path().join("data"));
    let follower = site.follower();
    let told = site.boxes[follower].told(&["backup", file.to_str().unwrap(), "--json"]);
    let head: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((head["site"].as_str(), head["series"].as_u64()), (Some(SITE), Some(2)));
    assert!(!file.with_extension("tallyd.tmp").exists());
    assert_eq!(restore(&file, &data), (0, String::new()));
    let (status, why) = restore(&file, &data);
    assert!(status == 2 && why.contains("not empty") && why.lines().count() == 1, "{status}: {why}");
    let restored = Restored::start(&data, &scratch.path().join("log"), "");
    until("the restored site counts", || restored.ask(&["add", "line1/parts", "1"]));
    let series = restored.json(&["get", "line1/parts"]);
    assert_eq!(series["total"], 22);
    assert!(series["since"].as_u64().unwrap() >= head["time"].as_u64().unwrap());
    let status = restored.json(&["status"]);
    assert_ne!(status["site_id"], head["site_id"]);
    let exported = restored.ask(&["export", "--series", "line1"]).unwrap();
    assert!(exported.contains("total,line1/parts,counter,22,"), "{exported}");
    assert!(exported.contains("total,\"line1,\"\"odd\"\"\",counter,1,"), "{exported}");
    let of_directory = |format: &str| {
        let output = tallyd().args(["export", "--format", format, "--data-dir"]).arg(&data).output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(of_directory("csv").0, 0, "it runs, and is asked");
    restored.process.kill();
    let (status, text) = of_directory("json");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &value["series"][1]["total"]), (0, &Value::from(22)), "{text}");
}

#[test]
fn what_is_no_whole_backup_is_refused_in_one_line_and_makes_nothing() {
    let site = Site::start(1);
    site.boxes[0].add("parts", 7);
    let scratch = tempfile::tempdir().unwrap();
    let (file, data) = (scratch.path().join("plant7.tallyd"), scratch.path().join("data"));
    site.boxes[0].told(&["backup", file.to_str().unwrap()]);
    let whole = std::fs::read(&file).unwrap();
    let damaged = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    let newer = [&whole[..8], &99u32.to_le_bytes(), &whole[12..]].concat();
    let wrong = scratch.path().join("wrong");
    for (bytes, said) in [
        (b"# Not one".to_vec(), "no backup of tallyd"),
        (std::fs::read(site.boxes[0].directory.join("node.key")).unwrap(), "no backup of tallyd"),
        (Vec::new(), "no backup of tallyd"),
        (whole[..whole.len() - 9].to_vec(), "cut"),
        (whole[..20].to_vec(), "head"),
        ([&whole[..], b"x"].concat(), "appended"),
        (damaged(whole.len() / 2), "checksum"),
        (damaged(whole.len() - 1), "checksum"),
        (newer, "use a newer release"),
    ] {
        std::fs::write(&wrong, bytes).unwrap();
        let (status, why) = restore(&wrong, &data);
        assert!(status == 1 && why.contains(said) && why.lines().count() == 1, "{said}: {status}: {why}");
        assert!(!data.exists(), "nothing is made");
    }
    let (status, why) = restore(&scratch.path().join("none"), &data);
    assert!(status == 1 && why.contains("No such file") && why.lines().count() == 1, "{status}: {why}");
    let (status, why) = site.boxes[0].refuses(&["backup", "/proc/none/here"]);
    assert!(status == 1 && why.contains("/proc/none/here") && why.lines().count() == 1, "{status}: {why}");
}

#[test]
fn a_backup_from_any_box_while_it_counts_has_all_that_was_acknowledged_before() {
    let site = Site::start(3);
    let scratch = tempfile::tempdir().unwrap();
    let counts = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let adder = scope.spawn(|| {
            while counts.load(Ordering::Relaxed) {
                site.boxes[0].add("parts", 1);
            }
        });
        until("it counts", || (site.boxes[0].total("parts") > 5).then_some(()));
        for (at, one) in site.boxes.iter().enumerate() {
            let file = scratch.path().join(&one.name);
            let before = one.total("parts");
            one.told(&["backup", file.to_str().unwrap()]);
            let after = one.total("parts");
            let data = scratch.path().join(format!("data{at}"));
            assert_eq!(restore(&file, &data), (0, String::new()));
            let output =
                tallyd().args(["export", "--format", "json", "--data-dir"]).arg(&data).output().unwrap();
            let exported: Value = serde_json::from_slice(&output.stdout).unwrap();
            let total = exported["series"][0]["total"].as_i64().unwrap();
            assert!((before..=after).contains(&total), "{}: {total}, not {before} to {after}", one.name);
        }
        counts.store(false, Ordering::Relaxed);
        adder.join().unwrap();
    });
    site.assert_same_digests();
}

#[test]
fn an_export_has_windows_that_add_up_in_both_formats() {
    let site = Site::start(1);
    let one = &site.boxes[0];
    site.set("window.grace", "200ms");
    for _ in 0..3 {
        let before = one.status()["outbox"]["waiting"].as_u64().unwrap();
        one.add("parts", 4);
        until("the window closes", || {
            (one.try_status()?["outbox"]["waiting"].as_u64()? > before).then_some(())
        });
    }
    let exported: Value = serde_json::from_str(&one.told(&["export", "--format", "json"])).unwrap();
    let windows = exported["series"][0]["windows"].as_array().unwrap();
    let sum: i64 = windows.iter().map(|window| window["increase"].as_i64().unwrap()).sum();
    assert_eq!((windows.len(), sum, &exported["series"][0]["total"]), (3, 12, &Value::from(12)));
    let text = one.told(&["export"]);
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    let column = |name: &str| rows[0].iter().position(|column| *column == name).unwrap();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{text}");
    let of = |record: &str, name: &str| {
        let rows = rows.iter().filter(|row| row[0] == record);
        rows.map(|row| row[column(name)].parse::<i64>().unwrap()).collect::<Vec<i64>>()
    };
    assert_eq!((of("total", "total"), of("window", "increase")), (vec![12], vec![4; 3]), "{text}");
}

fn summaries(subscriber: &Subscriber) -> Vec<Value> {
    subscriber.on(&format!("tally/{SITE}/summary/")).iter().map(|message| message.json()).collect()
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_card_that_is_put_back_to_an_older_image_uses_no_number_twice() {
    let broker = Broker::start();
    let subscriber = broker.subscribe();
    let mut site = Site::start_with(1, "1s", &broker.config());
    site.set("window.grace", "200ms");
    let published =
        |least: usize| until("it is published", || (summaries(&subscriber).len() >= least).then_some(()));
    site.boxes[0].add("parts", 1);
    published(1);
    site.boxes[0].kill();
    let scratch = tempfile::tempdir().unwrap();
    let image = scratch.path().join("image");
    copy(&site.boxes[0].directory, &image);
    site.start_all();
    for least in 2..=3 {
        site.boxes[0].add("parts", 10);
        published(least);
    }
    let last = summaries(&subscriber).iter().map(|one| one["seq"].as_u64().unwrap()).max().unwrap();
    let old =
        until("the total is retained", || retained(&broker, "parts").filter(|total| total["total"] == 21));
    site.boxes[0].kill();
    std::fs::remove_dir_all(&site.boxes[0].directory).unwrap();
    copy(&image, &site.boxes[0].directory);
    site.start_all();
    site.boxes[0].add("parts", 100);
    let new =
        until("its total goes out", || retained(&broker, "parts").filter(|total| total["total"] == 101));
    assert!(new["since"].as_u64() > old["since"].as_u64(), "another count: {new}, {old}");
    let mut by_number = std::collections::BTreeMap::new();
    for one in summaries(&subscriber) {
        let seq = one["seq"].as_u64().unwrap();
        assert_eq!(
            by_number.entry(seq).or_insert_with(|| one.clone()),
            &one,
            "number {seq} has two contents"
        );
    }
    let put_back = by_number.range(last + 1..).next().expect("a number after those that were given");
    assert_eq!(put_back.1["increase"], 100, "{by_number:?}");
    let status = site.boxes[0].status();
    assert_eq!(status["outbox"]["gap"]["up_to"].as_u64(), Some(last), "{status}");
    site.boxes[0].until_log("was put back to an older state");
    assert!(site.boxes[0].told(&["status"]).contains("put back to an older state"));
    let statuses = subscriber.on(&format!("tally/{SITE}/status"));
    let offline = statuses.iter().map(|message| message.json()).find(|status| status["why"].is_string());
    assert_eq!(offline.expect("it goes offline and says why")["state"], "offline");
}
