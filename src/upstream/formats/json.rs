//! JSON: the fields of a summary, a series' total and the site's status, literally as interfaces.md has them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tally_core::report::{Amount, Sum};

use super::{Naming, Numbered, SiteState};
use crate::mqtt::Message;

const CONTENT_TYPE: &str = "application/json";

/// The version of the fields below: raised if one changes its meaning, not if one is added.
const FIELDS_VERSION: u32 = 1;

/// One summary; not retained.
pub(in crate::upstream) fn summary(naming: &Naming, numbered: &Numbered) -> Message {
    summary_message(naming.summary_topic(&numbered.name), &SummaryFields::new(naming, numbered), numbered)
}

/// The same for the topic of those that their own topic did not take, with that topic and the reason.
pub(in crate::upstream) fn undeliverable(
    naming: &Naming,
    numbered: &Numbered,
    refused: &str,
    reason: &str,
) -> Message {
    let fields =
        UndeliverableFields { summary: SummaryFields::new(naming, numbered), topic: refused, reason };
    summary_message(naming.undeliverable_topic(), &fields, numbered)
}

fn summary_message(topic: String, fields: &impl Serialize, numbered: &Numbered) -> Message {
    Message {
        topic,
        payload: encode(fields),
        retain: false,
        content_type: CONTENT_TYPE,
        properties: vec![("seq", numbered.seq.to_string())],
    }
}

/// A series' flat numbers for dashboards, retained. `None` for a late sample: see
/// [`Numbered::makes_a_total`].
pub(in crate::upstream) fn total(naming: &Naming, latest: &Numbered) -> Option<Message> {
    let summary = &latest.summary;
    let fields = match summary.amount {
        Amount::Sample(_) if !latest.makes_a_total() => return None,
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
        topic: naming.total_topic(&latest.name),
        payload: encode(&fields),
        retain: true,
        content_type: CONTENT_TYPE,
        properties: vec![("seq", latest.seq.to_string())],
    })
}

/// The site's status, retained. As a will (`online` false) it holds what was so when it was laid down.
pub(in crate::upstream) fn status(naming: &Naming, online: bool, state: &SiteState) -> Message {
    let fields = StatusFields {
        state: if online { "online" } else { "offline" },
        leader: state.leader.as_deref(),
        boxes: state.boxes,
        outbox: state.outbox,
        time: state.time,
        site_id: naming.site_id.to_string(),
    };
    Message {
        topic: naming.status_topic(),
        payload: encode(&fields),
        retain: true,
        content_type: CONTENT_TYPE,
        properties: Vec::new(),
    }
}

/// Whose status that is, if it says so, and what it says (`online`, `offline`).
pub(in crate::upstream) fn whose_status(payload: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Fields {
        state: String,
        site_id: String,
    }
    let fields: Fields = serde_json::from_slice(payload).ok()?;
    // Whoever may publish there may send anything: what is shown is short and plain.
    let is_id = fields.site_id.len() == 16 && fields.site_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_state = matches!(fields.state.as_str(), "online" | "offline");
    (is_id && is_state).then_some((fields.site_id, fields.state))
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

impl<'a> SummaryFields<'a> {
    fn new(naming: &'a Naming, numbered: &'a Numbered) -> SummaryFields<'a> {
        let summary = &numbered.summary;
        SummaryFields {
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
        }
    }
}

#[derive(Serialize)]
struct UndeliverableFields<'a> {
    #[serde(flatten)]
    summary: SummaryFields<'a>,
    topic: &'a str,
    reason: &'a str,
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
    site_id: String,
}

/// The sum to its last place, where a float would round it.
fn decimal(sum: Sum) -> Box<RawValue> {
    RawValue::from_string(sum.to_string()).expect("a decimal number is JSON")
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
