//! A backup: the applied state of a site in one file, with a head that says of what, and a checksum.
//!
//! `TALLYBAK`, version u32, length of the head u32, the head (JSON), the state (a snapshot of the site), SHA-256 of all
//! of that. Integers are little-endian.

use serde::{Deserialize, Serialize};
use tally_core::window::Span;

use crate::codec::{Malformed, Reader};
use crate::identity::SiteId;
use crate::site::{BootstrapSettings, Level, Site, SnapshotError};

const MAGIC: [u8; 8] = *b"TALLYBAK";
/// The newest format that this release reads, and the one that it writes.
const VERSION: u32 = 1;
const CHECKSUM_BYTES: usize = 32;
/// The longest head.
const HEAD_BYTES_MAX: usize = 4096;

/// The longest backup that is read, in bytes: far beyond what the bounds of a site let it become.
pub const BACKUP_BYTES_MAX: u64 = 1 << 30;

/// What a backup says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHead {
    /// The site's name.
    pub site: String,
    /// Its random identity.
    pub site_id: SiteId,
    /// The box that made the backup.
    pub node: String,
    /// The release that did.
    pub release: String,
    /// The span of windows that the site was founded with, in milliseconds.
    pub window_ms: u64,
    /// The site's feature level.
    pub level: u32,
    /// The last entry that is in it.
    pub applied: u64,
    /// Site time of that entry, Unix milliseconds.
    pub time: u64,
    /// How many series there are.
    pub series: u64,
    /// Bytes of the state.
    pub bytes: u64,
}

/// A backup, read and checked.
#[derive(Debug)]
pub struct Backup {
    /// What it says of itself.
    pub head: BackupHead,
    /// The site as it was.
    pub site: Site,
}

/// Why bytes are no backup that can be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something else.
    #[error("this is no backup of tallyd: a backup begins with {:?}", "TALLYBAK")]
    Foreign,
    /// A later release wrote it.
    #[error("the backup has format {0}, and this release reads formats up to {VERSION}: use a newer release")]
    Newer(u32),
    /// It ends early, or goes on.
    #[error(
        "the backup is cut, or something was appended: it has {has} bytes, and its head says {says}; copy it again"
    )]
    Length {
        /// Its bytes.
        has: u64,
        /// What they should be.
        says: u64,
    },
    /// Its head cannot be read.
    #[error("the head of the backup is damaged; use another copy")]
    Head,
    /// A byte of it changed.
    #[error("the backup is damaged: its checksum does not match; use another copy")]
    Checksum,
    /// The state cannot be read.
    #[error("the state in the backup cannot be read: {0}")]
    State(#[from] SnapshotError),
}

/// Writes a backup of a site as it is here.
#[must_use]
pub fn write(site: &Site, name: &str, node: &str, window_ms: u64) -> Vec<u8> {
    let state = site.snapshot_without_tokens();
    let head = BackupHead {
        site: name.to_owned(),
        site_id: SiteId(site.id()),
        node: node.to_owned(),
        release: env!("CARGO_PKG_VERSION").to_owned(),
        window_ms,
        level: site.level().get(),
        applied: site.applied().0,
        time: site.stamp().site.0,
        series: site.series_len() as u64,
        bytes: state.len() as u64,
    };
    let head = serde_json::to_vec(&head).expect("a head has only texts and numbers");
    let mut out = Vec::with_capacity(state.len() + head.len() + 64);
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&(head.len() as u32).to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(&state);
    let checksum = checksum(&out);
    out.extend_from_slice(checksum.as_ref());
    out
}

impl Backup {
    /// Reads and checks a backup, all of it.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(bytes: &[u8]) -> Result<Backup, BackupError> {
        let (head, state) = check(bytes)?;
        let founding = BootstrapSettings {
            site: head.site.clone(),
            site_id: head.site_id.0,
            base_span: Span::from_millis(head.window_ms).ok_or(BackupError::Head)?,
            level: Level::new(head.level).ok_or(BackupError::Head)?,
        };
        let site = Site::restore(&founding, state)?;
        Ok(Backup { head, site })
    }
}

/// Checks a backup but for its state; its head and its state.
///
/// # Errors
/// Why it is none, or not whole.
pub fn check(bytes: &[u8]) -> Result<(BackupHead, &[u8]), BackupError> {
    let head_error = |_: Malformed| BackupError::Head;
    let mut reader = Reader::new(bytes);
    if reader.array::<8>().ok() != Some(MAGIC) {
        return Err(BackupError::Foreign);
    }
    let version = reader.u32().map_err(head_error)?;
    if version == 0 || version > VERSION {
        return Err(BackupError::Newer(version));
    }
    let length = reader.u32().map_err(head_error)? as usize;
    if length > HEAD_BYTES_MAX {
        return Err(BackupError::Head);
    }
    let head = reader.take(length).map_err(head_error)?;
    let head: BackupHead = serde_json::from_slice(head).map_err(|_| BackupError::Head)?;
    let rest = reader.rest();
    let before = (bytes.len() - rest.len()) as u64;
    let says = before.saturating_add(head.bytes).saturating_add(CHECKSUM_BYTES as u64);
    if bytes.len() as u64 != says {
        return Err(BackupError::Length { has: bytes.len() as u64, says });
    }
    let (content, sum) = bytes.split_at(bytes.len() - CHECKSUM_BYTES);
    if checksum(content).as_ref() != sum {
        return Err(BackupError::Checksum);
    }
    Ok((head, &rest[..rest.len() - CHECKSUM_BYTES]))
}

fn checksum(bytes: &[u8]) -> ring::digest::Digest {
    ring::digest::digest(&ring::digest::SHA256, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backup() -> Vec<u8> {
        let founding = BootstrapSettings {
            site: "plant7".to_owned(),
            site_id: 7,
            base_span: Span::DEFAULT,
            level: Level::MAX,
        };
        write(&Site::new(&founding), "plant7", "box1", Span::DEFAULT.as_millis())
    }

    #[test]
    fn a_backup_comes_back_and_anything_else_is_refused_by_what_is_wrong() {
        let whole = backup();
        let read = Backup::read(&whole).unwrap();
        assert_eq!((&*read.head.site, read.head.site_id, read.site.id()), ("plant7", SiteId(7), 7));
        let told = |bytes: &[u8]| Backup::read(bytes).unwrap_err().to_string();
        assert!(told(b"").contains("no backup") && told(b"{}").contains("no backup"));
        for cut in 8..whole.len() {
            let why = told(&whole[..cut]);
            assert!(why.contains("cut") || why.contains("head"), "{cut}: {why}");
        }
        let newer = [&whole[..8], &2u32.to_le_bytes(), &whole[12..]].concat();
        assert!(told(&newer).contains("use a newer release"));
        assert!(told(&[&whole[..], b"x"].concat()).contains("appended"));
        for byte in 16..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 1;
            assert!(Backup::read(&damaged).is_err(), "byte {byte}");
        }
    }
}
