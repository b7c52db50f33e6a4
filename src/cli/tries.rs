//! How tries end, what several of them come to, and the exit status of that.

use std::time::Duration;

/// The command was done.
pub const DONE: u8 = 0;
/// It failed and was certainly not done.
pub const FAILED: u8 = 1;
/// It was called wrongly.
pub const USAGE: u8 = 2;
/// It could not be tried, or every try ended `not-committed`.
pub const NOT_TRIED: u8 = 3;
/// It may have been done or not.
pub const UNKNOWN: u8 = 4;

/// How one try ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Done.
    Done,
    /// Refused: the same request will not be done by this box.
    Refused,
    /// Refused for a reason that rules out that an earlier try was done, or will be.
    RefusedForGood,
    /// This try was certainly not done; another may be.
    NotDone,
    /// The request was not sent: nothing listens, say.
    NotReached,
    /// This try may have been done or not.
    Unknown,
}

/// What a repeat of a request can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// Nothing: it only reads, so that a lost answer leaves nothing unknown.
    Reads,
    /// Nothing more than the first: it has an idempotency key.
    Keyed,
    /// It could undo what somebody else did in between: after an unknown outcome there is no repeat.
    Harms,
}

/// What to do after a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: it is decided.
    Stop,
    /// Try the next box, if there is time.
    TryOn,
}

/// The exit status that the tries come to.
pub fn exit_status(ends: &[End]) -> u8 {
    let any = |end| ends.contains(&end);
    if any(End::Done) {
        DONE
    } else if any(End::RefusedForGood) {
        FAILED
    } else if any(End::Unknown) {
        UNKNOWN
    } else if any(End::Refused) {
        FAILED
    } else {
        NOT_TRIED
    }
}

/// What to do after these tries, the last of which has just ended.
pub fn next(ends: &[End], repeat: Repeat) -> Next {
    let unknown_before = ends.contains(&End::Unknown);
    match ends.last() {
        Some(End::Done | End::RefusedForGood) => Next::Stop,
        // That this box refuses says nothing of an earlier try at another one, which a repeat can settle.
        Some(End::Refused) if unknown_before && repeat == Repeat::Keyed => Next::TryOn,
        Some(End::Refused) => Next::Stop,
        Some(End::Unknown) if repeat == Repeat::Harms => Next::Stop,
        None | Some(End::NotDone | End::NotReached | End::Unknown) => Next::TryOn,
    }
}

/// How long to wait before the next round over all boxes.
pub fn pause(round: u32) -> Duration {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(1);
    FIRST.saturating_mul(1 << round.min(8)).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::End::{Done, NotDone, NotReached, Refused, RefusedForGood, Unknown};
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_the_contract() {
        for (ends, status) in [
            (&[][..], 3),
            (&[Done], 0),
            (&[NotReached, Done], 0),
            (&[NotDone, Done], 0),
            (&[Unknown, Done], 0),
            (&[Refused], 1),
            (&[NotDone, NotReached, Refused], 1),
            (&[NotReached], 3),
            (&[NotDone], 3),
            (&[NotDone, NotReached, NotDone], 3),
            (&[Unknown], 4),
            (&[Unknown, NotDone], 4),
            (&[NotDone, Unknown], 4),
            (&[Unknown, NotReached], 4),
            (&[Unknown, Refused], 4),
            (&[Unknown, RefusedForGood], 1),
            (&[RefusedForGood], 1),
        ] {
            assert_eq!(exit_status(ends), status, "{ends:?}");
        }
    }

    #[test]
    fn only_what_is_safe_is_tried_again() {
        for (ends, keyed, harms) in [
            (&[Done][..], Next::Stop, Next::Stop),
            (&[Refused], Next::Stop, Next::Stop),
            (&[NotDone], Next::TryOn, Next::TryOn),
            (&[NotReached], Next::TryOn, Next::TryOn),
            (&[Unknown], Next::TryOn, Next::Stop),
            (&[Unknown, Refused], Next::TryOn, Next::Stop),
            (&[Unknown, RefusedForGood], Next::Stop, Next::Stop),
        ] {
            assert_eq!(next(ends, Repeat::Keyed), keyed, "{ends:?}");
            assert_eq!(next(ends, Repeat::Harms), harms, "{ends:?}");
        }
    }

    #[test]
    fn pauses_grow_up_to_a_second() {
        let pauses: Vec<u128> = (0..7).map(|round| pause(round).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
        assert_eq!(pause(u32::MAX).as_millis(), 1000);
    }
}
