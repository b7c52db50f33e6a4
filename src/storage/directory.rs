//! The data directory itself: a lock for one process at a time, and the check of its format.

use std::io;
use std::path::{Path, PathBuf};

use super::fs::{FileSystem, StoredFile};
use super::{FORMAT_VERSION, OpenError};

const FORMAT_TEXT: &str = "tallyd data ";
/// The format until there is a log.
const UNFINISHED: &str = "format.tmp";

/// Makes the directory if need be and takes its lock. The lock is held until the file is closed.
pub(super) fn lock<F: FileSystem>(fs: &F, dir: &Path) -> Result<F::File, OpenError> {
    fs.create_dir_all(dir).map_err(|source| OpenError::from_io(dir, source))?;
    let path = dir.join("lock");
    let error = |source| OpenError::from_io(&path, source);
    let file = fs.open_or_create(&path).map_err(error)?;
    if !file.try_lock().map_err(error)? {
        let pid = read_text(&file).ok().and_then(|text| text.trim().parse().ok());
        return Err(OpenError::Locked { dir: dir.to_path_buf(), pid });
    }
    // Only for the message of the next one that wants the lock; a full disk must not prevent a start.
    let text = format!("{}\n", std::process::id());
    let _ = file.set_size(0).and_then(|()| file.write_at(0, text.as_bytes()));
    Ok(file)
}

/// The directories of the log and of the snapshots.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) log_dir: PathBuf,
    pub(super) snapshot_dir: PathBuf,
    /// There is no log yet, or one that nothing was written to: [`finish`] is to be called.
    pub(super) founding: bool,
}

/// Checks the format, or begins to write it into a directory without data.
pub(super) fn prepare<F: FileSystem>(fs: &F, dir: &Path) -> Result<Prepared, OpenError> {
    let (log_dir, snapshot_dir) = (dir.join("log"), dir.join("snapshots"));
    let format = dir.join("format");
    let mut founding = false;
    match fs.open(&format) {
        Ok(file) => check_format(&file, &format, dir)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            founding = true;
            let begun = fs.open(&dir.join(UNFINISHED)).is_ok();
            if !begun && fs.list(&log_dir).is_ok_and(|names| !names.is_empty()) {
                return Err(OpenError::Damaged {
                    file: format,
                    offset: 0,
                    certain: "the file is gone, but there is a log.".to_string(),
                    advice: format!(
                        "Nothing was changed. If this data was written by this version, put the line \
                         '{FORMAT_TEXT}{FORMAT_VERSION}' into it."
                    ),
                });
            }
            for made in [&log_dir, &snapshot_dir] {
                fs.create_dir_all(made).map_err(|source| OpenError::from_io(made, source))?;
            }
            write_format(fs, dir).map_err(|source| OpenError::from_io(&format, source))?;
        }
        Err(source) => return Err(OpenError::from_io(&format, source)),
    }
    Ok(Prepared { log_dir, snapshot_dir, founding })
}

/// There is a log: from now on a directory without one has lost it.
pub(super) fn finish<F: FileSystem>(fs: &F, dir: &Path) -> Result<(), OpenError> {
    let format = dir.join("format");
    let error = |source| OpenError::from_io(&format, source);
    fs.rename(&dir.join(UNFINISHED), &format).map_err(error)?;
    fs.sync_dir(dir).map_err(error)
}

fn check_format<S: StoredFile>(file: &S, path: &Path, dir: &Path) -> Result<(), OpenError> {
    let text = read_text(file).map_err(|source| OpenError::from_io(path, source))?;
    match text.strip_prefix(FORMAT_TEXT).and_then(|number| number.trim_end().parse::<u64>().ok()) {
        Some(found) if found == u64::from(FORMAT_VERSION) => Ok(()),
        Some(found) if found > u64::from(FORMAT_VERSION) => {
            Err(OpenError::Newer { dir: dir.to_path_buf(), found, known: FORMAT_VERSION.into() })
        }
        _ => Err(OpenError::Damaged {
            file: path.to_path_buf(),
            offset: 0,
            certain: format!("this should read '{FORMAT_TEXT}{FORMAT_VERSION}'."),
            advice: "Nothing was changed. Is this tallyd's data directory?".to_string(),
        }),
    }
}

fn write_format<F: FileSystem>(fs: &F, dir: &Path) -> io::Result<()> {
    let file = fs.create(&dir.join(UNFINISHED))?;
    file.write_at(0, format!("{FORMAT_TEXT}{FORMAT_VERSION}\n").as_bytes())?;
    file.sync_data()?;
    fs.sync_dir(dir)?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        // The directory may have just been made. Its parent need not be readable for this user.
        let _ = fs.sync_dir(parent);
    }
    Ok(())
}

fn read_text<S: StoredFile>(file: &S) -> io::Result<String> {
    let mut bytes = [0; 64];
    let read = file.read_at(0, &mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes[..read]).into_owned())
}
