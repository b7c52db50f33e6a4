use super::testing::*;
use super::*;
use tally_core::report::Amount;
use tally_core::time::SiteTime;

const ONE: Amount = Amount::Counter(1);

fn started() -> (Driver, Reporter) {
    let mut driver = Driver::new();
    let reporter = driver.open("press3", 1);
    (driver, reporter)
}

fn brief(summaries: &[Summary]) -> Vec<(u64, u64, Amount, bool)> {
    summaries.iter().map(|s| ((s.start.0 - START) / MINUTE, s.span_ms / MINUTE, s.amount, s.late)).collect()
}

#[test]
fn a_window_is_closed_a_grace_after_its_end_and_one_without_activity_makes_no_summary() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", Amount::Counter(3));
    let due = |driver: &Driver, ms| driver.site.close_due(SiteTime(START + ms));
    assert_eq!(due(&driver, MINUTE + 1999), None);
    assert_eq!(due(&driver, MINUTE + 2000), Some(SiteTime(START + MINUTE)));
    driver.pass(MINUTE + 2000);
    driver.close_due();
    assert_eq!(due(&driver, 10 * MINUTE), None);
    driver.pass(5 * MINUTE);
    driver.close_due();
    driver.add(&mut reporter, "parts", Amount::Counter(4));
    driver.pass(2 * MINUTE);
    driver.close_due();
    let summaries = driver.number_all();
    assert_eq!(brief(&summaries), [(0, 1, Amount::Counter(3), false), (6, 1, Amount::Counter(4), false)]);
    assert_eq!(summaries[1].total, Some(7));
    assert!(summaries[0].synced);
}

#[test]
fn what_comes_for_a_closed_window_is_a_late_summary_and_the_next_joins_it() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", ONE);
    driver.pass(3 * MINUTE);
    driver.close_due();
    for _ in 0..3 {
        assert_eq!(driver.try_add(&mut reporter, "parts", SiteTime(START + 7), ONE), None);
    }
    let first = driver.number_all();
    assert_eq!(brief(&first), [(0, 1, ONE, false), (0, 1, Amount::Counter(3), true)]);
    // One that has its number is not touched any more.
    assert_eq!(driver.try_add(&mut reporter, "parts", SiteTime(START), ONE), None);
    assert_eq!(brief(&driver.number_all()), [(0, 1, ONE, true)]);
    assert_eq!(driver.site.numbered(0, 2), first);
    assert_eq!(driver.total("parts"), 5);
}

#[test]
fn a_window_that_is_due_is_not_opened_any_more_but_an_open_one_still_takes_amounts() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "open", ONE);
    driver.pass(MINUTE + 2000);
    for series in ["open", "not open"] {
        assert_eq!(driver.try_add(&mut reporter, series, SiteTime(START), ONE), None);
    }
    driver.close_due();
    assert_eq!(brief(&driver.number_all()), [(0, 1, ONE, true), (0, 1, Amount::Counter(2), false)]);
}

#[test]
fn several_windows_of_a_series_are_open_at_once() {
    let (mut driver, mut reporter) = started();
    driver.pass(MINUTE);
    let amounts = [ONE, Amount::updown(-2), sample(1.5, 3)];
    for (series, amount) in ["c", "u", "s"].into_iter().zip(amounts) {
        for window in [1, 2, 0, 3, 1, 0, 2] {
            let at = SiteTime(START + window * MINUTE);
            assert_eq!(driver.try_add(&mut reporter, series, at, amount), None);
        }
    }
    driver.pass(4 * MINUTE);
    driver.close_due();
    let summaries = driver.number_all();
    assert_eq!(summaries.len(), 12);
    assert!(summaries.is_sorted_by_key(|s| (s.start, s.series)));
    let counts: Vec<i128> =
        summaries.iter().filter(|s| s.series.0 == 2).map(|s| s.amount.increase().unwrap()).collect();
    assert_eq!(counts, [2, 2, 2, 1]);
    assert_eq!(summaries[1].amount, Amount::Updown { up: 0, down: 4 });
}

#[test]
fn a_series_with_a_longer_span_gathers_base_windows() {
    let (mut driver, mut reporter) = started();
    driver.set("window.spans", "slow/*=5m");
    for _ in 0..7 {
        driver.add(&mut reporter, "slow/a", ONE);
        driver.add(&mut reporter, "fast", ONE);
        driver.end_window();
    }
    driver.pass(10 * MINUTE);
    driver.close_due();
    let slow = driver.site.find("slow/a").unwrap();
    assert_eq!(driver.site.span(slow).as_millis(), 5 * MINUTE);
    let windows = driver.site.windows(slow, 10);
    assert_eq!(brief(&windows), [(0, 5, Amount::Counter(5), false), (5, 5, Amount::Counter(2), false)]);
    assert_eq!(driver.site.windows(driver.site.find("fast").unwrap(), 10).len(), 7);
}

#[test]
fn a_change_of_spans_loses_nothing() {
    let (mut driver, mut reporter) = started();
    let mut expected = 0;
    for (key, value) in [
        ("window.spans", "parts=10m"),
        ("window.base", "2m"),
        ("window.spans", ""),
        ("window.base", "10s"),
        ("window.base", "7m"),
        ("window.spans", "parts=14m"),
    ] {
        for _ in 0..9 {
            driver.add(&mut reporter, "parts", ONE);
            let early = SiteTime(driver.now.site.0.saturating_sub(4 * MINUTE));
            assert_eq!(driver.try_add(&mut reporter, "parts", early, ONE), None);
            expected += 2;
            driver.pass(50_000);
            driver.close_due();
        }
        driver.set(key, value);
    }
    driver.pass(60 * MINUTE);
    driver.close_due();
    assert_eq!(driver.site.close_due(SiteTime(START * 2)), None);
    let sum: i128 = driver.number_all().iter().map(|s| s.amount.increase().unwrap()).sum();
    assert_eq!((sum, driver.total("parts")), (expected, expected));
}

#[test]
fn a_close_of_what_is_still_to_come_closes_only_what_is_past() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", ONE);
    driver.apply(&entry::close(SiteTime(u64::MAX)));
    assert_eq!(driver.site.outbox_len(), 0);
    driver.pass(MINUTE);
    driver.apply(&entry::close(SiteTime(u64::MAX)));
    assert_eq!(driver.site.outbox_len(), 1);
}

#[test]
fn a_summary_says_whether_the_clock_was_synchronised() {
    let (mut driver, mut reporter) = started();
    driver.now.synced = false;
    driver.add(&mut reporter, "parts", ONE);
    driver.pass(2 * MINUTE);
    driver.close_due();
    assert!(!driver.number_all()[0].synced);
}

#[test]
fn an_operator_sets_site_time_forward_and_back_and_nothing_is_lost() {
    let (mut driver, mut reporter) = started();
    driver.add(&mut reporter, "parts", Amount::Counter(3));
    let week = 7 * 24 * 60 * MINUTE;
    driver.pass(week);
    let stepped = driver.apply(&entry::step_clock());
    let [early, late] = [START, START + week].map(SiteTime);
    assert_eq!(stepped, Applied::Stepped { from: early, to: late });
    driver.add(&mut reporter, "parts", Amount::Counter(4));
    driver.now.site = SiteTime(START + 10 * MINUTE);
    let back = driver.now.site;
    assert_eq!(driver.apply(&entry::step_clock()), Applied::Stepped { from: late, to: back });
    assert_eq!(driver.site.stamp().site, back);
    let open = Some(SiteTime(START + MINUTE));
    assert_eq!(
        driver.site.close_due(late),
        open,
        "all windows of the later time are closed, not those of now"
    );

    // What was counted under the later time and comes only now is late, in series old and new.
    for series in ["parts", "scrap"] {
        assert_eq!(driver.try_add(&mut reporter, series, late, Amount::Counter(5)), None);
    }
    assert_eq!(driver.try_add(&mut reporter, "parts", back, Amount::Counter(6)), None);
    driver.pass(2 * MINUTE);
    driver.close_due();
    let summaries = driver.number_all();
    let of = |series: &str| -> Vec<(u64, Amount, bool)> {
        let id = driver.site.find(series).unwrap();
        let own = summaries.iter().filter(|summary| summary.series == id);
        own.map(|one| ((one.start.0 - START) / MINUTE, one.amount, one.late)).collect()
    };
    let minutes = week / MINUTE;
    let parts: u64 = of("parts")
        .iter()
        .map(|(_, amount, _)| match amount {
            Amount::Counter(sum) => *sum as u64,
            other => panic!("{other:?}"),
        })
        .sum();
    assert_eq!(parts, 18, "{:?}", of("parts"));
    assert_eq!(of("scrap"), [(minutes, Amount::Counter(5), true)]);
    let after = driver.site.series(driver.site.find("parts").unwrap()).total;
    assert_eq!(after, 18);
}
