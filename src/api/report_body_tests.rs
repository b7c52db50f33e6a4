use super::*;

fn report(cells: &str) -> Result<NamedReport, Problem> {
    let body =
        format!(r#"{{"source":"press-3","epoch":"18446744073709551615","number":7,"cells":[{cells}]}}"#);
    parse(body.as_bytes(), Format::Json)
}

fn cell(cell: &str) -> Result<ReportCell, String> {
    report(cell).map(|mut report| report.cells.remove(0)).map_err(|problem| problem.detail)
}

fn sample_of(cell: &ReportCell) -> Sample {
    match &cell.amount {
        ReportAmount::Amount(Amount::Sample(sample)) => *sample,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_report_names_source_epoch_number_and_cells() {
    let report = report(r#"{"series":"a","add":5},{"series":"b/c","window":60000,"add":-2}"#).unwrap();
    assert_eq!(report.source, "press-3");
    assert_eq!(report.epoch, Epoch(u64::MAX));
    assert_eq!(report.number.get(), 7);
    assert_eq!(report.cells.len(), 2);
    assert!(matches!(report.cells[0].amount, ReportAmount::Add(5)));
    assert_eq!(report.cells[0].window, None);
    assert!(matches!(report.cells[1].amount, ReportAmount::Add(-2)));
    assert_eq!(report.cells[1].window, Some(SiteTime(60_000)));
}

#[test]
fn a_reading_names_its_meter_and_how_it_is_to_be_understood() {
    let reading = |text: &str| match cell(text).unwrap().amount {
        ReportAmount::Reading(reading) => reading,
        other => panic!("{other:?}"),
    };
    let plain = reading(r#"{"series":"m","meter":"e1","reading":5,"heard":1763858400000}"#);
    assert_eq!(
        (plain.meter.as_str(), plain.value, plain.heard),
        ("e1", 5, Some(SiteTime(1_763_858_400_000)))
    );
    assert_eq!((plain.incarnation, plain.rule), (None, MeterRule::DEFAULT));
    let told = reading(
        r#"{"series":"m","meter":"e1","reading":5,"incarnation":"b1","ceiling":256,"noise":1,"glitch_window":0,"step_max":9}"#,
    );
    let rule = MeterRule { ceiling: Some(256), noise: Some(1), glitch_window_ms: 0, step_max: Some(9) };
    assert_eq!((told.heard, told.incarnation.as_deref(), told.rule), (None, Some("b1"), rule));
}

#[test]
fn the_sum_of_a_sample_keeps_its_digits() {
    let cell = cell(
        r#"{"series":"t","window":60000,"sample":{"count":3,"sum":1234567890123456.789000001,"min":-1,"max":1e15,"last":0.5}}"#,
    )
    .unwrap();
    let sample = sample_of(&cell);
    assert_eq!(sample.sum.to_string(), "1234567890123456.789000001");
    assert_eq!((sample.count, sample.min, sample.max, sample.last.value), (3, -1.0, 1e15, 0.5));
    assert_eq!(sample.last.at, UNTIMED);
}

#[test]
fn the_time_of_the_last_value_is_what_the_source_says() {
    let last_at = |more: &str, inner: &str| {
        let sample = format!(r#"{{"count":1,"sum":2,"min":2,"max":2,"last":2{inner}}}"#);
        sample_of(&cell(&format!(r#"{{"series":"t"{more},"sample":{sample}}}"#)).unwrap()).last.at
    };
    assert_eq!(last_at("", ""), UNTIMED);
    assert_eq!(last_at(r#","window":60000"#, ""), UNTIMED);
    assert_eq!(last_at(r#","window":60000"#, r#","last_at":61234"#), SiteTime(61_234));
    for at in [1 << 48, u64::MAX] {
        let sample = format!(r#"{{"count":1,"sum":2,"min":2,"max":2,"last":2,"last_at":{at}}}"#);
        let error = cell(&format!(r#"{{"series":"t","sample":{sample}}}"#)).unwrap_err();
        assert!(error.contains("last_at"), "{at} is no time, nor is it none: {error}");
    }
}

#[test]
fn a_sample_has_at_most_as_many_values_as_one_add_adds() {
    let of = |count: u64| {
        cell(&format!(r#"{{"series":"t","sample":{{"count":{count},"sum":0,"min":0,"max":0,"last":0}}}}"#))
    };
    assert!(of((1 << 53) - 1).is_ok());
    for count in [1 << 53, u64::MAX - 1] {
        let error = of(count).unwrap_err();
        assert!(error.contains("count: ") && error.contains("more than 9007199254740991"), "{error}");
    }
    let of_sum = |sum: &str| {
        cell(&format!(
            r#"{{"series":"t","sample":{{"count":9007199254740991,"sum":{sum},"min":-1e18,"max":1e18,"last":0}}}}"#
        ))
    };
    assert!(of_sum("10000000000000000000000").is_ok());
    for sum in ["10000000000000000000000.000000001", "-170141183460469231731687303715"] {
        let error = of_sum(sum).unwrap_err();
        assert!(error.contains("sum: more than 1e22"), "{error}");
    }
}

#[test]
fn a_bad_cell_is_named_by_its_place() {
    for (text, says) in [
        (r#"{"series":"a+b","add":1}"#, "cells[0]: series: "),
        (r#"{"series":"","add":1}"#, "must not be empty"),
        ("{\"series\":\"t\\uffff\",\"add\":1}", "noncharacters"),
        (r#"{"series":"a","add":0}"#, "must not be 0"),
        (r#"{"series":"a","add":1.5}"#, "a whole number"),
        (r#"{"series":"a","add":18446744073709551616}"#, "a whole number"),
        (r#"{"series":"a","add":"1"}"#, "a whole number"),
        (r#"{"series":"a"}"#, "one of \"add\", \"sample\" and \"reading\""),
        (r#"{"series":"a","add":1,"add":1}"#, "duplicate field `add`"),
        (r#"{"series":"a","add":1,"kind":"counter"}"#, "unknown field `kind`"),
        (r#"{"series":"a","add":1,"window":-1}"#, "integer `-1`"),
        (r#"{"series":"m","reading":5,"heard":1}"#, "must have \"meter\" and \"reading\""),
        (r#"{"series":"m","meter":"e1","heard":1}"#, "must have \"meter\" and \"reading\""),
        (r#"{"series":"m","add":1,"noise":5}"#, "must have \"meter\" and \"reading\""),
        (r#"{"series":"m","meter":"e1","add":1,"reading":5}"#, "a reading must not have \"add\""),
        (r#"{"series":"m","meter":"e1","window":60000,"reading":5}"#, "a reading must not have \"add\""),
        (r#"{"series":"m","meter":"","reading":5}"#, "meter: must be 1 to 128 bytes"),
        (r#"{"series":"m","meter":"a\u0007","reading":5}"#, "meter: must be 1 to 128 bytes"),
        (r#"{"series":"m","meter":"e1","reading":-5}"#, "integer `-5`"),
        (r#"{"series":"m","meter":"e1","reading":5.5}"#, "5.5"),
        (r#"{"series":"m","meter":"e1","reading":5,"ceiling":4}"#, "5 is above the ceiling 4"),
        (r#"{"series":"m","meter":"e1","reading":5,"heard":281474976710656}"#, "heard: "),
        (r#"{"series":"m","meter":"e1","reading":5,"glitch_window":86400001}"#, "glitch_window: "),
        (r#"{"series":"m","meter":"e1","reading":5,"incarnation":""}"#, "incarnation: "),
        (r#"{"series":"t","sample":{"count":0,"sum":0,"min":0,"max":0,"last":0}}"#, "must have count >= 1"),
        (r#"{"series":"t","sample":{"count":1,"sum":5,"min":5,"max":5,"last":6}}"#, "min <= last <= max"),
        (r#"{"series":"t","sample":{"count":1,"sum":"5","min":5,"max":5,"last":5}}"#, "sum: not a number"),
        (r#"{"series":"t","sample":{"count":1,"sum":1e39,"min":5,"max":5,"last":5}}"#, "sum: not a number"),
        (r#"{"series":"t","sample":{"count":1,"sum":5,"min":5,"max":5}}"#, "missing field `last`"),
    ] {
        let detail = cell(text).unwrap_err();
        assert!(detail.contains(says), "{text}: {detail}");
    }
    let second = report(r#"{"series":"a","add":1},{"series":"a//b","add":1}"#).unwrap_err();
    assert!(second.detail.starts_with("cells[1]: series: "), "{}", second.detail);
}

#[test]
fn the_frame_of_a_report_is_checked() {
    let detail = |body: &str| parse(body.as_bytes(), Format::Json).unwrap_err().detail;
    assert!(detail(r#"{"source":"P","epoch":"1","number":1,"cells":[]}"#).starts_with("source: "));
    assert!(detail(r#"{"source":"p","epoch":"x","number":1,"cells":[]}"#).starts_with("epoch: "));
    assert!(detail(r#"{"source":"p","epoch":1,"number":1,"cells":[]}"#).contains("expected a string"));
    assert!(detail(r#"{"source":"p","epoch":"1","number":0,"cells":[]}"#).contains("numbered from 1"));
    assert!(detail(r#"{"source":"p","epoch":"1","number":-1,"cells":[]}"#).contains("the body: "));
    assert!(detail(r#"{"source":"p","epoch":"1","number":1}"#).contains("missing field `cells`"));
    assert!(detail("").contains("EOF"));
    assert!(parse(br#"{"source":"p","epoch":"1","number":1,"cells":[]}"#, Format::Json).is_ok());
}

#[test]
fn a_report_has_at_most_1000_cells() {
    let cells = |n: usize| report(&vec![r#"{"series":"a","add":1}"#; n].join(","));
    assert_eq!(cells(CELLS_MAX).unwrap().cells.len(), CELLS_MAX);
    let problem = cells(CELLS_MAX + 23).unwrap_err();
    assert_eq!(problem.name, Name::TooLarge);
    assert!(problem.detail.contains("the report has 1023"), "{}", problem.detail);
}

#[test]
fn cbor_says_the_same_as_json() {
    let text = r#"{"source":"p","epoch":"12","number":1,"cells":[
        {"series":"a","add":5},{"series":"b","add":-5,"window":60000},
        {"series":"t","sample":{"count":2,"sum":42,"min":20.5,"max":21.5,"last":21.5}},
        {"series":"u","sample":{"count":1,"sum":0.1,"min":0.1,"max":0.1,"last":0.1}},
        {"series":"m","meter":"e1","reading":18446744073709551615,"heard":1763858400000},
        {"series":"m","meter":"e2","reading":5,"incarnation":"b1","ceiling":256,"noise":0,"glitch_window":0,"step_max":9}]}"#;
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let bytes = serde_cbor::to_vec(&value).unwrap();
    let from_cbor = parse(&bytes, Format::Cbor).unwrap();
    let from_json = parse(text.as_bytes(), Format::Json).unwrap();
    assert_eq!(format!("{from_cbor:?}"), format!("{from_json:?}"));
    for cut in 0..bytes.len() {
        assert_eq!(parse(&bytes[..cut], Format::Cbor).unwrap_err().name, Name::Malformed);
    }
    assert!(parse(&[0x9f; 5000], Format::Cbor).is_err(), "depth is bounded");
    assert!(parse(&[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], Format::Cbor).is_err());
}

#[test]
fn the_format_goes_by_the_content_type() {
    assert_eq!(Format::of(None), Format::Json);
    assert_eq!(Format::of(Some(b"application/json; charset=utf-8")), Format::Json);
    assert_eq!(Format::of(Some(b"application/x-www-form-urlencoded")), Format::Json);
    assert_eq!(Format::of(Some(b"Application/CBOR")), Format::Cbor);
    assert_eq!(Format::of(Some(b"application/cbor;x=y")), Format::Cbor);
}
