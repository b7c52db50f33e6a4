//! The formats of what is published: the list of them, and what each of them makes.

use serde::Deserialize;

use super::config::BaseTopic;
use super::json;
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
pub(super) struct Message {
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

impl Format {
    /// The messages that one summary makes, its retained total apart.
    pub(super) fn summary(self, naming: &Naming, numbered: &Numbered) -> Option<Message> {
        match self {
            Format::Json => Some(json::summary(naming, numbered)),
        }
    }

    /// The retained values of a series, as of its latest numbered summary; `None`: that one changes none.
    pub(super) fn total(self, naming: &Naming, latest: &Numbered) -> Option<Message> {
        match self {
            Format::Json => json::total(naming, latest),
        }
    }
}
