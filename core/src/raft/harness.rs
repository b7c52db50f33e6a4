//! For tests: nodes with plain logs and disks on a network whose every message can be held.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::vec::Vec;

pub(super) use super::plain_log::PlainLog;
use super::*;
use crate::id::Subterm;
use crate::time::Duration;

pub(super) const TIMEOUT: u64 = 100_000;
pub(super) const HEARTBEAT: u64 = 20_000;
const STEP: u64 = 5_000;

pub(super) struct Node {
    pub(super) raft: Raft<5, 4>,
    pub(super) log: PlainLog,
    pub(super) disk: PlainLog,
    pub(super) disk_hard_state: HardState,
    /// The group that is being written.
    pub(super) writing: Option<Persist>,
    /// The entries in it as they were when the writing began.
    pub(super) content: Vec<(Position, Option<Configuration>)>,
    /// Groups stay in `writing` until the test says.
    pub(super) slow_disk: bool,
    /// Messages other than small ones are not taken.
    pub(super) bulk_full: bool,
    pub(super) events: Vec<Event>,
    pub(super) ignored: Vec<Ignored>,
    pub(super) down: bool,
}

/// The witness's identity in all tests.
pub(super) const WITNESS: u64 = 9;

/// A witness and its disk.
pub(super) struct WitnessNode {
    pub(super) core: Witness,
    pub(super) writes: u64,
    pub(super) asked: u64,
    pub(super) down: bool,
}

/// A message on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) message: Message,
    /// What the payload of the first entry, or the snapshot, holds.
    pub(super) configuration: Option<Configuration>,
}

pub(super) struct Net {
    pub(super) nodes: Vec<Node>,
    pub(super) witness: WitnessNode,
    pub(super) now: Instant,
    pub(super) wire: VecDeque<Sent>,
    pub(super) cuts: BTreeSet<(u64, u64)>,
    /// Messages for which this holds are lost.
    pub(super) lose: fn(&Sent) -> bool,
    pub(super) committed: Vec<Position>,
    /// Who led in which term.
    leaders: BTreeMap<Term, u64>,
}

pub(super) fn config(id: u64) -> Config {
    Config {
        id: NodeId(id),
        election_timeout: Duration(TIMEOUT),
        heartbeat_interval: Duration(HEARTBEAT),
        seed: 7,
        append_bytes_max: 100,
        inflight_bytes_max: 300,
        uncommitted_bytes_max: 1000,
    }
}

pub(super) fn members(voters: u64, observers: u64) -> Vec<Member> {
    let role = |id| if id <= voters { MemberRole::Voter } else { MemberRole::Observer };
    (1..=voters + observers).map(|id| Member { id: NodeId(id), role: role(id) }).collect()
}

pub(super) fn at(index: u64, term: u64) -> Position {
    Position { index: LogIndex(index), term: Term(term), subterm: Subterm(0) }
}

pub(super) fn range(first: u64, last: u64, term: u64) -> EntryRange {
    EntryRange { term: Term(term), subterm: Subterm(0), first: LogIndex(first), last: LogIndex(last) }
}

impl Net {
    /// Nodes 1 to `voters` vote, those after observe. Nothing has happened yet.
    pub(super) fn new(voters: u64, observers: u64) -> Net {
        let logs = (0..voters + observers).map(|_| (HardState::default(), Vec::new())).collect();
        Net::with_logs(voters, observers, logs)
    }

    /// Voters and a witness, node 1 leading.
    pub(super) fn witnessed(voters: u64) -> Net {
        let mut members = members(voters, 0);
        members.push(Member { id: NodeId(WITNESS), role: MemberRole::Witness });
        let mut net = Net::new(voters, 0);
        for id in 1..=voters {
            let disk = PlainLog::new(Configuration::new(&members).unwrap(), Vec::new());
            *net.node(id) = Net::start(id, HardState::default(), disk, Instant(0));
        }
        net.campaign(1);
        assert_eq!(net.leader(), Some(1));
        net.pass(2 * HEARTBEAT);
        net
    }

    /// With these hard states and durable logs, given as the terms of the entries.
    pub(super) fn with_logs(voters: u64, observers: u64, logs: Vec<(HardState, Vec<u64>)>) -> Net {
        let members = members(voters, observers);
        let nodes = logs.into_iter().zip(1..).map(|((hard_state, terms), id)| {
            let entries = terms.iter().zip(1..).map(|(term, index)| at(index, *term)).collect();
            let disk = PlainLog::new(Configuration::new(&members).unwrap(), entries);
            Net::start(id, hard_state, disk, Instant(0))
        });
        let nodes = nodes.collect();
        let wire = VecDeque::new();
        let cuts = BTreeSet::new();
        let core = Witness::new(WitnessRecord::default());
        let witness = WitnessNode { core, writes: 0, asked: 0, down: false };
        Net {
            nodes,
            witness,
            now: Instant(0),
            wire,
            cuts,
            lose: |_| false,
            committed: Vec::new(),
            leaders: BTreeMap::new(),
        }
    }

    fn start(id: u64, hard_state: HardState, disk: PlainLog, now: Instant) -> Node {
        Node {
            raft: Raft::new(config(id), disk.durable(hard_state), now)
                .unwrap_or_else(|error| panic!("{error}: {hard_state:?} {disk:?}")),
            log: disk.clone(),
            disk,
            disk_hard_state: hard_state,
            writing: None,
            content: Vec::new(),
            slow_disk: false,
            bulk_full: false,
            events: Vec::new(),
            ignored: Vec::new(),
            down: false,
        }
    }

    pub(super) fn node(&mut self, id: u64) -> &mut Node {
        &mut self.nodes[usize::try_from(id).unwrap() - 1]
    }

    pub(super) fn raft(&mut self, id: u64) -> &mut Raft<5, 4> {
        &mut self.node(id).raft
    }

    fn ids(&self) -> std::ops::RangeInclusive<u64> {
        1..=self.nodes.len() as u64
    }

    /// Forgets what was not synced and starts again.
    pub(super) fn restart(&mut self, id: u64) {
        let now = self.now;
        let node = self.node(id);
        let (hard_state, disk) = (node.disk_hard_state, node.disk.clone());
        *node = Net::start(id, hard_state, disk, now);
    }

    /// A node that belongs to no group yet, with an empty disk.
    pub(super) fn join(&mut self) -> u64 {
        let id = self.nodes.len() as u64 + 1;
        let disk = PlainLog::new(Configuration::EMPTY, Vec::new());
        self.nodes.push(Net::start(id, HardState::default(), disk, self.now));
        id
    }

    /// A leader changes the members; its driver stores the entry.
    pub(super) fn change(
        &mut self,
        id: u64,
        changes: &[Change],
    ) -> Result<(EntryRange, Configuration), MembershipError> {
        let now = self.now;
        let node = self.node(id);
        let (range, configuration) = node.raft.change_membership(now, changes, Leave::ByItself)?;
        node.log.put(&range);
        node.log.put_configuration(range.first, configuration);
        Ok((range, configuration))
    }

    /// What node `id` wants to do, as its driver would: events, messages, disk.
    pub(super) fn drive(&mut self, id: u64) {
        let now = self.now;
        let node = &mut self.nodes[usize::try_from(id).unwrap() - 1];
        if node.down {
            return;
        }
        while let Some(event) = node.raft.poll_event() {
            node.events.push(event);
            if let Event::BecameLeader { noop } = event {
                assert_eq!(
                    *self.leaders.entry(noop.term).or_insert(id),
                    id,
                    "two leaders in term {}",
                    noop.term
                );
                for entry in self.committed.iter().filter(|entry| entry.index > node.log.base.index) {
                    let has_it = node.log.position(entry.index) == Some(*entry);
                    assert!(has_it, "leader {id} of term {} lacks {entry:?}", noop.term);
                }
                node.log.put(&range(noop.index.0, noop.index.0, noop.term.0));
            }
            if let Event::OwnEntry { entry, configuration } = event {
                node.log.put(&EntryRange {
                    subterm: entry.subterm,
                    ..range(entry.index.0, entry.index.0, entry.term.0)
                });
                if let Some(configuration) = configuration {
                    node.log.put_configuration(entry.index, configuration);
                }
            }
        }
        let peers: Vec<NodeId> = node.raft.peers().collect();
        let mut sent = Vec::new();
        for to in peers {
            while let Some(message) = node.raft.poll_message(now, to, !node.bulk_full, &node.log) {
                assert!(message.is_plausible(), "{message:?}");
                let configuration = match message.body {
                    Body::Append { entries: Some(range), .. } => node.log.configuration_in(range.first),
                    Body::Snapshot { last } => Some(node.log.configuration_at(last.index)),
                    _ => None,
                };
                sent.push(Sent { from: id, to: to.0, message, configuration });
            }
        }
        if let Some(persist) = node.raft.poll_persist() {
            let entries =
                persist.entries.into_iter().flat_map(|(first, last)| first.0..=last.0).map(LogIndex);
            let content =
                |index| (node.log.position(index).expect("named"), node.log.configuration_in(index));
            node.content = entries.map(content).collect();
            assert!(node.writing.replace(persist).is_none(), "one group at a time");
        }
        if !node.slow_disk && self.node(id).writing.is_some() {
            self.finish_write(id);
            self.drive(id);
        }
        let kept = |s: &Sent| !self.cuts.contains(&(s.from, s.to)) && !(self.lose)(s);
        self.wire.extend(sent.into_iter().filter(kept));
        self.check_committed(id);
    }

    /// The outstanding group reaches the disk.
    pub(super) fn finish_write(&mut self, id: u64) {
        let now = self.now;
        let node = self.node(id);
        let persist = node.writing.take().expect("a group is being written");
        if let Some(hard_state) = persist.hard_state {
            node.disk_hard_state = hard_state;
        }
        if let Some(base) = persist.reset {
            node.disk.reset(base, node.log.configuration_at(base.index));
        }
        if let Some(last) = persist.truncate_after {
            node.disk.truncate(last);
        }
        for (entry, configuration) in core::mem::take(&mut node.content) {
            let Position { index, term, subterm } = entry;
            node.disk.put(&EntryRange { term, subterm, first: index, last: index });
            if let Some(configuration) = configuration {
                node.disk.put_configuration(index, configuration);
            }
        }
        node.raft.handle_persisted(now, persist.ticket);
    }

    pub(super) fn fail_write(&mut self, id: u64) {
        let now = self.now;
        let persist = self.node(id).writing.take().expect("a group is being written");
        self.raft(id).handle_persist_failed(now, persist.ticket);
    }

    /// The witness gets a message; what it has to store is on disk, as bytes, before it answers.
    fn deliver_to_witness(&mut self, sent: &Sent) -> Result<Handled, Ignored> {
        let witness = &mut self.witness;
        if witness.down {
            return Err(Ignored::UnknownSender);
        }
        witness.asked += 1;
        let (to, message) = match witness.core.handle(NodeId(sent.from), &sent.message)? {
            Reaction::Answer(message) => (sent.from, message),
            Reaction::Store(record) => {
                witness.writes += 1;
                assert_eq!(WitnessRecord::decode(&record.encode()), Ok(record));
                let (to, message) = witness.core.stored().expect("it is stored");
                (to.0, message)
            }
        };
        let answer = Sent { from: WITNESS, to, message, configuration: None };
        if !self.cuts.contains(&(WITNESS, to)) && !(self.lose)(&answer) {
            self.wire.push_back(answer);
        }
        Ok(Handled::Nothing)
    }

    /// Hands a message over and lets the receiver act.
    pub(super) fn deliver(&mut self, sent: Sent) -> Result<Handled, Ignored> {
        let now = self.now;
        if sent.to == WITNESS {
            return self.deliver_to_witness(&sent);
        }
        let node = self.node(sent.to);
        if node.down {
            return Err(Ignored::UnknownSender);
        }
        let configuration = sent.configuration.as_ref();
        let handled =
            node.raft.handle_message(now, NodeId(sent.from), &sent.message, configuration, &node.log);
        match handled {
            Ok(Handled::Append(entries)) => {
                node.log.put(&entries);
                if let (Body::Append { entries: Some(whole), .. }, Some(configuration)) =
                    (sent.message.body, sent.configuration)
                    && whole.first == entries.first
                {
                    node.log.put_configuration(entries.first, configuration);
                }
            }
            Ok(Handled::Install(base)) => {
                node.log.reset(base, sent.configuration.unwrap_or(*node.raft.configuration()));
            }
            Ok(Handled::Nothing) => {}
            Err(why) => node.ignored.push(why),
        }
        self.drive(sent.to);
        handled
    }

    /// Gives a message to a node as if it came from `from`.
    pub(super) fn say(&mut self, from: u64, to: u64, term: u64, body: Body) -> Result<Handled, Ignored> {
        self.deliver(Sent { from, to, message: Message { term: Term(term), body }, configuration: None })
    }

    /// The same, and it is taken.
    pub(super) fn tell(&mut self, from: u64, to: u64, term: u64, body: Body) {
        let handled = self.say(from, to, term, body);
        assert!(handled.is_ok(), "{handled:?}");
    }

    /// Delivers until nothing is on its way.
    pub(super) fn settle(&mut self) {
        self.ids().for_each(|id| self.drive(id));
        let mut budget = 100_000;
        while let Some(sent) = self.wire.pop_front() {
            let _ = self.deliver(sent);
            budget -= 1;
            assert!(budget > 0, "the network never becomes quiet");
        }
    }

    /// Lets time pass for all.
    pub(super) fn pass(&mut self, span: u64) {
        let end = self.now + Duration(span);
        while self.now < end {
            self.now += Duration(STEP);
            for id in self.ids() {
                let now = self.now;
                let node = self.node(id);
                if !node.down && node.raft.poll_timeout() <= now {
                    node.raft.handle_timeout(now);
                }
            }
            self.settle();
        }
    }

    /// Makes `id` campaign now, as if its timer had run out and nobody had heard a leader for long.
    pub(super) fn campaign(&mut self, id: u64) {
        self.now += Duration(2 * TIMEOUT);
        let now = self.now;
        self.raft(id).handle_timeout(now);
        self.settle();
    }

    pub(super) fn elect(voters: u64, observers: u64) -> Net {
        let mut net = Net::new(voters, observers);
        net.campaign(1);
        assert_eq!(net.leader(), Some(1));
        net
    }

    /// The one that leads in the newest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leads =
            self.nodes.iter().zip(1..).filter(|(node, _)| node.raft.role() == Role::Leader && !node.down);
        leads.max_by_key(|(node, _)| node.raft.term()).map(|(_, id)| id)
    }

    pub(super) fn propose(&mut self, id: u64, entries: u64) -> Result<EntryRange, ProposeError> {
        let now = self.now;
        let node = self.node(id);
        let taken = node.raft.propose(now, entries, entries * 10)?;
        node.log.put(&taken);
        Ok(taken)
    }

    pub(super) fn cut_off(&mut self, id: u64) {
        for other in self.ids().chain([WITNESS]) {
            self.cuts.insert((id, other));
            self.cuts.insert((other, id));
        }
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
        self.lose = |_| false;
    }

    /// Takes what was sent out of the wire.
    pub(super) fn sent(&mut self, from: u64, to: u64) -> Vec<Body> {
        let is_mine = |sent: &Sent| (sent.from, sent.to) == (from, to);
        let mine = self.wire.iter().filter(|sent| is_mine(sent)).map(|sent| sent.message.body).collect();
        self.wire.retain(|sent| !is_mine(sent));
        mine
    }

    pub(super) fn commits(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.raft.commit_index().0).collect()
    }

    pub(super) fn assert_same_logs(&self) {
        let ends: Vec<Position> = self.nodes.iter().map(|node| node.raft.last()).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "{ends:?}");
        let index = |i| self.nodes.iter().filter_map(|n| n.log.position(i)).collect::<BTreeSet<_>>();
        for i in 1..=ends[0].index.0 {
            assert_eq!(index(LogIndex(i)).len(), 1, "entry {i} differs");
        }
    }

    /// Nobody ever commits something else at an index.
    fn check_committed(&mut self, id: u64) {
        let node = &self.nodes[usize::try_from(id).unwrap() - 1];
        let commit = node.raft.commit_index();
        assert!(commit <= node.log.last().index, "committed beyond the log");
        for index in node.log.base.index.0 + 1..=commit.0 {
            let entry = node.log.position(LogIndex(index)).expect("a committed entry is in the log");
            let place = usize::try_from(index).unwrap() - 1;
            match self.committed.get(place) {
                Some(known) => assert_eq!(*known, entry, "node {id} commits something else"),
                None if place == self.committed.len() => self.committed.push(entry),
                None => {}
            }
        }
    }
}

impl core::fmt::Debug for Net {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let statuses = self.nodes.iter().map(|node| node.raft.status());
        f.debug_list().entries(statuses).finish()
    }
}
