//! A number is published with the same content each time, by whichever box and on whichever topic; and what the broker
//! accepted, each number counted once, adds up to the site's totals.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tallyd::mqtt::Message;
use tallyd::site::Site;

use super::departed::family;
use crate::broker::Topic;

/// The content of a message that is checked; all of it if the message has a number.
#[derive(Clone, Debug, Deserialize)]
struct Fields {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    series: String,
    #[serde(default)]
    increase: u128,
    #[serde(default)]
    up: u128,
    #[serde(default)]
    down: u128,
    #[serde(default)]
    count: u64,
}

#[derive(Debug)]
struct Publication {
    content: String,
    series: String,
    increase: i128,
}

#[derive(Debug, Default)]
pub(crate) struct Publications {
    /// Whatever was sent, by number.
    sent: BTreeMap<u64, Publication>,
    /// The numbers that the broker has accepted.
    taken: BTreeSet<u64>,
}

impl Publications {
    /// A box sends a message; the number of the summary that it has, if it has one.
    pub(crate) fn sent(&mut self, topic: &Topic, message: &Message) -> Option<u64> {
        let text = std::str::from_utf8(&message.payload).expect("JSON is text");
        let content = match topic {
            Topic::Summary(_) => text.to_owned(),
            // The same with where it could not go, and why.
            Topic::Undeliverable => {
                let (summary, _) = text.split_once(",\"topic\":").expect("it says which topic was refused");
                format!("{summary}}}")
            }
            Topic::Total(_) | Topic::Status | Topic::Subscription => return None,
        };
        let fields: Fields = serde_json::from_str(text).expect("a summary is JSON");
        let increase = match (fields.increase, fields.count) {
            (0, 0) => fields.up as i128 - fields.down as i128,
            (increase, 0) => increase as i128,
            (_, count) => i128::from(count),
        };
        let seq = fields.seq;
        let new = || Publication { content: content.clone(), series: fields.series, increase };
        let first = self.sent.entry(seq).or_insert_with(new);
        assert_eq!(first.content, content, "publications: number {seq} is published with other content");
        Some(seq)
    }

    /// The broker has taken a summary.
    pub(crate) fn taken(&mut self, seq: u64) {
        self.taken.insert(seq);
    }

    /// For a site at rest, with all windows closed and delivered: the publications add up to its totals.
    pub(crate) fn add_up(&self, site: &Site) {
        let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
        for (expected, (seq, one)) in (1..).zip(&self.sent) {
            assert_eq!(*seq, expected, "publications: a gap in the numbers");
            assert!(self.taken.contains(seq), "publications: the broker does not have number {seq}");
            *sums.entry(&one.series).or_default() += one.increase;
        }
        for (series, sum) in sums.into_iter().filter(|(series, _)| family(series).is_none()) {
            let total = site.find(series).map_or(0, |id| site.series_total(id));
            assert_eq!(sum, total, "publications: what the broker has of {series} is not its total");
        }
    }

    /// What was published of the series that are meant.
    pub(crate) fn sum(&self, is_meant: impl Fn(&str) -> bool) -> i128 {
        self.sent.values().filter(|one| is_meant(&one.series)).map(|one| one.increase).sum()
    }

    pub(crate) fn numbers(&self) -> usize {
        self.sent.len()
    }
}
