//! The identity of this box and of the other members. `provision` makes it (or the first start of a site of
//! one box), and the data directory keeps it.

mod authority;
mod files;
mod keys;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tally_core::id::NodeId;

pub(crate) use authority::server_name;
pub use authority::{Authority, Issued};
pub use files::{CA_CERTIFICATE, CA_KEY, IDENTITY, NODE_CERTIFICATE, NODE_KEY};
pub(crate) use files::{check_address, create_directory, write_file};
pub use keys::{Keys, key_hash};

use crate::permissions;
use crate::random::NoRandom;
use crate::site::{Level, NAME_BYTES_MAX};
pub use crate::site::{MEMBERS_MAX, MemberRecord};

/// A site's random identity, made when it is founded; 16 hexadecimal digits in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SiteId(pub u64);

impl std::fmt::Display for SiteId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl From<SiteId> for String {
    fn from(id: SiteId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for SiteId {
    type Error = String;
    fn try_from(text: String) -> Result<Self, String> {
        if text.len() != 16 {
            return Err(format!("a site id is 16 hexadecimal digits, not {text:?}"));
        }
        u64::from_str_radix(&text, 16)
            .map(SiteId)
            .map_err(|_| format!("a site id is 16 hexadecimal digits, not {text:?}"))
    }
}

/// The file `identity.json` of a data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The site's name, 1 to 32 of `a-z 0-9 -`.
    pub site: String,
    /// The site's random identity.
    pub site_id: SiteId,
    /// This box's number.
    pub node: u64,
    /// The base span of windows that the site is founded with, in milliseconds.
    pub window_ms: u64,
    /// The feature level that the site is founded with; files of the first release lack it and mean 1.
    #[serde(default = "first_level", skip_serializing_if = "is_first_level")]
    pub level: u32,
    /// All boxes of the site, this one included, by number.
    pub members: Vec<MemberRecord>,
}

/// The level that files of the first release mean.
pub(crate) const fn first_level() -> u32 {
    Level::ONE.get()
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) const fn is_first_level(level: &u32) -> bool {
    *level == Level::ONE.get()
}

impl Identity {
    /// This box's number, as the core's id.
    pub fn node_id(&self) -> NodeId {
        NodeId(self.node)
    }

    /// This box among the members.
    ///
    /// # Panics
    /// Never for an identity that was loaded: loading checks that the box is a member.
    pub fn me(&self) -> &MemberRecord {
        self.member(self.node_id()).expect("a loaded identity names its own box among the members")
    }

    /// The member of that number.
    pub fn member(&self, id: NodeId) -> Option<&MemberRecord> {
        self.members.iter().find(|member| member.id == id)
    }
}

/// Whether a text can name a site, a box or a source: 1 to 32 of `a-z 0-9 -`.
pub fn is_name(text: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// Why the identity's files cannot be used. Each text names the file, what is wrong with
/// it and what to do.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file operation failed.
    #[error("cannot {doing} {}: {source}; {remedy}{}", path.display(), permissions::advice(source, path))]
    Io {
        /// The operation: "read", "write".
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
        /// What to do.
        remedy: &'static str,
    },
    /// The file exists and its content is wrong.
    #[error("{}: {what}; {remedy}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Keys or certificates could not be made.
    #[error("cannot make keys: {0}")]
    Crypto(String),
}

impl From<NoRandom> for IdentityError {
    fn from(_: NoRandom) -> IdentityError {
        IdentityError::Crypto("the system's random number generator failed".into())
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
