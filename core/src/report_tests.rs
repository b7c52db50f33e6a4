use super::*;
use proptest::prelude::*;
use std::format;
use std::string::ToString;
use std::vec::Vec;

fn sample() -> impl Strategy<Value = Sample> + Clone {
    (prop::collection::vec(-1e6f64..1e6, 1..5), 0u64..10, 0u64..4).prop_map(|(values, at, source)| {
        values
            .into_iter()
            .map(|value| Sample::observed(value, SiteTime(at), SourceId(source)).unwrap())
            .reduce(|a, b| a.merged(b).unwrap())
            .unwrap()
    })
}

fn amounts() -> impl Strategy<Value = (Amount, Amount, Amount)> {
    let counter = any::<u64>().prop_map(|sum| Amount::Counter(u128::from(sum)));
    let updown = any::<(u64, u64)>()
        .prop_map(|(up, down)| Amount::Updown { up: u128::from(up), down: u128::from(down) });
    let sample = sample().prop_map(Amount::Sample);
    prop_oneof![
        (counter.clone(), counter.clone(), counter),
        (updown.clone(), updown.clone(), updown),
        (sample.clone(), sample.clone(), sample),
    ]
}

fn is_tie(a: &Amount, b: &Amount) -> bool {
    match (a, b) {
        (Amount::Sample(a), Amount::Sample(b)) => (a.last.at, a.last.source) == (b.last.at, b.last.source),
        _ => false,
    }
}

proptest! {
    #[test]
    fn amounts_merge_in_any_order_and_grouping((a, b, c) in amounts()) {
        // But for values of one source in one millisecond: of those the one that arrived later is the last.
        if !is_tie(&a, &b) {
            prop_assert_eq!(a.merged(b), b.merged(a));
        }
        prop_assert_eq!(a.merged_by(b, Ties::Larger), b.merged_by(a, Ties::Larger));
        let left = a.merged(b).unwrap().merged(c).unwrap();
        let right = a.merged(b.merged(c).unwrap()).unwrap();
        prop_assert_eq!(left, right);
        let sum = a.increase().unwrap() + b.increase().unwrap() + c.increase().unwrap();
        prop_assert_eq!(left.increase().unwrap(), sum);
    }

    #[test]
    fn a_report_is_applied_once_in_any_history_of_repeats_and_orders(
        sends in prop::collection::vec((1u64..12, any::<bool>()), 0..200),
    ) {
        // What each report would add, and what it would add if its content were changed.
        let mut site = Numbering::default();
        let mut applied: Vec<u64> = Vec::new();
        for (number, changed) in sends {
            let hash = number * 2 + u64::from(changed);
            let numbered = ReportNumber::new(number).unwrap();
            let before = site;
            match site.judge(numbered, hash) {
                Judgement::Next => {
                    site.advance(numbered, hash);
                    applied.push(hash);
                }
                Judgement::Repeated => prop_assert_eq!(*applied.last().unwrap(), hash),
                Judgement::Changed => prop_assert_eq!(*applied.last().unwrap() / 2, number),
                Judgement::OutOfOrder => {
                    prop_assert_ne!(before.last.map_or(0, ReportNumber::get) + 1, number);
                }
            }
        }
        let numbers: Vec<u64> = applied.iter().map(|hash| hash / 2).collect();
        let expected: Vec<u64> = (1..=applied.len() as u64).collect();
        prop_assert_eq!(numbers, expected);
    }

    #[test]
    fn a_decimal_of_nine_places_is_summed_exactly(units in -1_000_000_000_000i64..1_000_000_000_000) {
        let value: f64 = format!("{}e-9", units).parse().unwrap();
        prop_assert_eq!(Sum::from_value(value), Some(Sum(i128::from(units))));
    }
}

#[test]
fn a_tenth_ten_times_is_one() {
    let tenth = Sample::observed(0.1, SiteTime(1), SourceId(1)).unwrap();
    let sum = (1..10).fold(tenth, |sum, _| sum.merged(tenth).unwrap());
    assert_eq!(sum.sum.to_string(), "1");
    assert_eq!(Sum(-1_500_000_000).to_string(), "-1.5");
    assert_eq!(Sum(1).to_string(), "0.000000001");
}

#[test]
fn what_is_not_finite_or_too_large_is_refused() {
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.1e18, -1.1e18] {
        assert_eq!(Sample::observed(value, SiteTime(0), SourceId(0)), None, "{value}");
    }
}

#[test]
fn the_last_value_is_decided_by_time_then_by_source_then_by_arrival() {
    let seen = |value, at, source| Sample::observed(value, SiteTime(at), SourceId(source)).unwrap();
    assert_eq!(seen(1.0, 5, 9).merged(seen(2.0, 6, 1)).unwrap().last.value, 2.0);
    assert_eq!(seen(1.0, 5, 9).merged(seen(2.0, 5, 1)).unwrap().last.value, 1.0);
    let falling = [20.0, 15.0, 10.0, 5.0].map(|value| seen(value, 5, 1));
    assert_eq!(falling.into_iter().reduce(|a, b| a.merged(b).unwrap()).unwrap().last.value, 5.0);
    let larger = |a: Sample, b: Sample| a.merged_by(b, Ties::Larger).unwrap();
    assert_eq!(falling.into_iter().reduce(larger).unwrap().last.value, 20.0, "as at feature level 1");
}

#[test]
fn what_would_overflow_changes_nothing() {
    let full = Amount::Counter(u128::MAX);
    assert_eq!(full.merged(Amount::Counter(1)), Err(MergeError::Overflow));
    assert_eq!(full.merged(Amount::updown(1)), Err(MergeError::Kinds));
    assert_eq!(full.increase(), Err(Overflow));
}

#[test]
fn the_same_number_with_other_content_is_not_a_repeat() {
    let mut site = Numbering::default();
    assert_eq!(site.judge(ReportNumber::new(2).unwrap(), 7), Judgement::OutOfOrder);
    site.advance(ReportNumber::FIRST, 7);
    assert_eq!(site.judge(ReportNumber::FIRST, 7), Judgement::Repeated);
    assert_eq!(site.judge(ReportNumber::FIRST, 8), Judgement::Changed);
}
