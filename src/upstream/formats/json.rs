//! JSON: the fields as interfaces.md has them, in that order; and the site's status, which is JSON whatever the formats.

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use super::decimal::Decimal;
use super::fields::{FieldValue, Fields};
use super::{Format, Naming, SiteState};
use crate::mqtt::Message;

const CONTENT_TYPE: &str = "application/json";

/// See the module.
pub(super) struct Json;

impl Format for Json {
    fn name(&self) -> &'static str {
        "json"
    }

    fn topic_suffix(&self) -> &'static str {
        ""
    }

    fn content_type(&self) -> &'static str {
        CONTENT_TYPE
    }

    fn encode(&self, fields: &Fields<'_>) -> Vec<u8> {
        encode(&Object(fields))
    }
}

/// The site's status, retained. As a will (`online` false) it holds what was so when it was laid down.
pub(in crate::upstream) fn status(naming: &Naming, online: bool, state: &SiteState) -> Message {
    status_with(naming, if online { "online" } else { "offline" }, state, None)
}

/// The status of a site that is there, and is about to publish totals that go back: `offline`, and why.
pub(in crate::upstream) fn offline_status(naming: &Naming, state: &SiteState, why: &str) -> Message {
    status_with(naming, "offline", state, Some(why))
}

fn status_with(naming: &Naming, word: &'static str, state: &SiteState, why: Option<&str>) -> Message {
    let fields = StatusFields {
        state: word,
        leader: state.leader.as_deref(),
        boxes: state.boxes,
        outbox: state.outbox,
        time: state.time,
        site_id: naming.site_id.to_string(),
        why,
    };
    Message {
        topic: naming.status_topic(),
        payload: encode(&fields),
        retain: true,
        content_type: CONTENT_TYPE,
        properties: vec![("site_id", naming.site_id.to_string())],
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

/// The last number that the site has given, retained: told before a summary with it goes out.
pub(in crate::upstream) fn numbered(naming: &Naming, numbered: u64, time: u64) -> Message {
    let site_id = naming.site_id.to_string();
    Message {
        topic: naming.numbered_topic(),
        payload: encode(&NumberedFields { numbered, time, site_id: site_id.clone() }),
        retain: true,
        content_type: CONTENT_TYPE,
        properties: vec![("site_id", site_id)],
    }
}

/// The last number that this site has told of, if that is what these bytes say.
pub(in crate::upstream) fn own_numbered(naming: &Naming, payload: &[u8]) -> Option<u64> {
    let fields: NumberedFields = serde_json::from_slice(payload).ok()?;
    (fields.site_id == naming.site_id.to_string()).then_some(fields.numbered)
}

fn encode(fields: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(fields).expect("texts and numbers under text keys always encode")
}

struct Object<'a>(&'a Fields<'a>);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.iter().len()))?;
        for (name, value) in self.0.iter() {
            match value {
                FieldValue::Text(text) => map.serialize_entry(name, text)?,
                FieldValue::Flag(flag) => map.serialize_entry(name, flag)?,
                FieldValue::Exact(decimal) => map.serialize_entry(name, &number(decimal))?,
                FieldValue::Float(value) => map.serialize_entry(name, value)?,
            }
        }
        map.end()
    }
}

/// The number to its last place, where a float would round it.
fn number(decimal: &Decimal) -> Box<RawValue> {
    RawValue::from_string(decimal.to_string()).expect("a decimal number is JSON")
}

#[derive(Serialize)]
struct StatusFields<'a> {
    state: &'static str,
    leader: Option<&'a str>,
    boxes: usize,
    outbox: usize,
    time: u64,
    site_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

#[derive(Serialize, Deserialize)]
struct NumberedFields {
    numbered: u64,
    time: u64,
    site_id: String,
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
