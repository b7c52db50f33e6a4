//! A broker's password, kept out of every text.

use std::fmt;
use std::path::Path;

use super::target::AccessError;

/// The longest user name or password, in bytes.
pub(super) const SECRET_BYTES_MAX: usize = 4096;

/// A text that no log, status or error shows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Secret {
        Secret(text)
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }

    /// The first line of a file.
    pub(super) fn read(file: &Path) -> Result<Secret, AccessError> {
        let text = crate::outside::read_to_string(file)
            .map_err(|error| AccessError::Unreadable { file: file.to_owned(), error })?;
        let line = text.lines().next().unwrap_or_default();
        let wrong = |what| Err(AccessError::NotAPassword { file: file.to_owned(), what });
        match line.len() {
            0 => wrong("its first line is empty"),
            length if length > SECRET_BYTES_MAX => wrong("its first line is longer than 4096 bytes"),
            _ => Ok(Secret(line.to_owned())),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
