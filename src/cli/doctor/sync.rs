//! How long the disk takes for a sync, measured by the log's own pattern: one block of 4 KiB written into a file whose
//! blocks were written before, then `fdatasync`.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Line, Subject, look, ok, wrong};

const SYNCS: usize = 100;
const BLOCK_BYTES: usize = 4096;
/// A disk that has not finished after this long hangs.
const PATIENCE: Duration = Duration::from_secs(30);
/// An election timeout beyond this makes failovers slow.
const TIMEOUT_LONG: Duration = Duration::from_secs(1);
/// The file that is written, and removed again.
const SCRATCH: &str = "doctor.tmp";

pub(super) fn check(subject: &Subject) -> Vec<Line> {
    let dir = &subject.found.dir;
    if !dir.is_dir() {
        return Vec::new();
    }
    vec![match within(PATIENCE, dir.clone()) {
        Ok(times) => judged(subject, times),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            look("sync", format!("not measured: {error}"), "run the doctor as root or as the daemon's user")
        }
        Err(error) => wrong(
            "sync",
            format!("the disk cannot be measured: {error}"),
            "see the system's log; check the card or disk, and replace it",
        ),
    }]
}

/// Measures on a thread of its own: a disk that hangs cannot be interrupted.
fn within(patience: Duration, dir: PathBuf) -> io::Result<Vec<Duration>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::Builder::new().name("sync".to_owned()).spawn(move || {
        // The other side may have given up.
        let _ = sender.send(measure(&dir));
    })?;
    receiver.recv_timeout(patience).unwrap_or_else(|_| {
        let what = format!("{SYNCS} syncs did not end within {} s", patience.as_secs());
        Err(io::Error::new(ErrorKind::TimedOut, what))
    })
}

/// The times of the syncs, ascending.
fn measure(dir: &Path) -> io::Result<Vec<Duration>> {
    let path = dir.join(SCRATCH);
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(&path)?;
    let measured = write_and_sync(&file);
    drop(file);
    std::fs::remove_file(&path)?;
    measured
}

fn write_and_sync(file: &File) -> io::Result<Vec<Duration>> {
    file.write_all_at(&vec![0; SYNCS * BLOCK_BYTES], 0)?;
    file.sync_all()?;
    let block = [0x5a; BLOCK_BYTES];
    let mut times = Vec::with_capacity(SYNCS);
    for number in 0..SYNCS {
        let begun = Instant::now();
        file.write_all_at(&block, (number * BLOCK_BYTES) as u64)?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn judged(subject: &Subject, times: Vec<Duration>) -> Line {
    let at = |share: f64| times[((times.len() as f64 * share) as usize).min(times.len() - 1)];
    let (median, usual, high, longest) = (at(0.5), at(0.9), at(0.99), at(1.0));
    let timeout = subject.found.config.cluster.election_timeout().for_sync(usual);
    let ms = |span: Duration| format!("{:.2} ms", span.as_secs_f64() * 1e3);
    let what = format!(
        "{SYNCS} syncs of 4 KiB: p50 {}, p99 {}, longest {}; an election timeout of {} ms follows",
        ms(median),
        ms(high),
        ms(longest),
        timeout.as_millis()
    );
    if timeout > TIMEOUT_LONG || longest > Duration::from_secs(2) {
        let advice = "use a faster card or disk (an industrial card, an SSD), and keep other writers off it";
        return look("sync", format!("{what}: the disk is slow"), advice);
    }
    ok("sync", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syncs_of_a_directory_are_measured_and_nothing_is_left_there() {
        let dir = tempfile::tempdir().unwrap();
        let times = within(PATIENCE, dir.path().to_owned()).unwrap();
        assert_eq!(times.len(), SYNCS);
        assert!(times.is_sorted() && times[0] > Duration::ZERO);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let error = within(PATIENCE, dir.path().join("none")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
