//! What processes cost: processor time, bytes written, resident memory, as the kernel counts them.

use std::fs;
use std::io;

use serde::Serialize;

/// A process's figures at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Processor time in user and kernel, in seconds.
    pub cpu_s: f64,
    /// Bytes that it caused to be sent to the disk.
    pub written_bytes: u64,
    /// Resident memory.
    pub resident_bytes: u64,
}

/// What a process did over a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Usage {
    /// Which process.
    pub pid: u32,
    /// Processor seconds used.
    pub cpu_s: f64,
    /// Bytes written.
    pub written_bytes: u64,
    /// Resident memory before.
    pub resident_bytes_before: u64,
    /// Resident memory after.
    pub resident_bytes_after: u64,
}

impl Figures {
    /// Reads them; the process is another user's or gone: an error that names it.
    ///
    /// # Errors
    /// The system does not tell, or there is no such process.
    pub fn of(pid: u32) -> io::Result<Figures> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path)
                .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
        };
        let odd =
            |file: &str| io::Error::other(format!("/proc/{pid}/{file} is not as the kernel documents it"));
        let ticks = cpu_ticks(&read("stat")?).ok_or_else(|| odd("stat"))?;
        let written_bytes = field(&read("io")?, "write_bytes:").ok_or_else(|| odd("io"))?;
        let resident_kib = field(&read("status")?, "VmRSS:").ok_or_else(|| odd("status"))?;
        Ok(Figures {
            cpu_s: ticks as f64 / rustix::param::clock_ticks_per_second() as f64,
            written_bytes,
            resident_bytes: resident_kib * 1024,
        })
    }

    /// From `before` to these.
    pub fn since(&self, before: &Figures, pid: u32) -> Usage {
        Usage {
            pid,
            cpu_s: self.cpu_s - before.cpu_s,
            written_bytes: self.written_bytes.saturating_sub(before.written_bytes),
            resident_bytes_before: before.resident_bytes,
            resident_bytes_after: self.resident_bytes,
        }
    }
}

/// Fields 14 and 15; the second field, the name in parentheses, can have blanks in it.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    line[name.len()..].split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_with_blanks_and_parentheses_does_not_confuse() {
        let stat = "77 (a ) b) S 1 77 77 0 -1 4194560 100 0 0 0 12 30 0 0 20 0 4 0 1 1 1";
        assert_eq!(cpu_ticks(stat), Some(42));
        assert_eq!(
            field("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 2\n", "write_bytes:"),
            Some(4096)
        );
    }

    #[test]
    fn this_process_has_figures_and_processor_time_grows() {
        let pid = std::process::id();
        let before = Figures::of(pid).unwrap();
        assert!(before.resident_bytes > 100_000);
        let mut now = before;
        while now.cpu_s <= before.cpu_s {
            now = Figures::of(pid).unwrap();
        }
        assert!(now.since(&before, pid).cpu_s > 0.0);
    }

    #[test]
    fn a_process_that_is_not_there_is_named() {
        let error = Figures::of(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("/proc/4294967295/stat"), "{error}");
    }
}
