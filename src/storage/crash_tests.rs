//! Everything acknowledged survives a crash, a kill or an error at any point: random histories on the faulty file
//! system, compared with a model.

use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use proptest::prelude::*;
use tally_core::id::{LogIndex, NodeId, Subterm, Term};
use tally_core::raft::{HardState, Position};

use super::faulty::{Fault, FaultyFileSystem};
use super::{Entry, OpenError, Options, Owner, Recovered, Storage, WriteError, WriteGroup};

const OWNER: Owner = Owner { site_id: 7, node: 3 };

#[derive(Clone, Debug)]
enum Step {
    Append {
        count: u8,
        bytes: u16,
        cut: Option<u8>,
        vote: bool,
    },
    Snapshot {
        behind: u8,
        bytes: u16,
    },
    Install {
        ahead: u8,
        bytes: u16,
    },
    PowerLoss,
    Kill,
    Arm {
        after: u8,
        fault: Fault,
    },
    ArmRead {
        after: u8,
    },
    /// Only so many more bytes fit, until the next restart.
    Fill {
        room: u32,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let fault = prop_oneof![
        Just(Fault::Crash),
        Just(Fault::Error(ErrorKind::Other)),
        Just(Fault::Error(ErrorKind::StorageFull)),
    ];
    prop_oneof![
        12 => (1u8..6, 0u16..4000, prop::option::weighted(0.2, any::<u8>()), any::<bool>())
            .prop_map(|(count, bytes, cut, vote)| Step::Append { count, bytes, cut, vote }),
        3 => (0u8..8, 0u16..3000).prop_map(|(behind, bytes)| Step::Snapshot { behind, bytes }),
        1 => (0u8..8, 0u16..3000).prop_map(|(ahead, bytes)| Step::Install { ahead, bytes }),
        1 => Just(Step::PowerLoss),
        1 => Just(Step::Kill),
        4 => (0u8..10, fault).prop_map(|(after, fault)| Step::Arm { after, fault }),
        2 => (0u8..20).prop_map(|after| Step::ArmRead { after }),
        1 => (0u32..80_000).prop_map(|room| Step::Fill { room }),
    ]
}

/// What must be on disk.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    hard_state: HardState,
    snapshot: Option<(Position, Vec<u8>)>,
    /// Before the first of `entries`: the beginning, or an installed snapshot.
    base: Position,
    entries: Vec<Entry>,
}

impl Model {
    fn last(&self) -> Position {
        self.entries.last().map_or(self.base, |entry| entry.position)
    }

    fn floor(&self) -> LogIndex {
        self.snapshot.as_ref().map_or(LogIndex::ZERO, |(position, _)| position.index)
    }

    fn matches(&self, found: &Recovered) -> bool {
        let floor = self.floor();
        self.hard_state == found.hard_state
            && self.snapshot == found.snapshot
            && self.last() == found.last
            && self.entries.iter().filter(|entry| entry.position.index > floor).eq(&found.entries)
    }

    /// Whether what was found comes to this state, by way of another snapshot perhaps.
    fn is_told_by(&self, found: &Recovered) -> bool {
        let floor = found.snapshot.as_ref().map_or(LogIndex::ZERO, |(position, _)| position.index);
        self.hard_state == found.hard_state
            && self.last() == found.last
            && self.floor() <= found.last.index.max(floor)
            && self.entries.iter().filter(|entry| entry.position.index > floor).eq(&found.entries)
    }

    fn apply(&mut self, group: &WriteGroup) {
        self.hard_state = group.hard_state.unwrap_or(self.hard_state);
        if let Some(after) = group.truncate_after {
            self.entries.retain(|entry| entry.position.index <= after);
        }
        self.entries.extend(group.entries.iter().cloned());
    }
}

struct CrashRun {
    fs: FaultyFileSystem,
    options: Options,
    storage: Storage<FaultyFileSystem>,
    model: Model,
    term: u64,
    boot: u64,
}

impl CrashRun {
    fn new(seed: u64, keep_entries: u64) -> CrashRun {
        let fs = FaultyFileSystem::new(seed);
        let options = Options {
            segment_bytes: 32 << 10,
            keep_entries,
            keep_bytes: keep_entries * 2000,
            spare_segments: 2,
            // Some of the runs are short of room all the time.
            bytes_max: if seed.is_multiple_of(3) { 100 << 10 } else { 256 << 20 },
        };
        let (storage, found) = Storage::open(fs.clone(), Path::new("/data"), OWNER, options.clone()).unwrap();
        let model = Model {
            hard_state: HardState::default(),
            snapshot: None,
            base: Position::ZERO,
            entries: Vec::new(),
        };
        assert!(model.matches(&found), "{found:?}");
        CrashRun { fs, options, storage, model, term: 1, boot: found.boot }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Append { count, bytes, cut, vote } => self.append(count, bytes, cut, vote),
            Step::Snapshot { behind, bytes } => self.snapshot(behind, bytes),
            Step::Install { ahead, bytes } => self.install(ahead, bytes),
            Step::PowerLoss => self.restart_idle(true),
            Step::Kill => self.restart_idle(false),
            Step::Arm { after, fault } => self.fs.fail_after(after.into(), fault),
            Step::Fill { room } => self.fs.fill_up(room as usize),
            Step::ArmRead { after } => self.fs.fail_read_after(after.into(), ErrorKind::Other),
        }
    }

    fn append(&mut self, count: u8, bytes: u16, cut: Option<u8>, vote: bool) {
        let mut group = WriteGroup::default();
        let mut index = self.model.last().index;
        if let Some(cut) = cut {
            let low = self.model.floor().max(self.model.base.index);
            index = LogIndex(index.0.saturating_sub(u64::from(cut) % 6).max(low.0));
            group.truncate_after = Some(index);
            self.term += 1;
        }
        if vote {
            self.term += u64::from(bytes % 2);
            group.hard_state =
                Some(HardState { term: Term(self.term), vote: Some(NodeId(u64::from(count))) });
        }
        for number in 0..count {
            index = index.next();
            let position = Position { index, term: Term(self.term), subterm: Subterm(u64::from(number / 3)) };
            let fill = (self.term as u8).wrapping_mul(31).wrapping_add(index.0 as u8);
            let payload = Bytes::from(vec![fill; usize::from(bytes) >> (number % 3)]);
            group.entries.push(Entry { position, payload });
        }
        let mut after = self.model.clone();
        after.apply(&group);
        let result = self.storage.write(&group);
        self.settle(result, &[after]);
    }

    fn snapshot(&mut self, behind: u8, bytes: u16) {
        let index = LogIndex(self.model.last().index.0.saturating_sub(behind.into()));
        let Some(entry) = self.model.entries.iter().find(|entry| entry.position.index == index) else {
            return;
        };
        if index <= self.model.floor() {
            return;
        }
        let mut after = self.model.clone();
        let bytes = vec![index.0 as u8; bytes.into()];
        after.snapshot = Some((entry.position, bytes.clone()));
        let result = self.storage.save_snapshot(entry.position, bytes.into());
        self.settle(result, &[after]);
    }

    /// A snapshot of a later term, so that it never fits the log.
    fn install(&mut self, ahead: u8, bytes: u16) {
        self.term += 1;
        let back = self.model.last().index.0.saturating_sub(3).max(self.model.floor().0 + 1);
        let position = Position {
            index: LogIndex(back + u64::from(ahead)),
            term: Term(self.term),
            subterm: Subterm(u64::from(ahead % 2)),
        };
        let bytes = vec![ahead; bytes.into()];
        let without_hard_state = Model {
            snapshot: Some((position, bytes.clone())),
            base: position,
            entries: Vec::new(),
            ..self.model.clone()
        };
        let hard_state = HardState { term: Term(self.term), vote: None };
        let after = Model { hard_state, ..without_hard_state.clone() };
        let result = self.storage.install_snapshot(position, bytes.into(), hard_state);
        self.settle(result, &[after, without_hard_state]);
    }

    /// Acknowledged: the first of `outcomes` holds from now on. Not: any of them, or nothing new.
    fn settle(&mut self, result: Result<(), WriteError>, outcomes: &[Model]) {
        match result {
            Ok(()) => self.model = outcomes[0].clone(),
            Err(WriteError::Invalid(why)) => panic!("{why}"),
            Err(_) => {
                let possible: Vec<Model> = std::iter::once(&self.model).chain(outcomes).cloned().collect();
                for _ in 0..3 {
                    if let Ok(found) = self.storage.recover() {
                        assert_eq!(found.boot, self.boot);
                        return self.found(&found, &possible);
                    }
                }
                // Down: killed with what was cached still there, or without power.
                self.restart(self.boot.is_multiple_of(2), &possible);
            }
        }
        assert_eq!(self.storage.last(), self.model.last());
    }

    fn restart_idle(&mut self, power_lost: bool) {
        let model = self.model.clone();
        self.restart(power_lost, &[model]);
    }

    fn restart(&mut self, power_lost: bool, possible: &[Model]) {
        self.fs.restart(power_lost);
        self.fs.limit(None);
        let open = || Storage::open(self.fs.clone(), Path::new("/data"), OWNER, self.options.clone());
        // A file that cannot be read now is no reason to believe that nothing is in it.
        self.fs.fail_read_after(u32::try_from(self.boot % 40).unwrap(), ErrorKind::Other);
        let before = self.fs.faults();
        let opened = match open() {
            Err(OpenError::Io { .. }) if self.fs.faults() > before => {
                self.fs.restart(power_lost);
                open()
            }
            opened => opened,
        };
        let (storage, found) = opened.unwrap_or_else(|error| panic!("{error}"));
        self.storage = storage;
        assert!(found.boot > self.boot, "boot {} after {}", found.boot, self.boot);
        self.boot = found.boot;
        self.found(&found, possible);
    }

    fn found(&mut self, found: &Recovered, possible: &[Model]) {
        let matching = possible.iter().find(|model| model.matches(found));
        let Some(model) = matching else { panic!("found {found:?}, possible {possible:?}") };
        self.model = model.clone();
        self.read_back();
    }

    /// What is kept for followers is the same as what was written.
    fn read_back(&mut self) {
        self.fs.fail_read_after(u32::MAX, ErrorKind::Other);
        let (first, last) = (self.storage.first_index(), self.storage.last().index);
        assert!(first <= self.model.floor().next(), "the log begins at {first}");
        assert_eq!(self.storage.load_snapshot().unwrap(), self.model.snapshot);
        let mut next = first;
        while next <= last {
            let read = self.storage.read(next, last, 5000).unwrap();
            for entry in read {
                assert_eq!(entry.position.index, next);
                let known = self.model.entries.iter().find(|known| known.position.index == next);
                assert_eq!(Some(&entry), known);
                next = next.next();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn what_was_acknowledged_survives_everything(
        seed in any::<u64>(),
        keep in prop_oneof![Just(0u64), Just(5), Just(1000)],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = CrashRun::new(seed, keep);
        for step in &steps {
            run.step(step);
        }
        run.fs.fail_after(u32::MAX, Fault::Crash);
        run.restart_idle(true);
        run.read_back();
    }
}

/// Crashes at each operation of one fixed history in turn, so that none is left to chance.
#[test]
fn no_operation_is_a_bad_moment_for_a_crash() {
    let append = Step::Append { count: 3, bytes: 3500, cut: None, vote: true };
    let cut = Step::Append { count: 2, bytes: 100, cut: Some(2), vote: false };
    let snapshot = Step::Snapshot { behind: 1, bytes: 500 };
    let history: Vec<Step> = [
        vec![append.clone(); 6],
        vec![cut.clone(), snapshot.clone()],
        vec![append.clone(); 8],
        vec![snapshot, Step::Install { ahead: 5, bytes: 700 }, cut],
        vec![append; 4],
    ]
    .concat();
    for fault in [Fault::Crash, Fault::Error(ErrorKind::Other)] {
        for after in 0..120 {
            for seed in 0..4 {
                let mut run = CrashRun::new(seed, 0);
                run.fs.fail_after(after, fault);
                for step in &history {
                    run.step(step);
                }
                run.restart_idle(true);
            }
        }
    }
    for after in 0..120 {
        let mut run = CrashRun::new(u64::from(after), 0);
        run.fs.fail_read_after(after, ErrorKind::Other);
        for step in &history {
            run.step(step);
        }
        run.restart_idle(true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// A disk that says that it synced and did not can lose the end of what was acknowledged, and that
    /// only: what is found is what once held, or it is refused.
    #[test]
    fn a_lying_disk_brings_back_what_once_held_or_is_refused(
        seed in any::<u64>(),
        steps in prop::collection::vec((step(), prop::option::weighted(0.3, 0u8..4)), 1..40),
    ) {
        let mut run = CrashRun::new(seed, 0);
        let mut held = vec![run.model.clone()];
        for (step, lie) in &steps {
            if let Some(after) = lie {
                run.fs.fail_after((*after).into(), Fault::Lie);
            }
            if matches!(step, Step::Append { .. } | Step::Snapshot { .. } | Step::Install { .. }) {
                run.step(step);
                held.push(run.model.clone());
                if let Step::Install { .. } = step {
                    // Its snapshot may be durable, and the groups before and after it not.
                    let installed = run.model.clone();
                    let states: Vec<HardState> = held.iter().map(|model| model.hard_state).collect();
                    held.extend(states.iter().map(|&hard_state| Model { hard_state, ..installed.clone() }));
                }
            }
        }
        run.fs.restart(true);
        match Storage::open(run.fs.clone(), Path::new("/data"), OWNER, run.options.clone()) {
            Ok((_, found)) => prop_assert!(held.iter().any(|model| model.is_told_by(&found)), "{found:?}"),
            Err(error) => prop_assert!(matches!(error, OpenError::Damaged { .. }), "{error}"),
        }
    }
}

/// The opening itself is interrupted at each of its operations.
#[test]
fn a_crash_while_opening_loses_nothing() {
    for after in 0..12 {
        for seed in 0..8 {
            let mut run = CrashRun::new(seed, 0);
            for _ in 0..5 {
                run.step(&Step::Append { count: 3, bytes: 2000, cut: None, vote: true });
            }
            run.fs.restart(true);
            run.fs.fail_after(after, Fault::Crash);
            let opened = Storage::open(run.fs.clone(), Path::new("/data"), OWNER, run.options.clone());
            if let Ok((storage, found)) = opened {
                assert!(run.model.matches(&found));
                run.storage = storage;
                run.boot = found.boot;
            }
            run.restart_idle(true);
        }
    }
}

/// A group that was written and not synced when the process was killed is found at the next start, in the cache. The
/// power fails during that start, and of all that was not synced the disk has what it likes.
#[test]
fn the_power_may_fail_while_a_process_that_was_killed_starts_again() {
    let group = |indexes: std::ops::RangeInclusive<u64>| {
        let position = |index| Position { index: LogIndex(index), term: Term(1), ..Position::ZERO };
        let payload = Bytes::from(vec![7; 600]);
        let entries = indexes.map(|index| Entry { position: position(index), payload: payload.clone() });
        WriteGroup { entries: entries.collect(), ..WriteGroup::default() }
    };
    for after in 0..6 {
        for seed in 0..60 {
            let fs = FaultyFileSystem::new(seed);
            let options = Options { segment_bytes: 32 << 10, ..Options::default() };
            let open = || Storage::open(fs.clone(), Path::new("/data"), OWNER, options.clone());
            let (mut storage, _) = open().unwrap();
            storage.write(&group(1..=3)).unwrap();
            fs.fail_after(1, Fault::Crash);
            storage.write(&group(4..=6)).unwrap_err();
            drop(storage);
            fs.restart(false);
            fs.fail_after(after, Fault::Crash);
            drop(open());
            fs.restart(true);
            let (_, found) = open().unwrap_or_else(|error| panic!("operation {after}, seed {seed}: {error}"));
            assert!(found.last.index >= LogIndex(3));
        }
    }
}

/// The very first start, before there is anything.
#[test]
fn a_crash_while_founding_leaves_a_directory_that_can_be_founded() {
    for after in 0..20 {
        for seed in 0..8 {
            let fs = FaultyFileSystem::new(seed);
            fs.fail_after(after, Fault::Crash);
            let _ = Storage::open(fs.clone(), Path::new("/data"), OWNER, Options::default());
            fs.restart(true);
            let (_, found) = Storage::open(fs, Path::new("/data"), OWNER, Options::default()).unwrap();
            assert_eq!(found.last, Position::ZERO);
            assert_eq!(found.hard_state, HardState::default());
        }
    }
}
