//! What must hold in every state of a site: the safety of Raft, told about the real logs and disks.
//! Shared by the scenarios and the exploration.

use std::collections::BTreeMap;

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{Body, ConfigurationEntry, HardState, Message, Position, Role};

use crate::describe;
use crate::node::{Core, Node};

/// An entry, and in which term it was committed first: that of the leader that counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Committed {
    entry: Position,
    in_term: Term,
}

/// What history has settled; no crash takes it back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Who led in each term.
    pub(crate) leaders: BTreeMap<Term, NodeId>,
    /// What was committed, from index 1 on; `None` where only a snapshot tells.
    pub(crate) committed: Vec<Option<Committed>>,
    /// The latest configuration that is committed.
    pub(crate) configuration: ConfigurationEntry,
}

impl Settled {
    /// Looks at a node after it acted, among all of them. The error names the invariant.
    pub(crate) fn look<C: Core>(
        &mut self,
        node: &Node<C>,
        all: &[impl std::ops::Deref<Target = Node<C>>],
    ) -> Result<(), String> {
        self.one_leader_a_term(node)?;
        self.committed_stays(node, all)?;
        all.iter().filter(|other| other.id != node.id).try_for_each(|other| logs_match(node, other))
    }

    /// Leader completeness: who begins to lead has everything that was committed in earlier terms. (A late vote can
    /// make a leader of a term that is over already; it will not commit anything.)
    pub(crate) fn begins_to_lead<C: Core>(&self, node: &Node<C>, noop: Position) -> Result<(), String> {
        let lacks = |(place, known): (usize, &Option<Committed>)| {
            let index = LogIndex(place as u64 + 1);
            let has = |known: &Committed| node.log.get(index) == Some(known.entry);
            let counts = known.filter(|known| known.in_term < noop.term && index > node.log.base.index);
            counts.is_some_and(|known| !has(&known))
        };
        match self.committed.iter().enumerate().find(|entry| lacks(*entry)) {
            Some((place, _)) => Err(format!(
                "leader completeness: {} leads in term {} without the committed entry {}",
                node.id,
                noop.term,
                place + 1
            )),
            None => Ok(()),
        }
    }

    fn one_leader_a_term<C: Core>(&mut self, node: &Node<C>) -> Result<(), String> {
        let Some(core) = node.core.as_ref().filter(|core| core.role() == Role::Leader) else {
            return Ok(());
        };
        let term = core.term();
        let leader = *self.leaders.entry(term).or_insert(node.id);
        if leader == node.id {
            return Ok(());
        }
        Err(format!("election safety: {leader} and {} both lead in term {term}", node.id))
    }

    /// No committed entry is rewritten; all agree on what is committed; it is durable at a majority.
    fn committed_stays<C: Core>(
        &mut self,
        node: &Node<C>,
        all: &[impl std::ops::Deref<Target = Node<C>>],
    ) -> Result<(), String> {
        let commit = node.commit();
        if commit > node.log.last().index && node.core.is_some() {
            return Err(format!("{} has committed {commit}, beyond its log", node.id));
        }
        let in_term = node.core.as_ref().map_or(Term(0), Core::term);
        for index in 1..=commit.0 {
            let own = node.log.get(LogIndex(index)).map(|entry| Committed { entry, in_term });
            let place = usize::try_from(index - 1).expect("logs are short");
            match self.committed.get_mut(place) {
                Some(Some(known)) if own.is_some_and(|own| own.entry != known.entry) => {
                    return Err(format!(
                        "state machine safety: {} has committed another entry {index} than was committed",
                        node.id
                    ));
                }
                Some(Some(_)) => {}
                Some(known) => *known = own,
                None => self.committed.push(own),
            }
        }
        if commit > LogIndex::ZERO {
            let latest = node.log.configuration_at(commit);
            if latest.index >= self.configuration.index {
                self.configuration = latest;
            }
        }
        let ConfigurationEntry { index, configuration } = &self.configuration;
        // A leader that leaves a joint configuration counts by the incoming half from then on, also what is before the
        // entry that leaves it. That is enough: until it is committed, who is to lead needs both halves.
        let halves: [(Vec<NodeId>, LogIndex); 2] = [
            (configuration.voters().collect(), LogIndex(u64::MAX)),
            (configuration.outgoing().collect(), *index),
        ];
        for Committed { entry: known, .. } in self.committed.iter().flatten() {
            let counts = |(half, last): &&(Vec<NodeId>, LogIndex)| !half.is_empty() && known.index <= *last;
            for (half, _) in halves.iter().filter(counts) {
                // The witness has no log: it can make up for one of a majority.
                let witness = usize::from(configuration.witness().is_some_and(|id| half.contains(&id)));
                let have = all.iter().filter(|other| half.contains(&other.id) && other.disk.holds(*known));
                if (have.count() + witness) * 2 <= half.len() {
                    return Err(format!(
                        "durability: the committed entry {} of term {} is on the disks of no majority",
                        known.index, known.term
                    ));
                }
            }
        }
        Ok(())
    }
}

/// Two logs that hold the same entry at an index hold the same entries before it.
fn logs_match<C>(one: &Node<C>, other: &Node<C>) -> Result<(), String> {
    let shared = one.log.entries().iter().filter_map(|own| Some((*own, other.log.get(own.index)?)));
    let mut apart: Option<Position> = None;
    for (own, others) in shared {
        match apart {
            Some(before) if own == others => {
                return Err(format!(
                    "log matching: {} and {} have the same entry {} of term {}, and another at {}",
                    one.id, other.id, own.index, own.term, before.index
                ));
            }
            None if own != others => apart = Some(own),
            _ => {}
        }
    }
    Ok(())
}

/// Terms, votes and acknowledgements are on the sender's disk when it speaks.
pub(crate) fn what_is_said_is_durable<C>(
    node: &Node<C>,
    to: NodeId,
    message: &Message,
) -> Result<(), String> {
    let own = node.disk.hard_state();
    let has = |vote| own == HardState { term: message.term, vote: Some(vote) };
    let what = match message.body {
        Body::PreVote { .. }
        | Body::PreVoteAnswer { granted: true }
        | Body::WitnessVote { pre: true, .. } => return Ok(()),
        Body::Vote { .. } | Body::WitnessVote { .. } if !has(node.id) => {
            "asks for votes before its own is durable"
        }
        Body::VoteAnswer { granted: true } if !has(to) => "grants a vote that is not durable",
        Body::Appended { matched, .. } if !acknowledges_truly(node, matched) => {
            "acknowledges what is not durable"
        }
        _ if own.term < message.term => "speaks in a term that is not durable",
        _ => return Ok(()),
    };
    Err(format!("persist before send: {} {what}: {}", node.id, describe::message(message)))
}

fn acknowledges_truly<C>(node: &Node<C>, matched: LogIndex) -> bool {
    matched <= node.disk.log.base.index
        || node.log.get(matched).is_some_and(|position| node.disk.holds(position))
        || (matched == node.log.base.index && node.disk.holds(node.log.base))
}
