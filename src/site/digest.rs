//! Cheap 64-bit mixing: the running digest of effects, and hashes of bytes. It protects against chance, not
//! against an adversary.

/// An odd constant without structure (the golden ratio's fraction).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;

/// Adds a value to a running digest; the order matters.
#[inline]
#[must_use]
pub(super) const fn mix(digest: u64, value: u64) -> u64 {
    let wide = (digest ^ value).wrapping_mul(MULTIPLIER);
    (wide ^ (wide >> 29)).rotate_left(17)
}

/// Adds bytes and their number to a running digest.
#[must_use]
pub(super) fn mix_bytes(digest: u64, bytes: &[u8]) -> u64 {
    let mut digest = mix(digest, bytes.len() as u64);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        digest = mix(digest, u64::from_le_bytes(*word));
    }
    let mut last = [0u8; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix(digest, u64::from_le_bytes(last))
}

/// A hash of bytes, the same on every machine and in every version.
#[must_use]
pub(super) fn of_bytes(bytes: &[u8]) -> u64 {
    let digest = mix_bytes(0x7461_6c6c_7964, bytes);
    mix(mix(digest, 0), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_length_and_every_bit_count() {
        assert_ne!(mix(mix(0, 1), 2), mix(mix(0, 2), 1));
        assert_ne!(of_bytes(b""), of_bytes(b"\0"));
        let base = of_bytes(b"0123456789");
        for bit in 0..80 {
            let mut bytes = *b"0123456789";
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(of_bytes(&bytes), base, "bit {bit}");
        }
    }
}
