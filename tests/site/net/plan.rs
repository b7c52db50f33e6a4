//! What goes wrong and in which order, from a seed.

use std::fmt;
use std::time::Duration;

/// Chance from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `end`, which is not zero.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    pub(crate) fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.below(end as u64 + 1) as usize);
        }
    }
}

/// A seed from the environment (`TALLYD_TEST_SEED`), or a new one.
pub(crate) fn seed() -> u64 {
    match std::env::var("TALLYD_TEST_SEED") {
        Ok(text) => text.parse().expect("TALLYD_TEST_SEED is a number"),
        Err(_) => {
            let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
            Rng::new(time.as_nanos() as u64).below(1 << 32)
        }
    }
}

/// Whom it strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victim {
    Leader,
    /// One that follows; which one is the seed's choice.
    Follower(u64),
}

/// What goes wrong with a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// `kill -9`.
    Kill,
    /// SIGSTOP for so long.
    Pause(Duration),
    /// Silently cut off from all others.
    CutOff,
    /// What the others send it is lost.
    Deaf,
    /// What it sends is lost.
    Mute,
    /// What it sends one other box is lost.
    OneWay(u64),
    /// It and one other box do not hear each other.
    Pair(u64),
    /// Its cable is pulled.
    Unplug,
}

/// One trouble, over before the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) victim: Victim,
    pub(crate) trouble: Trouble,
    /// In rough weather: packets are lost and delayed as well.
    pub(crate) rough: bool,
}

/// The pause that the issue asks for.
const PAUSE: Duration = Duration::from_secs(10);

/// Every kind of trouble, for the leader and for a follower, once, in an order of the seed's choice.
pub(crate) fn plan(rng: &mut Rng) -> Vec<Step> {
    let kinds = |rng: &mut Rng| {
        let (one, other) = (rng.next(), rng.next());
        [
            Trouble::Kill,
            Trouble::Pause(PAUSE),
            Trouble::CutOff,
            Trouble::Deaf,
            Trouble::Mute,
            Trouble::OneWay(one),
            Trouble::Pair(other),
            Trouble::Unplug,
        ]
    };
    let mut steps: Vec<Step> = Vec::new();
    for trouble in kinds(rng) {
        steps.push(Step { victim: Victim::Leader, trouble, rough: rng.chance(250) });
    }
    for trouble in kinds(rng) {
        let victim = Victim::Follower(rng.next());
        steps.push(Step { victim, trouble, rough: rng.chance(250) });
    }
    rng.shuffle(&mut steps);
    steps
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let victim = if self.victim == Victim::Leader { "the leader" } else { "a follower" };
        match self.trouble {
            Trouble::Kill => write!(f, "{victim} is killed")?,
            Trouble::Pause(time) => write!(f, "{victim} is paused for {time:?}")?,
            Trouble::CutOff => write!(f, "{victim} is cut off")?,
            Trouble::Deaf => write!(f, "{victim} hears nobody")?,
            Trouble::Mute => write!(f, "{victim} is heard by nobody")?,
            Trouble::OneWay(_) => write!(f, "{victim} is not heard by one box")?,
            Trouble::Pair(_) => write!(f, "{victim} and one box do not hear each other")?,
            Trouble::Unplug => write!(f, "the cable of {victim} is pulled")?,
        }
        if self.rough { write!(f, ", in rough weather") } else { Ok(()) }
    }
}
