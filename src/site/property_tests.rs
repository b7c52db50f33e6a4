//! One random history of a site, watched at every step; a model beside it knows what must hold.

use super::testing::*;
use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use tally_core::id::ReportNumber;
use tally_core::report::{Amount, Kind};
use tally_core::time::{Elapsed, SiteTime};

const SERIES: u32 = 6;
const SOURCES: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    Open {
        source: usize,
        nonce: u128,
    },
    Report {
        source: usize,
        numbering: u8,
        cells: Vec<Cell>,
    },
    /// Many windows, one after the other: what fills the outbox.
    Burst {
        source: usize,
        windows: u64,
    },
    Pass {
        ms: u64,
    },
    Close {
        ahead: u64,
    },
    Number {
        count: u32,
    },
    Delivered {
        back: u64,
    },
    SetAside {
        ahead: u64,
    },
    Release {
        place: u64,
    },
    Set {
        choice: usize,
    },
    /// An operator steps by so many minutes, back if negative.
    StepClock {
        minutes: i64,
    },
    Noop,
    /// From here on a restored site goes on beside the first.
    Restore,
}

#[derive(Clone, Debug)]
struct Cell {
    series: u32,
    /// Windows back; ahead if negative.
    back: i64,
    amount: u64,
    key: Option<u8>,
    by_id: bool,
}

const SETTINGS: [(&str, &str); 10] = [
    ("window.base", "30s"),
    ("window.base", "1m"),
    ("window.spans", "s1=2m,s2=5m"),
    ("window.spans", ""),
    ("window.grace", "20s"),
    ("keys.max", "4"),
    ("keys.age", "2m"),
    ("history.windows_max", "5"),
    ("outbox.numbered_max", "3"),
    ("window.base", "never"),
];

fn cell() -> impl Strategy<Value = Cell> {
    (
        0..SERIES,
        -3i64..6,
        prop_oneof![4 => 0u64..50, 1 => any::<u64>()],
        any::<bool>(),
        prop::option::weighted(0.2, 0u8..12),
    )
        .prop_map(|(series, back, amount, by_id, key)| Cell { series, back, amount, key, by_id })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        1 => (0..SOURCES, 0u128..4).prop_map(|(source, nonce)| Op::Open { source, nonce }),
        10 => (0..SOURCES, 0u8..8, prop::collection::vec(cell(), 0..12))
            .prop_map(|(source, numbering, cells)| Op::Report { source, numbering, cells }),
        2 => (0..SOURCES, 1u64..150).prop_map(|(source, windows)| Op::Burst { source, windows }),
        4 => (0u64..200_000).prop_map(|ms| Op::Pass { ms }),
        3 => (0u64..3).prop_map(|ahead| Op::Close { ahead }),
        2 => (0u32..40).prop_map(|count| Op::Number { count }),
        2 => (0u64..5).prop_map(|back| Op::Delivered { back }),
        1 => (0u64..6).prop_map(|ahead| Op::SetAside { ahead }),
        1 => (0u64..6).prop_map(|place| Op::Release { place }),
        1 => (0..SETTINGS.len()).prop_map(|choice| Op::Set { choice }),
        1 => (-300i64..300).prop_map(|minutes| Op::StepClock { minutes }),
        1 => Just(Op::Noop),
        1 => Just(Op::Restore),
    ]
}

/// What must hold, kept by hand.
#[derive(Debug, Default)]
struct Model {
    totals: BTreeMap<String, i128>,
    /// By source and epoch: the last number applied.
    last: BTreeMap<(u64, u64), u64>,
    /// By series: what all numbers came to.
    numbered: BTreeMap<u32, i128>,
    /// Every summary that ever had a number.
    published: Vec<Summary>,
}

#[derive(Debug)]
struct World {
    driver: Driver,
    reporters: Vec<Reporter>,
    model: Model,
    /// Began at some step from a snapshot.
    restored: Option<Site>,
}

fn amount_of(kind: Kind, amount: u64) -> Amount {
    match kind {
        Kind::Counter => Amount::Counter(u128::from(amount)),
        Kind::Updown => Amount::updown(i128::from(amount as i64)),
        Kind::Sample => sample((amount % 1000) as f64 / 8.0, amount % 97),
    }
}

impl World {
    fn new() -> World {
        let mut driver = Driver::new();
        driver.set("series.max", "5");
        driver.set("outbox.summaries_max", "1020");
        driver.set("history.bytes_max", "64KiB");
        let reporters = (0..SOURCES).map(|n| driver.open(&format!("source{n}"), n as u128)).collect();
        World { driver, reporters, model: Model::default(), restored: None }
    }

    fn step(&mut self, op: &Op) {
        let logged = self.driver.log.len();
        self.run(op);
        if let Some(restored) = &mut self.restored {
            for payload in &self.driver.log[logged..] {
                restored.apply(restored.applied().next(), payload).unwrap();
            }
            assert_eq!(restored.digest(), self.driver.site.digest());
        }
        self.check();
    }

    fn run(&mut self, op: &Op) {
        let driver = &mut self.driver;
        match op {
            Op::Open { source, nonce } => {
                let name = format!("source{source}");
                let opened = driver.open(&name, *nonce);
                let last = self.model.last.get(&(opened.source.0, opened.epoch.0)).copied().unwrap_or(0);
                self.reporters[*source] = Reporter { next: ReportNumber::new(last + 1).unwrap(), ..opened };
            }
            Op::Report { source, numbering, cells } => self.report(*source, *numbering, cells),
            Op::Burst { source, windows } => {
                for n in 0..*windows {
                    let cell = |series| Cell { series, back: 0, amount: n + 1, key: None, by_id: true };
                    self.report(*source, 0, &[cell(0), cell(1), cell(2), cell(3)]);
                    self.driver.end_window();
                }
            }
            Op::Pass { ms } => driver.pass(*ms),
            Op::Close { ahead: 0 } => driver.close_due(),
            Op::Close { ahead } => {
                let until = SiteTime(driver.window().0 + ahead * MINUTE);
                driver.apply(&entry::close(until));
            }
            Op::Number { count } => self.number(*count),
            Op::Delivered { back } => {
                let up_to = driver.site.numbered_last().saturating_sub(*back);
                driver.apply(&entry::delivered(up_to));
            }
            Op::SetAside { ahead } => {
                driver.apply(&entry::set_aside(driver.site.delivered() + ahead, *ahead as u8));
            }
            Op::Release { place } => {
                let held = driver.site.held(0, usize::MAX);
                let seq = held.get(*place as usize).and_then(|held| held.summary.seq).unwrap_or(*place);
                driver.apply(&entry::released(seq));
            }
            Op::Set { choice } => {
                let (key, value) = SETTINGS[*choice];
                driver.apply(&entry::set(driver.site.applied().0, key, value));
            }
            Op::StepClock { minutes } => {
                let to = driver.now.site.0.saturating_add_signed(minutes * MINUTE as i64);
                driver.now.site = SiteTime(to);
                driver.apply(&entry::step_clock());
            }
            Op::Noop => {
                driver.site.apply(driver.site.applied().next(), &StampedEntry::default()).unwrap();
                driver.log.push(StampedEntry::default());
            }
            Op::Restore => {
                let bytes = driver.site.snapshot();
                let restored = Site::restore(&founding(), &bytes).unwrap();
                assert!(restored.snapshot() == bytes, "a restored site has other bytes");
                self.restored = Some(restored);
            }
        }
    }

    fn report(&mut self, source: usize, numbering: u8, cells: &[Cell]) {
        let driver = &mut self.driver;
        let reporter = &mut self.reporters[source];
        let last = self.model.last.get(&(reporter.source.0, reporter.epoch.0)).copied().unwrap_or(0);
        let number = match numbering {
            6 => last.max(1),
            7 => last + 2,
            _ => last + 1,
        };
        let number = ReportNumber::new(number).unwrap();
        let mut writer = ReportWriter::new(reporter.source, reporter.epoch, number, 0);
        let base = driver.site.settings().window_base().as_millis() as i64;
        let mut plain = Vec::new();
        let mut with_key = Vec::new();
        for cell in cells {
            let name = format!("s{}", cell.series);
            // Now and then of another kind than the series is.
            let kind = kind_of(if cell.amount % 13 == 12 { cell.series + 1 } else { cell.series });
            let amount = amount_of(kind, cell.amount);
            let window = SiteTime((driver.window().0 as i64 - cell.back * base) as u64);
            let known = driver.site.find(&name).filter(|_| cell.by_id);
            let series = known.map_or_else(|| named(&name, &amount), SeriesRef::Id);
            match cell.key {
                None => {
                    writer.cell(series, window, &amount);
                    plain.push((name, amount));
                }
                Some(key) => {
                    let taken = Elapsed(driver.now.elapsed.0 - u64::from(key) * 20);
                    let (key, check) = (u128::from(key), u64::from(cell.series));
                    writer.keyed(&KeyedAdd { series, window, amount, key, check, taken });
                    with_key.push((name, amount));
                }
            }
        }
        let verdict = driver.send(&writer.finish_hashed().0);
        let applied = matches!(verdict, Verdict::Receipt { repeated: false, .. });
        let open = driver.site.epochs_of(reporter.source).iter().any(|(epoch, _)| *epoch == reporter.epoch);
        assert_eq!(applied, open && number.get() == last + 1, "{verdict:?}");
        if let Verdict::Receipt { repeated: false, refused, keyed } = verdict {
            self.model.last.insert((reporter.source.0, reporter.epoch.0), number.get());
            for (place, (name, amount)) in plain.into_iter().enumerate() {
                if refused.iter().all(|(refused, _)| *refused != place as u32) {
                    *self.model.totals.entry(name).or_default() += amount.increase().unwrap();
                }
            }
            assert_eq!(keyed.len(), with_key.len());
            for (outcome, (name, amount)) in keyed.into_iter().zip(with_key) {
                if matches!(outcome, KeyOutcome::Added { .. }) {
                    *self.model.totals.entry(name).or_default() += amount.increase().unwrap();
                }
            }
        }
    }

    fn number(&mut self, count: u32) {
        let site = &self.driver.site;
        let before = site.numbered_last();
        let room = site.settings().outbox_numbered_max().saturating_sub(before - site.delivered());
        let expected = u64::from(count).min(site.numberable_len() as u64).min(room);
        self.driver.apply(&entry::number(count));
        let new = self.driver.site.numbered(before, usize::MAX);
        assert_eq!((new.len() as u64, self.driver.site.numbered_last()), (expected, before + expected));
        for summary in new {
            let sum = self.model.numbered.entry(summary.series.0).or_default();
            let increase = summary.amount.increase().unwrap();
            *sum += increase;
            assert_eq!(summary.total, Some(*sum));
            assert!(summary.amount.kind() != Kind::Counter || increase > 0);
            self.model.published.push(summary);
        }
    }

    fn check(&self) {
        let site = &self.driver.site;
        assert_eq!(site.series_len(), self.model.totals.len());
        let waiting = site.outbox.unnumbered();
        assert_eq!(waiting.len(), site.unnumbered_len());
        for (name, total) in &self.model.totals {
            let id = site.find(name).unwrap();
            assert_eq!(site.series_total(id), *total, "{name}");
            let numbered = self.model.numbered.get(&id.0).copied().unwrap_or(0);
            let unnumbered: i128 =
                waiting.iter().filter(|s| s.series == id).map(|s| s.amount.increase().unwrap()).sum();
            let open: i128 = site.table.open_amounts(id.0).iter().map(|a| a.increase().unwrap()).sum();
            assert_eq!(numbered + unnumbered + open, *total, "{name}");
        }
        // Seq has no gaps, and what has a number stays as it was.
        for (place, summary) in self.model.published.iter().enumerate() {
            assert_eq!(summary.seq, Some(place as u64 + 1));
        }
        let undelivered = &self.model.published[site.delivered() as usize..];
        assert_eq!(site.numbered(0, usize::MAX), undelivered);
        for held in site.held(0, usize::MAX) {
            let seq = held.summary.seq.unwrap();
            assert_eq!(held.summary, self.model.published[seq as usize - 1], "what is held stays as it was");
        }
        assert!(site.outbox_len() as u64 <= site.settings().outbox_summaries_max());
        assert!(site.history.bytes() <= site.settings().history_bytes_max());
        assert!(site.keys_len() <= 1_000_000);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_or_doubled_in_any_history_and_replicas_agree(
        ops in prop::collection::vec(op(), 1..60),
        full in any::<bool>(),
    ) {
        let mut world = World::new();
        if full {
            // So that the outbox thins from here on.
            world.step(&Op::Burst { source: 0, windows: 300 });
            prop_assert!(world.driver.site.unnumbered_len() >= 1000);
            prop_assert!(world.driver.site.outbox.unnumbered().iter().any(|s| s.span_ms > MINUTE));
        }
        for op in &ops {
            world.step(op);
        }
        let site = &world.driver.site;
        let bytes = site.snapshot();
        if let Some(restored) = &world.restored {
            prop_assert!(restored.snapshot() == bytes);
        }
        let mut replica = Site::new(&founding());
        for payload in &world.driver.log {
            replica.apply(replica.applied().next(), payload).unwrap();
        }
        prop_assert_eq!(replica.digest(), site.digest());
        prop_assert!(replica.snapshot() == bytes);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut site = Site::new(&founding());
        let before = site.snapshot();
        if site.apply(LogIndex(1), &StampedEntry::from(&bytes[..])).is_err() {
            prop_assert!(site.snapshot() == before);
        }
        let _ = entry::check(&bytes);
        let mut snapshot = before[..20].to_vec();
        snapshot.extend_from_slice(&bytes);
        prop_assert!(Site::restore(&founding(), &snapshot).is_err());
    }
}

/// A history with something in every room, and its log.
fn lived() -> World {
    let mut world = World::new();
    let cells: Vec<Cell> = (0..12u8)
        .map(|n| Cell {
            series: u32::from(n) % SERIES,
            back: i64::from(n % 4),
            amount: u64::from(n) * 7 + 1,
            key: (n % 3 == 0).then_some(n),
            by_id: false,
        })
        .collect();
    for op in [
        Op::Report { source: 0, numbering: 0, cells: cells.clone() },
        Op::Burst { source: 1, windows: 12 },
        Op::Number { count: 5 },
        Op::Report { source: 2, numbering: 0, cells },
    ] {
        world.step(&op);
    }
    world
}

#[test]
fn a_mutated_snapshot_is_refused_or_makes_a_site_that_goes_on() {
    let world = lived();
    let bytes = world.driver.site.snapshot();
    let mut refused = 0;
    for at in 0..bytes.len() {
        for value in [bytes[at] ^ 1, bytes[at] ^ 0x80, 0xff] {
            let mut mutated = bytes.clone();
            mutated[at] = value;
            match Site::restore(&founding(), &mutated) {
                Err(_) => refused += 1,
                Ok(site) => goes_on(site),
            }
        }
        assert!(Site::restore(&founding(), &bytes[..at]).is_err(), "cut at {at}");
    }
    assert!(refused > bytes.len() / 4);
}

/// Whatever a damaged state says, entries must not make it panic.
fn goes_on(mut site: Site) {
    let now = Stamp { site: SiteTime(START + 90 * MINUTE), elapsed: Elapsed(1 << 40), synced: true };
    for body in [
        entry::close(SiteTime(u64::MAX)),
        entry::number(1000),
        entry::set_aside(site.delivered().saturating_add(1), 0x87),
        entry::delivered(u64::MAX),
        entry::released(1),
        entry::set(1, "window.base", "10s"),
        entry::tick(),
    ] {
        if site.applied().0 < u64::MAX {
            let _ = site.apply(site.applied().next(), &StampedEntry::new(now, &body));
        }
    }
    let _ = site.page("", None, 100);
    let _ = site.closed_after(0, "");
    let _ = site.snapshot();
}

#[test]
fn a_mutated_entry_never_panics_and_is_applied_whole_or_not_at_all() {
    let world = lived();
    let bytes = world.driver.site.snapshot();
    let payloads: Vec<&StampedEntry> =
        world.driver.log.iter().filter(|payload| payload.len() > 60).take(2).collect();
    for payload in payloads {
        for at in 0..payload.len() {
            for flip in [1u8, 0x10, 0x80, 0xff] {
                let mut mutated = payload.to_vec();
                mutated[at] ^= flip;
                let mut site = Site::restore(&founding(), &bytes).unwrap();
                if site.apply(site.applied().next(), &mutated.into()).is_err() {
                    assert!(site.snapshot() == bytes);
                }
            }
        }
    }
}
