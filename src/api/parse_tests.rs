use super::*;
use axum::http::HeaderValue;

const NOW: SiteTime = SiteTime(1_763_858_400_000);

fn counter(body: &str) -> Result<Amount, String> {
    amount(Kind::Counter, body.as_bytes(), NOW).map_err(|problem| problem.detail)
}

fn updown(body: &str) -> Result<Amount, String> {
    amount(Kind::Updown, body.as_bytes(), NOW).map_err(|problem| problem.detail)
}

fn sampled(body: &str) -> Result<Sample, Problem> {
    amount(Kind::Sample, body.as_bytes(), NOW).map(|amount| match amount {
        Amount::Sample(sample) => sample,
        other => panic!("{other:?}"),
    })
}

#[test]
fn a_counter_takes_whole_numbers_from_1_to_2_to_the_53_less_1() {
    assert_eq!(counter(r#"{"add":5}"#), Ok(Amount::Counter(5)));
    assert_eq!(counter(r#" { "add" : 1 } "#), Ok(Amount::Counter(1)));
    assert_eq!(counter(r#"{"add":9007199254740991}"#), Ok(Amount::Counter(9_007_199_254_740_991)));
    for (body, says) in [
        (r#"{"add":0}"#, "0 is not a whole number from 1 to 9007199254740991"),
        (r#"{"add":-1}"#, "a counter only goes up"),
        (r#"{"add":9007199254740992}"#, "9007199254740992 is not a whole number"),
        (r#"{"add":18446744073709551616}"#, "expected a whole number from 1"),
        (r#"{"add":1e400}"#, "out of range"),
        (r#"{"add":1.5}"#, "floating point `1.5`, expected a whole number"),
        (r#"{"add":5.0}"#, "floating point `5.0`, expected a whole number"),
        (r#"{"add":"5"}"#, "string \"5\", expected a whole number"),
        (r#"{"add":null}"#, "null, expected a whole number"),
        (r#"{"add":true}"#, "boolean `true`, expected a whole number"),
        (r#"{"add":[5]}"#, "sequence, expected a whole number"),
        (r#"{"add":NaN}"#, "expected"),
        (r#"{"add":5,"add":6}"#, "duplicate field `add`"),
        (r#"{"add":5,"by":6}"#, "unknown field `by`, expected `add`"),
        (r#"{}"#, "missing field `add`"),
        (r#"[5]x"#, "the body"),
        (r#"{"add":5}{"add":5}"#, "trailing characters"),
        (r#"5"#, "integer `5`"),
        ("", "EOF"),
        ("{\"add\":5", "EOF"),
        ("\u{0}", "expected value"),
    ] {
        let detail = counter(body).unwrap_err();
        assert!(detail.contains(says), "{body}: {detail}");
        assert!(detail.ends_with(r#"example of a body: {"add": 5}"#), "{detail}");
    }
}

#[test]
fn an_updown_takes_both_signs_and_no_zero() {
    assert_eq!(updown(r#"{"add":-2}"#), Ok(Amount::Updown { up: 0, down: 2 }));
    assert_eq!(updown(r#"{"add":9007199254740991}"#), Ok(Amount::Updown { up: ADD_MAX.into(), down: 0 }));
    assert_eq!(updown(r#"{"add":-9007199254740991}"#), Ok(Amount::Updown { up: 0, down: ADD_MAX.into() }));
    for body in [
        r#"{"add":0}"#,
        r#"{"add":-0}"#,
        r#"{"add":9007199254740992}"#,
        r#"{"add":-9007199254740992}"#,
        r#"{"add":18446744073709551615}"#,
        r#"{"add":-9223372036854775808}"#,
        r#"{"add":-9223372036854775809}"#,
        r#"{"add":"1"}"#,
    ] {
        assert!(updown(body).unwrap_err().contains("whole number from -9007199254740991"), "{body}");
    }
}

#[test]
fn samples_come_one_or_many_and_finite() {
    let one = sampled(r#"{"value":21.5}"#).unwrap();
    assert_eq!((one.count, one.min, one.max, one.last.value), (1, 21.5, 21.5, 21.5));
    let many = sampled(r#"{"values":[3, 0.1, 2]}"#).unwrap();
    assert_eq!((many.count, many.min, many.max), (3, 0.1, 3.0));
    assert_eq!(many.last.value, 2.0, "the last in the list, not the greatest");
    assert_eq!(many.sum.to_string(), "5.1");
    assert_eq!(many.last.at, NOW);
    for body in [
        r#"{"value":1e400}"#,
        r#"{"value":1.1e18}"#,
        r#"{"value":NaN}"#,
        r#"{"value":"1"}"#,
        r#"{"value":null}"#,
        r#"{"values":[]}"#,
        r#"{"values":[1,null]}"#,
        r#"{"value":1,"values":[1]}"#,
        r#"{"value":1,"value":1}"#,
        r#"{"value":1,"unit":"C"}"#,
        r#"{}"#,
    ] {
        assert_eq!(sampled(body).unwrap_err().name, Name::Malformed, "{body}");
    }
    let list = |n: usize| format!(r#"{{"values":[{}]}}"#, vec!["1"; n].join(","));
    assert_eq!(sampled(&list(VALUES_MAX)).unwrap().count, 1000);
    assert_eq!(sampled(&list(VALUES_MAX + 1)).unwrap_err().name, Name::TooLarge);
}

#[test]
fn a_series_in_a_path_is_decoded_once_and_checked() {
    assert_eq!(series("line1/press3/parts").unwrap(), "line1/press3/parts");
    assert_eq!(series("line1%2Fpress3%2fparts").unwrap(), "line1/press3/parts");
    assert_eq!(series("a%20b").unwrap(), "a b");
    assert_eq!(series("l%C3%ADnea").unwrap(), "línea");
    assert_eq!(series("a%252Fb").unwrap(), "a%2Fb");
    assert!(series(&"x".repeat(200)).is_ok());
    assert!(series(&"%C3%AD".repeat(48)).is_ok());
    for (raw, says) in [
        ("", "must not be empty"),
        ("/a", "empty segment"),
        ("a/", "empty segment"),
        ("a%2F%2Fb", "empty segment"),
        ("a+b", "must not have '+'"),
        ("a%23", "must not have '+', '#'"),
        ("a%00", "control characters"),
        ("a%0A", "control characters"),
        ("%FF", "UTF-8"),
        (&"x".repeat(201), "at most 200 bytes"),
        (&"x".repeat(1000), "at most 200 bytes"),
    ] {
        let problem = series(raw).unwrap_err();
        assert_eq!(problem.name, Name::Malformed);
        assert!(problem.detail.contains(says), "{raw}: {}", problem.detail);
    }
}

#[test]
fn an_idempotency_key_has_1_to_64_visible_characters() {
    let of = |values: &[&[u8]]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(IDEMPOTENCY_KEY, HeaderValue::from_bytes(value).unwrap());
        }
        key(&headers)
    };
    assert_eq!(of(&[]), Ok(None));
    assert_eq!(of(&[b"a"]), Ok(Some("a".to_owned())));
    assert_eq!(of(&[&[b'k'; 64]]), Ok(Some("k".repeat(64))));
    for wrong in [&[&b""[..]][..], &[b"  "], &[&[b'k'; 65]], &["é".as_bytes()], &[b"a", b"a"]] {
        assert_eq!(of(wrong).unwrap_err().name, Name::Malformed, "{wrong:?}");
    }
}

#[test]
fn a_client_says_how_long_it_waits() {
    let of = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", value.parse().unwrap());
        }
        patience(&headers).map(|wait| wait.as_secs())
    };
    assert_eq!(of(&["wait=5"]), Some(5));
    assert_eq!(of(&["respond-async, Wait = \"7\"; x=1"]), Some(7));
    assert_eq!(of(&["return=minimal", "wait=0"]), Some(0));
    for none in [&[][..], &["wait"], &["wait=-1"], &["wait=soon"], &["waiting=5"], &["wait=1e99"]] {
        assert_eq!(of(none), None, "{none:?}");
    }
}
