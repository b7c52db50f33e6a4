use super::freeze::{BATCH_BYTES_MAX, BATCH_CELLS_MAX, amount_within};
use super::*;
use crate::clock::JUMP_MS_MAX;
use crate::site::entry::{KeyedAdd, ReportWriter};
use tally_core::id::{Epoch, ReportNumber, SourceId};
use tally_core::report::Sample;

fn accumulator() -> Accumulator {
    let clock = Arc::new(SiteClock::new(SiteTime(1_000_000), Elapsed(0)));
    Accumulator::new(clock, Span::DEFAULT, 3)
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
        let clock = Arc::new(SiteClock::new(SiteTime(0), Elapsed(0)));
        let accumulator = Accumulator::new(Arc::clone(&clock), Span::DEFAULT, 3);
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
    assert_eq!(accumulator.slot(name("d"), Kind::Counter), Err(Refusal::TooManySeries));
    let wrong = Refusal::WrongKind { is: Kind::Counter, asked: Kind::Sample };
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
    while let Some((_, (window, amount))) = inner.take_cell() {
        cells.push((window, amount.increase().unwrap()));
    }
    assert_eq!(cells.len(), WINDOWS_APART_MAX);
    assert_eq!(cells.iter().map(|(_, sum)| sum).sum::<i128>(), i128::from(windows));
    assert!(inner.dirty.is_empty());
}

#[test]
fn an_add_that_would_overflow_its_cell_is_refused_and_changes_nothing() {
    let accumulator = accumulator();
    let mut bulk = accumulator.lock();
    let slot = bulk.slot(name("a"), Kind::Counter).unwrap();
    bulk.add(slot, Amount::Counter(u128::MAX)).unwrap();
    assert_eq!(bulk.count(slot, 1), Err(Refusal::Overflow));
    drop(bulk);
    assert_eq!(accumulator.overflowed(), 1);
    assert_eq!(accumulator.guard().take_cell().unwrap().1.1, Amount::Counter(u128::MAX));
}

/// An accumulator with room for many series, each of which has a cell.
fn crowded(series: usize) -> (Accumulator, Vec<Slot>) {
    let clock = Arc::new(SiteClock::new(SiteTime(1_000_000), Elapsed(0)));
    let accumulator = Accumulator::new(clock, Span::DEFAULT, series);
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
        let series = accumulator.guard().slots[slot.0 as usize].name.clone();
        let (_, _answer) = accumulator.add_waiting(name(&series), a_sample(), None).unwrap();
        let batch = freeze(&accumulator);
        assert_eq!(batch.waiters.len(), 1);
        let awaited = (batch.waiters[0].slot, batch.waiters[0].window);
        assert!(batch.cells.contains(&awaited), "an answer would be given for what is in no batch");
        assert!(batch.body.len() < 2 * BATCH_BYTES_MAX);
    }
}

#[test]
fn what_was_counted_first_goes_first_however_busy_the_others_are() {
    let (accumulator, slots) = crowded(3 * BATCH_CELLS_MAX);
    let mut waiting: std::collections::BTreeSet<u32> = slots.iter().map(|slot| slot.0).collect();
    for round in 0.. {
        let batch = freeze(&accumulator);
        assert!(
            batch.cells.len() <= BATCH_CELLS_MAX && batch.body.len() < 2 * BATCH_BYTES_MAX,
            "an entry's size"
        );
        assert!(accumulator.backlog().left_over, "so the next batch need not wait");
        for (slot, _) in &batch.cells {
            waiting.remove(&slot.0);
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
        let series = accumulator.guard().slots[slot.0 as usize].name.clone();
        accumulator.add_waiting(name(&series), a_sample(), None).unwrap();
    }
    let mut answered = 0;
    while accumulator.backlog().waiting > 0 {
        let batch = freeze(&accumulator);
        assert!(!batch.waiters.is_empty() && batch.body.len() < 2 * BATCH_BYTES_MAX);
        let cells: std::collections::BTreeSet<_> =
            batch.cells.iter().map(|(slot, window)| (slot.0, *window)).collect();
        assert!(batch.waiters.iter().all(|waiter| cells.contains(&(waiter.slot.0, waiter.window))));
        answered += batch.waiters.len();
    }
    assert_eq!(answered, slots.len());
    assert_eq!(accumulator.backlog(), Backlog { waiting: 0, cells: 0, left_over: false });
}
