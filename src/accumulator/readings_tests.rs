use std::sync::{Arc, Mutex};

use tally_core::id::{Epoch, ReportNumber};
use tally_core::report::Amount;
use tally_core::time::Elapsed;
use tally_core::window::Span;

use super::super::Backlog;
use super::*;
use crate::accumulator::Limits;
use crate::clock::{SiteClock, TimeSource};
use crate::site::entry::SourceKind;
use crate::site::{Applied, BootstrapSettings, Level, Site, Stamp, StampedEntry, Verdict, entry};

/// 2025, in the middle of a window.
const NOW: SiteTime = SiteTime(1_763_858_430_000);

/// A box and the site that it reports to.
struct OneBox {
    accumulator: Accumulator,
    site: Arc<Mutex<Site>>,
    now: SiteTime,
    number: ReportNumber,
}

impl OneBox {
    fn new() -> OneBox {
        let clock = Arc::new(SiteClock::new(SiteTime(0), Elapsed(0), TimeSource::default()));
        let founding = BootstrapSettings {
            site: "plant7".to_owned(),
            site_id: 5,
            base_span: Span::DEFAULT,
            level: Level::MAX,
        };
        let limits = Limits { base: Span::DEFAULT, grace_ms: 2_000, names_max: 5, name_bytes_max: 200 };
        let site = Arc::new(Mutex::new(Site::new(&founding)));
        let accumulator = Accumulator::new(clock, limits).asking(Arc::clone(&site));
        accumulator.set_readings_mode(ReadingsMode::Taken);
        let mut new = OneBox { accumulator, site, now: NOW, number: ReportNumber::FIRST };
        new.apply(&entry::open(SourceKind::Box, "box1", 1, Epoch(9)));
        new
    }

    fn apply(&mut self, body: &[u8]) -> Applied {
        let stamp = Stamp { site: self.now, elapsed: Elapsed(self.now.0 - NOW.0), synced: true };
        let mut site = self.site.lock().unwrap();
        let next = site.applied().next();
        site.apply(next, &StampedEntry::new(stamp, body)).unwrap()
    }

    /// Reads a number after so many milliseconds.
    fn read(&mut self, value: u64, pass_ms: u64) -> Outcome {
        self.read_by(value, pass_ms, &MeterRule::DEFAULT)
    }

    fn read_by(&mut self, value: u64, pass_ms: u64, rule: &MeterRule) -> Outcome {
        self.now.0 += pass_ms;
        let mut bulk = self.accumulator.lock();
        let slot = bulk.meter("m", SeriesName::new("parts").unwrap()).unwrap();
        bulk.read(slot, &self.meter_read(value), rule)
    }

    fn meter_read(&self, value: u64) -> MeterRead {
        MeterRead { value, heard: self.now, local_ms: self.now.0, incarnation: 0, stands: false }
    }

    /// Sends what waits; how many readings that were.
    fn commit(&mut self) -> usize {
        let source = self.site.lock().unwrap().box_source("box1").unwrap();
        let mut batch = self.accumulator.freeze(ReportWriter::new(source, Epoch(9), self.number, 0));
        self.number = self.number.next();
        let Applied::Report { verdict: Verdict::Receipt { refused, keyed, .. }, .. } =
            self.apply(&batch.body)
        else {
            panic!("no receipt");
        };
        let readings = batch.readings.len();
        self.accumulator.readings_answered(&batch, &refused);
        self.accumulator.settle(&mut batch);
        batch.answer(&self.site.lock().unwrap(), &refused, &keyed);
        readings
    }

    fn total(&self) -> i128 {
        let site = self.site.lock().unwrap();
        site.series_total(site.find("parts").unwrap())
    }
}

#[test]
fn of_readings_that_grow_the_latest_is_sent() {
    let mut one = OneBox::new();
    one.read(1_000, 0);
    assert_eq!(one.accumulator.backlog(), Backlog { waiting: 0, cells: 1, left_over: false });
    assert_eq!(one.commit(), 1);
    for value in [1_001, 1_001, 1_005, 1_004, 1_009] {
        one.read(value, 100);
    }
    assert_eq!((one.commit(), one.total()), (1, 9));
    one.read(1_009, 100);
    assert_eq!(one.accumulator.backlog().cells, 0, "nothing new");
}

#[test]
fn a_restart_between_two_batches_is_not_lost() {
    let mut one = OneBox::new();
    for value in [1_000, 1_500, 3, 9, 2_000] {
        one.read(value, 100);
    }
    assert_eq!(one.commit(), 4, "base, growth, restart, growth since");
    assert_eq!(one.total(), 500 + 2_000);
}

#[test]
fn a_zero_for_a_moment_between_two_batches_is_no_restart() {
    let mut one = OneBox::new();
    for value in [1_000, 1_500, 0, 0, 1_510, 1_520] {
        one.read(value, 100);
    }
    one.commit();
    assert_eq!(one.total(), 520);
}

#[test]
fn readings_of_windows_that_ended_are_kept_apart_up_to_a_bound() {
    let mut one = OneBox::new();
    for minute in 0..10 {
        one.read(1_000 + minute, 60_000);
        one.read(1_000 + minute, 10);
    }
    assert_eq!(one.commit(), 10);
    for minute in 0..200 {
        one.read(2_000 + minute, 60_000);
    }
    assert_eq!(one.commit(), READINGS_MAX);
    assert_eq!(one.total(), 1_199);
}

#[test]
fn steps_that_are_small_enough_are_not_made_one_that_is_not() {
    let mut one = OneBox::new();
    let rule = MeterRule { step_max: Some(100), ..MeterRule::DEFAULT };
    for value in [1_000, 1_040, 1_090, 1_130, 1_230, 1_250] {
        assert_ne!(one.read_by(value, 100, &rule), Outcome::Held);
    }
    one.commit();
    assert_eq!((one.total(), one.site.lock().unwrap().held_jumps_len()), (250, 0));
}

#[test]
fn nothing_is_sent_to_a_site_that_does_not_take_readings() {
    let mut one = OneBox::new();
    one.accumulator.set_readings_mode(ReadingsMode::Unknown);
    one.read(1_000, 0);
    assert_eq!(one.accumulator.backlog().cells, 0);
    assert_eq!(one.commit(), 0);
    one.accumulator.set_readings_mode(ReadingsMode::Taken);
    one.read(1_007, 100);
    assert_eq!((one.commit(), one.total()), (2, 7), "what was read before it was known is sent");
    let mut bulk = one.accumulator.lock();
    let slot = bulk.meter("m", SeriesName::new("parts").unwrap()).unwrap();
    bulk.read(slot, &one.meter_read(2_000), &MeterRule::DEFAULT);
    bulk.forget_readings(slot);
    drop(bulk);
    assert_eq!(one.accumulator.backlog().cells, 0);
}

#[test]
fn a_client_that_waits_is_not_told_of_a_readings_refusal_and_the_reader_is() {
    let mut one = OneBox::new();
    // As far as this box's clock knows.
    one.now = one.accumulator.clock.site();
    one.read(1_000, 0);
    one.commit();
    // Of the same series and window as a reading that is refused.
    let mut bulk = one.accumulator.lock();
    let slot = bulk.meter("m", SeriesName::new("parts").unwrap()).unwrap();
    let rule = MeterRule { ceiling: Some(5), ..MeterRule::DEFAULT };
    bulk.read(slot, &one.meter_read(1_003), &rule);
    drop(bulk);
    let series = SeriesName::new("parts").unwrap();
    let (_, mut answer) = one.accumulator.add_waiting(series, Amount::Counter(1), None).unwrap();
    one.commit();
    let answer = answer.try_recv();
    assert!(matches!(answer, Ok(super::super::Outcome::Added(_))), "{answer:?}");
    assert_eq!(one.accumulator.lock().reading_refused(slot), Some(Refusal::Malformed));
    one.read(1_004, 100);
    one.commit();
    assert_eq!((one.total(), one.accumulator.lock().reading_refused(slot)), (5, None));
}

#[test]
fn what_shows_no_more_is_not_sent_again_while_it_is_pending() {
    let mut one = OneBox::new();
    one.read(5_000_000, 0);
    one.read(700, 100);
    assert_eq!(one.commit(), 2);
    for _ in 0..50 {
        one.read(700, 100);
    }
    assert_eq!(one.accumulator.backlog().cells, 0);
    one.read(700, 6_000);
    assert_eq!((one.commit(), one.total()), (1, 700), "its window is over");
}

#[test]
fn site_time_that_is_set_back_holds_no_reading_up() {
    let mut one = OneBox::new();
    one.read(1_000, 0);
    one.commit();
    let read = MeterRead { heard: SiteTime(5), local_ms: one.now.0 + 1, ..one.meter_read(1_009) };
    let mut bulk = one.accumulator.lock();
    let slot = bulk.meter("m", SeriesName::new("parts").unwrap()).unwrap();
    assert_eq!(bulk.read(slot, &read, &MeterRule::DEFAULT), Outcome::Grew);
    drop(bulk);
    // Sent as heard after the one before it.
    assert_eq!((one.commit(), one.total()), (1, 9));
}
