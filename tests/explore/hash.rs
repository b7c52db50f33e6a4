//! 128-bit hashes of states: two states with one hash would be taken for one, so 64 bits are too few for hundreds of
//! millions of states. Two lanes of folded multiplication (as in wyhash by Wang Yi), each with constants of its own.

use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Wide {
    one: u64,
    other: u64,
}

impl Wide {
    pub(crate) fn new(seed: u64) -> Wide {
        Wide { one: seed ^ 0xa076_1d64_78bd_642f, other: seed ^ 0xe703_7ed1_a0b4_28db }
    }

    pub(crate) fn of(value: &impl Hash) -> u128 {
        let mut hasher = Wide::new(0);
        value.hash(&mut hasher);
        hasher.wide()
    }

    /// All 128 bits.
    pub(crate) fn wide(&self) -> u128 {
        let one = fold(self.one ^ 0x8ebc_6af0_9c88_c6e3, self.other ^ 0x5899_65cc_7537_4cc3);
        let other = fold(self.other ^ 0x1d8e_4e27_c47d_124f, self.one ^ 0xeb44_acca_b455_d165);
        (u128::from(one) << 64) | u128::from(other)
    }
}

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

impl Hasher for Wide {
    fn write_u64(&mut self, word: u64) {
        self.one = fold(self.one ^ word, 0x9fb2_1c65_1e98_df25 ^ self.one.rotate_left(29));
        self.other = fold(
            self.other ^ word ^ 0xd6e8_feb8_6659_fd93,
            0xaf25_1af3_b0f0_25b5 ^ self.other.rotate_left(37),
        );
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ ((chunk.len() as u64) << 60));
        }
    }

    fn write_u8(&mut self, value: u8) {
        self.write_u64(u64::from(value));
    }

    fn write_u32(&mut self, value: u32) {
        self.write_u64(u64::from(value));
    }

    fn write_usize(&mut self, value: usize) {
        self.write_u64(value as u64);
    }

    fn finish(&self) -> u64 {
        self.wide() as u64
    }
}

/// What is hashed already needs no second hash.
#[derive(Default)]
pub(crate) struct Known(u64);

impl Hasher for Known {
    fn write_u128(&mut self, value: u128) {
        self.0 = value as u64;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only hashes are kept");
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(crate) type Seen = HashSet<u128, BuildHasherDefault<Known>>;
