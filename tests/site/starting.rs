//! Starts that must not succeed, and what they say.

use std::process::Output;

use crate::harness::{Process, Site};

fn refused(process: &Process) -> String {
    let Output { status, stderr, .. } = process.command().output().unwrap();
    let text = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

#[test]
fn a_data_directory_is_used_by_one_process() {
    let site = Site::start(1, &[]);
    site.boxes[0].ready();
    let second = Process::new(site.dir.path(), "second", site.boxes[0].data.clone(), &[]);
    let text = refused(&second);
    assert!(text.contains("another tallyd") && text.contains("data-dir"), "{text}");
}

#[test]
fn a_data_directory_of_another_box_or_of_a_newer_version_is_refused() {
    let mut site = Site::start(2, &[]);
    for each in &mut site.boxes {
        each.ready();
    }
    for each in &mut site.boxes {
        assert!(each.stop().success());
    }
    let (first, second) = (&site.boxes[0], &site.boxes[1]);
    std::fs::remove_dir_all(second.data.join("log")).unwrap();
    std::fs::create_dir(second.data.join("log")).unwrap();
    for file in std::fs::read_dir(first.data.join("log")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), second.data.join("log").join(file.file_name())).unwrap();
    }
    let text = refused(second);
    assert!(text.contains("belongs to box 1"), "{text}");
    std::fs::write(first.data.join("format"), "tallyd data 99\n").unwrap();
    let text = refused(first);
    assert!(text.contains("newer version"), "{text}");
}

#[test]
fn an_unknown_key_and_a_port_in_use_are_named() {
    let site = Site::start(1, &[]);
    let it = &site.boxes[0];
    it.ready();
    let other = Process::new(site.dir.path(), "other", site.dir.path().join("other"), &[]);
    let mut taken = Process::new(site.dir.path(), "taken", site.dir.path().join("taken"), &[]);
    taken.api = it.api.clone();
    let text = refused(&taken);
    assert!(text.contains("api.listen"), "{text}");
    std::fs::create_dir_all(&other.data).unwrap();
    std::fs::write(other.data.join("tallyd.toml"), "[api]\nlistn = \"127.0.0.1:1\"\n").unwrap();
    let text = refused(&other);
    assert!(text.contains("line 2") && text.contains("\"listn\"") && text.contains("\"listen\""), "{text}");
}
