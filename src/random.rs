//! Random numbers: nonces, tags, seeds. From the system, or, in a simulation, from its seed.

use std::hash::{BuildHasher, RandomState};
use std::sync::Mutex;

use ring::rand::{SecureRandom, SystemRandom};

/// The system gives no random numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoRandom;

/// Random bytes from the system, good enough for keys.
///
/// # Errors
/// The system gives none.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], NoRandom> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| NoRandom)?;
    Ok(bytes)
}

/// 128 random bits from the system.
pub fn random_u128() -> u128 {
    u128::from_le_bytes(bytes().expect("the system's random source works once the process runs"))
}

/// A number that nobody guesses and no other process has, without asking the system each time: nothing for keys.
pub(crate) fn quick(seed: u64) -> u64 {
    RandomState::new().hash_one(seed)
}

/// Evenly from 0 to 1, to spread what would else happen at once.
pub(crate) fn jitter() -> f64 {
    quick(0) as f64 / u64::MAX as f64
}

/// What a room draws its random numbers from.
#[derive(Debug, Default)]
pub struct Random {
    /// `None`: from the system.
    state: Option<Mutex<u64>>,
}

impl Random {
    /// The same numbers in the same order each time: for simulations, not for anything that is to be a secret.
    pub fn seeded(seed: u64) -> Random {
        Random { state: Some(Mutex::new(seed)) }
    }

    /// The next 128 bits.
    pub fn next_u128(&self) -> u128 {
        match &self.state {
            None => random_u128(),
            Some(state) => {
                // Nothing in here panics while holding the lock.
                let mut state = state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                u128::from(split_mix(&mut state)) << 64 | u128::from(split_mix(&mut state))
            }
        }
    }

    /// The next 64 bits.
    pub fn next_u64(&self) -> u64 {
        self.next_u128() as u64
    }
}

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
pub fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_numbers_and_another_gives_others() {
        let numbers = |seed| {
            let random = Random::seeded(seed);
            [random.next_u128(), random.next_u128()]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
        assert_ne!(numbers(7)[0], numbers(7)[1]);
        assert_ne!(Random::default().next_u128(), Random::default().next_u128());
        assert_ne!(quick(7), quick(7));
        assert!((0.0..=1.0).contains(&jitter()));
    }
}
