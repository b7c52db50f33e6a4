//! What goes wrong and in which order, from a seed.

use std::fmt;
use std::time::Duration;

use super::clock::{HOUR_MS, MINUTE_MS, Wall};

/// Chance from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        tallyd::random::split_mix(&mut self.0)
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
    /// Its wall clock is wrong.
    Clock(WrongClock),
}

/// How a wall clock is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WrongClock {
    /// It is set, by a time service that is wrong itself, perhaps.
    Set(Wall),
    /// The box is killed, and starts in 1970: it has no battery.
    Boots1970,
    /// It gains so many thousandths, and is held for synchronised.
    Drifts(i64),
}

impl Trouble {
    pub(crate) fn is_of_a_clock(self) -> bool {
        matches!(self, Trouble::Clock(_))
    }
}

/// What happens at once, and is over before the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// At most two boxes: a site of five goes on without them.
    pub(crate) strikes: Vec<Strike>,
    /// In rough weather: packets are lost and delayed as well.
    pub(crate) rough: bool,
}

/// A trouble for a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) victim: Victim,
    pub(crate) trouble: Trouble,
}

/// The pause that the issue asks for.
const PAUSE: Duration = Duration::from_secs(10);

/// Every kind of trouble, for the leader and for a follower, once, in an order of the seed's choice; some of
/// them for both at once.
pub(crate) fn plan(rng: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::new();
    for (trouble, other) in kinds(rng).into_iter().zip(kinds(rng)) {
        let leader = Strike { victim: Victim::Leader, trouble };
        let follower = Strike { victim: Victim::Follower(rng.next()), trouble: other };
        // A leader that is elected while two clocks are wrong could hear these two and one that is right, and
        // take them for the majority that they are then.
        let two_clocks = trouble.is_of_a_clock() && other.is_of_a_clock();
        if rng.chance(400) && !two_clocks {
            steps.push(vec![leader, follower]);
        } else {
            steps.extend([vec![leader], vec![follower]]);
        }
    }
    rng.shuffle(&mut steps);
    steps.into_iter().map(|strikes| Step { strikes, rough: rng.chance(250) }).collect()
}

/// All of them, shuffled.
fn kinds(rng: &mut Rng) -> [Trouble; 14] {
    let minutes = MINUTE_MS * (1 + rng.below(50) as i64);
    let hours = HOUR_MS * (2 + rng.below(200) as i64);
    let either = |rng: &mut Rng, ms: i64| if rng.chance(500) { ms } else { -ms };
    let mut kinds = [
        Trouble::Kill,
        Trouble::Pause(PAUSE),
        Trouble::CutOff,
        Trouble::Deaf,
        Trouble::Mute,
        Trouble::OneWay(rng.next()),
        Trouble::Pair(rng.next()),
        Trouble::Unplug,
        Trouble::Clock(WrongClock::Set(Wall::synced(minutes))),
        Trouble::Clock(WrongClock::Set(Wall::synced(-minutes))),
        Trouble::Clock(WrongClock::Set(Wall::synced(either(rng, hours)))),
        Trouble::Clock(WrongClock::Set(Wall::unsynced(either(rng, minutes)))),
        Trouble::Clock(WrongClock::Boots1970),
        Trouble::Clock(WrongClock::Drifts(either(rng, 300))),
    ];
    rng.shuffle(&mut kinds);
    kinds
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, strike) in self.strikes.iter().enumerate() {
            let and = if number == 0 { "" } else { ", and " };
            write!(f, "{and}{strike}")?;
        }
        if self.rough { write!(f, ", in rough weather") } else { Ok(()) }
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let victim = if self.victim == Victim::Leader { "the leader" } else { "a follower" };
        match self.trouble {
            Trouble::Kill => write!(f, "{victim} is killed"),
            Trouble::Pause(time) => write!(f, "{victim} is paused for {time:?}"),
            Trouble::CutOff => write!(f, "{victim} is cut off"),
            Trouble::Deaf => write!(f, "{victim} hears nobody"),
            Trouble::Mute => write!(f, "{victim} is heard by nobody"),
            Trouble::OneWay(_) => write!(f, "{victim} is not heard by one box"),
            Trouble::Pair(_) => write!(f, "{victim} and one box do not hear each other"),
            Trouble::Unplug => write!(f, "the cable of {victim} is pulled"),
            Trouble::Clock(WrongClock::Set(wall)) => {
                let flag = if wall.synced { "synchronised" } else { "not synchronised" };
                let apart_s = wall.ahead_ms.unsigned_abs() / 1000;
                let side = if wall.ahead_ms < 0 { "slow" } else { "fast" };
                write!(f, "the clock of {victim} is {apart_s} s {side}, and {flag}")
            }
            Trouble::Clock(WrongClock::Boots1970) => write!(f, "{victim} is killed and starts in 1970"),
            Trouble::Clock(WrongClock::Drifts(permille)) => {
                write!(f, "the clock of {victim} gains {permille} ms a second")
            }
        }
    }
}
