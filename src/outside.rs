//! Files outside the data directory: configuration, secrets, certificates. One may lie on a disk that hangs, or be a
//! pipe without a writer; reading is bounded in time and memory.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// The largest file that is read, in bytes.
const BYTES_MAX: u64 = 4 << 20;
/// How long reading one may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Reads a file.
///
/// # Errors
/// The system's error, a timeout, or a file that is too large.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    read_within(path, PATIENCE)
}

/// All of a file that is text.
///
/// # Errors
/// As [`read`]; that it is not UTF-8.
pub fn read_to_string(path: &Path) -> io::Result<String> {
    String::from_utf8(read(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the file is not UTF-8 text"))
}

/// Runs on a thread of its own: a blocking read cannot be cancelled, and nothing else waits for that thread.
fn read_within(path: &Path, patience: Duration) -> io::Result<Vec<u8>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let path: PathBuf = path.to_owned();
    std::thread::Builder::new().name("file".to_owned()).stack_size(128 << 10).spawn(move || {
        // Whoever asked may have given up.
        let _ = sender.send(read_here(&path));
    })?;
    receiver.recv_timeout(patience).unwrap_or_else(|_| {
        let why = format!(
            "reading the file took longer than {} s (does the disk hang, or is the file a pipe without a \
             writer?)",
            patience.as_secs()
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, why))
    })
}

fn read_here(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("the file has more than {BYTES_MAX} bytes"),
        ));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    #[test]
    fn a_pipe_that_nobody_writes_to_is_given_up_and_one_that_is_written_to_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let error = read_within(&pipe, Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let second = directory.path().join("second");
        mknodat(CWD, &second, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        let path = second.clone();
        let writer = std::thread::spawn(move || std::fs::write(path, "said").unwrap());
        assert_eq!(read(&second).unwrap(), b"said");
        writer.join().unwrap();
    }

    #[test]
    fn a_file_without_an_end_does_not_fill_the_memory() {
        assert_eq!(read(Path::new("/dev/zero")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
