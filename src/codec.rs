//! Bytes in and out: varints, fixed-width integers and strings, for entries and for snapshots.
//!
//! A reader never panics and never allocates; what it yields borrows from its input. A varint has
//! seven bits a byte, the lowest first, and only its shortest form is read.

/// The input ended early or was not in the shortest form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// What is left of the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn done(&self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed) }
    }

    #[inline]
    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(Malformed)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn u128(&mut self) -> Result<u128, Malformed> {
        self.array().map(u128::from_le_bytes)
    }

    #[inline]
    pub(crate) fn i128(&mut self) -> Result<i128, Malformed> {
        self.array().map(i128::from_le_bytes)
    }

    #[inline]
    pub(crate) fn f64(&mut self) -> Result<f64, Malformed> {
        self.array().map(f64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u64, Malformed> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u64::from(first));
        }
        if let Some(second @ 1..0x80) = self.rest.first().copied() {
            self.rest = &self.rest[1..];
            return Ok(u64::from(first & 0x7f) | u64::from(second) << 7);
        }
        let long = self.varint_tail(u128::from(first & 0x7f))?;
        u64::try_from(long).map_err(|_| Malformed)
    }

    #[inline]
    pub(crate) fn varint_u128(&mut self) -> Result<u128, Malformed> {
        let first = self.u8()?;
        if first < 0x80 {
            return Ok(u128::from(first));
        }
        self.varint_tail(u128::from(first & 0x7f))
    }

    fn varint_tail(&mut self, first: u128) -> Result<u128, Malformed> {
        // Most are of up to eight bytes: 64-bit arithmetic does.
        let mut low = first as u64;
        for shift in (7..56).step_by(7) {
            let byte = self.u8()?;
            low |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if byte == 0 { Err(Malformed) } else { Ok(u128::from(low)) };
            }
        }
        let mut value = u128::from(low);
        for shift in (56..128).step_by(7) {
            let byte = self.u8()?;
            let part = u128::from(byte & 0x7f);
            if part.leading_zeros() < shift {
                return Err(Malformed);
            }
            value |= part << shift;
            if byte < 0x80 {
                return if byte == 0 { Err(Malformed) } else { Ok(value) };
            }
        }
        Err(Malformed)
    }

    /// Bytes after their length as a varint.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    /// UTF-8 after its length as a varint.
    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        core::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_varint_u128(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Signed to unsigned so that small magnitudes stay short.
pub(crate) const fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)) as u128
}

pub(crate) const fn unzigzag(value: u128) -> i128 {
    (value >> 1) as i128 ^ -((value & 1) as i128)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_varint_comes_back(value in any::<u128>(), shift in 0u32..128) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint_u128(&mut out, value);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint_u128(), Ok(value));
            prop_assert_eq!(reader.done(), Ok(()));
            let narrow = u64::try_from(value).map_err(|_| Malformed);
            prop_assert_eq!(Reader::new(&out).varint(), narrow);
        }

        #[test]
        fn every_signed_value_comes_back(value in any::<i128>()) {
            prop_assert_eq!(unzigzag(zigzag(value)), value);
        }

        #[test]
        fn what_is_read_from_any_bytes_is_the_shortest_form(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            let mut reader = Reader::new(&bytes);
            if let Ok(value) = reader.varint_u128() {
                let mut out = Vec::new();
                put_varint_u128(&mut out, value);
                prop_assert_eq!(&bytes[..bytes.len() - reader.left()], &out[..]);
            }
        }
    }

    #[test]
    fn a_claimed_length_beyond_the_input_is_refused() {
        let mut out = Vec::new();
        put_varint(&mut out, u64::MAX);
        assert_eq!(Reader::new(&out).bytes(), Err(Malformed));
    }
}
