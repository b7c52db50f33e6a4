//! Reads a wall clock and its flag from a file, for tests with real processes: boxes on one
//! machine could not have different clocks otherwise. Builds without debug assertions, which
//! includes releases, do not contain this file.
//!
//! `TALLYD_TEST_CLOCK` names the file; it says how many milliseconds the clock is ahead and whether
//! it is synchronised, such as `-86400000 unsynced`, and may be rewritten while the box runs.

use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// How often the file is read.
const EVERY: Duration = Duration::from_millis(20);

/// The content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Injected {
    pub(super) offset_ms: i64,
    pub(super) synced: bool,
}

static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
static READ: Mutex<Option<(Instant, Injected)>> = Mutex::new(None);

/// The clock that a test gave this process, if one did. A file that says nothing sensible (it may be
/// in the middle of being written) changes nothing.
pub(super) fn now() -> Option<Injected> {
    let file = FILE.get_or_init(|| std::env::var_os("TALLYD_TEST_CLOCK").map(PathBuf::from)).as_ref()?;
    let now = Instant::now();
    let mut read = READ.lock().unwrap_or_else(PoisonError::into_inner);
    if read.is_none_or(|(at, _)| now >= at + EVERY)
        && let Some(said) = std::fs::read_to_string(file).ok().and_then(|text| parse(&text))
    {
        *read = Some((now, said));
    }
    read.map(|(_, said)| said)
}

fn parse(text: &str) -> Option<Injected> {
    let (offset, flag) = text.trim().split_once(' ')?;
    let synced = match flag {
        "synced" => true,
        "unsynced" => false,
        _ => return None,
    };
    Some(Injected { offset_ms: offset.parse().ok()?, synced })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_says_how_far_the_clock_is_off_and_whether_it_is_synchronised() {
        assert_eq!(parse("-5 synced\n"), Some(Injected { offset_ms: -5, synced: true }));
        assert_eq!(parse("7 unsynced"), Some(Injected { offset_ms: 7, synced: false }));
        assert_eq!([parse(""), parse("7"), parse("x synced"), parse("7 sync")], [None; 4]);
    }
}
