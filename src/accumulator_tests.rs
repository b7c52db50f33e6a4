use super::freeze::{BATCH_BYTES_MAX, BATCH_CELLS_MAX, amount_within};
use super::slots::WINDOWS_APART_MAX;
use super::*;
use crate::clock::JUMP_MS_MAX;
use crate::clock::TimeSource;
use crate::site::StampedEntry;
use crate::site::entry::SeriesRef;
use crate::site::entry::{KeyedAdd, ReportWriter};
use tally_core::id::{Epoch, ReportNumber, SourceId};
use tally_core::report::Sample;

fn accumulator() -> Accumulator {
    let clock = Arc::new(SiteClock::new(SiteTime(1_000_000), Elapsed(0), TimeSource::default()));
    Accumulator::new(clock, limits(3))
}

fn limits(names_max: usize) -> Limits {
    Limits { base: Span::DEFAULT, grace_ms: 2_000, names_max, name_bytes_max: 200 }
}

impl Accumulator {
    fn slot(&self, name: SeriesName<'_>, kind: Kind) -> Result<Slot, NotTaken> {
        self.lock().slot(name, kind)
    }
}

fn name(text: &str) -> SeriesName<'_> {
    SeriesName::new(text).unwrap()
}

fn freeze(accumulator: &Accumulator) -> Batch {
    let report = ReportWriter::new(SourceId(1), Epoch(1), ReportNumber::FIRST, 0);
    accumulator.freeze(report)
}

#[test]
fn an_add_is_taken_back_until_its_batch_is_frozen() {
    let accumulator = accumulator();
    let (first, _first) = accumulator.add_waiting(name("a"), Amount::Counter(1), None).unwrap();
    let (second, _second) = accumulator.add_waiting(name("a"), Amount::Counter(2), None).unwrap();
    assert_eq!(accumulator.withdraw(first), Withdrawn::BeforeItsBatch);
    assert_eq!(accumulator.withdraw(first), Withdrawn::TooLate);
    let batch = freeze(&accumulator);
    assert_eq!(batch.waiting(), 1);
    assert_eq!(accumulator.withdraw(second), Withdrawn::TooLate);
    assert_eq!(accumulator.backlog(), Backlog { waiting: 0, cells: 0, left_over: false });
}

#[test]
fn many_adds_make_one_cell() {
    let accumulator = accumulator();
    let mut bulk = accumulator.lock();
    let slot = bulk.slot(name("a"), Kind::Counter).unwrap();
    for _ in 0..1000 {
        bulk.count(slot, 2).unwrap();
    }
    drop(bulk);
    let many = freeze(&accumulator);
    let mut report = ReportWriter::new(SourceId(1), Epoch(1), ReportNumber::FIRST, 0);
    let window = Span::DEFAULT.start_of(SiteTime(1_000_000));
    report.cell(SeriesRef::Name(name("a"), Kind::Counter), window, &Amount::Counter(2000));
    assert_eq!((many.body, many.hash), report.finish_hashed());
}

#[test]
fn what_a_clock_that_was_years_off_counted_is_of_the_time_that_is_known_by_now() {
    // In the middle of windows long ago and far ahead: this machine's clock says neither.
    for site in [SiteTime(1_000_000), SiteTime(Span::DEFAULT.start_of(SiteTime(1 << 44)).0 + 30_000)] {
        let clock = Arc::new(SiteClock::new(SiteTime(0), Elapsed(0), TimeSource::default()));
        let accumulator = Accumulator::new(Arc::clone(&clock), limits(3));
        let mut bulk = accumulator.lock();
        let slot = bulk.slot(name("a"), Kind::Counter).unwrap();
        bulk.count(slot, 2).unwrap();
        drop(bulk);
        let (_, _keyed) = accumulator.add_waiting(name("a"), Amount::Counter(3), Some((1, 1))).unwrap();
        let (_, _waiting) = accumulator.add_waiting(name("a"), Amount::Counter(5), None).unwrap();
        clock.applied(site, Elapsed(9));
        let batch = freeze(&accumulator);

        let mut report = ReportWriter::new(SourceId(1), Epoch(1), ReportNumber::FIRST, 0);
        let window = Span::DEFAULT.start_of(site);
        let series = SeriesRef::Name(name("a"), Kind::Counter);
        let (amount, taken) = (Amount::Counter(3), Elapsed(0));
        report.keyed(&KeyedAdd { series, window, amount, key: 1, check: 1, taken });
        report.cell(series, window, &Amount::Counter(2));
        report.cell(series, window, &Amount::Counter(5));
        assert_eq!(batch.body, report.finish_hashed().0);
    }
}

#[test]
fn a_sample_is_of_a_possible_time() {
    let possible = (SiteTime(5 * JUMP_MS_MAX), SiteTime(5 * JUMP_MS_MAX + 400));
    let (earliest, latest) = (possible.0.0, possible.1.0);
    let cases = [
        (3, earliest),
        (earliest - JUMP_MS_MAX - 1, earliest),
        (earliest - JUMP_MS_MAX, earliest - JUMP_MS_MAX),
        (earliest + 7, earliest + 7),
        (latest + 1, latest),
        (u64::MAX, latest),
    ];
    for (taken, told) in cases {
        let sample = |at| Amount::Sample(Sample::observed(1.5, SiteTime(at), SourceId(1)).unwrap());
        assert_eq!(amount_within(possible, sample(taken)), sample(told));
    }
    assert_eq!(amount_within(possible, Amount::Counter(4)), Amount::Counter(4));
}

#[test]
fn another_kind_and_one_series_too_many_are_refused() {
    let accumulator = accumulator();
    for text in ["a", "b", "c"] {
        accumulator.slot(name(text), Kind::Counter).unwrap();
    }
    for text in ["a", "b", "c"] {
        let mut bulk = accumulator.lock();
        let slot = bulk.slot(name(text), Kind::Counter).unwrap();
        bulk.count(slot, 1).unwrap();
    }
    assert_eq!(accumulator.slot(name("d"), Kind::Counter), Err(NotTaken::TooManyNew));
    let wrong = NotTaken::Refused(Refusal::WrongKind { is: Kind::Counter, asked: Kind::Sample });
    assert_eq!(accumulator.slot(name("a"), Kind::Sample), Err(wrong));
}

#[test]
fn windows_stay_apart_up_to_a_bound_and_nothing_is_lost_beyond() {
    let accumulator = accumulator();
    let slot = accumulator.slot(name("a"), Kind::Counter).unwrap();
    let windows = 3 * WINDOWS_APART_MAX as u64;
    for window in 0..windows {
        accumulator.guard().add(slot, SiteTime(window * 60_000), Amount::Counter(1)).unwrap();
    }
    let mut inner = accumulator.guard();
    let mut cells = Vec::new();
    while let Some((_, cell)) = inner.slots.take_cell() {
        cells.push((cell.window, cell.amount.increase().unwrap()));
    }
    assert_eq!(cells.len(), WINDOWS_APART_MAX);
    assert_eq!(cells.iter().map(|(_, sum)| sum).sum::<i128>(), i128::from(windows));
    assert!(cells.is_sorted(), "what was counted first goes first");
    assert!(inner.slots.is_clean());
}

#[test]
fn an_add_that_would_overflow_its_cell_is_refused_and_changes_nothing() {
    let accumulator = accumulator();
    let mut bulk = accumulator.lock();
    let slot = bulk.slot(name("a"), Kind::Counter).unwrap();
    bulk.add(slot, Amount::Counter(u128::MAX)).unwrap();
    assert_eq!(bulk.count(slot, 1), Err(NotTaken::Refused(Refusal::Overflow)));
    drop(bulk);
    assert_eq!(accumulator.overflowed(), 1);
    assert_eq!(accumulator.guard().slots.take_cell().unwrap().1.amount, Amount::Counter(u128::MAX));
}

/// An accumulator with room for many series, each of which has a cell.
fn crowded(series: usize) -> (Accumulator, Vec<Slot>) {
    let clock = Arc::new(SiteClock::new(SiteTime(1_000_000), Elapsed(0), TimeSource::default()));
    let accumulator = Accumulator::new(clock, limits(series));
    let slots = (0..series).map(|number| {
        let slot = accumulator.slot(name(&format!("{number:096}")), Kind::Sample).unwrap();
        accumulator.lock().add(slot, a_sample()).unwrap();
        slot
    });
    let slots = slots.collect();
    (accumulator, slots)
}

fn a_sample() -> Amount {
    Amount::Sample(Sample::observed(123_456.789, SiteTime(1_000_000), SourceId(1)).unwrap())
}

#[test]
fn what_a_client_waits_for_is_in_its_batch_however_much_else_waits() {
    let (accumulator, slots) = crowded(3 * BATCH_CELLS_MAX);
    for slot in [slots[0], slots[slots.len() / 2], slots[slots.len() - 1]] {
        let series = accumulator.guard().slots.name(slot).unwrap().to_owned();
        let (_, _answer) = accumulator.add_waiting(name(&series), a_sample(), None).unwrap();
        let batch = freeze(&accumulator);
        assert_eq!(batch.waiters.len(), 1);
        let awaited = (batch.waiters[0].slot, batch.waiters[0].window, Kind::Sample);
        assert!(batch.cells.contains(&awaited), "an answer would be given for what is in no batch");
        assert!(batch.body.len() < 2 * BATCH_BYTES_MAX);
    }
}

#[test]
fn what_was_counted_first_goes_first_however_busy_the_others_are() {
    let (accumulator, slots) = crowded(3 * BATCH_CELLS_MAX);
    let mut waiting: std::collections::BTreeSet<usize> = slots.iter().map(|slot| slot.index()).collect();
    for round in 0.. {
        let batch = freeze(&accumulator);
        assert!(
            batch.cells.len() <= BATCH_CELLS_MAX && batch.body.len() < 2 * BATCH_BYTES_MAX,
            "an entry's size"
        );
        assert!(accumulator.backlog().left_over, "so the next batch need not wait");
        for (slot, ..) in &batch.cells {
            waiting.remove(&slot.index());
            // Counted again at once, as a busy series is.
            accumulator.lock().add(*slot, a_sample()).unwrap();
        }
        if waiting.is_empty() {
            break;
        }
        assert!(round < 12, "{} series were never in a batch", waiting.len());
    }
}

#[test]
fn of_many_who_wait_those_who_find_no_room_wait_on() {
    let (accumulator, slots) = crowded(BATCH_CELLS_MAX);
    for slot in &slots {
        let series = accumulator.guard().slots.name(*slot).unwrap().to_owned();
        accumulator.add_waiting(name(&series), a_sample(), None).unwrap();
    }
    let mut answered = 0;
    while accumulator.backlog().waiting > 0 {
        let batch = freeze(&accumulator);
        assert!(!batch.waiters.is_empty() && batch.body.len() < 2 * BATCH_BYTES_MAX);
        let cells: std::collections::BTreeSet<_> =
            batch.cells.iter().map(|(slot, window, _)| (slot.index(), *window)).collect();
        assert!(batch.waiters.iter().all(|waiter| cells.contains(&(waiter.slot.index(), waiter.window))));
        answered += batch.waiters.len();
    }
    assert_eq!(answered, slots.len());
    assert_eq!(accumulator.backlog(), Backlog { waiting: 0, cells: 0, left_over: false });
}

fn a_site(series: &[(&str, Kind)], series_max: &str) -> Arc<Mutex<Site>> {
    use crate::site::{BootstrapSettings, SourceKind, Stamp, entry};
    let founding = BootstrapSettings {
        site: "s".to_owned(),
        site_id: 7,
        base_span: Span::DEFAULT,
        level: crate::site::Level::MAX,
    };
    let mut site = Site::new(&founding);
    let stamp = Stamp { site: SiteTime(1_000_000), elapsed: Elapsed(0), synced: true };
    let mut apply = |body: &[u8]| {
        let index = site.applied().next();
        site.apply(index, &StampedEntry::new(stamp, body)).unwrap();
    };
    apply(&entry::open(SourceKind::Box, "other", 1, Epoch(9)));
    let mut report = ReportWriter::new(SourceId(1), Epoch(9), ReportNumber::FIRST, 0);
    for (text, kind) in series {
        let amount = match kind {
            Kind::Sample => a_sample(),
            Kind::Updown => Amount::updown(1),
            Kind::Counter => Amount::Counter(1),
        };
        report.cell(SeriesRef::Name(name(text), *kind), SiteTime(960_000), &amount);
    }
    apply(&report.finish_hashed().0);
    apply(&entry::set(1, "series.max", series_max));
    assert_eq!(site.series_len(), series.len());
    Arc::new(Mutex::new(site))
}

/// As if the site had answered.
fn settle(accumulator: &Accumulator, mut batch: Batch) {
    accumulator.settle(&mut batch);
}

#[test]
fn a_name_that_the_site_knows_always_gets_in_and_junk_gives_its_place_up() {
    let clock = Arc::new(SiteClock::new(SiteTime(1_000_000), Elapsed(0), TimeSource::default()));
    let site = a_site(&[("known1", Kind::Counter), ("known2", Kind::Sample)], "100");
    let accumulator = Accumulator::new(clock, limits(3)).asking(site);
    let count = |text: &str| {
        let mut bulk = accumulator.lock();
        let slot = bulk.slot(name(text), Kind::Counter)?;
        bulk.count(slot, 1).map(|()| slot)
    };
    let first = count("junk0").unwrap();
    count("junk1").unwrap();
    count("junk2").unwrap();
    assert_eq!(count("junk3"), Err(NotTaken::TooManyNew), "something is pending of each");
    count("known1").unwrap();
    accumulator.slot(name("known2"), Kind::Sample).unwrap();
    let wrong = NotTaken::Refused(Refusal::WrongKind { is: Kind::Sample, asked: Kind::Counter });
    assert_eq!(count("known2"), Err(wrong));
    let batch = freeze(&accumulator);
    assert_eq!(count("junk3"), Err(NotTaken::TooManyNew), "they are in the batch in flight");
    settle(&accumulator, batch);
    for round in 0..1_000 {
        for number in 0..3 {
            count(&format!("junk{round}/{number}")).unwrap();
        }
        let batch = freeze(&accumulator);
        assert_eq!(batch.cells.len(), 3);
        settle(&accumulator, batch);
    }
    assert_eq!(accumulator.guard().slots.len(), 5, "the places are used again");
    let mut bulk = accumulator.lock();
    assert_eq!(bulk.count(first, 1), Err(NotTaken::Evicted), "its place is another's");
    assert_eq!(bulk.add(first, Amount::Counter(1)), Err(NotTaken::Evicted));
}

#[test]
fn whoever_waits_keeps_the_place_until_the_answer_or_until_it_is_taken_back() {
    let accumulator = accumulator();
    let wait = |text: &str| accumulator.add_waiting(name(text), Amount::Counter(1), Some((1, 1)));
    let (a, _a) = wait("a").unwrap();
    let (_, _b) = wait("b").unwrap();
    let (_, _c) = wait("c").unwrap();
    assert_eq!(wait("d").unwrap_err(), RequestError::TooManyNew);
    assert_eq!(accumulator.withdraw(a), Withdrawn::BeforeItsBatch);
    let (_, _d) = wait("d").unwrap();
    let batch = freeze(&accumulator);
    assert_eq!(batch.keyed.len(), 3);
    assert_eq!(wait("e").unwrap_err(), RequestError::TooManyNew);
    settle(&accumulator, batch);
    let (_, _e) = wait("e").unwrap();
    accumulator.give_up_waiting("no leader");
    for text in ["f", "g", "h"] {
        wait(text).unwrap();
    }
}

#[test]
fn what_the_site_has_no_room_for_is_refused_and_takes_no_place() {
    let clock = Arc::new(SiteClock::new(SiteTime(1_000_000), Elapsed(0), TimeSource::default()));
    let site = a_site(&[("known", Kind::Updown)], "1");
    let accumulator = Accumulator::new(clock, limits(3)).asking(Arc::clone(&site));
    for number in 0..10 {
        let refused = accumulator.slot(name(&format!("junk{number}")), Kind::Counter);
        assert_eq!(refused, Err(NotTaken::Refused(Refusal::TooManySeries)));
    }
    accumulator.slot(name("known"), Kind::Updown).unwrap();
    assert_eq!(accumulator.guard().slots.len(), 1);
}

#[test]
fn a_kind_that_nothing_was_counted_of_decides_nothing() {
    let accumulator = accumulator();
    let counter = accumulator.slot(name("a"), Kind::Counter).unwrap();
    let sample = accumulator.slot(name("a"), Kind::Sample).unwrap();
    let mut bulk = accumulator.lock();
    assert_eq!(bulk.count(counter, 1), Err(NotTaken::Evicted));
    bulk.add(sample, a_sample()).unwrap();
}

#[test]
fn another_boxs_kind_of_a_series_does_not_hold_up_what_was_counted_here() {
    let clock = Arc::new(SiteClock::new(SiteTime(1_000_000), Elapsed(0), TimeSource::default()));
    let site = a_site(&[("a", Kind::Sample)], "100");
    let accumulator = Accumulator::new(clock, limits(3)).asking(Arc::clone(&site));
    // As if the site had come to know it only now.
    let slot =
        accumulator.guard().slots.of(name("a"), Kind::Counter, &limits(3), |_| Known::Nothing { room: true });
    accumulator.lock().count(slot.unwrap(), 1).unwrap();
    let batch = freeze(&accumulator);
    accumulator.lock().count(slot.unwrap(), 1).unwrap();
    settle(&accumulator, batch);
    let sample = accumulator.slot(name("a"), Kind::Sample).unwrap();
    accumulator.lock().add(sample, a_sample()).unwrap();
    let kinds: Vec<Kind> = accumulator.drain().iter().map(|(_, _, amount)| amount.kind()).collect();
    assert_eq!(kinds, [Kind::Counter, Kind::Sample], "each goes to the site, which judges");
}

#[test]
fn a_name_longer_than_old_boxes_take_waits_until_all_are_updated() {
    let accumulator = accumulator();
    let long = "n".repeat(97);
    accumulator.configure(Limits { name_bytes_max: 96, ..limits(3) });
    let error = accumulator.slot(name(&long), Kind::Counter).unwrap_err();
    assert_eq!(error, NotTaken::LongName(97));
    assert!(error.to_string().contains("until all boxes of the site are updated"), "{error}");
    accumulator.configure(limits(3));
    accumulator.slot(name(&long), Kind::Counter).unwrap();
}

/// The value and the time of the last in a batch's only cell.
fn last_of(accumulator: &Accumulator) -> (f64, u64) {
    let drained = accumulator.drain();
    let [(_, _, Amount::Sample(sample))] = &drained[..] else { panic!("{drained:?}") };
    (sample.last.value, sample.last.at.0)
}

fn observed(value: f64, at: u64) -> Amount {
    Amount::Sample(Sample::observed(value, SiteTime(at), SourceId(0)).unwrap())
}

#[test]
fn of_one_millisecond_what_came_last_is_the_last_whoever_waits() {
    for waits_first in [true, false] {
        let accumulator = accumulator();
        let slot = accumulator.slot(name("a"), Kind::Sample).unwrap();
        let wait = || drop(accumulator.add_waiting(name("a"), observed(20.0, 1_000_000), None).unwrap());
        if waits_first {
            wait();
        }
        for value in [15.0, 10.0, 5.0] {
            accumulator.lock().add(slot, observed(value, 1_000_000)).unwrap();
        }
        if !waits_first {
            wait();
        }
        let mut inner = accumulator.guard();
        let possible = super::freeze::Possible::at_all();
        let mut report = ReportWriter::new(SourceId(1), Epoch(1), ReportNumber::FIRST, 0);
        inner.take_waiting(possible, &mut report, &mut Batch::default());
        drop(inner);
        assert_eq!(last_of(&accumulator).0, if waits_first { 5.0 } else { 20.0 });
    }
}

#[test]
fn what_came_last_is_the_last_in_a_window_that_another_followed_too() {
    let accumulator = accumulator();
    let slot = accumulator.slot(name("a"), Kind::Sample).unwrap();
    let add = |window: u64, value: f64| {
        accumulator.lock().add_at(slot, SiteTime(window), observed(value, window)).unwrap();
    };
    add(60_000, 20.0);
    add(120_000, 1.0);
    add(60_000, 5.0);
    add(0, 9.0);
    add(120_000, 0.5);
    let lasts: Vec<(u64, f64)> = accumulator
        .drain()
        .into_iter()
        .map(|(_, window, amount)| match amount {
            Amount::Sample(sample) => (window.0, sample.last.value),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(lasts, [(60_000, 5.0), (0, 9.0), (120_000, 0.5)]);
}

#[test]
fn the_last_value_keeps_the_time_at_which_it_was_observed() {
    let clock = Arc::new(SiteClock::new(SiteTime(0), Elapsed(0), TimeSource::default()));
    let accumulator = Accumulator::new(Arc::clone(&clock), limits(3));
    let slot = accumulator.slot(name("a"), Kind::Sample).unwrap();
    let within_window = Span::DEFAULT.start_of(SiteTime(1 << 44)).0 + 30_000;
    clock.applied(SiteTime(within_window + 5_000), Elapsed(9));
    accumulator.lock().add(slot, observed(1.0, within_window)).unwrap();
    let batch = freeze(&accumulator);
    let mut report = ReportWriter::new(SourceId(1), Epoch(1), ReportNumber::FIRST, 0);
    let window = Span::DEFAULT.start_of(SiteTime(within_window));
    report.cell(SeriesRef::Name(name("a"), Kind::Sample), window, &observed(1.0, within_window));
    assert_eq!(batch.body, report.finish_hashed().0);
}
