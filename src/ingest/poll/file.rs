//! Reading a polled file: bounded, on a thread that may hang with the file's disk.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::config::{IncarnationFile, Poll};
use super::{PollError, Reading};
use crate::request::incarnation_hash;

/// Most of a file that is read.
pub(super) const FILE_BYTES_MAX: usize = 1 << 20;
/// Most of a file that names an incarnation.
const INCARNATION_BYTES_MAX: usize = 256;

/// What the file says, and the incarnation of its counter (0: not known).
pub(super) fn read(poll: &Poll) -> Result<(Reading, u64), PollError> {
    let incarnation = poll.incarnation.as_ref().map_or(Ok(0), incarnation)?;
    let (text, is_whole) = read_bounded(&poll.file, FILE_BYTES_MAX)?;
    Ok((poll.read(&text, is_whole)?, incarnation))
}

/// A hash of what the file says, never 0.
fn incarnation(file: &IncarnationFile) -> Result<u64, PollError> {
    let (text, _) = match read_bounded(&file.path, INCARNATION_BYTES_MAX) {
        Ok(read) => read,
        // Not every system tells it.
        Err(_) if !file.is_configured => return Ok(0),
        Err(error) => return Err(PollError::Incarnation(file.path.clone(), error)),
    };
    Ok(incarnation_hash(text.trim_ascii()))
}

/// The file's beginning and whether it is all: if not, in whole lines, since a number cut in two would be another
/// number.
pub(super) fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<(Vec<u8>, bool)> {
    // Even to open it disturbs whoever writes to it.
    if std::fs::metadata(path)?.file_type().is_fifo() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the file is a pipe, which cannot be read again; let its writer write a file",
        ));
    }
    // Should it have become one meanwhile: opening a pipe that nobody writes to would wait for ever.
    let flags = rustix::fs::OFlags::NONBLOCK.bits();
    let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(path)?;
    let mut text = Vec::new();
    file.take(bytes_max as u64 + 1).read_to_end(&mut text)?;
    if text.len() <= bytes_max {
        return Ok((text, true));
    }
    let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    text.truncate(end.min(bytes_max));
    Ok((text, false))
}
