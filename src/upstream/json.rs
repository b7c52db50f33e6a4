//! JSON: the fields of a summary, a series' total and the site's status, literally as interfaces.md has them.

use serde::Serialize;
use serde_json::value::RawValue;
use tally_core::report::{Amount, Sum};

use super::format::{Message, Naming, Numbered, SiteState};

const CONTENT_TYPE: &str = "application/json";

/// The version of the fields below: raised if one changes its meaning, not if one is added.
const FIELDS_VERSION: u32 = 1;

/// One summary; not retained.
pub(super) fn summary(naming: &Naming, numbered: &Numbered) -> Message {
    let summary = &numbered.summary;
    let fields = SummaryFields {
        v: FIELDS_VERSION,
        site: &naming.site,
        site_id: naming.site_id.to_string(),
        seq: numbered.seq,
        series: &numbered.name,
        kind: summary.amount.kind().as_str(),
        start: summary.start.0,
        span: summary.span_ms,
        amount: AmountFields::new(&summary.amount, summary.total),
        late: summary.late,
        clock: if summary.synced { "synced" } else { "unsynced" },
    };
    Message {
        topic: format!("{}/summary/{}", naming.base.as_str(), numbered.name),
        payload: encode(&fields),
        retain: false,
        content_type: CONTENT_TYPE,
        seq: Some(numbered.seq),
    }
}

/// A series' flat numbers for dashboards, retained. `None` for a late sample: it is an addend to a
/// window of the past, and the last value that a dashboard shows must not go back to it.
pub(super) fn total(naming: &Naming, latest: &Numbered) -> Option<Message> {
    let summary = &latest.summary;
    let fields = match summary.amount {
        Amount::Sample(_) if summary.late => return None,
        Amount::Sample(sample) => TotalFields::Sample {
            count: sample.count,
            mean: sample.sum.as_f64() / sample.count as f64,
            min: sample.min,
            max: sample.max,
            last: sample.last.value,
            seq: latest.seq,
            time: end_of(latest),
        },
        Amount::Counter(_) | Amount::Updown { .. } => TotalFields::Count {
            total: summary.total.unwrap_or_default(),
            // An increase that no total could hold was refused where it was applied.
            increase: summary.amount.increase().unwrap_or(i128::MAX),
            seq: latest.seq,
            time: end_of(latest),
        },
    };
    Some(Message {
        topic: format!("{}/total/{}", naming.base.as_str(), latest.name),
        payload: encode(&fields),
        retain: true,
        content_type: CONTENT_TYPE,
        seq: Some(latest.seq),
    })
}

/// The site's status, retained. As a will (`online` false) it holds what was so when it was laid down.
pub(super) fn status(naming: &Naming, online: bool, state: &SiteState) -> Message {
    let fields = StatusFields {
        state: if online { "online" } else { "offline" },
        leader: state.leader.as_deref(),
        boxes: state.boxes,
        outbox: state.outbox,
        time: state.time,
    };
    Message {
        topic: format!("{}/status", naming.base.as_str()),
        payload: encode(&fields),
        retain: true,
        content_type: CONTENT_TYPE,
        seq: None,
    }
}

/// The moment up to which a summary's numbers hold, Unix milliseconds.
fn end_of(numbered: &Numbered) -> u64 {
    numbered.summary.start.0.saturating_add(numbered.summary.span_ms)
}

fn encode(fields: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(fields).expect("texts and numbers under text keys always encode")
}

#[derive(Serialize)]
struct SummaryFields<'a> {
    v: u32,
    site: &'a str,
    site_id: String,
    seq: u64,
    series: &'a str,
    kind: &'static str,
    start: u64,
    span: u64,
    #[serde(flatten)]
    amount: AmountFields,
    late: bool,
    clock: &'static str,
}

#[derive(Serialize)]
#[serde(untagged)]
enum AmountFields {
    Counter { increase: u128, total: i128 },
    Updown { up: u128, down: u128, value: i128 },
    Sample { count: u64, sum: Box<RawValue>, min: f64, max: f64, last: f64 },
}

impl AmountFields {
    fn new(amount: &Amount, total: Option<i128>) -> AmountFields {
        let total = total.unwrap_or_default();
        match *amount {
            Amount::Counter(increase) => AmountFields::Counter { increase, total },
            Amount::Updown { up, down } => AmountFields::Updown { up, down, value: total },
            Amount::Sample(sample) => AmountFields::Sample {
                count: sample.count,
                sum: decimal(sample.sum),
                min: sample.min,
                max: sample.max,
                last: sample.last.value,
            },
        }
    }
}

#[derive(Serialize)]
#[serde(untagged)]
enum TotalFields {
    Count { total: i128, increase: i128, seq: u64, time: u64 },
    Sample { count: u64, mean: f64, min: f64, max: f64, last: f64, seq: u64, time: u64 },
}

#[derive(Serialize)]
struct StatusFields<'a> {
    state: &'static str,
    leader: Option<&'a str>,
    boxes: usize,
    outbox: usize,
    time: u64,
}

/// The sum to its last place, where a float would round it.
fn decimal(sum: Sum) -> Box<RawValue> {
    RawValue::from_string(sum.to_string()).expect("a decimal number is JSON")
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
