//! Data directories that are not what they should be: half of a copy, a file system that is mounted read-only. Each is one clear
//! line and the exit status, and nothing in the directory is changed. (Those of another box, of a newer version and of another
//! user are in `starting`.)

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::boxes::Site;
use crate::harness::{free_port, tallyd};
use crate::starting::{assert_says, refusal};

/// All files below a directory with their contents.
fn contents(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(contents(&path)),
            // Whose process it was that looked.
            false if path.ends_with("lock") => {}
            false => drop(files.insert(path.clone(), std::fs::read(&path).unwrap())),
        }
    }
    files
}

/// A box that was run once and has counted.
fn stopped_box() -> Site {
    let mut site = Site::start(1);
    site.boxes[0].add("a", 5);
    site.boxes[0].terminate();
    site
}

/// The last line that was said: with what ends it, after what it logged.
fn last_line(said: &str) -> &str {
    said.lines().last().unwrap_or_default()
}

#[test]
fn half_a_copy_of_a_data_directory_is_told_and_left_alone() {
    let mut site = stopped_box();
    let one = &site.boxes[0];
    let data = one.directory.clone();
    let log = std::fs::read_dir(data.join("log")).unwrap().next().unwrap().unwrap().path();
    let away = data.with_extension("away");
    // What is missing, what is said of it.
    for (missing, words) in [
        ("log", &["log, byte 0: the directory is missing", "Nothing was changed"][..]),
        ("snapshots", &["snapshots, byte 0: the directory is missing", "Nothing was changed"]),
        ("format", &["the file is gone, but there is a log", "Nothing was changed"]),
    ] {
        std::fs::rename(data.join(missing), &away).unwrap();
        let before = contents(&data);
        let said = refusal(&mut one.command());
        assert_says(last_line(&said), words);
        assert_eq!(contents(&data), before, "{missing}");
        std::fs::rename(&away, data.join(missing)).unwrap();
    }
    // The copy ended in the middle of a file.
    for (file, words) in [
        (&log, &["cannot be trusted", "Nothing was changed"][..]),
        (&data.join("identity.json"), &["cannot be parsed", "copy the box's files again"]),
        (&data.join("format"), &["this should read 'tallyd data", "Nothing was changed"]),
    ] {
        let whole = std::fs::read(file).unwrap();
        std::fs::write(file, &whole[..whole.len().min(5)]).unwrap();
        let before = contents(&data);
        let said = refusal(&mut one.command());
        assert_says(last_line(&said), words);
        assert_eq!(contents(&data), before, "{}", file.display());
        std::fs::write(file, whole).unwrap();
    }
    site.start_all();
    assert_eq!(site.boxes[0].total("a"), 5);
}

#[test]
fn no_site_is_founded_in_half_a_copy_whose_keys_it_would_overwrite() {
    let site = stopped_box();
    let data = &site.boxes[0].directory;
    // Without any configuration a box founds a site by itself.
    for file in ["identity.json", "tallyd.toml"] {
        std::fs::remove_file(data.join(file)).unwrap();
    }
    let before = contents(data);
    let mut command = tallyd();
    command.args(["run", "--data-dir"]).arg(data);
    command.env("TALLYD_API_LISTEN", format!("127.0.0.1:{}", free_port()));
    command.env("TALLYD_INGEST_STATSD_LISTEN", "off");
    let said = refusal(&mut command);
    assert_says(last_line(&said), &["it is half a box's data", "bring the rest back, or move it away"]);
    assert_eq!(contents(data), before);
}

#[test]
fn a_data_directory_on_a_file_system_that_is_read_only_is_told_with_what_to_do() {
    let mut site = stopped_box();
    let one = &site.boxes[0];
    let plain = one.command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-ec"]);
    command.arg("mount --bind \"$0\" \"$0\"; mount -o remount,bind,ro \"$0\"; exec \"$@\"");
    command.arg(&one.directory).arg(plain.get_program()).args(plain.get_args());
    command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let said = refusal(&mut command);
    assert_says(last_line(&said), &["is on a read-only file system", "remount it"]);
    site.start_all();
    assert_eq!(site.boxes[0].total("a"), 5);
}
