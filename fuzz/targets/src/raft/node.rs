//! A node as a driver runs it, with a log and a disk in memory, and what must hold whatever its peers say.

use std::collections::BTreeMap;

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{
    Body, Config, Configuration, ConfigurationEntry, Durable, EntryRange, Event, Handled, HardState, LogView,
    Message, Persist, Position, Raft,
};
use tally_core::time::{Duration, Instant};

/// No step of a driver asks for more messages than this of one peer: what is in flight, and what is owed.
const MESSAGES_MAX: usize = 64;
const ME: NodeId = NodeId(1);

/// An entry as far as the core is concerned.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Entry {
    position: Position,
    bytes: u32,
    configuration: Option<Configuration>,
}

#[derive(Clone, Debug)]
struct Log {
    base: Position,
    base_configuration: ConfigurationEntry,
    entries: Vec<Entry>,
}

impl Log {
    fn last(&self) -> Position {
        self.entries.last().map_or(self.base, |entry| entry.position)
    }

    fn get(&self, index: LogIndex) -> Option<&Entry> {
        let place = index.0.checked_sub(self.base.index.0)?.checked_sub(1)?;
        self.entries.get(usize::try_from(place).ok()?)
    }

    fn truncate(&mut self, last: LogIndex) {
        self.entries.retain(|entry| entry.position.index <= last);
    }

    fn push(&mut self, entry: Entry) {
        assert_eq!(self.last().index.next(), entry.position.index, "a gap in the log");
        self.entries.push(entry);
    }

    fn compact(&mut self, base: Position) {
        let of_base = self.entries.iter().take_while(|entry| entry.position.index <= base.index);
        let latest = of_base.filter_map(|entry| entry.configuration).last();
        let configuration = latest.unwrap_or(self.base_configuration.configuration);
        self.base_configuration = ConfigurationEntry { index: base.index, configuration };
        self.entries.retain(|entry| entry.position.index > base.index);
        self.base = base;
    }

    /// The latest two configurations.
    fn configurations(&self) -> (ConfigurationEntry, Option<ConfigurationEntry>) {
        let mut found = (self.base_configuration, None);
        for entry in &self.entries {
            if let Some(configuration) = entry.configuration {
                let entry = ConfigurationEntry { index: entry.position.index, configuration };
                found = (entry, Some(found.0));
            }
        }
        found
    }
}

impl LogView for Log {
    fn position(&self, index: LogIndex) -> Option<Position> {
        if index == self.base.index { Some(self.base) } else { self.get(index).map(|entry| entry.position) }
    }

    fn fit(&self, first: LogIndex, last: LogIndex, bytes_max: u32) -> (LogIndex, u32) {
        let size = |index: u64| self.get(LogIndex(index)).map_or(0, |entry| entry.bytes);
        let (mut end, mut bytes) = (first, size(first.0));
        while end < last && bytes.saturating_add(size(end.0 + 1)) <= bytes_max {
            end = end.next();
            bytes += size(end.0);
        }
        (end, bytes)
    }
}

/// A group on its way to the disk.
#[derive(Debug)]
struct Write {
    persist: Persist,
    entries: Vec<Entry>,
    base_configuration: ConfigurationEntry,
}

pub(super) struct Node {
    pub(super) core: Raft,
    pub(super) now: Instant,
    log: Log,
    disk: Log,
    hard_state: HardState,
    write: Option<Write>,
    /// What was committed in this incarnation.
    committed: BTreeMap<LogIndex, Position>,
    commit: LogIndex,
}

impl Node {
    pub(super) fn new(configuration: Configuration) -> Node {
        let base_configuration = ConfigurationEntry { index: LogIndex::ZERO, configuration };
        let disk = Log { base: Position::ZERO, base_configuration, entries: Vec::new() };
        let hard_state = HardState::default();
        let (core, now) = (start(&disk, hard_state, Instant(0)), Instant(0));
        let commit = core.commit_index();
        Node {
            core,
            now,
            log: disk.clone(),
            disk,
            hard_state,
            write: None,
            committed: BTreeMap::new(),
            commit,
        }
    }

    /// Power goes: what was on its way to the disk is on it, or not. It comes back.
    pub(super) fn crash(&mut self, written: bool) {
        if let Some(write) = self.write.take().filter(|_| written) {
            self.put_on_disk(&write);
        }
        self.log = self.disk.clone();
        self.core = start(&self.disk, self.hard_state, self.now);
        self.commit = self.core.commit_index();
        // A peer that lies may have had it commit what it had not made durable.
        self.committed.clear();
        self.step();
    }

    pub(super) fn pass(&mut self, ms: u16) {
        self.now.0 += u64::from(ms) * 1000;
        if self.now >= self.core.poll_timeout() {
            self.core.handle_timeout(self.now);
        }
    }

    /// A message, with the payloads of its entries and the configuration that the first of them (or the snapshot)
    /// holds.
    pub(super) fn receive(
        &mut self,
        from: NodeId,
        message: &Message,
        payloads: &[Bytes],
        configuration: Option<Configuration>,
    ) {
        let term = self.core.term();
        match self.core.handle_message(self.now, from, message, configuration.as_ref(), &self.log) {
            Ok(Handled::Nothing) => {}
            Ok(Handled::Append(range)) => self.append(message, range, payloads, configuration),
            Ok(Handled::Install(base)) => {
                assert!(base.index > self.commit, "a snapshot over what is committed");
                let configuration = configuration.unwrap_or(self.log.configurations().0.configuration);
                let base_configuration = ConfigurationEntry { index: base.index, configuration };
                self.log = Log { base, base_configuration, entries: Vec::new() };
            }
            Err(_) => assert!(self.core.term() >= term),
        }
    }

    fn append(
        &mut self,
        message: &Message,
        range: EntryRange,
        payloads: &[Bytes],
        configuration: Option<Configuration>,
    ) {
        let Body::Append { entries: Some(whole), .. } = message.body else {
            panic!("entries out of nothing")
        };
        assert!(range.first > self.commit, "{range:?} over what is committed");
        assert!(
            range.first >= whole.first && range.last == whole.last,
            "{range:?} is no suffix of {whole:?}"
        );
        let skip = usize::try_from(range.first.0 - whole.first.0).expect("a message is small");
        assert_eq!(payloads[skip..].len() as u64, range.last.0 - range.first.0 + 1);
        self.log.truncate(range.first.prev());
        for (index, payload) in (range.first.0..).zip(&payloads[skip..]) {
            let position = Position { index: LogIndex(index), term: range.term, subterm: range.subterm };
            let configuration = configuration.filter(|_| index == whole.first.0);
            self.log.push(Entry { position, bytes: payload.len() as u32, configuration });
        }
    }

    /// Puts this leader's own entries into its log.
    pub(super) fn put_own(&mut self, range: &EntryRange, configuration: Option<Configuration>) {
        for index in range.first.0..=range.last.0 {
            let position = Position { index: LogIndex(index), term: range.term, subterm: range.subterm };
            self.log.push(Entry { position, bytes: 10, configuration });
        }
    }

    pub(super) fn finish_write(&mut self) {
        if let Some(write) = self.write.take() {
            self.put_on_disk(&write);
            self.core.handle_persisted(self.now, write.persist.ticket);
        }
    }

    pub(super) fn fail_write(&mut self, written: bool) {
        if let Some(write) = self.write.take() {
            if written {
                self.put_on_disk(&write);
            }
            self.core.handle_persist_failed(self.now, write.persist.ticket);
        }
    }

    pub(super) fn compact(&mut self, back: u64) {
        let index = LogIndex(self.commit.0.saturating_sub(back));
        if let Some(base) = self.log.position(index)
            && self.core.compacted(base)
        {
            self.log.compact(base);
            self.disk.compact(base);
        }
    }

    /// What a driver does after each input, and what must hold then.
    pub(super) fn step(&mut self) {
        let mut events = 0;
        while let Some(event) = self.core.poll_event() {
            events += 1;
            assert!(events < MESSAGES_MAX, "events without end");
            let own = |at: Position| EntryRange {
                term: at.term,
                subterm: at.subterm,
                first: at.index,
                last: at.index,
            };
            match event {
                Event::BecameLeader { noop } => self.put_own(&own(noop), None),
                Event::OwnEntry { entry, configuration } => self.put_own(&own(entry), configuration),
                _ => {}
            }
        }
        let peers: Vec<NodeId> = self.core.peers().collect();
        for to in peers {
            let mut count = 0;
            while let Some(message) = self.core.poll_message(self.now, to, true, &self.log) {
                count += 1;
                assert!(count < MESSAGES_MAX, "messages without end to {to}");
                self.check_message(to, &message);
            }
        }
        if self.write.is_none()
            && let Some(persist) = self.core.poll_persist()
        {
            self.begin_write(persist);
        }
        self.check();
    }

    fn begin_write(&mut self, persist: Persist) {
        let entry = |index| *self.log.get(LogIndex(index)).expect("the core names what is in the log");
        let entries =
            persist.entries.map_or_else(Vec::new, |(first, last)| (first.0..=last.0).map(entry).collect());
        self.write = Some(Write { persist, entries, base_configuration: self.log.base_configuration });
    }

    fn put_on_disk(&mut self, write: &Write) {
        let Persist { hard_state, reset, truncate_after, .. } = write.persist;
        if let Some(next) = hard_state {
            let before = self.hard_state;
            assert!(next.term >= before.term, "the term went back");
            if next.term == before.term && before.vote.is_some() {
                assert_eq!(next.vote, before.vote, "a second vote in a term");
            }
            self.hard_state = next;
        }
        if let Some(base) = reset {
            self.disk = Log { base, base_configuration: write.base_configuration, entries: Vec::new() };
        }
        if let Some(last) = truncate_after {
            self.disk.truncate(last);
        }
        write.entries.iter().for_each(|entry| self.disk.push(*entry));
    }

    /// Nothing is said before it is durable.
    fn check_message(&self, to: NodeId, message: &Message) {
        // Who never was in a term refuses in none; its peers pass over that.
        let in_none = *message == Message { term: Term(0), body: Body::PreVoteAnswer { granted: false } };
        assert!(message.is_plausible() || in_none, "{message:?}");
        match message.body {
            Body::VoteAnswer { granted: true } => {
                let voted = self.hard_state.term == message.term && self.hard_state.vote == Some(to);
                assert!(voted, "{message:?} to {to}, and durable is {:?}", self.hard_state);
            }
            Body::Vote { .. } | Body::WitnessVote { pre: false, .. } | Body::Heartbeat { .. } => {
                assert!(self.hard_state.term >= message.term, "{message:?}, durable: {:?}", self.hard_state);
            }
            Body::Appended { matched, .. } => {
                assert!(self.hard_state.term >= message.term, "{message:?}, durable: {:?}", self.hard_state);
                assert!(
                    matched <= self.disk.last().index,
                    "{message:?}, and durable is {:?}",
                    self.disk.last()
                );
            }
            Body::Append { entries: Some(range), .. } => {
                for index in range.first.0..=range.last.0 {
                    let there = self.log.get(LogIndex(index)).map(|entry| entry.position);
                    let said = Position { index: LogIndex(index), term: range.term, subterm: range.subterm };
                    assert_eq!(there, Some(said), "{message:?} is not in the log");
                }
            }
            _ => {}
        }
    }

    fn check(&mut self) {
        let commit = self.core.commit_index();
        assert!(commit >= self.commit, "the commit index fell from {} to {commit}", self.commit);
        assert!(commit <= self.core.last().index, "more is committed than there is");
        assert_eq!(self.core.last(), self.log.last(), "the core's log is not the driver's");
        assert!(self.core.durable_index() <= self.disk.last().index, "not all of this is durable");
        for index in self.commit.0 + 1..=commit.0 {
            if let Some(entry) = self.log.get(LogIndex(index)) {
                self.committed.insert(entry.position.index, entry.position);
            }
        }
        self.commit = commit;
        for entry in &self.log.entries {
            if let Some(committed) = self.committed.get(&entry.position.index) {
                assert_eq!(entry.position, *committed, "a committed entry changed");
            }
        }
        let _ = (self.core.status(), self.core.poll_timeout(), self.core.read_confirmed());
    }
}

fn start(disk: &Log, hard_state: HardState, now: Instant) -> Raft {
    let config = Config {
        id: ME,
        election_timeout: Duration(200_000),
        heartbeat_interval: Duration(50_000),
        seed: 7,
        append_bytes_max: 1 << 20,
        inflight_bytes_max: 4 << 20,
        uncommitted_bytes_max: 16 << 20,
    };
    let (configuration, previous_configuration) = disk.configurations();
    let (snapshot, last) = (disk.base, disk.last());
    let durable = Durable { hard_state, snapshot, last, configuration, previous_configuration };
    Raft::new(config, durable, now).expect("what the core had made durable starts")
}
