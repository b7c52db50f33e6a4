//! The sites that are explored, each with its bounds. To explore another one is to add it here, and a test for it.

use std::fmt;

use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{Body, Configuration, Member, MemberRole, Message, Position};

use crate::bounds::{Bounds, Rules};
use crate::explored::{Explored, Wish};
use crate::node::{Disk, Packet};
use crate::plain_log::PlainLog;
use crate::script::{ENOUGH, SMOOTHLY, Step, play};
use crate::state::{Namings, State, Story};

/// How a site begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Begin {
    /// Empty disks.
    New,
    /// These durable terms, and logs, given as the terms of their entries.
    Disks(&'static [(u64, &'static [u64])]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    None,
    Member,
    /// With an empty record, to be added.
    Outside,
}

/// Node 1 leads in term 1, and its first entry is committed and everywhere.
pub(crate) const LED: &[Step] = &[Step::Expire(1), Step::Among(&[1, 2, 3, 4, 5])];

#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    pub(crate) name: &'static str,
    /// So many nodes have a log: 1, 2 and so on. A witness comes after them.
    pub(crate) boxes: u64,
    /// Who of them is a member at first.
    pub(crate) voters: &'static [u64],
    pub(crate) observers: &'static [u64],
    pub(crate) witness: Witness,
    pub(crate) begin: Begin,
    /// What happened before the search begins.
    pub(crate) before: &'static [Step],
    /// What leaders may be asked for.
    pub(crate) wishes: &'static [Wish],
    /// On its way from the start: from whom, to whom, in which term, durable up to where.
    pub(crate) acknowledgement: Option<(u64, u64, u64, u64)>,
    /// Nodes with names that mean nothing: what differs by exchanging them is the same. Not so where a node chooses one of
    /// several that have the same: it goes by their order.
    pub(crate) alike: &'static [u64],
    pub(crate) bounds: Bounds,
    pub(crate) rules: Rules,
}

pub(crate) const NOTHING: Bounds = Bounds {
    expiries: 0,
    ticks: 0,
    crashes: 0,
    failures: 0,
    duplicates: 0,
    proposals: 0,
    reads: 0,
    compactions: 0,
    changes: 0,
    in_flight: 4,
    terms: 2,
};
pub(crate) const VOTES_ONLY: Rules = Rules {
    heartbeats: false,
    quick_disks: false,
    quick_pre_votes: true,
    keeps_stale: false,
    harm_only: false,
};

pub(crate) const ANY_THREE: Site = Site {
    name: "",
    boxes: 3,
    voters: &[1, 2, 3],
    observers: &[],
    witness: Witness::None,
    begin: Begin::New,
    before: &[],
    wishes: &[],
    acknowledgement: None,
    alike: &[1, 2, 3],
    bounds: NOTHING,
    rules: VOTES_ONLY,
};

/// Votes, crashes between them, disks that forget what they were not given time for.
pub(crate) const ELECTIONS: Site =
    Site { name: "elections", bounds: Bounds { expiries: 2, crashes: 1, ..NOTHING }, ..ANY_THREE };

/// The same with pre-votes that take their time, and nothing that is lost because it is old.
pub(crate) const PRE_VOTES: Site = Site {
    name: "pre-votes",
    bounds: Bounds { expiries: 2, in_flight: 3, ..NOTHING },
    rules: Rules { quick_pre_votes: false, keeps_stale: true, ..VOTES_ONLY },
    ..ANY_THREE
};

/// A leader's entries, which another leader may have to replace.
pub(crate) const REPLICATION: Site = Site {
    name: "replication",
    before: LED,
    alike: &[2, 3],
    bounds: Bounds { expiries: 1, crashes: 1, proposals: 1, ..NOTHING },
    ..ANY_THREE
};

/// Figure 8 of the Raft paper, for three: entries of two older terms, of which one has to give way.
pub(crate) const FIGURE_8: Site = Site {
    name: "figure 8",
    begin: Begin::Disks(&[(3, &[1, 2]), (3, &[1, 3]), (3, &[1])]),
    alike: &[],
    bounds: Bounds { expiries: 2, terms: 5, in_flight: 2, ..NOTHING },
    rules: Rules { quick_disks: true, ..VOTES_ONLY },
    ..ANY_THREE
};

/// Messages that come late, twice, or in the wrong order.
pub(crate) const COPIES: Site = Site {
    name: "copies",
    before: LED,
    alike: &[2, 3],
    bounds: Bounds { expiries: 1, proposals: 1, duplicates: 1, ..NOTHING },
    rules: Rules { keeps_stale: true, ..VOTES_ONLY },
    ..ANY_THREE
};

/// Node 1 led in term 1; 3 acknowledged entries then that have given way to 2's since. 1 leads again, and only then
/// the acknowledgement arrives.
pub(crate) const COMEBACK: Site = Site {
    name: "comeback",
    begin: Begin::Disks(&[(2, &[1, 2]), (2, &[1, 2]), (2, &[1])]),
    acknowledgement: Some((3, 1, 1, 3)),
    alike: &[],
    bounds: Bounds { expiries: 2, in_flight: 3, terms: 3, ..NOTHING },
    rules: Rules { quick_disks: true, keeps_stale: true, ..VOTES_ONLY },
    ..ANY_THREE
};

/// Reads, and the heartbeats that confirm them.
pub(crate) const READS: Site = Site {
    name: "reads",
    before: LED,
    alike: &[2, 3],
    bounds: Bounds { expiries: 1, proposals: 1, reads: 1, in_flight: 3, ..NOTHING },
    rules: Rules { heartbeats: true, quick_disks: true, ..VOTES_ONLY },
    ..ANY_THREE
};

/// Leaders that look after their quorum, and repair what is lost.
pub(crate) const TICKS: Site = Site {
    name: "ticks",
    before: LED,
    alike: &[2, 3],
    bounds: Bounds { expiries: 1, ticks: 2, in_flight: 3, ..NOTHING },
    rules: Rules { heartbeats: true, quick_disks: true, ..VOTES_ONLY },
    ..ANY_THREE
};

/// Several entries, sent ahead of the answers.
pub(crate) const PIPELINE: Site = Site {
    name: "pipeline",
    before: LED,
    alike: &[2, 3],
    bounds: Bounds { expiries: 1, proposals: 2, ..NOTHING },
    rules: Rules { quick_disks: true, ..VOTES_ONLY },
    ..ANY_THREE
};

/// A follower that needs a snapshot, and crashes while it gets one.
pub(crate) const SNAPSHOTS: Site = Site {
    name: "snapshots",
    begin: Begin::Disks(&[(1, &[1, 1]), (1, &[1, 1]), (1, &[1])]),
    alike: &[1, 2],
    bounds: Bounds { expiries: 1, crashes: 1, compactions: 1, ..NOTHING },
    ..ANY_THREE
};

/// Snapshots that come late, or twice.
pub(crate) const LATE_SNAPSHOTS: Site = Site {
    name: "late snapshots",
    begin: Begin::Disks(&[(1, &[1, 1]), (1, &[1, 1]), (1, &[1])]),
    alike: &[1, 2],
    bounds: Bounds { expiries: 1, duplicates: 1, compactions: 1, proposals: 1, in_flight: 2, ..NOTHING },
    rules: Rules { quick_disks: true, ..VOTES_ONLY },
    ..ANY_THREE
};

/// Disks that report errors. Nobody is alike: a leader that ends passes on to one of those who have the same.
pub(crate) const FAILURES: Site = Site {
    name: "failing disks",
    before: LED,
    alike: &[],
    bounds: Bounds { expiries: 1, crashes: 1, failures: 1, in_flight: 2, ..NOTHING },
    ..ANY_THREE
};

/// Two boxes and a witness: elections that need it, and what it stores of them.
pub(crate) const WITNESS: Site = Site {
    name: "two and a witness",
    boxes: 2,
    voters: &[1, 2],
    witness: Witness::Member,
    alike: &[1, 2],
    bounds: Bounds { expiries: 3, in_flight: 3, terms: 3, ..NOTHING },
    ..ANY_THREE
};

/// The same with a leader that takes an entry, and a crash.
pub(crate) const WITNESS_CRASHES: Site = Site {
    name: "two and a witness, crashes",
    boxes: 2,
    voters: &[1, 2],
    witness: Witness::Member,
    before: LED,
    alike: &[],
    bounds: Bounds { expiries: 2, crashes: 1, proposals: 1, in_flight: 2, terms: 3, ..NOTHING },
    ..ANY_THREE
};

/// A leader that swaps a silent box for the witness, and back; reads meanwhile.
pub(crate) const WITNESS_SWAPS: Site = Site {
    name: "two and a witness, swaps",
    boxes: 2,
    voters: &[1, 2],
    witness: Witness::Member,
    before: LED,
    alike: &[],
    bounds: Bounds { expiries: 1, ticks: 2, reads: 1, in_flight: 2, ..NOTHING },
    rules: Rules { heartbeats: true, quick_disks: true, ..VOTES_ONLY },
    ..ANY_THREE
};

impl Site {
    /// The state that the search starts from; every bound that is not zero is widened by `more`.
    pub(crate) fn start<C: Explored>(&self, more: u8) -> State<C> {
        self.begun(more, &mut None)
    }

    /// What happened before, in words.
    pub(crate) fn prologue<C: Explored>(&self) -> String {
        let mut lines = Vec::new();
        self.begun::<C>(0, &mut Some(&mut lines));
        lines.push("(so far the script; now the search)".to_owned());
        lines.join("\n")
    }

    fn begun<C: Explored>(&self, more: u8, story: &mut Story<'_>) -> State<C> {
        let disks: Vec<Disk> = (1..=self.boxes)
            .map(|id| {
                let (term, entries) = match self.begin {
                    Begin::Disks(disks) => disks[usize::try_from(id - 1).expect("sites are small")],
                    Begin::New => (0, &[][..]),
                };
                disk(term, entries, self.configuration_of(id))
            })
            .collect();
        let witness = (self.witness != Witness::None).then_some(NodeId(self.boxes + 1));
        let namings = namings(self.boxes + u64::from(witness.is_some()), self.alike);
        let state = State::new(ENOUGH, SMOOTHLY, namings, self.wishes, &disks, witness);
        let mut state = play(state, self.before, story).bounded(self.bounds.widened(more), self.rules);
        if let Some((from, to, term, index)) = self.acknowledgement {
            let body = Body::Appended { matched: LogIndex(index), received: LogIndex(index) };
            let message = Message { term: Term(term), body };
            state.put_on_its_way(Packet { from: NodeId(from), to: NodeId(to), message, configuration: None });
        }
        state
    }

    /// What a box begins with: the members know each other; one that is to join guesses, as the daemon does, that
    /// all others vote, and that it only follows.
    fn configuration_of(&self, id: u64) -> Configuration {
        let member = |id, role| Member { id: NodeId(id), role };
        let is_member = self.voters.contains(&id) || self.observers.contains(&id);
        let voters: Vec<u64> = match is_member {
            true => self.voters.to_vec(),
            false => (1..=self.boxes).filter(|other| *other != id).collect(),
        };
        let observers = if is_member { self.observers } else { &[id] };
        let voters = voters.into_iter().map(|id| member(id, MemberRole::Voter));
        let observers = observers.iter().map(|id| member(*id, MemberRole::Observer));
        let witness = (is_member && self.witness == Witness::Member)
            .then(|| member(self.boxes + 1, MemberRole::Witness));
        let members: Vec<Member> = voters.chain(observers).chain(witness).collect();
        Configuration::new(&members).expect("a witness stands beside an even number")
    }
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let voters = Configuration::clone(&self.configuration_of(self.voters[0]));
        write!(f, "{}: {} boxes, at first {voters:?}", self.name, self.boxes)?;
        if !self.before.is_empty() {
            write!(f, "; from the state after the script {:?}", self.before)?;
        }
        Ok(())
    }
}

fn disk(term: u64, entries: &[u64], configuration: Configuration) -> Disk {
    let mut log = PlainLog::after(Position::ZERO, configuration);
    for (term, index) in entries.iter().zip(1..) {
        log.push(Position { index: LogIndex(index), term: Term(*term), subterm: Subterm(0) });
    }
    Disk { term: Term(term), vote: None, log, snapshot: Position::ZERO }
}

/// All namings that exchange nodes of `alike` among each other; the first changes none.
fn namings(voters: u64, alike: &[u64]) -> Namings {
    let mut namings = vec![(1..=voters).collect::<Vec<u64>>()];
    for (place, one) in alike.iter().enumerate() {
        for naming in namings.clone() {
            for other in &alike[..place] {
                let mut exchanged = naming.clone();
                let at = |id: &u64| usize::try_from(id - 1).expect("sites are small");
                exchanged.swap(at(one), at(other));
                namings.push(exchanged);
            }
        }
    }
    namings.into()
}
