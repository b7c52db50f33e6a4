//! Replays the corpus, and what the real encoders make, through what the fuzzers run.
//!
//! `UPDATE=1 cargo test -p tally-fuzz-targets` puts the seeds into the corpus, beside what fuzzing found.
#![allow(clippy::unwrap_used, reason = "all of it is a test")]

use std::fs;
use std::path::{Path, PathBuf};

use tally_fuzz_targets::{FuzzTarget, TARGETS};

const FILES_MAX: usize = 60;
const BYTES_MAX: u64 = 200 << 10;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn corpus(target: &FuzzTarget) -> PathBuf {
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

/// A fuzzer without eyes, for machines without a sanitizer: `TALLYD_FUZZ_ROUNDS` of mutations of each seed.
#[test]
fn what_encoders_make_does_no_harm_with_wrong_bytes_either() {
    let rounds = std::env::var("TALLYD_FUZZ_ROUNDS").map_or(40, |rounds| rounds.parse().unwrap());
    let only = std::env::var("TALLYD_FUZZ_ONLY").ok();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random >> 11).unwrap() % below.max(1)
    };
    for target in TARGETS.iter().filter(|target| only.as_ref().is_none_or(|only| only == target.name)) {
        let seeds = (target.seeds)();
        for round in 0..rounds {
            for (number, seed) in seeds.iter().enumerate() {
                let input = mutated(seed, &seeds, &mut next);
                let file = std::env::temp_dir().join(format!("tallyd-fuzz-{}-{number}-{round}", target.name));
                let _kept = Kept(target.name, &file, &input);
                (target.run)(&input);
            }
        }
    }
}

/// Keeps the input if it fails.
struct Kept<'a>(&'a str, &'a Path, &'a [u8]);

impl Drop for Kept<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kept = fs::write(self.1, self.2);
            eprintln!("target {}: the input in {} fails ({kept:?})", self.0, self.1.display());
        }
    }
}

fn mutated(seed: &[u8], others: &[Vec<u8>], next: &mut impl FnMut(usize) -> usize) -> Vec<u8> {
    const INTERESTING: [u8; 8] = [0, 1, 2, 0x7f, 0x80, 0xfe, 0xff, 0x40];
    let mut input = seed.to_vec();
    for _ in 0..=next(6) {
        let at = next(input.len() + 1);
        match next(6) {
            0 => input.insert(at, INTERESTING[next(INTERESTING.len())]),
            1 if at < input.len() => drop(input.remove(at)),
            2 if at < input.len() => input[at] ^= 1 << next(8),
            3 => {
                let other = &others[next(others.len())];
                let from = next(other.len() + 1);
                let part = &other[from..(from + next(64)).min(other.len())];
                input.splice(at..at, part.iter().copied());
            }
            4 => input.truncate(at),
            _ if at < input.len() => input[at] = INTERESTING[next(INTERESTING.len())],
            _ => {}
        }
    }
    input
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
