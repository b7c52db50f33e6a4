//! Whom to connect to, as whom, and whom to trust: what a section of the configuration says, checked.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;

use super::tls;
use super::url::BrokerUrl;
use crate::secret::Secret;

/// What a section of the configuration says of a broker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    /// The section's name, as `upstream`: errors name its keys.
    pub(crate) section: &'static str,
    /// The broker.
    pub(crate) url: &'a BrokerUrl,
    /// A file whose first line is the password, if the URL has none.
    pub(crate) password_file: Option<&'a Path>,
    /// The name under which systemd hands over the password, if neither has one.
    pub(crate) credential: &'a str,
    /// The authorities (PEM) that may vouch for an `mqtts://` broker. Absent: the system's.
    pub(crate) ca_file: Option<&'a Path>,
}

/// Whom to connect to, as whom.
#[derive(Clone, Debug)]
pub(crate) struct BrokerTarget {
    /// The section of the configuration that all this is from: errors name its keys.
    pub(super) section: &'static str,
    /// The broker.
    pub(crate) url: BrokerUrl,
    /// The password, from wherever it came.
    pub(super) password: Option<Secret>,
    /// For `mqtts://`.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// By what name the broker keeps the session.
    pub(super) client_id: String,
}

/// Why there can be no connection. Mended by the configuration, not by waiting.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file that the configuration names cannot be read.
    #[error("cannot read {file}: {error}; check the path and its permissions")]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The password file is no password.
    #[error("{file} is not a password: {what}")]
    NotAPassword {
        /// Which file.
        file: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A password without a user.
    #[error("{section}.url has no user, but there is a password; write it as mqtts://USER@HOST")]
    PasswordWithoutUser {
        /// The section of the configuration.
        section: &'static str,
    },
    /// No authority to check the broker's certificate by.
    #[error(
        "no certificate authorities found in {looked_in}; set {section}.ca_file to a PEM file, or install \
         the package ca-certificates"
    )]
    NoAuthorities {
        /// The section of the configuration.
        section: &'static str,
        /// The places tried.
        looked_in: String,
    },
    /// The authorities do not make a TLS configuration.
    #[error("{section} TLS: {what}")]
    Tls {
        /// The section of the configuration.
        section: &'static str,
        /// What TLS says.
        what: String,
    },
}

impl Access<'_> {
    /// Reads the files that are named. The session at the broker has the name `client_id`.
    ///
    /// # Errors
    /// What the configuration gets wrong: unreadable files, a password without a user, no authorities.
    pub(crate) fn open(&self, client_id: String) -> Result<BrokerTarget, AccessError> {
        let section = self.section;
        let password = self.password()?;
        if password.is_some() && self.url.user.is_none() {
            return Err(AccessError::PasswordWithoutUser { section });
        }
        let tls = self.url.tls.then(|| tls::client_config(section, self.ca_file)).transpose()?;
        Ok(BrokerTarget { section, url: self.url.clone(), password, tls, client_id })
    }

    /// The password to show the broker: the URL's, else the file's, else systemd's credential, if any.
    fn password(&self) -> Result<Option<Secret>, AccessError> {
        if self.url.password.is_some() {
            return Ok(self.url.password.clone());
        }
        if let Some(file) = self.password_file {
            return read_password(file).map(Some);
        }
        let Some(directory) = crate::environment::value("CREDENTIALS_DIRECTORY") else { return Ok(None) };
        let file = Path::new(&directory).join(self.credential);
        if file.exists() { read_password(&file).map(Some) } else { Ok(None) }
    }
}

/// The longest user name or password, in bytes.
pub(super) const SECRET_BYTES_MAX: usize = 4096;

/// The first line of a file.
fn read_password(file: &Path) -> Result<Secret, AccessError> {
    let secret =
        Secret::first_line(file).map_err(|error| AccessError::Unreadable { file: file.to_owned(), error })?;
    let wrong = |what| Err(AccessError::NotAPassword { file: file.to_owned(), what });
    match secret.reveal().len() {
        0 => wrong("the first line is empty"),
        length if length > SECRET_BYTES_MAX => wrong("the first line is longer than 4096 bytes"),
        _ => Ok(secret),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_gives_its_first_line() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        let password = |url: &str| {
            let url = url.parse().unwrap();
            let access = Access {
                section: "upstream",
                url: &url,
                password_file: Some(&file),
                credential: "none",
                ca_file: None,
            };
            access.password().map(|password| password.unwrap().reveal().to_owned())
        };
        assert!(matches!(password("mqtt://me@broker"), Err(AccessError::Unreadable { .. })));
        std::fs::write(&file, "\nx\n").unwrap();
        assert!(matches!(password("mqtt://me@broker"), Err(AccessError::NotAPassword { .. })));
        std::fs::write(&file, "hush hush\n").unwrap();
        assert_eq!(password("mqtt://me@broker").unwrap(), "hush hush");
        assert_eq!(password("mqtt://me:mine@broker").unwrap(), "mine");
    }

    #[test]
    fn a_password_needs_a_user_and_the_error_names_the_key() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("password");
        std::fs::write(&file, "hush").unwrap();
        let url = "mqtt://broker".parse().unwrap();
        let access = Access {
            section: "ingest.mqtt",
            url: &url,
            password_file: Some(&file),
            credential: "none",
            ca_file: None,
        };
        let error = access.open("tallyd".to_owned()).unwrap_err().to_string();
        assert!(error.starts_with("ingest.mqtt.url has no user"), "{error}");
    }
}
