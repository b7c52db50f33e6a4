//! Rules that come with a level, and that a site at an older one keeps.

use super::testing::*;
use super::*;
use tally_core::id::{LogIndex, ReportNumber, SeriesName};
use tally_core::report::{Amount, SAMPLE_COUNT_MAX, SAMPLE_SUM_MAX, Sample};
use tally_core::time::SiteTime;

const ONE: Amount = Amount::Counter(1);

/// A log that the first release wrote and applied, its state's digest after every twentieth entry, and the snapshot
/// that it took at the end. (1,606 entries by a seeded program: reports again and out of order, every kind and refusal,
/// names at the bound, keys, full tables, late and future windows, members, settings, steps of the clock.)
const LOG: &[u8] = include_bytes!("testdata/level1.log");
const DIGESTS: &str = include_str!("testdata/level1.digests");
const SNAPSHOT: &[u8] = include_bytes!("testdata/level1.snapshot");

fn first() -> BootstrapSettings {
    BootstrapSettings { level: Level::ONE, ..founding() }
}

fn entries() -> Vec<&'static [u8]> {
    let (mut rest, mut entries) = (LOG, Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (entry, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        entries.push(entry);
        rest = after;
    }
    entries
}

/// A site that has applied the first release's log.
fn upgraded() -> Site {
    let mut site = Site::new(&first());
    for entry in entries() {
        site.apply(site.applied().next(), &entry.into()).unwrap();
    }
    site
}

#[test]
fn this_release_applies_an_older_release_s_log_as_that_one_did() {
    let mut site = Site::new(&first());
    let mut digests = DIGESTS.lines();
    for entry in entries() {
        let index = site.applied().next();
        site.apply(index, &entry.into()).unwrap();
        if index.0.is_multiple_of(20) {
            assert_eq!(format!("{:016x}", site.digest()), digests.next().unwrap(), "entry {index}");
        }
    }
    assert_eq!(digests.next(), None);
    assert_eq!(site.level(), Level::ONE);
    let restored = Site::restore(&first(), SNAPSHOT).unwrap();
    assert!(restored.snapshot() == site.snapshot(), "a box that comes by its snapshot has the same state");
}

#[test]
fn boxes_that_come_by_the_log_and_by_an_older_snapshot_are_raised_alike() {
    let mut sites = [upgraded(), Site::restore(&first(), SNAPSHOT).unwrap()];
    let stamp = sites[0].stamp();
    let mut bodies = vec![entry::level(Level::TWO), entry::level(Level::ONE)];
    bodies.push(entry::open(SourceKind::Named, "src1", 77, Epoch(5)));
    bodies.push(entry::tick());
    for body in bodies {
        let payload = StampedEntry::new(stamp, &body);
        let applied = sites.each_mut().map(|site| site.apply(site.applied().next(), &payload).unwrap());
        assert_eq!(applied[0], applied[1]);
        assert_eq!(sites[0].level(), Level::TWO, "never lowered again");
    }
    assert!(sites[0].snapshot() == sites[1].snapshot());
    let restored = Site::restore(&first(), &sites[0].snapshot()).unwrap();
    assert_eq!(restored.level(), Level::TWO);
}

fn started() -> (Driver, Reporter) {
    let mut driver = Driver::new();
    let reporter = driver.open("press3", 1);
    (driver, reporter)
}

fn box_of(driver: &mut Driver, name: &str) -> Reporter {
    match driver.apply(&entry::open(SourceKind::Box, name, 9, Epoch(99))) {
        Applied::Opened { result: Ok((source, epoch)), .. } => {
            Reporter { source, epoch, next: ReportNumber::FIRST }
        }
        other => panic!("not opened: {other:?}"),
    }
}

#[test]
fn a_signed_add_goes_to_a_counter_or_an_updown_whichever_the_series_is_where_it_is_applied() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "up", Amount::updown(1));
    driver.add(&mut reporter, "count", ONE);
    let window = driver.window();
    // The sender knew neither, and guessed wrong.
    let series = |name, kind| SeriesRef::Name(SeriesName::new(name).unwrap(), kind);
    let verdict = driver.report(&mut reporter, |writer| {
        writer.signed(series("up", Kind::Counter), window, 5);
        writer.signed(series("count", Kind::Updown), window, 5);
        writer.signed(series("count", Kind::Updown), window, -5);
        writer.signed(series("new", Kind::Updown), window, -1);
        writer.signed(series("new", Kind::Updown), window, 5);
        writer.signed(series("other", Kind::Counter), window, 7);
    });
    let refused = Refusal::WrongKind { is: Kind::Counter, asked: Kind::Updown };
    assert_eq!(verdict, receipt(&[(2, refused)]));
    let totals = ["up", "count", "new", "other"].map(|name| driver.total(name));
    assert_eq!(totals, [6, 6, 4, 7]);
    let kinds = ["new", "other"].map(|name| driver.site.kind(driver.site.find(name).unwrap()));
    assert_eq!(kinds, [Kind::Updown, Kind::Counter]);
}

#[test]
fn what_a_box_counted_under_a_clock_that_is_ahead_counts_in_the_latest_window() {
    let (mut driver, mut reporter) = started();
    let mut own = box_of(&mut driver, "box1");
    let ahead = SiteTime(driver.now.site.0 + 10 * MINUTE);
    for series in ["new", "new"] {
        assert_eq!(driver.try_add(&mut own, series, ahead, Amount::Counter(500)), None);
    }
    let observed = Sample::observed(3.0, ahead, own.source).unwrap();
    assert_eq!(driver.try_add(&mut own, "seen", ahead, Amount::Sample(observed)), None);
    let last = driver.site.series(driver.site.find("seen").unwrap()).sample.unwrap().last;
    assert_eq!((last.value, last.at), (3.0, driver.now.site));
    assert_eq!(driver.total("new"), 1000);
    driver.end_window();
    driver.end_window();
    let starts: Vec<SiteTime> = driver.number_all().iter().map(|summary| summary.start).collect();
    assert_eq!(starts, [SiteTime(START), SiteTime(START)], "closed with the window of then");
    // Another source says itself what it claims.
    let ahead = SiteTime(driver.now.site.0 + 10 * MINUTE);
    assert_eq!(driver.try_add(&mut reporter, "new", ahead, ONE), Some(Refusal::WindowInFuture));
}

#[test]
fn of_what_a_box_that_is_ahead_observed_the_last_is_what_arrived_last() {
    let (mut driver, _) = started();
    let mut own = box_of(&mut driver, "box1");
    let now = driver.now.site.0;
    // The last of them is beyond what can be open, and the one before it is not.
    for (value, ahead) in [(1.0, MINUTE), (2.0, 2 * MINUTE), (3.0, 9 * MINUTE)] {
        let at = SiteTime(now + ahead);
        let observed = Sample::observed(value, at, own.source).unwrap();
        assert_eq!(driver.try_add(&mut own, "seen", at, Amount::Sample(observed)), None);
    }
    let last = driver.site.series(driver.site.find("seen").unwrap()).sample.unwrap().last;
    assert_eq!((last.value, last.at), (3.0, driver.now.site));
}

#[test]
fn what_a_box_that_is_ahead_took_for_a_source_that_named_no_window_counts_too() {
    let (mut driver, mut reporter) = started();
    let ahead = SiteTime(driver.now.site.0 + 10 * MINUTE);
    let series = |name, kind| SeriesRef::Name(SeriesName::new(name).unwrap(), kind);
    let verdict = driver.report(&mut reporter, |writer| {
        writer.window_is_open(true);
        for _ in ["new", "known"] {
            writer.cell(series("a", Kind::Counter), ahead, &ONE);
        }
        writer.signed(series("b", Kind::Updown), ahead, -4);
        writer.window_is_open(false);
        writer.cell(series("a", Kind::Counter), ahead, &ONE);
    });
    assert_eq!(
        verdict,
        receipt(&[(3, Refusal::WindowInFuture)]),
        "of the last its source said itself when it was"
    );
    assert_eq!(["a", "b"].map(|name| driver.total(name)), [2, -4]);
    driver.end_window();
    driver.end_window();
    assert!(driver.number_all().iter().all(|summary| summary.start == SiteTime(START) && !summary.late));
}

#[test]
fn a_box_opens_an_epoch_though_the_table_of_sources_is_full() {
    let (mut driver, _) = started();
    driver.set("sources.max", "1");
    let named = driver.apply(&entry::open(SourceKind::Named, "another", 2, Epoch(8)));
    assert_eq!(named, Applied::Opened { nonce: 2, result: Err(OpenRefused::TooManySources) });
    let mut own = box_of(&mut driver, "box4");
    driver.add(&mut own, "parts", ONE);
    assert_eq!(driver.total("parts"), 1);
}

#[test]
fn one_report_cannot_poison_a_sample_series() {
    let (mut driver, mut reporter) = started();
    let window = driver.window();
    driver.add(&mut reporter, "seen", sample(1.0, window.0));
    let with = |count, at| {
        let mut sample = Sample::observed(2.0, SiteTime(at), SourceId(0)).unwrap();
        (sample.count, sample.sum) = (count, tally_core::report::Sum(0));
        Amount::Sample(sample)
    };
    let of_sum = |sum: i128| {
        let mut sample = Sample::observed(2.0, window, SourceId(0)).unwrap();
        (sample.count, sample.sum, sample.max) = (SAMPLE_COUNT_MAX, tally_core::report::Sum(sum), 1e18);
        Amount::Sample(sample)
    };
    let far = 253_370_764_800_000;
    for (amount, why) in [
        (with(u64::MAX - 2, window.0), Refusal::Malformed),
        (with(SAMPLE_COUNT_MAX + 1, window.0), Refusal::Malformed),
        (of_sum(i128::MAX), Refusal::Malformed),
        (of_sum(-SAMPLE_SUM_MAX.0 - 1), Refusal::Malformed),
        (with(1, far), Refusal::WindowInFuture),
    ] {
        assert_eq!(driver.try_add(&mut reporter, "seen", window, amount), Some(why));
    }
    assert_eq!(driver.try_add(&mut reporter, "seen", window, with(SAMPLE_COUNT_MAX, window.0)), None);
    driver.add(&mut reporter, "seen", sample(5.0, window.0 + 1));
    let seen = driver.site.series(driver.site.find("seen").unwrap()).sample.unwrap();
    assert_eq!((seen.count, seen.last.value), (SAMPLE_COUNT_MAX + 2, 5.0));
}

#[test]
fn the_last_of_a_sample_is_the_one_that_arrived_last_and_the_largest_before_level_two() {
    for (level, last) in [(Level::TWO, 5.0), (Level::ONE, 20.0)] {
        let mut driver = Driver::new();
        driver.site = Site::new(&BootstrapSettings { level, ..founding() });
        let mut reporter = driver.open("press3", 1);
        let at = driver.now.site.0;
        for value in [20.0, 15.0, 10.0, 5.0] {
            driver.add(&mut reporter, "seen", sample(value, at));
        }
        let seen = driver.site.series(driver.site.find("seen").unwrap()).sample.unwrap();
        assert_eq!(seen.last.value, last);
        driver.end_window();
        driver.end_window();
        match driver.number_all()[0].amount {
            Amount::Sample(window) => assert_eq!(window.last.value, last),
            other => panic!("{other:?}"),
        }
    }
}

/// Clocks that were wrong put site time a week ahead; an operator steps back.
#[test]
fn after_a_step_back_windows_are_not_late_until_the_old_wrong_time_and_late_again_there() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", ONE);
    driver.end_window();
    let week = 7 * 24 * 60 * MINUTE;
    driver.now.site.0 += week;
    driver.apply(&entry::step_clock());
    let wrong = driver.window();
    driver.add(&mut reporter, "parts", Amount::Counter(2));
    driver.end_window();
    driver.end_window();
    driver.add(&mut reporter, "parts", Amount::Counter(4));
    driver.now.site = SiteTime(START + 5 * MINUTE);
    driver.apply(&entry::step_clock());
    assert_eq!(driver.number_all().len(), 3, "what was open under the wrong time is closed by the step");
    for _ in 0..3 {
        driver.add(&mut reporter, "parts", Amount::Counter(8));
        driver.end_window();
    }
    driver.pass(MINUTE);
    driver.close_due();
    let now = driver.number_all();
    assert_eq!(now.iter().map(|one| one.late).collect::<Vec<_>>(), [false; 3], "{now:?}");
    // The wrong time comes by again, rightly: those windows were told already.
    driver.now.site = wrong;
    driver.now.elapsed.0 += week;
    driver.add(&mut reporter, "parts", Amount::Counter(16));
    driver.end_window();
    driver.end_window();
    let again = driver.number_all();
    assert_eq!(again.iter().map(|one| (one.start, one.late)).collect::<Vec<_>>(), [(wrong, true)]);
    let restored = Site::restore(&founding(), &driver.site.snapshot()).unwrap();
    assert!(restored.snapshot() == driver.site.snapshot());
    driver.pass(week);
    driver.add(&mut reporter, "parts", ONE);
    driver.end_window();
    driver.end_window();
    assert!(!driver.number_all()[0].late);
}

#[test]
fn a_small_step_back_leaves_the_present_window_open_and_a_window_that_was_told_gets_an_addend() {
    let (mut driver, mut reporter) = started();
    driver.pass(MINUTE + 30_000);
    driver.close_due();
    driver.add(&mut reporter, "parts", ONE);
    let window = driver.window();
    driver.now.site.0 -= 10_000;
    driver.apply(&entry::step_clock());
    driver.add(&mut reporter, "parts", ONE);
    driver.end_window();
    driver.pass(10_000);
    driver.close_due();
    let told = driver.number_all();
    assert_eq!(
        (told.len(), told[0].start, told[0].late, told[0].amount),
        (1, window, false, Amount::Counter(2))
    );
    // Back into that window: what comes for it now is added.
    driver.now.site = SiteTime(window.0 + 5_000);
    driver.apply(&entry::step_clock());
    driver.add(&mut reporter, "parts", Amount::Counter(4));
    driver.end_window();
    driver.pass(10_000);
    driver.close_due();
    let more = driver.number_all();
    assert_eq!(
        (more.len(), more[0].start, more[0].late, more[0].amount),
        (1, window, true, Amount::Counter(4))
    );
    assert_eq!(LogIndex(driver.log.len() as u64), driver.site.applied());
}
