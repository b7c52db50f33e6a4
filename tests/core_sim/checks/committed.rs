//! No committed entry is rewritten: what is committed is on the disks of a quorum of the configuration in force
//! when the first box calls it so, no box ever holds another entry committed at that index, and no box drops
//! it: neither one that knows it to be committed, nor one that is in the term in which it was or a later one. (A
//! late message of an older leader may take it from a box that nobody counted.)

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{Configuration, Position, WitnessRecord};

use crate::log::{Entry, Log};
use crate::plan::size;

#[derive(Debug, Default)]
pub(crate) struct Committed(Vec<Known>);

/// A committed entry.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) entry: Entry,
    /// The term in which a box first called it committed; it was committed in that term or before.
    pub(crate) term: Term,
}

/// A box that calls something committed.
pub(crate) struct Learner<'a> {
    pub(crate) log: &'a Log,
    pub(crate) term: Term,
    pub(crate) commit: LogIndex,
    /// What was looked at before.
    pub(crate) seen: LogIndex,
}

/// By whom entries are held durably.
pub(crate) struct Holders<'a> {
    /// The end of a box's durable log, if it has the position.
    pub(crate) end: &'a dyn Fn(NodeId, Position) -> Option<Position>,
    pub(crate) record: &'a dyn Fn(NodeId) -> WitnessRecord,
}

/// How a quorum holds an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    ByBoxes,
    /// Only together with the witness.
    WithWitness,
    ByTooFew,
}

impl Committed {
    /// `quorum` says how a new one at the end is held.
    pub(crate) fn learned(&mut self, by: &Learner<'_>, quorum: impl Fn(Position) -> Held) -> Option<Held> {
        let log = by.log;
        let known_before = self.len();
        for index in by.seen.0 + 1..=by.commit.0 {
            let Some(entry) = log.get(LogIndex(index)) else {
                assert!(
                    index <= log.base.index.0,
                    "state machine safety: entry {index} is committed and not there"
                );
                assert!(index <= self.len(), "state machine safety: a snapshot covers what nobody committed");
                continue;
            };
            match self.get(LogIndex(index)) {
                Some(known) => assert_eq!(
                    &known.entry, entry,
                    "state machine safety: two boxes differ about a committed entry"
                ),
                None => {
                    assert_eq!(index, self.len() + 1, "state machine safety: a gap in what is committed");
                    self.0.push(Known { entry: entry.clone(), term: by.term });
                }
            }
        }
        let new = self.0.last().filter(|_| self.len() > known_before)?;
        // Whoever holds it holds all before it.
        let held = quorum(new.entry.position);
        assert_ne!(
            held,
            Held::ByTooFew,
            "durability: {:?} is committed on too few disks",
            new.entry.position
        );
        Some(held)
    }

    /// A box drops entries from the end of its log, in this term.
    pub(crate) fn dropped<'a>(
        &self,
        node: NodeId,
        term: Term,
        commit: LogIndex,
        entries: impl Iterator<Item = &'a Entry>,
    ) {
        for entry in entries {
            let index = entry.position.index;
            let is_known = self
                .get(index)
                .is_some_and(|known| known.entry.position == entry.position && known.term <= term);
            assert!(
                !is_known && index > commit,
                "no committed entry rewritten: {node} drops {:?}",
                entry.position
            );
        }
    }

    pub(crate) fn get(&self, index: LogIndex) -> Option<&Known> {
        self.0.get(size(index.0.checked_sub(1)?))
    }

    pub(crate) fn after(&self, index: LogIndex) -> &[Known] {
        &self.0[size(index.0).min(self.0.len())..]
    }

    pub(crate) fn last(&self) -> LogIndex {
        LogIndex(self.len())
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }
}

/// How a configuration's quorum holds a position when a leader whose log ends at `leader_end` commits it: a
/// majority of each half. The witness stands for the latest set that it has a record of, if that is of the
/// leader's subterm: it counts when so many of that set have an entry of this subterm (and the position) that
/// they are a majority together with it.
pub(crate) fn held(
    configuration: &Configuration,
    position: Position,
    leader_end: Position,
    holders: &Holders<'_>,
) -> Held {
    let halves: [Vec<NodeId>; 2] = [configuration.voters().collect(), configuration.outgoing().collect()];
    let mut all = Held::ByBoxes;
    for half in halves.iter().filter(|half| !half.is_empty()) {
        let witness = configuration.witness().filter(|id| half.contains(id));
        let boxes = half.iter().filter(|id| Some(**id) != witness);
        let ends: Vec<(NodeId, Position)> =
            boxes.filter_map(|id| Some((*id, (holders.end)(*id, position)?))).collect();
        let quorum = half.len() / 2 + 1;
        let counts = witness.is_some_and(|id| {
            let record = (holders.record)(id);
            let key = (record.last_term, record.last_subterm);
            let in_set =
                ends.iter().filter(|(id, end)| record.voters.has(*id) && (end.term, end.subterm) >= key);
            key == (leader_end.term, leader_end.subterm) && in_set.count() + 1 >= quorum
        });
        all = match ends.len() >= quorum {
            true => all,
            false if counts && all != Held::ByTooFew => Held::WithWitness,
            false => Held::ByTooFew,
        };
    }
    all
}
