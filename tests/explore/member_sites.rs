//! The sites that are explored while their members change, each with its bounds.

use tally_core::id::NodeId;
use tally_core::raft::{Change, Leave};

use crate::bounds::{Bounds, Rules};
use crate::explored::Wish;
use crate::script::Step;
use crate::sites::{ANY_THREE, LED, NOTHING, Site, VOTES_ONLY, Witness};

pub(crate) const QUICK: Rules = Rules { quick_disks: true, ..VOTES_ONLY };

pub(crate) const fn at_once(changes: &'static [Change]) -> Wish {
    Wish { changes, leave: Leave::ByItself }
}

const fn until_asked(changes: &'static [Change]) -> Wish {
    Wish { changes, leave: Leave::WhenAsked }
}

const fn add(id: u64) -> Change {
    Change::AddObserver(NodeId(id))
}

const fn promote(id: u64) -> Change {
    Change::Promote(NodeId(id))
}

const fn demote(id: u64) -> Change {
    Change::Demote(NodeId(id))
}

pub(crate) const fn remove(id: u64) -> Change {
    Change::Remove(NodeId(id))
}

const fn add_witness(id: u64) -> Change {
    Change::AddWitness(NodeId(id))
}

/// One box becomes two: the second joins with an empty log, follows, and votes.
pub(crate) const ONE_TO_TWO: Site = Site {
    name: "one to two",
    boxes: 2,
    voters: &[1],
    wishes: &[at_once(&[add(2)]), at_once(&[promote(2)])],
    alike: &[],
    bounds: Bounds { expiries: 2, crashes: 1, changes: 2, terms: 3, in_flight: 3, ..NOTHING },
    ..ANY_THREE
};

/// The second joins when the log of the first begins with a snapshot, which brings the configuration along.
pub(crate) const BY_SNAPSHOT: Site = Site {
    name: "one to two by a snapshot",
    bounds: Bounds { expiries: 1, crashes: 1, changes: 2, compactions: 2, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ONE_TO_TWO
};

/// The second is removed, perhaps without hearing of it, and comes back with its old log.
pub(crate) const REJOIN: Site = Site {
    name: "removed and back",
    before: &[Step::Change(1, 0), Step::Among(&[1, 2]), Step::Change(1, 1), Step::Among(&[1, 2])],
    wishes: &[at_once(&[add(2)]), at_once(&[promote(2)]), at_once(&[remove(2)])],
    bounds: Bounds { expiries: 2, crashes: 1, changes: 3, in_flight: 2, terms: 3, ..NOTHING },
    rules: QUICK,
    ..ONE_TO_TWO
};

/// One is replaced by another one: halves that share nobody.
pub(crate) const ALL_REPLACED: Site = Site {
    name: "all replaced",
    boxes: 2,
    voters: &[1],
    observers: &[2],
    before: &[Step::Among(&[1, 2])],
    wishes: &[at_once(&[promote(2), remove(1)])],
    alike: &[],
    bounds: Bounds { expiries: 1, crashes: 1, changes: 1, proposals: 1, in_flight: 2, ..NOTHING },
    ..ANY_THREE
};

/// Two become three.
pub(crate) const TWO_TO_THREE: Site = Site {
    name: "two to three",
    voters: &[1, 2],
    observers: &[3],
    before: LED,
    wishes: &[at_once(&[promote(3)])],
    alike: &[],
    bounds: Bounds { expiries: 1, crashes: 1, changes: 1, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ANY_THREE
};

/// Three become two, with or without their leader.
pub(crate) const THREE_TO_TWO: Site = Site {
    name: "three to two",
    before: LED,
    wishes: &[at_once(&[remove(1)]), at_once(&[remove(3)])],
    alike: &[],
    bounds: Bounds { expiries: 2, changes: 1, terms: 3, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ANY_THREE
};

/// Three become one, which is left when asked.
pub(crate) const THREE_TO_ONE: Site = Site {
    name: "three to one",
    before: LED,
    wishes: &[until_asked(&[remove(2), remove(3)])],
    alike: &[2, 3],
    bounds: Bounds { expiries: 2, changes: 1, terms: 3, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ANY_THREE
};

/// One of two is replaced.
pub(crate) const REPLACE_OF_TWO: Site = Site {
    name: "one of two replaced",
    voters: &[1, 2],
    observers: &[3],
    before: LED,
    wishes: &[at_once(&[promote(3), remove(2)]), until_asked(&[promote(3), remove(1)])],
    alike: &[],
    bounds: Bounds { expiries: 2, crashes: 1, changes: 1, terms: 3, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ANY_THREE
};

/// One of three is replaced.
pub(crate) const REPLACE_OF_THREE: Site = Site {
    name: "one of three replaced",
    boxes: 4,
    observers: &[4],
    before: LED,
    wishes: &[at_once(&[promote(4), remove(3)])],
    alike: &[],
    bounds: Bounds { expiries: 1, changes: 1, terms: 2, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ANY_THREE
};

/// A voter becomes an observer and a voter again.
pub(crate) const DEMOTED: Site = Site {
    name: "demoted and promoted",
    before: LED,
    wishes: &[at_once(&[demote(3)]), at_once(&[promote(3)])],
    alike: &[],
    bounds: Bounds { expiries: 1, changes: 2, in_flight: 2, ..NOTHING },
    rules: QUICK,
    ..ANY_THREE
};

/// 2 is silent until the witness, 3, stands in for it (subterm 1).
pub(crate) const SWAPPED: &[Step] = &[
    Step::Expire(1),
    Step::Among(&[1, 2, 3]),
    Step::Tick(1),
    Step::Among(&[1, 3]),
    Step::Tick(1),
    Step::Among(&[1, 3]),
];

/// Two and a witness, and a third box that follows.
const WITH_WITNESS: Site = Site {
    boxes: 3,
    voters: &[1, 2],
    observers: &[3],
    witness: Witness::Member,
    before: LED,
    alike: &[],
    rules: QUICK,
    ..ANY_THREE
};

/// A box beside a witness is replaced by another one, by way of one box alone.
pub(crate) const BY_WAY_OF_ONE: Site = Site {
    name: "two and a witness, one replaced by way of one alone",
    wishes: &[at_once(&[remove(2), remove(4)]), at_once(&[promote(3), add_witness(4)])],
    bounds: Bounds { expiries: 2, changes: 2, terms: 3, in_flight: 2, ..NOTHING },
    ..WITH_WITNESS
};

/// The same from where 2 is silent: 1 leads in term 2, since 4 voted for it, and 4 stands in for 2.
pub(crate) const WITHOUT_THE_DEAD: Site = Site {
    name: "two and a witness, a dead one replaced by way of one alone",
    before: &[
        Step::Expire(1),
        Step::Among(&[1, 2, 3, 4]),
        Step::Crash(1),
        Step::Expire(1),
        Step::Among(&[1, 3, 4]),
    ],
    bounds: Bounds { expiries: 1, crashes: 1, changes: 2, terms: 3, in_flight: 2, ..NOTHING },
    ..BY_WAY_OF_ONE
};

/// The same by way of two boxes without a witness, as the daemon does it.
pub(crate) const BY_WAY_OF_TWO: Site = Site {
    name: "two and a witness, one replaced by way of two",
    wishes: &[at_once(&[promote(3), remove(2), remove(4)]), at_once(&[add_witness(4)])],
    bounds: Bounds { expiries: 2, changes: 2, terms: 3, in_flight: 2, ..NOTHING },
    ..WITH_WITNESS
};

/// A new witness beside two boxes, which leaves again.
pub(crate) const WITNESS_COMES: Site = Site {
    name: "a witness comes and goes",
    boxes: 2,
    voters: &[1, 2],
    observers: &[],
    witness: Witness::Outside,
    wishes: &[at_once(&[add_witness(3)]), at_once(&[remove(3)])],
    bounds: Bounds { expiries: 2, crashes: 1, changes: 2, terms: 3, in_flight: 2, ..NOTHING },
    ..WITH_WITNESS
};

/// The witness stands in for 2, who may come back, while the members change.
pub(crate) const WITNESS_JOINT_SWAPS: Site = Site {
    name: "two and a witness become one, swaps",
    before: SWAPPED,
    wishes: &[at_once(&[remove(2), remove(3)])],
    bounds: Bounds { expiries: 1, ticks: 2, changes: 1, in_flight: 2, ..NOTHING },
    rules: Rules { heartbeats: true, ..QUICK },
    ..WITNESS_JOINT
};

/// One box gives way to two others and a witness, so that it leads a group in which it is not counted.
pub(crate) const LEADER_OUTSIDE: Site = Site {
    name: "one gives way to two others and a witness",
    voters: &[1],
    observers: &[2, 3],
    witness: Witness::Outside,
    before: &[Step::Among(&[1, 2, 3])],
    wishes: &[at_once(&[promote(2), promote(3), remove(1), add_witness(4)])],
    bounds: Bounds { expiries: 1, crashes: 1, changes: 1, in_flight: 2, ..NOTHING },
    ..WITH_WITNESS
};

/// The same with a leader that swaps one of the two for the witness: 2 is silent and has not heard of the change.
pub(crate) const LEADER_OUTSIDE_SWAPS: Site = Site {
    name: "one gives way to two others and a witness, swaps",
    before: &[Step::Among(&[1, 2, 3]), Step::Change(1, 0), Step::Tick(1), Step::Among(&[1, 3, 4])],
    bounds: Bounds { expiries: 1, ticks: 1, in_flight: 2, ..NOTHING },
    rules: Rules { heartbeats: true, ..QUICK },
    ..LEADER_OUTSIDE
};

/// The same with disks that take their time.
pub(crate) const WITNESS_JOINT_SLOWLY: Site = Site {
    name: "two and a witness become one, crashes and slow disks",
    bounds: Bounds { expiries: 1, crashes: 1, changes: 1, in_flight: 2, ..NOTHING },
    rules: VOTES_ONLY,
    ..WITNESS_JOINT
};

/// A box beside a witness is removed, or its leader, with crashes.
pub(crate) const WITNESS_JOINT: Site = Site {
    name: "two and a witness become one, crashes",
    boxes: 2,
    voters: &[1, 2],
    observers: &[],
    wishes: &[until_asked(&[remove(2), remove(3)]), until_asked(&[remove(1), remove(3)])],
    before: LED,
    bounds: Bounds { expiries: 2, crashes: 1, changes: 1, terms: 3, in_flight: 2, ..NOTHING },
    ..WITH_WITNESS
};
