//! What messages say, whatever the format: names and values, in the order in which people read them.

use std::borrow::Cow;

use tally_core::report::Amount;

use super::decimal::Decimal;
use super::{Naming, Numbered};

/// The version of the fields below: raised if one changes its meaning, not if one is added.
const FIELDS_VERSION: u64 = 1;

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum FieldValue<'a> {
    /// Any text.
    Text(Cow<'a, str>),
    /// Yes or no.
    Flag(bool),
    /// What was counted, exactly.
    Exact(Decimal),
    /// What was observed, or computed of that: finite.
    Float(f64),
}

impl<'a> From<&'a str> for FieldValue<'a> {
    fn from(text: &'a str) -> FieldValue<'a> {
        FieldValue::Text(Cow::Borrowed(text))
    }
}

impl From<String> for FieldValue<'_> {
    fn from(text: String) -> Self {
        FieldValue::Text(Cow::Owned(text))
    }
}

impl From<bool> for FieldValue<'_> {
    fn from(flag: bool) -> Self {
        FieldValue::Flag(flag)
    }
}

impl From<f64> for FieldValue<'_> {
    fn from(value: f64) -> Self {
        FieldValue::Float(value)
    }
}

macro_rules! exact {
    ($($number:ty),*) => {
        $(impl From<$number> for FieldValue<'_> {
            fn from(number: $number) -> Self {
                FieldValue::Exact(Decimal::from(number))
            }
        })*
    };
}

exact!(u64, u128, i128, tally_core::report::Sum);

/// The fields of one message.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::upstream) struct Fields<'a>(Vec<(&'static str, FieldValue<'a>)>);

impl<'a> Fields<'a> {
    fn with(mut self, name: &'static str, value: impl Into<FieldValue<'a>>) -> Self {
        self.0.push((name, value.into()));
        self
    }

    /// Names and values, in order.
    pub(super) fn iter(&self) -> std::slice::Iter<'_, (&'static str, FieldValue<'a>)> {
        self.0.iter()
    }
}

/// One summary.
pub(super) fn summary<'a>(naming: &'a Naming, numbered: &'a Numbered) -> Fields<'a> {
    let summary = &numbered.summary;
    let total = summary.total.unwrap_or_default();
    let fields = Fields::default()
        .with("v", FIELDS_VERSION)
        .with("site", &*naming.site)
        .with("site_id", naming.site_id.to_string())
        .with("seq", numbered.seq)
        .with("series", &*numbered.name)
        .with("kind", summary.amount.kind().as_str())
        .with("start", summary.start.0)
        .with("span", summary.span_ms);
    let fields = match summary.amount {
        Amount::Counter(increase) => fields.with("increase", increase).with("total", total),
        Amount::Updown { up, down } => fields.with("up", up).with("down", down).with("value", total),
        Amount::Sample(sample) => fields
            .with("count", sample.count)
            .with("sum", sample.sum)
            .with("min", sample.min)
            .with("max", sample.max)
            .with("last", sample.last.value),
    };
    fields.with("late", summary.late).with("clock", if summary.synced { "synced" } else { "unsynced" })
}

/// The same for the topic of those that their own topic did not take, with that topic and the reason.
pub(super) fn undeliverable<'a>(
    naming: &'a Naming,
    numbered: &'a Numbered,
    refused: &'a str,
    reason: &'a str,
) -> Fields<'a> {
    summary(naming, numbered).with("topic", refused).with("reason", reason)
}

/// A series' flat numbers for dashboards. `None` for what makes none: see [`Numbered::makes_a_total`].
pub(super) fn total(latest: &Numbered) -> Option<Fields<'static>> {
    if !latest.makes_a_total() {
        return None;
    }
    let summary = &latest.summary;
    let fields = match summary.amount {
        Amount::Sample(sample) => Fields::default()
            .with("count", sample.count)
            .with("mean", sample.sum.as_f64() / sample.count as f64)
            .with("min", sample.min)
            .with("max", sample.max)
            .with("last", sample.last.value),
        Amount::Counter(_) | Amount::Updown { .. } => Fields::default()
            .with("total", summary.total.unwrap_or_default())
            // An increase that no total could hold was refused where it was applied.
            .with("increase", summary.amount.increase().unwrap_or(i128::MAX)),
    };
    // The moment up to which the numbers hold, Unix milliseconds.
    let time = summary.start.0.saturating_add(summary.span_ms);
    let fields = match latest.since {
        0 => fields,
        since => fields.with("since", since),
    };
    Some(fields.with("seq", latest.seq).with("time", time))
}
