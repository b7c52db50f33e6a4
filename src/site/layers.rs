//! The three layers of an entry's bytes, one type each, so that none is taken for another: the body that a box encoded;
//! the entry, with a leader's stamp before the body; the envelope, with what it takes to route the outcome back.
//!
//! A body's bytes are copied once on their way into the log, where the leader writes tag, stamp and body in one piece.
//! Everything else refers to the same bytes.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};
use tally_core::time::{Elapsed, SiteTime};

use super::view::Stamp;
use crate::codec::{Malformed, Reader, put_varint};

/// Stamps are times of at most 48 bits: the year 10889.
pub(super) const STAMP_MAX: u64 = (1 << 48) - 1;
/// Two varints and a flag.
const STAMP_BYTES_MAX: usize = 10 + 10 + 1;

const PLAIN: u8 = 0;
const TAGGED: u8 = 1;
const TAG_BYTES_MAX: usize = 1 + 8;

/// What a box encoded (see [`entry`](super::entry)): one of the kinds of body. It says nothing of when or for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body(Bytes);

/// A body under the stamp of the leader that put it into the log, as it is applied. Empty: the first entry of a new
/// leader, which says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StampedEntry(Bytes);

/// A body on its way to the leader, or a stamped entry in the log, with the tag by which a box knows its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope<T> {
    /// A random number: who waits for the outcome, at the box that sent it.
    pub tag: Option<u64>,
    /// What it carries.
    pub inside: T,
}

impl StampedEntry {
    /// A body under a stamp, whose times have at most 48 bits.
    #[must_use]
    pub fn new(stamp: Stamp, body: &[u8]) -> StampedEntry {
        let mut out = Vec::with_capacity(STAMP_BYTES_MAX + body.len());
        put_stamp(&mut out, stamp);
        out.extend_from_slice(body);
        StampedEntry(out.into())
    }

    /// The stamp and the bytes of the body.
    ///
    /// # Errors
    /// [`Malformed`] if there is no stamp, as in the empty entry of a new leader, or if its times have more than 48 bits.
    pub fn split(&self) -> Result<(Stamp, &[u8]), Malformed> {
        let mut reader = Reader::new(&self.0);
        let site = SiteTime(reader.varint()?);
        let elapsed = Elapsed(reader.varint()?);
        let synced = reader.bool()?;
        if site.0 > STAMP_MAX || elapsed.0 > STAMP_MAX {
            return Err(Malformed);
        }
        Ok((Stamp { site, elapsed, synced }, reader.rest()))
    }
}

impl<T> Envelope<T> {
    /// Nobody waits for the outcome by a tag.
    pub const fn plain(inside: T) -> Envelope<T> {
        Envelope { tag: None, inside }
    }

    /// Somebody at the box that sends it waits under this tag.
    pub const fn tagged(tag: u64, inside: T) -> Envelope<T> {
        Envelope { tag: Some(tag), inside }
    }
}

impl<T: From<Bytes> + Deref<Target = [u8]>> Envelope<T> {
    /// Reads what [`encode`](Self::encode) or [`stamped`](Envelope::stamped) wrote, without a copy; `None` for anything
    /// else.
    #[must_use]
    pub fn read(bytes: &Bytes) -> Option<Envelope<T>> {
        let (tag, head) = match bytes.split_first()? {
            (&PLAIN, _) => (None, 1),
            (&TAGGED, rest) => (Some(u64::from_le_bytes(*rest.first_chunk()?)), TAG_BYTES_MAX),
            _ => return None,
        };
        Some(Envelope { tag, inside: bytes.slice(head..).into() })
    }

    /// Its bytes, as they travel and as the log has them.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(TAG_BYTES_MAX + self.inside.len());
        put_tag(&mut out, self.tag);
        out.put_slice(&self.inside);
        out.freeze()
    }
}

/// Nobody waits under this tag.
pub const NOBODY: u64 = 0;

impl Envelope<Body> {
    /// Nobody waits for this body: at the leader it may wait for others'. A leader of an earlier release takes it as it takes
    /// any other.
    pub const fn patient(inside: Body) -> Envelope<Body> {
        Envelope::tagged(NOBODY, inside)
    }

    /// Whether nobody waits for what is in it.
    pub fn is_patient(&self) -> bool {
        self.tag == Some(NOBODY)
    }

    /// The bytes of the envelope with this body under a leader's stamp: what goes into the log.
    #[must_use]
    pub fn stamped(&self, stamp: Stamp) -> Bytes {
        let mut out = Vec::with_capacity(TAG_BYTES_MAX + STAMP_BYTES_MAX + self.inside.len());
        put_tag(&mut out, self.tag);
        put_stamp(&mut out, stamp);
        out.extend_from_slice(&self.inside);
        out.into()
    }
}

fn put_tag(out: &mut impl BufMut, tag: Option<u64>) {
    match tag {
        None => out.put_u8(PLAIN),
        Some(tag) => {
            out.put_u8(TAGGED);
            out.put_u64_le(tag);
        }
    }
}

fn put_stamp(out: &mut Vec<u8>, stamp: Stamp) {
    put_varint(out, stamp.site.0);
    put_varint(out, stamp.elapsed.0);
    out.push(u8::from(stamp.synced));
}

macro_rules! layer {
    ($name:ident) => {
        impl Deref for $name {
            type Target = [u8];

            fn deref(&self) -> &[u8] {
                &self.0
            }
        }

        impl From<Bytes> for $name {
            fn from(bytes: Bytes) -> $name {
                $name(bytes)
            }
        }

        impl From<Vec<u8>> for $name {
            fn from(bytes: Vec<u8>) -> $name {
                $name(bytes.into())
            }
        }

        impl From<&[u8]> for $name {
            fn from(bytes: &[u8]) -> $name {
                $name(Bytes::copy_from_slice(bytes))
            }
        }
    };
}

layer!(Body);
layer!(StampedEntry);

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { site: SiteTime(STAMP_MAX), elapsed: Elapsed(300), synced: true };

    #[test]
    fn an_envelope_comes_apart_as_it_was_put_together() {
        for envelope in [Envelope::plain(Body::from(&b"x"[..])), Envelope::tagged(9, Body::from(&b"x"[..]))] {
            assert_eq!(Envelope::read(&envelope.encode()), Some(envelope));
        }
        for wrong in [&[TAGGED, 1][..], &[9], &[]] {
            assert_eq!(Envelope::<Body>::read(&Bytes::copy_from_slice(wrong)), None);
        }
    }

    #[test]
    fn only_what_nobody_waits_for_is_patient() {
        let body = || Body::from(&b"x"[..]);
        let patient: Envelope<Body> = Envelope::read(&Envelope::patient(body()).encode()).unwrap();
        assert!(patient.is_patient());
        assert!(!Envelope::plain(body()).is_patient() && !Envelope::tagged(9, body()).is_patient());
    }

    #[test]
    fn what_a_leader_writes_in_one_piece_is_the_envelope_of_the_stamped_body() {
        for tag in [None, Some(7)] {
            let body = Body::from(&b"body"[..]);
            let written = Envelope { tag, inside: body.clone() }.stamped(STAMP);
            let entry = StampedEntry::new(STAMP, &body);
            assert_eq!(written, Envelope { tag, inside: entry.clone() }.encode());
            assert_eq!(Envelope::<StampedEntry>::read(&written).unwrap().inside, entry);
            assert_eq!(entry.split(), Ok((STAMP, &body[..])));
        }
    }

    #[test]
    fn a_stamp_beyond_48_bits_or_cut_off_is_malformed() {
        let far = Stamp { site: SiteTime(STAMP_MAX + 1), ..STAMP };
        assert_eq!(StampedEntry::new(far, b"").split(), Err(Malformed));
        let whole = StampedEntry::new(STAMP, b"");
        for end in 0..whole.len() {
            assert_eq!(StampedEntry::from(&whole[..end]).split(), Err(Malformed));
        }
    }
}
