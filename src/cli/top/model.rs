//! What `tallyd top` knows: the latest answers of a box, and the rates between two of them.

use std::collections::HashMap;
use std::time::Instant;

use serde::Deserialize;
use serde_json::{Value, json};

/// The longest prefix that is typed in, in characters.
const PREFIX_MAX: usize = 200;

/// A page of series.
#[derive(Debug, Deserialize)]
pub(super) struct Counted {
    pub(super) series: Vec<CountedSeries>,
    pub(super) next: Option<String>,
}

/// A series as a box tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct CountedSeries {
    pub(super) series: String,
    pub(super) kind: String,
    pub(super) total: i128,
}

/// What a box said at one time.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    pub(super) status: Value,
    pub(super) series: Vec<CountedSeries>,
    /// There are more series than these.
    pub(super) more: bool,
}

/// A series as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) kind: String,
    pub(super) total: i128,
    /// A second, since the look before; `None`: it was not seen before.
    pub(super) rate: Option<f64>,
}

/// What the rows are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Rate,
    Total,
    Name,
}

impl Order {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Order::Rate => "rate",
            Order::Total => "total",
            Order::Name => "name",
        }
    }
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct Model {
    status: Value,
    rows: Vec<Row>,
    more: bool,
    before: Option<(Instant, HashMap<String, i128>)>,
    order: Order,
    prefix: String,
    typing: bool,
    first: usize,
    /// Why the box does not answer.
    silence: Option<String>,
}

impl Model {
    pub(super) fn new(prefix: &str) -> Model {
        Model {
            status: Value::Null,
            rows: Vec::new(),
            more: false,
            before: None,
            order: Order::Rate,
            prefix: prefix.to_owned(),
            typing: false,
            first: 0,
            silence: None,
        }
    }

    /// A box has answered.
    pub(super) fn take(&mut self, sample: Sample) {
        let (earlier, totals) = match &self.before {
            Some((at, totals)) => (Some(*at), Some(totals)),
            None => (None, None),
        };
        let seconds = earlier.map_or(0.0, |at| sample.at.saturating_duration_since(at).as_secs_f64());
        let rate = |series: &CountedSeries| {
            let before = totals?.get(&series.series)?;
            (seconds > 0.0).then(|| series.total.saturating_sub(*before) as f64 / seconds)
        };
        self.rows = sample
            .series
            .iter()
            .map(|series| Row {
                name: series.series.clone(),
                kind: series.kind.clone(),
                total: series.total,
                rate: rate(series),
            })
            .collect();
        let totals = sample.series.into_iter().map(|series| (series.series, series.total)).collect();
        self.before = Some((sample.at, totals));
        self.status = sample.status;
        self.more = sample.more;
        self.silence = None;
        self.sort();
    }

    /// No box has answered; what is known stays.
    pub(super) fn on_silence(&mut self, why: String) {
        self.silence = Some(why);
    }

    fn sort(&mut self) {
        let by_name = |a: &Row, b: &Row| a.name.cmp(&b.name);
        match self.order {
            Order::Name => self.rows.sort_by(by_name),
            Order::Total => self.rows.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| by_name(a, b))),
            Order::Rate => self.rows.sort_by(|a, b| {
                let size = |row: &Row| row.rate.map_or(0.0, f64::abs);
                size(b).total_cmp(&size(a)).then_with(|| by_name(a, b))
            }),
        }
        self.first = self.first.min(self.rows.len().saturating_sub(1));
    }

    pub(super) fn sort_otherwise(&mut self) {
        self.order = match self.order {
            Order::Rate => Order::Total,
            Order::Total => Order::Name,
            Order::Name => Order::Rate,
        };
        self.first = 0;
        self.sort();
    }

    pub(super) fn scroll(&mut self, rows: isize) {
        self.first = self.first.saturating_add_signed(rows).min(self.rows.len().saturating_sub(1));
    }

    pub(super) fn begin_typing(&mut self) {
        self.typing = true;
    }

    pub(super) fn end_typing(&mut self) {
        self.typing = false;
    }

    pub(super) fn type_in(&mut self, typed: char) {
        if !typed.is_control() && self.prefix.chars().count() < PREFIX_MAX {
            self.prefix.push(typed);
            self.first = 0;
        }
    }

    pub(super) fn rub_out(&mut self) {
        self.prefix.pop();
        self.first = 0;
    }

    pub(super) fn is_typing(&self) -> bool {
        self.typing
    }

    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    pub(super) fn status(&self) -> &Value {
        &self.status
    }

    pub(super) fn order(&self) -> Order {
        self.order
    }

    pub(super) fn silence(&self) -> Option<&str> {
        self.silence.as_deref()
    }

    /// The rows from the one that is shown first.
    pub(super) fn rows(&self) -> &[Row] {
        self.rows.get(self.first..).unwrap_or_default()
    }

    /// Whether there are series that are not among the rows.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// The sum of the rates of counters and samples; `None` before the second look.
    pub(super) fn rate(&self) -> Option<f64> {
        let rates = self.rows.iter().filter(|row| row.kind != "updown").map(|row| row.rate);
        rates.flatten().reduce(|sum, rate| sum + rate)
    }

    /// What programs read.
    pub(super) fn figures(&self) -> Value {
        let series = self.rows.iter().map(|row| {
            // As a number: like the API, which writes up to 128 bits.
            let total = serde_json::from_str::<Value>(&row.total.to_string()).unwrap_or_default();
            json!({"series": row.name, "kind": row.kind, "total": total, "rate": row.rate})
        });
        let mut figures = json!({"rate": self.rate(), "series": series.collect::<Vec<Value>>()});
        for part in ["verdict", "site", "leader", "leader_since", "term", "members", "outbox", "upstream"] {
            figures[part] = self.status[part].clone();
        }
        figures
    }
}
