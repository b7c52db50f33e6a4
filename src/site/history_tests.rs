use super::*;
use tally_core::report::Amount;
use tally_core::window::Span;

const MINUTE: u64 = 60_000;
const ON_TIME: Marks = Marks { late: false, synced: true };

fn settings(changes: &[(&str, &str)]) -> Settings {
    let mut settings = Settings::new(Span::DEFAULT);
    for (key, value) in changes {
        settings.set(key, value, 0).unwrap();
    }
    settings
}

fn closed(series: u32, window: u64, sum: u128) -> Closed {
    let start = window * MINUTE;
    Closed { series, start, end: start + MINUTE, amount: Packed::new(Amount::Counter(sum)) }
}

fn sums(summaries: &[Summary]) -> Vec<i128> {
    summaries.iter().map(|summary| summary.amount.increase().unwrap()).collect()
}

#[test]
fn a_series_keeps_its_latest_windows_whatever_the_others_do() {
    let settings = settings(&[("history.windows_max", "10")]);
    let mut history = History::default();
    history.push(&closed(1, 0, 77), ON_TIME, &settings);
    for window in 0..1000 {
        history.push(&closed(0, window, u128::from(window)), ON_TIME, &settings);
    }
    assert_eq!(sums(&history.latest(SeriesId(0), 3)), [997, 998, 999]);
    assert_eq!(history.latest(SeriesId(0), 99).len(), 10);
    assert_eq!(sums(&history.latest(SeriesId(1), 99)), [77]);
    assert!(history.latest(SeriesId(2), 1).is_empty());
}

#[test]
fn the_bytes_are_bounded_with_the_oldest_out() {
    let settings = settings(&[("history.bytes_max", "64KiB")]);
    let mut history = History::default();
    for window in 0..5000 {
        // Wide ones among them.
        let sum = if window % 3 == 0 { 1 << 70 } else { 1 };
        history.push(&closed(window as u32 % 7, window, sum), ON_TIME, &settings);
        assert!(history.bytes() <= 64 << 10);
    }
    let kept: Vec<u64> = (0..7)
        .flat_map(|series| history.latest(SeriesId(series), usize::MAX))
        .map(|summary| summary.start.0 / MINUTE)
        .collect();
    let oldest = *kept.iter().min().unwrap();
    assert!(kept.len() > 500);
    assert_eq!(kept.len() as u64, 5000 - oldest, "not the oldest went");
}

#[test]
fn a_watcher_gets_each_window_once() {
    let settings = settings(&[("history.windows_max", "3")]);
    let mut history = History::default();
    let (mut position, none) = history.after(u64::MAX, |_| true);
    assert!(none.is_empty());
    let mut seen = Vec::new();
    for window in 0..100 {
        history.push(&closed(window % 2, u64::from(window), u128::from(window) + 1), ON_TIME, &settings);
        if window % 4 == 3 {
            let (next, summaries) = history.after(position, |_| true);
            seen.extend(sums(&summaries));
            position = next;
        }
    }
    assert_eq!(seen, (1..=100).collect::<Vec<i128>>());
    assert_eq!(history.after(position, |_| true), (position, Vec::new()));
    // What has left the ring is not told, and the place to go on from is the same.
    let (next, left) = history.after(0, |id| id.0 == 1);
    assert_eq!((next, sums(&left)), (position, vec![96, 98, 100]));
}

#[test]
fn many_windows_are_told_in_parts() {
    let settings = settings(&[("history.windows_max", "100000")]);
    let mut history = History::default();
    for window in 0..12_000 {
        history.push(&closed(0, window, 1), ON_TIME, &settings);
    }
    let (position, first) = history.after(0, |_| true);
    let (end, second) = history.after(position, |_| true);
    assert_eq!((position, first.len(), end, second.len()), (10_000, 10_000, 12_000, 2000));
}

#[test]
fn late_amounts_of_a_window_come_together() {
    let settings = settings(&[]);
    let late = Marks { late: true, synced: true };
    let mut history = History::default();
    history.push(&closed(0, 1, 5), ON_TIME, &settings);
    for window in [1, 2, 1, 2, 2] {
        history.push(&closed(0, window, 1 << 64), late, &settings);
    }
    assert_eq!(sums(&history.latest(SeriesId(0), 9)), [5, 2 << 64, 3 << 64]);
    let counted = 3 * RECORD_BYTES + 3 * ORDER_BYTES + 2 * crate::site::packed::WIDE_BYTES;
    assert_eq!(history.bytes(), counted);
}

#[test]
fn narrower_bounds_take_effect_at_once() {
    let wide = settings(&[]);
    let mut history = History::default();
    for window in 0..1000 {
        history.push(&closed(0, window, 1), ON_TIME, &wide);
    }
    history.trim(&settings(&[("history.windows_max", "7")]));
    assert_eq!(history.latest(SeriesId(0), 99).len(), 7);
    assert_eq!(history.bytes(), 7 * (RECORD_BYTES + ORDER_BYTES));
}
