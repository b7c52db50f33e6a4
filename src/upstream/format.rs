//! The formats of what is published: the list of them, and what each of them makes.

use serde::Deserialize;

use tally_core::report::Amount;

use super::config::BaseTopic;
use super::json;
use super::topic;
use crate::identity::SiteId;
use crate::site::Summary;

/// A way to write summaries. A new one is one file beside `json.rs` and a line in each list here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// JSON, a summary each, and retained totals.
    Json,
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
    /// The topic of a series' summaries.
    pub(super) fn summary_topic(&self, series: &str) -> String {
        format!("{}/summary/{}", self.base.as_str(), topic::of_series(series))
    }

    /// The topic of a series' retained total.
    pub(super) fn total_topic(&self, series: &str) -> String {
        format!("{}/total/{}", self.base.as_str(), topic::of_series(series))
    }

    /// The topic of summaries that their own topics do not take.
    pub(super) fn undeliverable_topic(&self) -> String {
        format!("{}/undeliverable", self.base.as_str())
    }

    /// The topic of the site's status.
    pub(super) fn status_topic(&self) -> String {
        format!("{}/status", self.base.as_str())
    }
}

/// A numbered summary with its series' name.
#[derive(Clone, Debug, PartialEq)]
pub struct Numbered {
    /// Its number.
    pub seq: u64,
    /// Its series.
    pub name: String,
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

/// What is handed to the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// MQTT 5 content type.
    pub content_type: &'static str,
    /// MQTT 5 user property `seq`.
    pub seq: Option<u64>,
}

impl Numbered {
    /// Whether a retained total can be as of it. A late sample is an addend to a window of the past: the last
    /// value that a dashboard shows must not go back to it.
    pub(super) fn makes_a_total(&self) -> bool {
        !(self.summary.late && matches!(self.summary.amount, Amount::Sample(_)))
    }
}

impl Format {
    /// The messages that one summary makes, its retained total apart.
    pub(super) fn summary(self, naming: &Naming, numbered: &Numbered) -> Option<Message> {
        match self {
            Format::Json => Some(json::summary(naming, numbered)),
        }
    }

    /// A summary for the topic of those that their own topics (`refused`) do not take.
    pub(super) fn undeliverable(
        self,
        naming: &Naming,
        numbered: &Numbered,
        refused: &str,
        reason: &str,
    ) -> Message {
        match self {
            Format::Json => json::undeliverable(naming, numbered, refused, reason),
        }
    }

    /// The retained values of a series, as of its latest numbered summary; `None`: that one changes none.
    pub(super) fn total(self, naming: &Naming, latest: &Numbered) -> Option<Message> {
        match self {
            Format::Json => json::total(naming, latest),
        }
    }
}
