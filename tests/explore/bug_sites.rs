//! Sites in which deliberate bugs show: most begin with a script that brings them to where the bug would do harm.

use crate::bounds::{Bounds, Rules};
use crate::member_sites::{self, ONE_TO_TWO, QUICK, THREE_TO_ONE, at_once, remove};
use crate::script::Step;
use crate::sites::{ANY_THREE, Begin, LED, NOTHING, Site, VOTES_ONLY, Witness};

const HARM: Rules = Rules { harm_only: true, ..QUICK };
const BEATS: Rules = Rules { heartbeats: true, ..QUICK };

/// 1 is to be left alone; what follows from configurations that are not as they should be.
pub(crate) const LEFT_ALONE: Site = Site {
    name: "left alone",
    wishes: &[at_once(&[remove(2), remove(3)])],
    bounds: Bounds { expiries: 1, changes: 1, ..NOTHING },
    rules: HARM,
    ..THREE_TO_ONE
};

/// The same after an entry was lost on its way, so that it travels together with what comes next.
pub(crate) const AFTER_A_LOSS: Site = Site {
    name: "left alone after a loss",
    before: &[
        Step::Expire(1),
        Step::Among(&[1, 2, 3]),
        Step::Propose(1),
        Step::Among(&[1]),
        Step::Change(1, 0),
        Step::Among(&[1]),
        Step::Tick(1),
        Step::Among(&[1, 2, 3]),
    ],
    bounds: Bounds { expiries: 1, ticks: 1, ..NOTHING },
    alike: &[],
    ..LEFT_ALONE
};

/// 1 alone has the configuration of 1 alone; 2 was elected without it.
pub(crate) const GONE_BACK: Site = Site {
    name: "a configuration that is dropped",
    before: &[
        Step::Expire(1),
        Step::Among(&[1, 2, 3]),
        Step::Change(1, 0),
        Step::Among(&[1]),
        Step::Expire(2),
        Step::Among(&[2, 3]),
        Step::Tick(2),
        Step::Among(&[1, 2, 3]),
    ],
    bounds: Bounds { expiries: 2, terms: 4, in_flight: 2, ..NOTHING },
    rules: Rules { heartbeats: true, ..HARM },
    alike: &[],
    ..LEFT_ALONE
};

/// Two voters and an observer.
pub(crate) const OBSERVED: Site = Site {
    name: "two and an observer",
    voters: &[1, 2],
    observers: &[3],
    bounds: Bounds { expiries: 1, ..NOTHING },
    alike: &[],
    rules: QUICK,
    ..ANY_THREE
};

/// A leader is removed, and anybody's timer may run out.
pub(crate) const LEADER_REMOVED: Site = Site {
    name: "a leader is removed",
    before: LED,
    wishes: &[at_once(&[remove(1)])],
    alike: &[],
    bounds: Bounds { expiries: 2, changes: 1, terms: 3, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ANY_THREE
};

/// A box joins and is to vote at once.
pub(crate) const HASTY: Site =
    Site { bounds: Bounds { expiries: 1, crashes: 1, changes: 2, ..NOTHING }, rules: QUICK, ..ONE_TO_TWO };

/// A leader that may not yet change the members: of term 2, with nothing committed in it.
pub(crate) const NEW_LEADER: Site = Site {
    name: "a change by a new leader",
    before: LED,
    wishes: &[at_once(&[remove(3)])],
    alike: &[],
    bounds: Bounds { expiries: 2, changes: 1, terms: 3, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ANY_THREE
};

/// Two and a witness, both with an entry, and nobody leads.
pub(crate) const TWO_CANDIDATES: Site = Site {
    name: "two candidates and a witness",
    boxes: 2,
    voters: &[1, 2],
    witness: Witness::Member,
    begin: Begin::Disks(&[(1, &[1]), (1, &[1])]),
    alike: &[1, 2],
    bounds: Bounds { expiries: 2, crashes: 1, in_flight: 3, ..NOTHING },
    rules: VOTES_ONLY,
    ..ANY_THREE
};

const TWO_AND_A_WITNESS: Site = Site { before: LED, alike: &[], rules: BEATS, ..TWO_CANDIDATES };

/// The witness has stood in for 2 (subterm 1), and 2 is back in the set (subterm 2).
pub(crate) const SWAPPED_BACK: Site = Site {
    name: "two and a witness, swapped back",
    begin: Begin::New,
    before: &[
        Step::Expire(1),
        Step::Among(&[1, 2, 3]),
        Step::Tick(1),
        Step::Among(&[1, 3]),
        Step::Tick(1),
        Step::Among(&[1, 3]),
        Step::Tick(1),
        Step::Among(&[1, 2, 3]),
        Step::Tick(1),
        Step::Among(&[1, 2, 3]),
        Step::Tick(1),
        Step::Among(&[1, 2, 3]),
    ],
    bounds: Bounds { expiries: 1, ticks: 2, in_flight: 2, ..NOTHING },
    ..TWO_AND_A_WITNESS
};

/// The witness stands in for 2 (subterm 1), who may come back.
pub(crate) const SWAPPED: Site = Site {
    name: "two and a witness, swapped",
    before: member_sites::SWAPPED,
    bounds: Bounds { expiries: 1, ticks: 3, in_flight: 2, ..NOTHING },
    ..SWAPPED_BACK
};

/// The witness stands in for 2 again (subterm 3), and its first record is on its way once more.
pub(crate) const LATE_RECORD: Site = Site {
    name: "two and a witness, a record that comes late",
    before: &[
        Step::Expire(1),
        Step::Among(&[1, 2, 3]),
        Step::Tick(1),
        Step::Among(&[1, 3]),
        Step::Tick(1),
        Step::Keep(1, 3),
        Step::Among(&[1, 3]),
        Step::Tick(1),
        Step::Among(&[1, 2, 3]),
        Step::Tick(1),
        Step::Among(&[1, 2, 3]),
        Step::Tick(1),
        Step::Among(&[1, 3]),
        Step::Tick(1),
        Step::Among(&[1, 3]),
        Step::Tick(1),
        Step::Among(&[1, 3]),
    ],
    bounds: Bounds { expiries: 1, in_flight: 4, ..NOTHING },
    ..SWAPPED_BACK
};

/// The witness stood in for 4, who is back, and stands in for 3 now.
pub(crate) const FOUR_AND_A_WITNESS: Site = Site {
    name: "four and a witness, another one swapped",
    boxes: 4,
    voters: &[1, 2, 3, 4],
    before: &[
        Step::Expire(1),
        Step::Among(&[1, 2, 3, 4, 5]),
        Step::Tick(1),
        Step::Among(&[1, 2, 3, 5]),
        Step::Tick(1),
        Step::Among(&[1, 2, 3, 5]),
        Step::Tick(1),
        Step::Among(&[1, 2, 4, 5]),
        Step::Tick(1),
        Step::Among(&[1, 2, 4, 5]),
    ],
    bounds: Bounds { expiries: 1, proposals: 1, in_flight: 3, ..NOTHING },
    rules: QUICK,
    ..SWAPPED_BACK
};
