//! A damaged data directory: `tallyd run` says which file, where in it, what is certain and what to do,
//! and leaves it as it is; a wrong byte in the last thing that was acknowledged is put right.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::boxes::Site;
use crate::harness::{Process, free_port, tallyd, until};

const ADVICE: &str = "move this data directory away (keep it)";

/// Turns a byte of a file into another, and back when called again.
fn flip(file: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Starts a box that must refuse, with exit status 1, and gives what it said.
fn refusal(site: &Site) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut process = Process::start(&mut site.boxes[0].command(), &directory.path().join("log"));
    let status = process.wait();
    let said = process.output();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    said
}

fn assert_says(site: &Site, words: &[&str]) {
    let said = refusal(site);
    for word in words {
        assert!(said.contains(word), "{word:?} is not in: {said}");
    }
}

/// Where the groups of a segment begin.
fn groups(segment: &Path) -> Vec<u64> {
    let bytes = std::fs::read(segment).unwrap();
    (4096..bytes.len())
        .step_by(4096)
        .filter(|at| bytes[*at..].starts_with(b"TLYG"))
        .map(|at| at as u64)
        .collect()
}

/// Waits until the third box remembers durably which lives of the others it has seen: it writes that beside.
fn until_others_seen(site: &Site) {
    let file = site.boxes[2].directory.join("peers.seen");
    until("both others are named in peers.seen", || {
        let seen = tallyd::transport::read_seen(&std::fs::read_to_string(&file).ok()?)?;
        [1, 2].iter().all(|id| seen.contains_key(id)).then_some(())
    });
}

#[test]
fn damage_is_told_with_its_place_what_is_certain_and_the_way_out() {
    let mut site = Site::start(1);
    for _ in 0..6 {
        site.boxes[0].add("a", 1);
    }
    site.boxes[0].kill();
    let data = site.boxes[0].directory.clone();
    let segment: PathBuf = data.join("log/000000000001.log");
    let name = segment.to_str().unwrap().to_owned();

    flip(&segment, 40);
    assert_says(&site, &[&format!("{name}, byte 0:"), "first block is wrong", "up to entry 0", ADVICE]);
    flip(&segment, 40);

    let starts = groups(&segment);
    let middle = starts[starts.len() / 2];
    flip(&segment, middle + 45);
    let place = format!("{name}, byte {middle}:");
    assert_says(&site, &[&place, "the log is intact up to entry", "or further", ADVICE]);
    flip(&segment, middle + 45);

    let away = data.join("away");
    std::fs::rename(&segment, &away).unwrap();
    assert_says(&site, &[data.join("log").to_str().unwrap(), "the log is gone", ADVICE]);
    std::fs::write(&segment, b"").unwrap();
    assert_says(&site, &[&format!("{name}, byte 0:"), "first block is not a segment header", ADVICE]);
    std::fs::rename(&away, &segment).unwrap();
    std::fs::rename(data.join("log"), &away).unwrap();
    assert_says(&site, &[data.join("log").to_str().unwrap(), "the directory is missing", ADVICE]);
    std::fs::rename(&away, data.join("log")).unwrap();

    // Nothing follows the last group; but for one byte it is whole.
    flip(&segment, groups(&segment).last().unwrap() + 50);
    site.start_all();
    assert_eq!(site.boxes[0].total("a"), 6);
    site.boxes[0].until_log("repaired a corrupt byte");
}

#[test]
fn a_damaged_snapshot_is_told_with_the_log_that_there_is() {
    let mut site = Site::start(1);
    site.boxes[0].add("a", 3);
    site.boxes[0].kill();
    let data = site.boxes[0].directory.clone();
    let snapshot = data.join("snapshots/900-1-0.snap");
    for bytes in [&b""[..], b"TALLYSNP and so on"] {
        std::fs::write(&snapshot, bytes).unwrap();
        let name = format!("{}, byte 0:", snapshot.display());
        assert_says(
            &site,
            &[&name, "the file does not begin like a snapshot", "the log (entries 1 to", ADVICE],
        );
    }
    std::fs::remove_file(&snapshot).unwrap();
    site.start_all();
    assert_eq!(site.boxes[0].total("a"), 3);
}

#[test]
fn a_box_whose_disk_was_emptied_is_refused_under_its_old_identity() {
    let mut site = Site::start(3);
    site.boxes[2].add("a", 1);
    until_others_seen(&site);
    site.boxes[2].kill();
    let data = site.boxes[2].directory.clone();
    for folder in ["log", "snapshots"] {
        std::fs::rename(data.join(folder), data.join(format!("{folder}.away"))).unwrap();
    }
    std::fs::rename(data.join("format"), data.join("format.away")).unwrap();
    std::fs::rename(data.join("peers.seen"), data.join("peers.away")).unwrap();
    site.boxes[2].start();
    site.boxes[2].until_log("this data directory was emptied or is an old copy");
    site.boxes[0].until_log("its disk was emptied or replaced by an old copy");
    site.boxes[1].until_log("its disk was emptied or replaced by an old copy");
    assert_eq!(site.boxes[0].add("a", 1), 2, "the others go on");
    assert_eq!(site.boxes[2].status()["ready"], false);
    site.boxes[2].kill();
    for folder in ["log", "snapshots"] {
        std::fs::remove_dir_all(data.join(folder)).unwrap();
        std::fs::rename(data.join(format!("{folder}.away")), data.join(folder)).unwrap();
    }
    std::fs::rename(data.join("format.away"), data.join("format")).unwrap();
    site.start_all();
    assert_eq!(site.boxes[2].total("a"), 2);
}

#[test]
fn a_copy_of_a_running_box_is_refused_and_the_box_goes_on() {
    let site = Site::start(3);
    site.boxes[2].add("a", 1);
    until_others_seen(&site);
    let copy = tempfile::tempdir().unwrap();
    let data = copy.path().join("data");
    let copied = std::process::Command::new("cp").arg("-r").arg(&site.boxes[2].directory).arg(&data).status();
    assert!(copied.unwrap().success());
    let mut command = tallyd();
    command.arg("run").arg("--data-dir").arg(&data);
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{}", free_port()));
    command.env("TALLYD_CLUSTER_LISTEN", format!("127.0.0.1:{}", free_port()));
    command.env("TALLYD_INGEST_STATSD_LISTEN", "off");
    let process = Process::start(&mut command, &copy.path().join("log"));
    until("the copy is told", || {
        process.output().contains("was this card or data directory copied").then_some(())
    });
    site.boxes[0].until_log("another box runs under the same identity");
    assert_eq!(site.boxes[2].add("a", 1), 2, "the original goes on");
    process.kill();
}
