//! Replays the corpus, and what the real encoders make, through what the fuzzers run.
//!
//! `UPDATE=1 cargo test -p tally-fuzz-targets` puts the seeds into the corpus, beside what fuzzing found.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::fs;
use std::path::{Path, PathBuf};

use tally_fuzz_targets::{TARGETS, Target};

const FILES_MAX: usize = 60;
const BYTES_MAX: u64 = 200 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn corpus(target: &Target) -> PathBuf {
    fuzz().join("corpus").join(target.name)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// Names the input if it fails.
struct Named<'a>(&'a str, &'a Path);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("target {}: the input in {} fails", self.0, self.1.display());
        }
    }
}

#[test]
fn nothing_in_the_corpus_does_harm() {
    for target in TARGETS {
        let dir = corpus(&target);
        let files = files(&dir);
        assert!(!files.is_empty(), "{} has no corpus", target.name);
        for file in &files {
            let _named = Named(target.name, file);
            (target.run)(&fs::read(file).unwrap());
        }
    }
}

#[test]
fn what_encoders_make_does_no_harm_cut_off_anywhere_either() {
    for target in TARGETS {
        for (number, seed) in (target.seeds)().iter().enumerate() {
            let name = PathBuf::from(format!("seed {number}"));
            let _named = Named(target.name, &name);
            (target.run)(seed);
            let step = seed.len() / 50 + 1;
            (0..seed.len()).step_by(step).for_each(|length| (target.run)(&seed[..length]));
        }
    }
}

#[test]
fn the_corpus_has_the_seeds_and_is_small() {
    for target in TARGETS {
        let dir = corpus(&target);
        if std::env::var_os("UPDATE").is_some() {
            fs::create_dir_all(&dir).unwrap();
            for (number, seed) in (target.seeds)().iter().enumerate() {
                fs::write(dir.join(format!("seed-{number:02}")), seed).unwrap();
            }
        }
        for number in 0..(target.seeds)().len() {
            assert!(dir.join(format!("seed-{number:02}")).is_file(), "{}: no seed {number}", target.name);
        }
        let files = files(&dir);
        let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
        assert!(files.len() <= FILES_MAX, "{}: {} files, at most {FILES_MAX}", target.name, files.len());
        assert!(bytes <= BYTES_MAX, "{}: {bytes} bytes, at most {BYTES_MAX}", target.name);
    }
}

#[test]
fn each_target_has_its_fuzzer() {
    let mut fuzzers: Vec<String> = files(&fuzz().join("fuzz_targets"))
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    fuzzers.sort();
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(fuzzers, names);
}
