//! What the two ends of a join say to each other: CBOR, at most 16 KiB a frame. Members that a later release adds are
//! passed over.

use std::fmt;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::identity::{MemberRecord, SiteId};

/// The longest frame, in bytes.
pub const FRAME_BYTES_MAX: usize = 16 * 1024;
/// The version of the exchange that this release speaks.
pub const PROTOCOL: u32 = 1;
/// A signature of Ed25519.
pub const SIGNATURE_BYTES: usize = 64;

/// So many bytes, as a string of bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fixed<const N: usize>(pub [u8; N]);

impl<const N: usize> fmt::Debug for Fixed<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fixed<{N}>")
    }
}

impl<const N: usize> Serialize for Fixed<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Fixed<N> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Bytes<const N: usize>;
        impl<const N: usize> Visitor<'_> for Bytes<N> {
            type Value = Fixed<N>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Fixed<N>, E> {
                bytes.try_into().map(Fixed).map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }
        from.deserialize_bytes(Bytes)
    }
}

/// What the joiner says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromJoiner {
    /// First: by which token, under which key.
    Hello(Hello),
    /// Then, once the site has proved itself: as whom.
    Ask(Ask),
}

/// What the joiner says first. It tells no more than the name of a token and a public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The first and the last version of the exchange that it speaks.
    pub protocols: (u32, u32),
    /// The highest feature level that it can apply.
    pub level: u32,
    /// The token's name.
    pub token: Fixed<8>,
    /// Its public key, Ed25519.
    pub key: Fixed<32>,
}

/// What the joiner asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// What it is to be called.
    pub name: String,
    /// HOST:PORT where the others reach it; absent: from where it dials.
    pub address: Option<String>,
    /// By the token's key.
    pub holds_token: Fixed<SIGNATURE_BYTES>,
    /// By its own key.
    pub holds_key: Fixed<SIGNATURE_BYTES>,
}

/// What the box of the site says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FromSite {
    /// It holds the token, too.
    Site(SiteHello),
    /// The joiner is a member.
    Welcome(Welcome),
    /// It is not, and nothing was changed, but for [`Reason::Unknown`].
    Refused(Refused),
}

/// What the box of the site says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteHello {
    /// By the token's site key.
    pub proof: Fixed<32>,
    /// The site's name.
    pub site: String,
    /// Its random identity.
    pub site_id: SiteId,
    /// The feature level in force.
    pub level: u32,
    /// The release of this box.
    pub release: String,
    /// Whom the joiner replaces, if the token says so: it gets that name.
    pub name: Option<String>,
}

/// What a new member needs to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Its number.
    pub number: u64,
    /// The number of the member in whose place it is.
    pub replaces: Option<u64>,
    /// All members, itself included, as of the entry that made it one.
    pub members: Vec<MemberRecord>,
    /// The base span of windows that the site was founded with, in milliseconds.
    pub window_ms: u64,
    /// The feature level that it was founded with.
    pub level: u32,
}

/// Why the joiner is not a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// For programs.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

/// Why a joiner is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The site does not know the token: ended, used up, revoked, or another site's.
    UnknownToken,
    /// The proof does not fit.
    BadProof,
    /// The box cannot reach the joiner.
    NotReached,
    /// A name, an address, a key is taken, or the site is full.
    Taken,
    /// The two releases are too far apart.
    Release,
    /// The site cannot decide now; nothing was changed.
    NotNow,
    /// Nobody knows whether the joiner is a member.
    Unknown,
    /// What was said cannot be read.
    Malformed,
    /// What a later release says.
    #[serde(other)]
    Other,
}

/// As the bytes of a frame.
#[must_use]
pub fn encode(frame: &impl Serialize) -> Vec<u8> {
    serde_cbor::to_vec(frame).expect("frames are made of texts, numbers and lists")
}

/// Reads a frame.
///
/// # Errors
/// It is too long, or is not such a frame.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    if bytes.len() > FRAME_BYTES_MAX {
        return Err(format!("a frame of {} bytes", bytes.len()));
    }
    serde_cbor::from_slice(bytes).map_err(|error| error.to_string())
}
