use super::*;
use proptest::prelude::*;

fn parse(line: &str) -> Result<Line<'_>, Reason> {
    Line::parse(line.as_bytes())
}

fn series(line: &str) -> Result<String, Reason> {
    let mut text = Vec::new();
    Ok(parse(line)?.series(&mut text)?.as_str().to_owned())
}

#[test]
fn a_line_is_taken_apart() {
    let line = parse("api.requests:3|c|@0.5|#env:prod,zone:b").unwrap();
    assert_eq!((line.name, line.values, line.what), (&b"api.requests"[..], &b"3"[..], What::Count));
    assert_eq!(line.rate, Decimal::parse(b"0.5").unwrap());
    assert_eq!(line.tags, b"env:prod,zone:b");
    for (text, what) in [
        ("a:1|c", What::Count),
        ("a:1|g", What::Gauge),
        ("a:1|ms", What::Observe),
        ("a:1|h", What::Observe),
        ("a:1|d", What::Observe),
    ] {
        assert_eq!(parse(text).unwrap().what, what, "{text}");
    }
}

#[test]
fn fields_come_in_any_order_and_the_container_is_ignored() {
    let one = parse("a:1|d|#x:y|@0.5|c:83c0a99c0a54c0c187f461c7980e9b57f3f6a8b0").unwrap();
    let two = parse("a:1|d|@0.5|#x:y|e:it-1|card:none|").unwrap();
    assert_eq!(one, two);
    assert_eq!(parse("a:1|c|T1656581400").unwrap().time_s, Some(1_656_581_400));
    assert_eq!((parse("a:1|c|T-1").unwrap().time_s, parse("a:1|c").unwrap().time_s), (None, None));
}

#[test]
fn packed_values_come_one_by_one() {
    let line = parse("a:1:22:333|c").unwrap();
    assert_eq!(line.each_value().collect::<Vec<_>>(), [&b"1"[..], b"22", b"333"]);
}

#[test]
fn each_malformed_line_has_its_reason() {
    for (line, reason) in [
        ("garbage", Reason::NoValue),
        ("a:|c", Reason::NoValue),
        ("a:1", Reason::NoType),
        ("a:1|", Reason::NoType),
        ("a:1|s", Reason::Set),
        ("a:1|x", Reason::UnknownType),
        ("a:1|cc", Reason::UnknownType),
        ("a:1|c|@", Reason::BadRate),
        ("a:1|c|@0", Reason::BadRate),
        ("a:1|c|@1.5", Reason::BadRate),
        ("a:1|c|@-1", Reason::BadRate),
        ("a:1|c|@x", Reason::BadRate),
        ("_e{5,4}:title|text", Reason::NotAMetric),
        ("_e{5,4}:|text", Reason::NotAMetric),
        ("_sc|redis|0", Reason::NotAMetric),
        ("_sc|redis|0|m:a|b", Reason::NotAMetric),
        (":1|c", Reason::EmptyName),
    ] {
        assert_eq!(series(line), Err(reason), "{line:?}");
    }
    let line = Line::parse(b"\xff:1|c").unwrap();
    assert_eq!(line.series(&mut Vec::new()), Err(Reason::NotUtf8));
}

#[test]
fn tags_become_segments_in_sorted_order() {
    for (line, name) in [
        ("a.b:1|c", "a.b"),
        ("line1/press:1|c", "line1/press"),
        ("a:1|c|#zone:b,env:prod", "a/env=prod/zone=b"),
        ("a:1|c|#env:prod,zone:b", "a/env=prod/zone=b"),
        ("a:1|c|#urgent,env:x:y", "a/env=x:y/urgent"),
        ("a:1|c|#", "a"),
        ("a:1|c|#,x,,x", "a/x"),
    ] {
        assert_eq!(series(line).as_deref(), Ok(name), "{line}");
    }
}

#[test]
fn counters_take_no_negative_amounts_and_no_words() {
    for (value, reason) in [
        ("-1", Reason::Negative),
        ("-0.5", Reason::Negative),
        ("-", Reason::BadValue),
        ("+", Reason::BadValue),
        ("--1", Reason::BadValue),
        ("one", Reason::BadValue),
        ("1e9.9", Reason::BadValue),
    ] {
        assert_eq!(count(value.as_bytes()), Err(reason), "{value:?}");
    }
    assert_eq!(count(b"+5"), count(b"5"));
    assert!(count(b"1e99").is_ok() && count(b"99999999999999999999").is_ok(), "numbers, if too large");
}

#[test]
fn samples_are_finite_numbers() {
    for value in ["", "inf", "nan", "-inf", "1,5", "0x10", "1 ", "infinity", "+-1"] {
        assert_eq!(sample(value.as_bytes()), Err(Reason::BadValue), "{value:?}");
    }
    assert_eq!(sample(b"1e999"), Err(Reason::TooLarge));
    assert_eq!(sample(b"-3.5"), Ok((-3.5, true)));
    assert_eq!(sample(b"+3"), Ok((3.0, true)));
    assert_eq!(sample(b"21.5"), Ok((21.5, false)));
}

proptest! {
    #[test]
    fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut text = Vec::new();
        if let Ok(line) = Line::parse(&line) {
            let _ = line.series(&mut text);
            for value in line.each_value() {
                let _ = (plain_count(value), count(value), sample(value));
            }
        }
    }

    #[test]
    fn nearly_right_lines_do_not_panic(line in "[a:|c@0-9.#,+e/-]{0,40}") {
        let mut text = Vec::new();
        if let Ok(line) = Line::parse(line.as_bytes()) {
            let _ = line.series(&mut text);
            for value in line.each_value() {
                let _ = (plain_count(value), count(value), sample(value));
            }
        }
    }

    #[test]
    fn what_is_written_is_read(
        name in "[a-z][a-z0-9._]{0,20}(/[a-z0-9.]{1,8}){0,2}",
        values in proptest::collection::vec(0u64..1 << 40, 1..5),
        kind in prop::sample::select(vec!["c", "g", "ms", "h", "d"]),
        rate in prop::option::of(1u32..=1000),
        tags in prop::collection::btree_map("[a-z]{1,6}", "[a-z0-9]{1,6}", 0..4),
    ) {
        let texts: Vec<String> = values.iter().map(u64::to_string).collect();
        let mut text = format!("{name}:{}|{kind}", texts.join(":"));
        if let Some(rate) = rate {
            text += &format!("|@{}.{:03}", rate / 1000, rate % 1000);
        }
        if !tags.is_empty() {
            // Written backwards: the order does not matter.
            let tags: Vec<String> = tags.iter().rev().map(|(key, value)| format!("{key}:{value}")).collect();
            text += &format!("|#{}", tags.join(","));
        }
        let line = parse(&text).unwrap();
        let read: Vec<u64> = line.each_value().map(|value| plain_count(value).unwrap()).collect();
        prop_assert_eq!(read, values.clone());
        let samples: Vec<f64> = line.each_value().map(|value| sample(value).unwrap().0).collect();
        prop_assert_eq!(samples, values.iter().map(|&value| value as f64).collect::<Vec<_>>());
        let mut segments: Vec<String> = tags.iter().map(|(key, value)| format!("/{key}={value}")).collect();
        segments.sort();
        let mut written = Vec::new();
        let series = line.series(&mut written).unwrap().as_str().to_owned();
        prop_assert_eq!(series, format!("{name}{}", segments.concat()));
        let expected = rate.map_or(Decimal::ONE, |rate| {
            Decimal::parse(format!("{}.{:03}", rate / 1000, rate % 1000).as_bytes()).unwrap()
        });
        prop_assert_eq!(line.rate, expected);
    }
}
