//! The formats of what is published: the list of them, and what all of them have in common.
//!
//! * `fields`: what a message says, by names and values. `decimal`: the values that are exact.
//! * Each format is a file that turns fields into bytes, or makes messages of its own.

mod cbor;
mod decimal;
mod fields;
pub(super) mod json;
mod listed;

use tally_core::report::Amount;

use super::config::BaseTopic;
use super::topic;
use crate::identity::SiteId;
use crate::mqtt::Message;
use crate::site::Summary;
use fields::Fields;
pub use listed::{FormatStatus, Formats};

/// All formats. A new one is a file with a line here.
const ALL: &[&dyn Format] = &[&json::Json, &cbor::Cbor];

/// A way to write summaries. What is provided here serves formats that write the fields of one summary as one message;
/// others make messages of their own.
pub(super) trait Format: Sync {
    /// What `upstream.format` calls it.
    fn name(&self) -> &'static str;

    /// What stands behind `summary`, `total` and `undeliverable` in its topics: no two formats share a topic.
    fn topic_suffix(&self) -> &'static str;

    /// MQTT 5 content type.
    fn content_type(&self) -> &'static str;

    /// The fields of a message as bytes.
    fn encode(&self, fields: &Fields<'_>) -> Vec<u8>;

    /// The message of one summary, its retained total apart; not retained. `None`: it makes none of it.
    fn summary(&self, naming: &Naming, numbered: &Numbered) -> Option<Message> {
        let topic = self.summary_topic(naming, &numbered.name);
        Some(self.message(naming, topic, &fields::summary(naming, numbered), numbered.seq))
    }

    /// A summary for the topic of those that their own topics (`refused`) do not take.
    fn undeliverable(&self, naming: &Naming, numbered: &Numbered, refused: &str, reason: &str) -> Message {
        let topic = self.undeliverable_topic(naming);
        self.message(naming, topic, &fields::undeliverable(naming, numbered, refused, reason), numbered.seq)
    }

    /// The retained values of a series, as of its latest numbered summary; `None`: that one changes none.
    fn total(&self, naming: &Naming, latest: &Numbered) -> Option<Message> {
        let topic = self.total_topic(naming, &latest.name);
        let message = self.message(naming, topic, &fields::total(latest)?, latest.seq);
        Some(Message { retain: true, ..message })
    }

    /// A message of a number.
    fn message(&self, naming: &Naming, topic: String, fields: &Fields<'_>, seq: u64) -> Message {
        Message {
            topic,
            payload: self.encode(fields),
            retain: false,
            content_type: self.content_type(),
            properties: vec![("site_id", naming.site_id.to_string()), ("seq", seq.to_string())],
        }
    }

    /// The topic of a series' summaries.
    fn summary_topic(&self, naming: &Naming, series: &str) -> String {
        naming.topic("summary", self.topic_suffix(), Some(series))
    }

    /// The topic of a series' retained total.
    fn total_topic(&self, naming: &Naming, series: &str) -> String {
        naming.topic("total", self.topic_suffix(), Some(series))
    }

    /// The topic of summaries that their own topics do not take.
    fn undeliverable_topic(&self, naming: &Naming) -> String {
        naming.topic("undeliverable", self.topic_suffix(), None)
    }

    /// Filters of all topics that it publishes to.
    fn topics(&self, naming: &Naming) -> Vec<String> {
        let topic = |of| naming.topic(of, self.topic_suffix(), None);
        vec![format!("{}/#", topic("summary")), format!("{}/#", topic("total")), topic("undeliverable")]
    }
}

/// What every message of a site is named by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Naming {
    /// The site's name.
    pub site: String,
    /// Its identity: subscribers dedupe by it and the number.
    pub site_id: SiteId,
    /// What its topics begin with.
    pub base: BaseTopic,
}

impl Naming {
    /// The topic of the site's status.
    pub(super) fn status_topic(&self) -> String {
        self.topic("status", "", None)
    }

    /// The filter for all that is told of the site itself: its status and its last number.
    pub(super) fn about_filter(&self) -> String {
        format!("{}/#", self.status_topic())
    }

    /// The topic of the site's last number. It is not the status, over which the will is laid: that would put it back.
    pub(super) fn numbered_topic(&self) -> String {
        format!("{}/numbered", self.status_topic())
    }

    fn topic(&self, of: &str, suffix: &str, series: Option<&str>) -> String {
        let base = self.base.as_str();
        match series {
            Some(series) => format!("{base}/{of}{suffix}/{}", topic::of_series(series)),
            None => format!("{base}/{of}{suffix}"),
        }
    }
}

/// A numbered summary with its series' name.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// Its number.
    pub seq: u64,
    /// The name of its series when it was numbered.
    pub name: String,
    /// Site time at which its series began to count; 0: not known.
    pub since: u64,
    /// The series is there, under this name.
    pub is_present: bool,
    /// What happened.
    pub summary: Summary,
}

/// How the site is, as its status topic tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteState {
    /// The leading box's name.
    pub leader: Option<String>,
    /// How many boxes the leader reaches, itself included.
    pub boxes: usize,
    /// Summaries not yet taken upstream.
    pub outbox: usize,
    /// Site time, Unix milliseconds.
    pub time: u64,
}

impl Numbered {
    /// Whether a retained total can be as of it. That of a series that was removed or renamed is about to be cleared.
    /// A late sample is an addend to a window of the past: the last
    /// value that a dashboard shows must not go back to it.
    pub(super) fn makes_a_total(&self) -> bool {
        self.is_present && !(self.summary.late && matches!(self.summary.amount, Amount::Sample(_)))
    }
}

#[cfg(test)]
mod testing;
