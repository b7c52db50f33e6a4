//! Secrets: tokens and passwords, where they come from, and that no text shows them.

use std::fmt;
use std::io;
use std::path::Path;

/// A text that no log, status or error shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text, as it is.
    pub(crate) fn new(text: impl Into<String>) -> Secret {
        Secret(text.into())
    }

    /// The text itself.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// The first line of a file; empty where the file is.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn first_line(file: &Path) -> io::Result<Secret> {
        let text = crate::outside::read_to_string(file)?;
        Ok(Secret(text.lines().next().unwrap_or_default().to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_the_first_line_of_its_file_and_no_text_shows_it() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        for (text, line) in [("hush hush \r\nmore\n", "hush hush "), ("hush", "hush"), ("", ""), ("\nx", "")]
        {
            std::fs::write(&file, text).unwrap();
            let secret = Secret::first_line(&file).unwrap();
            assert_eq!(secret.reveal(), line, "{text:?}");
            assert_eq!(format!("{secret:?}"), "***");
        }
        assert!(Secret::first_line(&directory.path().join("none")).is_err());
    }
}
