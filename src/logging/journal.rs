//! Lines for systemd's journal: each has its priority in front, and no time, since the journal has its own.

use std::os::fd::AsFd;

use tracing::Level;

/// The priority of an error that ends the process.
pub(super) const FATAL: &str = "<2>";
/// The priority of what a person should see.
pub(super) const WARNING: &str = "<4>";

/// Whether standard error is the stream to the journal: `said` is the value of JOURNAL_STREAM, its device and inode. It
/// may be inherited by a process whose output goes elsewhere since.
pub(super) fn is_stream(error: impl AsFd, said: Option<&str>) -> bool {
    let numbers = said.and_then(|said| said.split_once(':'));
    let numbers = numbers.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let stream: Option<(u64, u64)> = rustix::fs::fstat(error).ok().map(|stat| (stat.st_dev, stat.st_ino));
    stream.is_some() && numbers == stream
}

/// The priority of an event (syslog's numbers).
pub(super) const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => WARNING,
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// Puts the priority in front of each line of a text.
pub(super) fn with_priority(priority: &str, text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(priority.len() + text.len());
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        bytes.extend_from_slice(priority.as_bytes());
        bytes.extend_from_slice(line.trim_ascii_start());
        // A line of blanks only.
        if !bytes.ends_with(b"\n") && line.ends_with(b"\n") {
            bytes.push(b'\n');
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let said = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_stream(&file, Some(&said)));
        // Its output was redirected since.
        assert!(!is_stream(tempfile::tempfile().unwrap(), Some(&said)));
        for other in [None, Some(""), Some("1"), Some("1:2:3"), Some("a:b"), Some("1:")] {
            assert!(!is_stream(&file, other), "{other:?}");
        }
    }

    #[test]
    fn each_line_has_its_priority() {
        assert_eq!(with_priority("<6>", b" INFO tallyd: a\n"), b"<6>INFO tallyd: a\n");
        assert_eq!(with_priority("<2>", b"panic\n  at b\n\nend"), b"<2>panic\n<2>at b\n<2>\n<2>end");
    }
}
