//! The JSON forms of series, summaries and answers. Outside programs rely on their keys and shapes.

use std::fmt::Write as _;

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use tally_core::report::{Amount, Kind, Sum};

use crate::site::{SeriesView, Summary};

/// A series and its total.
#[derive(Serialize)]
pub(super) struct SeriesForm<'a> {
    series: &'a str,
    kind: &'static str,
    total: i128,
    /// Site time at which it began to count; absent: before the site knew.
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<u64>,
    #[serde(flatten)]
    sample: Option<SampleForm>,
}

/// What was added to a series in one window; the series is named only in lists of several.
#[derive(Serialize)]
pub(super) struct SummaryForm<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    series: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    start: u64,
    span: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    increase: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    up: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    down: Option<u128>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sum: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<i128>,
    /// An updown's total under the name it has upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<i128>,
    late: bool,
    clock: &'static str,
}

#[derive(Serialize)]
struct SampleForm {
    count: u64,
    sum: Decimal,
    min: f64,
    max: f64,
    mean: f64,
    last: f64,
    last_at: u64,
}

impl<'a> SeriesForm<'a> {
    pub(super) fn new(view: &'a SeriesView) -> SeriesForm<'a> {
        let sample = view.sample.map(|sample| SampleForm {
            count: sample.count,
            sum: Decimal(sample.sum),
            min: sample.min,
            max: sample.max,
            mean: sample.sum.as_f64() / sample.count.max(1) as f64,
            last: sample.last.value,
            last_at: sample.last.at.0,
        });
        let since = Some(view.since).filter(|since| *since > 0);
        SeriesForm { series: &view.name, kind: view.kind.as_str(), total: view.total, since, sample }
    }
}

impl<'a> SummaryForm<'a> {
    /// Makes the form without the name of the series, for lists of one series.
    pub(super) fn new(summary: &Summary) -> SummaryForm<'a> {
        let mut form = SummaryForm {
            series: None,
            kind: None,
            seq: summary.seq,
            start: summary.start.0,
            span: summary.span_ms,
            increase: None,
            up: None,
            down: None,
            count: None,
            sum: None,
            min: None,
            max: None,
            last: None,
            total: None,
            value: None,
            late: summary.late,
            clock: if summary.synced { "synced" } else { "unsynced" },
        };
        match summary.amount {
            Amount::Counter(increase) => {
                form.increase = Some(increase);
                form.total = summary.total;
            }
            Amount::Updown { up, down } => {
                form.up = Some(up);
                form.down = Some(down);
                form.value = summary.total;
            }
            Amount::Sample(sample) => {
                form.count = Some(sample.count);
                form.sum = Some(Decimal(sample.sum));
                form.min = Some(sample.min);
                form.max = Some(sample.max);
                form.last = Some(sample.last.value);
            }
        }
        form
    }

    /// Makes the form with the name and kind of the series.
    pub(super) fn of(series: &'a str, summary: &Summary) -> SummaryForm<'a> {
        SummaryForm {
            series: Some(series),
            kind: Some(summary.amount.kind().as_str()),
            ..SummaryForm::new(summary)
        }
    }
}

/// A sum as a JSON number with all its digits, which a float would cut.
struct Decimal(Sum);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.0.to_string()).map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

/// The answer to an add, written directly: this is the hot path.
pub(super) fn add_answer(kind: Kind, series: &str, total: i128, time: u64) -> String {
    let mut text = String::with_capacity(64 + series.len());
    text.push_str("{\"series\":");
    push_json_string(&mut text, series);
    let key = if kind == Kind::Sample { "count" } else { "total" };
    // Writing to a String cannot fail.
    let _ = write!(text, ",\"{key}\":{total},\"time\":{time}}}");
    text
}

/// Appends a series name as a JSON string. A name has no control characters, so only quotes and backslashes need escaping.
fn push_json_string(text: &mut String, series: &str) {
    text.push('"');
    for part in series.split_inclusive(['"', '\\']) {
        let (plain, escaped) = match part.as_bytes().last() {
            Some(b'"' | b'\\') => part.split_at(part.len() - 1),
            _ => (part, ""),
        };
        text.push_str(plain);
        if !escaped.is_empty() {
            text.push('\\');
            text.push_str(escaped);
        }
    }
    text.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{SampleView, SeriesId};
    use serde_json::{Value, json};
    use tally_core::id::SourceId;
    use tally_core::report::{Last, Sample};
    use tally_core::time::SiteTime;

    fn summary(amount: Amount, total: Option<i128>) -> Summary {
        Summary {
            seq: total.map(|_| 1042),
            series: SeriesId(0),
            start: SiteTime(1_763_858_400_000),
            span_ms: 60_000,
            amount,
            total,
            late: false,
            synced: true,
        }
    }

    fn value(form: &impl Serialize) -> Value {
        serde_json::from_str(&serde_json::to_string(form).unwrap()).unwrap()
    }

    #[test]
    fn the_answer_to_an_add_is_json_whatever_the_name() {
        for name in ["a", "line1/press3/parts", "a\"b\\c\"", "\\", "línea ü"] {
            let text = add_answer(Kind::Counter, name, 7, 12);
            let parsed: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(parsed, json!({"series": name, "total": 7, "time": 12}));
        }
        assert_eq!(add_answer(Kind::Sample, "t", 3, 4), r#"{"series":"t","count":3,"time":4}"#);
        let most = add_answer(Kind::Updown, "t", i128::MIN, 0);
        assert!(most.contains("-170141183460469231731687303715884105728"), "{most}");
    }

    #[test]
    fn a_summary_has_the_keys_of_its_kind_and_no_others() {
        let counter = value(&SummaryForm::new(&summary(Amount::Counter(37), Some(120_934))));
        assert_eq!(
            counter,
            json!({"seq": 1042, "start": 1_763_858_400_000u64, "span": 60000, "increase": 37, "total": 120_934,
                   "late": false, "clock": "synced"})
        );
        let updown = value(&SummaryForm::of("s", &summary(Amount::Updown { up: 3, down: 5 }, Some(-2))));
        assert_eq!(
            updown,
            json!({"series": "s", "kind": "updown", "seq": 1042, "start": 1_763_858_400_000u64, "span": 60000,
                   "up": 3, "down": 5, "value": -2, "late": false, "clock": "synced"})
        );
        let sample = Sample::observed(21.5, SiteTime(9), SourceId(0)).unwrap();
        assert_eq!(
            value(&SummaryForm::new(&summary(Amount::Sample(sample), None))),
            json!({"start": 1_763_858_400_000u64, "span": 60000, "count": 1, "sum": 21.5, "min": 21.5,
                   "max": 21.5, "last": 21.5, "late": false, "clock": "synced"})
        );
    }

    #[test]
    fn totals_and_sums_keep_all_their_digits() {
        let mut view = SeriesView {
            id: SeriesId(0),
            name: "t".to_owned(),
            kind: Kind::Counter,
            total: i128::MAX,
            sample: None,
            since: 0,
            changed: 1,
        };
        let text = serde_json::to_string(&SeriesForm::new(&view)).unwrap();
        assert_eq!(text, format!(r#"{{"series":"t","kind":"counter","total":{}}}"#, i128::MAX));
        let last = Last { at: SiteTime(5), source: SourceId(1), value: 2.0 };
        let sum = Sum(123_456_789_012_345_678_901);
        view.sample = Some(SampleView { count: 2, sum, min: 1.0, max: 2.0, last });
        let text = serde_json::to_string(&SeriesForm::new(&view)).unwrap();
        assert!(text.contains(r#""sum":123456789012.345678901,"#), "{text}");
    }
}
