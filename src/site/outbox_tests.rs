use super::*;
use tally_core::report::Amount;
use tally_core::window::Span;

const MINUTE: u64 = 60_000;
const ON_TIME: Marks = Marks { late: false, synced: true };
const LATE: Marks = Marks { late: true, synced: true };

fn settings(changes: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::new(Span::DEFAULT);
    for (key, value) in changes {
        settings.set(key, value, 0).unwrap();
    }
    settings
}

fn closed(series: u32, window: u64, sum: u64) -> Closed {
    let start = window * MINUTE;
    Closed { series, start, end: start + MINUTE, amount: Packed::new(Amount::Counter(u128::from(sum))) }
}

fn sum_of(summaries: &[Summary]) -> i128 {
    summaries.iter().map(|summary| summary.amount.increase().unwrap()).sum()
}

/// Lengths of the unnumbered windows in minutes, oldest first.
fn minutes(outbox: &Outbox) -> Vec<u64> {
    outbox.unnumbered().iter().map(|summary| summary.span_ms / MINUTE).collect()
}

#[test]
fn numbers_are_given_in_order_and_no_more_than_may_wait() {
    let settings = settings(&[("outbox.numbered_max", "3")]);
    let mut outbox = Outbox::new();
    for window in 0..5 {
        outbox.push(closed(0, window, window + 1), ON_TIME);
    }
    outbox.number(2, &settings, |_| false, 0);
    outbox.number(9, &settings, |_| false, 0);
    let numbered: Vec<_> = outbox.numbered(0, 9).map(|s| (s.seq.unwrap(), s.total.unwrap())).collect();
    assert_eq!(numbered, [(1, 1), (2, 3), (3, 6)]);
    assert_eq!((outbox.len(), outbox.unnumbered_len(), outbox.last()), (5, 2, 3));
    assert_eq!(outbox.numbered(1, 1).next().unwrap().seq, Some(2));
    outbox.deliver(2);
    outbox.number(9, &settings, |_| false, 0);
    assert_eq!((outbox.delivered_up_to(), outbox.last(), outbox.len()), (2, 5, 3));
    assert_eq!(outbox.numbered(0, 9).next().unwrap().seq, Some(3));
}

#[test]
fn nothing_without_a_number_is_delivered_and_delivery_does_not_go_back() {
    let settings = settings(&[]);
    let mut outbox = Outbox::new();
    outbox.push(closed(0, 0, 1), ON_TIME);
    outbox.push(closed(0, 1, 1), ON_TIME);
    outbox.number(1, &settings, |_| false, 0);
    outbox.deliver(u64::MAX);
    assert_eq!((outbox.delivered_up_to(), outbox.len()), (1, 1));
    outbox.deliver(0);
    assert_eq!(outbox.delivered_up_to(), 1);
    outbox.number(1, &settings, |_| false, 0);
    assert_eq!(outbox.numbered(0, 9).next().unwrap().seq, Some(2));
}

#[test]
fn thinning_makes_old_windows_coarser_step_by_step() {
    let settings = settings(&[("series.max", "1"), ("outbox.summaries_max", "1004")]);
    let mut outbox = Outbox::new();
    let mut digest = 0;
    for window in 0..10_000 {
        outbox.push(closed(0, window, 1), ON_TIME);
        digest = outbox.thin(&settings, digest);
        assert!(outbox.len() <= 1004);
    }
    let minutes = minutes(&outbox);
    assert_eq!(minutes.iter().sum::<u64>(), 10_000);
    assert_eq!(sum_of(&outbox.unnumbered()), 10_000);
    // Older ones are coarser, none is more than twice its newer neighbour, and the oldest is a
    // small part of the whole.
    assert!(minutes.windows(2).all(|pair| pair[0] == pair[1] || pair[0] == 2 * pair[1]), "{minutes:?}");
    assert!(minutes[0] <= 1024 && minutes[minutes.len() - 1] == 1, "{minutes:?}");
    let merged = outbox.unnumbered();
    assert!(merged.windows(2).all(|pair| pair[0].start.0 + pair[0].span_ms == pair[1].start.0));
}

#[test]
fn thinning_touches_neither_what_has_a_number_nor_other_series_nor_lateness() {
    let settings = settings(&[("series.max", "2"), ("outbox.summaries_max", "1008")]);
    let mut outbox = Outbox::new();
    for window in 0..4 {
        outbox.push(closed(0, window, 1), ON_TIME);
    }
    outbox.number(4, &settings, |_| false, 0);
    let before: Vec<Summary> = outbox.numbered(0, 9).cloned().collect();
    for window in 0..3000 {
        outbox.push(closed(0, window, 1), ON_TIME);
        outbox.push(closed(1, window, 3), ON_TIME);
        outbox.push(closed(1, window, 5), LATE);
        outbox.thin(&settings, 0);
    }
    assert!(outbox.len() <= 1008);
    assert!(outbox.numbered(0, 9).eq(&before));
    let sum = |series, late| {
        let all = outbox.unnumbered();
        sum_of(&all.into_iter().filter(|s| s.series.0 == series && s.late == late).collect::<Vec<_>>())
    };
    assert_eq!((sum(0, false), sum(1, false), sum(1, true)), (3000, 9000, 15_000));
}

#[test]
fn a_bound_in_bytes_thins_too() {
    let settings =
        settings(&[("series.max", "100"), ("outbox.summaries_max", "1000000"), ("outbox.bytes_max", "1MiB")]);
    let mut outbox = Outbox::new();
    for window in 0..1000 {
        for series in 0..100 {
            outbox.push(closed(series, window, u64::MAX), ON_TIME);
            outbox.thin(&settings, 0);
            assert!(outbox.bytes() <= 1 << 20);
        }
    }
    assert_eq!(sum_of(&outbox.unnumbered()), 100_000 * i128::from(u64::MAX));
    assert_eq!(outbox.bytes(), outbox.counted_bytes());
}

#[test]
fn a_place_costs_few_steps_and_the_least_that_is_left_is_one_of_a_series() {
    let settings = settings(&[("series.max", "250"), ("outbox.summaries_max", "2000")]);
    let mut outbox = Outbox::new();
    for window in 0..100 {
        for series in 0..250 {
            outbox.push(closed(series, window, 1), ON_TIME);
            outbox.thin(&settings, 0);
        }
    }
    assert_eq!(sum_of(&outbox.unnumbered()), 25_000);
    let mut left = outbox.len();
    while outbox.thin_once().is_some() {
        left -= 1;
        assert_eq!(outbox.len(), left);
    }
    assert_eq!(left, 250);
    assert_eq!(sum_of(&outbox.unnumbered()), 25_000);
}

#[test]
fn an_emptied_outbox_gives_its_memory_back() {
    let settings = settings(&[("outbox.summaries_max", "200000"), ("outbox.numbered_max", "100000")]);
    let mut outbox = Outbox::new();
    for window in 0..5000 {
        outbox.push(closed(0, window, 1), ON_TIME);
    }
    outbox.number(u32::MAX, &settings, |_| false, 0);
    outbox.deliver(u64::MAX);
    assert_eq!((outbox.nodes.capacity(), outbox.len(), outbox.bytes()), (0, 0, 0));
    outbox.push(closed(0, 1, 1), ON_TIME);
    assert_eq!(outbox.len(), 1);
}

#[test]
fn late_windows_that_came_in_any_order_merge_to_what_spans_both() {
    let mut outbox = Outbox::new();
    outbox.push(closed(0, 9, 1), LATE);
    outbox.push(closed(0, 4, 2), Marks { late: true, synced: false });
    assert!(outbox.thin_once().is_some());
    let merged = &outbox.unnumbered()[0];
    assert_eq!((merged.start.0 / MINUTE, merged.span_ms / MINUTE), (4, 6));
    assert_eq!((merged.late, merged.synced, outbox.len()), (true, false, 1));
    // A late amount of one of them is not known to be in there: it stands for itself.
    outbox.push(closed(0, 9, 1), LATE);
    assert_eq!(outbox.len(), 2);
}

#[test]
fn a_restored_outbox_goes_on_with_the_sweep() {
    let mut outbox = Outbox::new();
    for window in 0..40 {
        for series in 0..5 {
            // Some series have few windows: sweeps come up empty and others follow.
            if window % (u64::from(series) + 1) == 0 {
                outbox.push(closed(series, window, 1), ON_TIME);
            }
        }
    }
    let bytes = |outbox: &Outbox| {
        let mut out = Vec::new();
        outbox.put(&mut out);
        out
    };
    let restored = |outbox: &Outbox| {
        let out = bytes(outbox);
        Outbox::read(&mut crate::codec::Reader::new(&out), |_, _| true).unwrap()
    };
    let mut steps = 0;
    loop {
        let mut copy = restored(&outbox);
        assert!(bytes(&copy) == bytes(&outbox));
        let (merged, in_copy) = (outbox.thin_once(), copy.thin_once());
        assert_eq!(merged.is_some(), in_copy.is_some());
        assert!(bytes(&copy) == bytes(&outbox), "after {steps} steps");
        if merged.is_none() {
            break;
        }
        steps += 1;
    }
    assert!(bytes(&restored(&outbox)) == bytes(&outbox));
    assert_eq!(outbox.len(), 5);
}
