//! Random numbers for nonces, tags and seeds: from the system or, in a simulation, from its seed.

use std::sync::Mutex;

/// 128 random bits from the system.
pub fn random_u128() -> u128 {
    let random = ring::rand::SystemRandom::new();
    let bytes = ring::rand::generate::<[u8; 16]>(&random);
    u128::from_le_bytes(bytes.expect("the system's random source works once the process runs").expose())
}

/// A source of random numbers.
#[derive(Debug, Default)]
pub struct Random {
    /// `None`: from the system.
    state: Option<Mutex<u64>>,
}

impl Random {
    /// Makes a source that yields the same numbers in the same order each time: for simulations, never for secrets.
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
pub(crate) fn split_mix(state: &mut u64) -> u64 {
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
    }
}
