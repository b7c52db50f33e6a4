//! An amount in 16 bytes where it fits, as it nearly always does: windows wait by the hundred
//! thousand.

use tally_core::id::SourceId;
use tally_core::report::{Amount, Last, Sample, Sum, Ties};
use tally_core::time::SiteTime;

use super::digest::mix;
use crate::codec::{Malformed, Reader};

/// An amount, small ones in place.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Packed {
    Counter(u64),
    Updown(u32, u32),
    Wide(Box<Amount>),
}

/// Bytes that a wide amount takes beside its place: itself and the allocator's share.
pub(super) const WIDE_BYTES: u64 = 96;

impl Packed {
    pub(super) fn new(amount: Amount) -> Packed {
        match amount {
            Amount::Counter(sum) => {
                u64::try_from(sum).map_or_else(|_| Packed::Wide(Box::new(amount)), Packed::Counter)
            }
            Amount::Updown { up, down } => match (u32::try_from(up), u32::try_from(down)) {
                (Ok(up), Ok(down)) => Packed::Updown(up, down),
                _ => Packed::Wide(Box::new(amount)),
            },
            Amount::Sample(_) => Packed::Wide(Box::new(amount)),
        }
    }

    pub(super) fn amount(&self) -> Amount {
        match self {
            Packed::Counter(sum) => Amount::Counter(u128::from(*sum)),
            Packed::Updown(up, down) => Amount::Updown { up: u128::from(*up), down: u128::from(*down) },
            Packed::Wide(amount) => **amount,
        }
    }

    /// Both together, `other` being the later; `None`: of different kinds, or the sum would overflow.
    pub(super) fn merged(&self, other: Amount, ties: Ties) -> Option<Packed> {
        self.amount().merged_by(other, ties).ok().map(Packed::new)
    }

    /// Bytes on the heap.
    pub(super) const fn heap_bytes(&self) -> u64 {
        if matches!(self, Packed::Wide(_)) { WIDE_BYTES } else { 0 }
    }

    pub(super) fn digest(&self) -> u64 {
        match self {
            Packed::Counter(sum) => *sum,
            Packed::Updown(up, down) => mix(u64::from(*up), u64::from(*down)),
            Packed::Wide(amount) => digest_of(amount),
        }
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Packed::Counter(sum) => {
                out.push(0);
                out.extend_from_slice(&sum.to_le_bytes());
            }
            Packed::Updown(up, down) => {
                out.push(1);
                out.extend_from_slice(&up.to_le_bytes());
                out.extend_from_slice(&down.to_le_bytes());
            }
            Packed::Wide(amount) => put_wide(out, amount),
        }
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Packed, Malformed> {
        let packed = match reader.u8()? {
            0 => return Ok(Packed::Counter(reader.u64()?)),
            1 => return Ok(Packed::Updown(reader.u32()?, reader.u32()?)),
            2 => Packed::Wide(Box::new(Amount::Counter(reader.u128()?))),
            3 => Packed::Wide(Box::new(Amount::Updown { up: reader.u128()?, down: reader.u128()? })),
            4 => Packed::Wide(Box::new(Amount::Sample(read_sample(reader)?))),
            _ => return Err(Malformed),
        };
        // Only the form that `new` makes, or the same state would have two snapshots.
        if Packed::new(packed.amount()) == packed { Ok(packed) } else { Err(Malformed) }
    }
}

fn digest_of(amount: &Amount) -> u64 {
    match amount {
        Amount::Counter(sum) => mix(*sum as u64, (*sum >> 64) as u64),
        Amount::Updown { up, down } => mix(mix(*up as u64, (*up >> 64) as u64), *down as u64),
        Amount::Sample(sample) => {
            let sums = mix(sample.count, sample.sum.0 as u64);
            mix(mix(sums, sample.min.to_bits()), mix(sample.max.to_bits(), sample.last.value.to_bits()))
        }
    }
}

fn put_wide(out: &mut Vec<u8>, amount: &Amount) {
    match amount {
        Amount::Counter(sum) => {
            out.push(2);
            out.extend_from_slice(&sum.to_le_bytes());
        }
        Amount::Updown { up, down } => {
            out.push(3);
            out.extend_from_slice(&up.to_le_bytes());
            out.extend_from_slice(&down.to_le_bytes());
        }
        Amount::Sample(sample) => {
            out.push(4);
            put_sample(out, sample);
        }
    }
}

/// A sample, its source included.
pub(super) fn put_sample(out: &mut Vec<u8>, sample: &Sample) {
    out.extend_from_slice(&sample.count.to_le_bytes());
    out.extend_from_slice(&sample.sum.0.to_le_bytes());
    for value in [sample.min, sample.max, sample.last.value] {
        out.extend_from_slice(&value.to_le_bytes());
    }
    out.extend_from_slice(&sample.last.at.0.to_le_bytes());
    out.extend_from_slice(&sample.last.source.0.to_le_bytes());
}

pub(super) fn read_sample(reader: &mut Reader<'_>) -> Result<Sample, Malformed> {
    let count = reader.u64()?;
    let sum = Sum(reader.i128()?);
    let (min, max, value) = (reader.f64()?, reader.f64()?, reader.f64()?);
    let last = Last { at: SiteTime(reader.u64()?), source: SourceId(reader.u64()?), value };
    let sample = Sample { count, sum, min, max, last };
    // What was merged from plausible parts is finite and has a count; NaN would break equality.
    if count > 0 && min <= value && value <= max && min.is_finite() && max.is_finite() {
        Ok(sample)
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_takes_16_bytes_and_comes_back() {
        assert_eq!(size_of::<Packed>(), 16);
        let sample = Sample::observed(2.5, SiteTime(7), SourceId(3)).unwrap();
        for amount in [
            Amount::Counter(1),
            Amount::Counter(u128::from(u64::MAX)),
            Amount::Counter(1 << 64),
            Amount::updown(-5),
            Amount::Updown { up: 1 << 40, down: 3 },
            Amount::Sample(sample),
        ] {
            let packed = Packed::new(amount);
            assert_eq!(packed.amount(), amount);
            let mut out = Vec::new();
            packed.put(&mut out);
            assert_eq!(Packed::read(&mut Reader::new(&out)), Ok(packed));
        }
    }

    #[test]
    fn a_small_amount_in_the_wide_form_is_refused() {
        let mut out = Vec::new();
        put_wide(&mut out, &Amount::Counter(1));
        assert_eq!(Packed::read(&mut Reader::new(&out)), Err(Malformed));
    }
}
