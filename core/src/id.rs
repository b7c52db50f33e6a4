//! Names of things, each its own type, so that a term cannot be passed where an index is meant.

use core::fmt;
use core::num::NonZeroU64;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(
    /// A member of the Raft group (a box or a witness); unique in a site, never reused.
    #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
    NodeId
);
number!(
    /// A term of Raft: at most one leader each. The first election makes it 1.
    Term
);
number!(
    /// A span within a term with one replication set; every entry carries it (see consensus.md).
    Subterm
);
number!(
    /// A position in the replicated log. The first entry has index 1; 0 is "before the first".
    LogIndex
);
number!(
    /// Whatever counts: a box, a device, a program. Unique in a site.
    SourceId
);
number!(
    /// One incarnation of a source's memory; random, never reused, without order among epochs.
    Epoch
);

impl LogIndex {
    /// Before the first entry.
    pub const ZERO: LogIndex = LogIndex(0);

    /// The index after this one. Wraps: a log of 2^64 entries cannot be written.
    #[must_use]
    pub const fn next(self) -> LogIndex {
        LogIndex(self.0.wrapping_add(1))
    }

    /// The index before this one, or zero.
    #[must_use]
    pub const fn prev(self) -> LogIndex {
        LogIndex(self.0.saturating_sub(1))
    }
}

impl Term {
    /// The term after this one.
    #[must_use]
    pub const fn next(self) -> Term {
        Term(self.0.saturating_add(1))
    }
}

/// The number of a report within its epoch: 1, 2, 3 and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportNumber(NonZeroU64);

impl ReportNumber {
    /// The first report of an epoch.
    pub const FIRST: ReportNumber = ReportNumber(NonZeroU64::MIN);

    /// `None` for zero, which numbers nothing.
    #[must_use]
    pub const fn new(number: u64) -> Option<ReportNumber> {
        match NonZeroU64::new(number) {
            Some(number) => Some(ReportNumber(number)),
            None => None,
        }
    }

    /// As a plain integer, 1 or more.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The number after this one.
    #[must_use]
    pub const fn next(self) -> ReportNumber {
        ReportNumber(self.0.saturating_add(1))
    }
}

impl fmt::Display for ReportNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// SHA-256 of the public key (SubjectPublicKeyInfo) in a member's certificate: it decides who is who. In text, 64
/// hexadecimal digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyHash(pub [u8; 32]);

impl KeyHash {
    /// Reads 64 hexadecimal digits; `None` for anything else.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<KeyHash> {
        let digits = text.as_bytes();
        let mut hash = [0; 32];
        if digits.len() != 2 * hash.len() {
            return None;
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Some(KeyHash(hash))
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for KeyHash {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for KeyHash {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<KeyHash, D::Error> {
        struct Digits;
        impl serde::de::Visitor<'_> for Digits {
            type Value = KeyHash;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key as 64 hexadecimal digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<KeyHash, E> {
                KeyHash::from_hex(text)
                    .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}

/// The longest name of a series, in bytes of UTF-8. A site at feature level 1 takes no more than
/// [`SERIES_NAME_BYTES_FIRST_MAX`].
pub const SERIES_NAME_BYTES_MAX: usize = 200;

/// The longest name of a series in a site at feature level 1.
pub const SERIES_NAME_BYTES_FIRST_MAX: usize = 96;

/// The name of a series, checked: 1 to 200 bytes of UTF-8, segments divided by `/`, none empty, without `+`, `#`, NUL
/// and control characters (so that it can stand in an MQTT topic). A new one has no Unicode noncharacters either,
/// which some brokers refuse; those that logs hold already are read by [`SeriesName::stored`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeriesName<'a>(&'a str);

/// Why a text is not the name of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeriesNameError {
    /// No bytes at all.
    Empty,
    /// More than [`SERIES_NAME_BYTES_MAX`] bytes; how many there were.
    TooLong(usize),
    /// A segment between slashes is empty.
    EmptySegment,
    /// A character that MQTT gives a meaning, a control character or a noncharacter.
    Forbidden(char),
    /// Not UTF-8.
    NotUtf8,
}

/// Whether Unicode says that this is no character, nor ever will be: U+FDD0 to U+FDEF, and the last two of each plane.
#[must_use]
pub const fn is_noncharacter(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || c as u32 & 0xfffe == 0xfffe
}

impl<'a> SeriesName<'a> {
    /// Checks a text from outside.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn new(text: &'a str) -> Result<Self, SeriesNameError> {
        let name = SeriesName::stored(text)?;
        match text.chars().find(|c| is_noncharacter(*c)) {
            Some(bad) => Err(SeriesNameError::Forbidden(bad)),
            None => Ok(name),
        }
    }

    /// Checks a text that a log or a snapshot holds: before noncharacters were refused, names with them were taken.
    ///
    /// # Errors
    /// Which rule it breaks.
    pub fn stored(text: &'a str) -> Result<Self, SeriesNameError> {
        if text.is_empty() {
            return Err(SeriesNameError::Empty);
        }
        if text.len() > SERIES_NAME_BYTES_MAX {
            return Err(SeriesNameError::TooLong(text.len()));
        }
        if let Some(bad) = text.chars().find(|c| matches!(c, '+' | '#') || c.is_control()) {
            return Err(SeriesNameError::Forbidden(bad));
        }
        if text.split('/').any(str::is_empty) {
            return Err(SeriesNameError::EmptySegment);
        }
        Ok(SeriesName(text))
    }

    /// Checks bytes from outside: see [`SeriesName::new`].
    ///
    /// # Errors
    /// Which rule they break.
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, SeriesNameError> {
        core::str::from_utf8(bytes).map_err(|_| SeriesNameError::NotUtf8).and_then(SeriesName::new)
    }

    /// Checks bytes that a log or a snapshot holds: see [`SeriesName::stored`].
    ///
    /// # Errors
    /// Which rule they break.
    pub fn stored_bytes(bytes: &'a [u8]) -> Result<Self, SeriesNameError> {
        core::str::from_utf8(bytes).map_err(|_| SeriesNameError::NotUtf8).and_then(SeriesName::stored)
    }

    /// The text.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for SeriesName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for SeriesNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SeriesNameError::Empty => f.write_str("a series name has at least one byte"),
            SeriesNameError::TooLong(bytes) => {
                write!(f, "a series name has at most {SERIES_NAME_BYTES_MAX} bytes, this one has {bytes}")
            }
            SeriesNameError::EmptySegment => {
                f.write_str("a series name has no empty segment: no slash at either end, no two in a row")
            }
            SeriesNameError::Forbidden(c) => {
                let code = u32::from(*c);
                write!(
                    f,
                    "a series name has no '+', '#', control characters or Unicode noncharacters, this one has {c:?} \
                     (U+{code:04X})"
                )
            }
            SeriesNameError::NotUtf8 => f.write_str("a series name is UTF-8"),
        }
    }
}

impl core::error::Error for SeriesNameError {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::{String, ToString};

    #[test]
    fn names_that_mqtt_could_not_carry_are_refused() {
        for (text, error) in [
            ("", SeriesNameError::Empty),
            ("a//b", SeriesNameError::EmptySegment),
            ("/a", SeriesNameError::EmptySegment),
            ("a/", SeriesNameError::EmptySegment),
            ("a+b", SeriesNameError::Forbidden('+')),
            ("a/#", SeriesNameError::Forbidden('#')),
            ("a\0", SeriesNameError::Forbidden('\0')),
            ("a\n", SeriesNameError::Forbidden('\n')),
            ("a\u{85}", SeriesNameError::Forbidden('\u{85}')),
        ] {
            assert_eq!(SeriesName::new(text), Err(error), "{text:?}");
        }
        assert_eq!(SeriesName::from_bytes(b"\xff"), Err(SeriesNameError::NotUtf8));
    }

    #[test]
    fn a_new_name_has_no_noncharacters_and_one_that_is_stored_may() {
        let ends = (0..=16).flat_map(|plane: u32| [plane << 16 | 0xfffe, plane << 16 | 0xffff]);
        for code in ends.chain(0xfdd0..=0xfdef) {
            let bad = char::from_u32(code).unwrap();
            let name: String = ['t', bad, 'p'].into_iter().collect();
            assert_eq!(SeriesName::new(&name), Err(SeriesNameError::Forbidden(bad)), "{code:x}");
            assert_eq!(SeriesName::from_bytes(name.as_bytes()), Err(SeriesNameError::Forbidden(bad)));
            assert_eq!(SeriesName::stored(&name).unwrap().as_str(), name);
            assert!(SeriesName::stored_bytes(name.as_bytes()).is_ok());
        }
        for neighbour in ['\u{fdcf}', '\u{fdf0}', '\u{fffd}', '\u{10000}', '\u{1fffd}'] {
            assert!(SeriesName::new(&String::from(neighbour)).is_ok(), "{neighbour:?}");
        }
        assert_eq!(SeriesName::stored("a+"), Err(SeriesNameError::Forbidden('+')));
    }

    #[test]
    fn a_key_hash_is_64_hexadecimal_digits() {
        let text: String =
            (0..32).flat_map(|byte: u32| [char::from_digit(byte / 16, 16).unwrap(), 'c']).collect();
        let hash = KeyHash::from_hex(&text).unwrap();
        assert_eq!(hash.to_string(), text);
        assert_eq!((hash.0[0], hash.0[31]), (0x0c, 0x1c));
        assert_eq!(KeyHash::from_hex(&text.to_uppercase()), Some(hash));
        for wrong in [&text[1..], &text.replace('c', "g"), &text.replace('c', "ä"), "", "+c"] {
            assert_eq!(KeyHash::from_hex(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_name_has_at_most_200_bytes() {
        let name: String = core::iter::repeat_n('x', 201).collect();
        assert_eq!(SeriesName::new(&name), Err(SeriesNameError::TooLong(201)));
        assert!(SeriesName::new(&name[..200]).is_ok());
        assert!(SeriesName::new("línea 1/prensa/ç").is_ok());
    }
}
