//! Whatever a peer says: nothing panics, nothing that is committed changes, nothing goes on without end.

use super::super::harness::*;
use super::super::*;
use crate::id::{LogIndex, Subterm};
use crate::time::Duration;
use proptest::prelude::*;
use std::vec::Vec;

/// A message made of a few small numbers; some of them are made huge.
#[derive(Clone, Debug)]
struct Said {
    from: u64,
    term: u64,
    kind: u64,
    numbers: [u64; 5],
    members: u64,
}

fn said() -> impl Strategy<Value = Said> {
    let numbers = proptest::array::uniform5(0u64..9);
    (0u64..12, 0u64..6, 0u64..20, numbers, 0u64..64).prop_map(|(from, term, kind, numbers, members)| Said {
        from,
        term,
        kind,
        numbers,
        members,
    })
}

fn huge(value: u64) -> u64 {
    if value == 8 { u64::MAX } else { value }
}

impl Said {
    fn message(&self) -> Message {
        let [a, b, c, d, e] = self.numbers;
        let position = Position { index: LogIndex(huge(a)), term: Term(huge(b)), subterm: Subterm(e / 4) };
        let entries = EntryRange {
            term: Term(d),
            subterm: Subterm(e / 3),
            first: LogIndex(huge(c)),
            last: LogIndex(c + e),
        };
        let mut set = NodeSet::default();
        [a, b, c].into_iter().for_each(|id| assert!(set.insert(NodeId(id))));
        let subterm = Subterm(huge(c));
        let body = match self.kind {
            0 => Body::PreVote { last: position },
            1 => Body::PreVoteAnswer { granted: a > 4 },
            2 => Body::Vote { last: position, transfer: e > 4 },
            3 => Body::VoteAnswer { granted: a > 4 },
            4..=8 => Body::Append {
                previous: position,
                entries: (e > 1).then_some(entries),
                commit: LogIndex(huge(d)),
            },
            9 => Body::Appended { matched: LogIndex(huge(a)), received: LogIndex(huge(b)) },
            10 => Body::Rejected { previous: LogIndex(huge(c)), hint: position },
            11 => Body::Heartbeat { commit: LogIndex(huge(a)), round: huge(b) },
            12 => Body::HeartbeatAnswer { round: huge(a) },
            13 => Body::Snapshot { last: position },
            14 => Body::TimeoutNow,
            15 => {
                Body::WitnessVote { pre: a > 4, last_term: Term(huge(b)), last_subterm: subterm, votes: set }
            }
            16 => Body::WitnessAppend { subterm, voters: set },
            17 => Body::WitnessAppended { subterm: Subterm(c), taken: d > 2 },
            18 => Body::WitnessPing { round: huge(a) },
            _ => Body::WitnessAppended { subterm, taken: d > 2 },
        };
        Message { term: Term(if self.term == 5 { u64::MAX - d } else { self.term }), body }
    }

    /// Members by the bits of a number, node 9 as witness where that can be.
    fn configuration(&self) -> Option<Configuration> {
        let named = |mask: u64| (0..6).filter(move |bit| mask >> bit & 1 > 0).map(|bit| NodeId(bit + 1));
        let mut voters: Vec<NodeId> = named(self.members).collect();
        let witness = self.kind.is_multiple_of(2).then_some(NodeId(WITNESS));
        voters.extend(witness);
        let outgoing: Vec<NodeId> = named(self.numbers[0] * 7 % 64).filter(|_| self.numbers[4] > 4).collect();
        let parts = ConfigurationParts {
            voters: &voters,
            outgoing: &outgoing,
            witness,
            ..ConfigurationParts::default()
        };
        Configuration::from_parts(&parts).ok().filter(|_| self.members > 20)
    }
}

/// A driver's part of a step; what it asserts is what any driver relies on.
fn step(node: &mut Node, now: Instant, said: &Said) {
    // Lies can make nodes differ; what one node holds committed stays.
    let committed = node.raft.commit_index();
    let held = node.raft.log.position(committed, &node.log);
    let (message, configuration) = (said.message(), said.configuration());
    let handled =
        node.raft.handle_message(now, NodeId(said.from), &message, configuration.as_ref(), &node.log);
    match handled {
        Ok(Handled::Append(range)) => node.log.put(&range),
        Ok(Handled::Install(base)) => node.log.reset(base, *node.raft.configuration()),
        Ok(Handled::Nothing) | Err(_) => {}
    }
    assert!(node.raft.commit_index() >= committed);
    assert!(node.raft.commit_index() <= node.raft.last().index);
    assert!(node.raft.configuration_index() <= node.raft.last().index);
    assert_eq!(node.raft.last(), node.log.last());
    if node.log.base.index <= committed {
        assert_eq!(node.log.position(committed), held);
    }
    let mut budget = 300;
    while let Some(event) = node.raft.poll_event() {
        if let Event::BecameLeader { noop: entry } | Event::OwnEntry { entry, .. } = event {
            let Position { index, term, subterm } = entry;
            node.log.put(&EntryRange { term, subterm, first: index, last: index });
        }
        budget -= 1;
        assert!(budget > 0, "events without end");
    }
    let peers: Vec<NodeId> = node.raft.peers().collect();
    assert!(peers.len() <= 5);
    for to in peers {
        while let Some(message) = node.raft.poll_message(now, to, true, &node.log) {
            assert!(message.is_plausible(), "{message:?}");
            budget -= 1;
            assert!(budget > 0, "messages without end");
        }
    }
    if let Some(persist) = node.raft.poll_persist() {
        node.raft.handle_persisted(now, persist.ticket);
    }
}

fn wish(node: &mut Node, now: Instant, said: &Said) {
    let id = NodeId(said.numbers[0] + 1);
    let change = match said.kind % 7 {
        0 => Change::AddObserver(id),
        1 => Change::AddWitness(id),
        2 => Change::Promote(id),
        3 => Change::Demote(id),
        4 => Change::Remove(id),
        5 => {
            let _ = node.raft.transfer(now, id);
            return;
        }
        _ => {
            if let Ok(range) = node.raft.propose(now, said.numbers[1], said.numbers[2] * 100) {
                node.log.put(&range);
            }
            return;
        }
    };
    if let Ok((range, configuration)) = node.raft.change_membership(now, &[change], Leave::ByItself) {
        node.log.put(&range);
        assert_eq!(configuration, *node.raft.configuration());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn whatever_is_said_nothing_panics_and_what_is_committed_stays(
        all in proptest::collection::vec(said(), 1..80),
        witnessed in any::<bool>(),
    ) {
        let mut net = if witnessed { Net::witnessed(2) } else { Net::elect(3, 1) };
        let mut now = net.now;
        for said in all {
            step(&mut net.nodes[0], now, &said);
            if said.numbers[3] > 5 {
                wish(&mut net.nodes[0], now, &said);
            }
            now += Duration(said.numbers[0] * 10_000);
            net.nodes[0].raft.handle_timeout(now);
        }
    }

    #[test]
    fn whatever_a_witness_is_told_its_promises_stand(all in proptest::collection::vec(said(), 1..200)) {
        let mut witness: Witness = Witness::new(WitnessRecord::default());
        for said in all {
            let before = *witness.record();
            if let Ok(Reaction::Store(record)) = witness.handle(NodeId(said.from), &said.message()) {
                prop_assert_eq!(*witness.record(), before, "not before it is stored");
                if said.numbers[4] > 3 { witness.stored(); } else { witness.not_stored(); }
                prop_assert!(record.term >= before.term);
                prop_assert!((record.last_term, record.last_subterm) >= (before.last_term, before.last_subterm));
                let revoked = record.term == before.term && before.vote.is_some() && record.vote != before.vote;
                prop_assert!(!revoked, "one vote a term");
            }
        }
    }
}
