//! A number is set aside only if the broker certainly refuses it: it refused the series' summaries for that reason, or
//! the connection broke three times over one of them alone, or once over one that was refused before.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::Topic;
use crate::forms::FORMS;

/// The cause for a broken connection, as in the product.
const BROKE: u8 = 0;
const PACKET_TOO_LARGE: u8 = 0x95;
const STRIKES: u32 = 3;

#[derive(Debug, Default)]
pub(crate) struct SetAside {
    codes: BTreeMap<Topic, BTreeSet<u8>>,
    /// How often a connection ended with such a message alone under way.
    ended_alone: BTreeMap<Topic, u32>,
    /// The broker has said of some packets that they are too large.
    pub(crate) limited: bool,
}

impl SetAside {
    pub(crate) fn refused(&mut self, topic: &Topic, code: u8) {
        self.codes.entry(topic.clone()).or_default().insert(code);
    }

    /// A connection ended with this under way.
    pub(crate) fn ended<'a>(&mut self, mut unanswered: impl Iterator<Item = &'a Topic>) {
        if let (Some(topic), None) = (unanswered.next(), unanswered.next()) {
            *self.ended_alone.entry(topic.clone()).or_default() += 1;
        }
    }

    /// Whether the broker may mind it.
    pub(crate) fn is_minded(&self, topic: &Topic) -> bool {
        self.codes.contains_key(topic) || self.ended_alone.contains_key(topic)
    }

    /// A number of a series is held for this reason, in whichever format it was minded.
    pub(crate) fn held(&self, seq: u64, series: &str, cause: u8) {
        let topics = FORMS[2].iter().map(|form| Topic::Summary(*form, series.to_owned()));
        let topics: Vec<Topic> = topics.collect();
        let codes: BTreeSet<u8> =
            topics.iter().filter_map(|topic| self.codes.get(topic)).flatten().copied().collect();
        let said = codes.contains(&cause);
        let ended: u32 = topics.iter().filter_map(|topic| self.ended_alone.get(topic)).sum();
        let is_certain = match cause {
            // One that was refused before was only tried again.
            BROKE => ended >= STRIKES || ended > 0 && !codes.is_empty(),
            PACKET_TOO_LARGE => said || self.limited,
            _ => said,
        };
        assert!(
            is_certain,
            "set aside: number {seq} of {series} is set aside for {cause:#x}, which the broker has not said; the \
             connection broke {ended} times over such a one alone"
        );
    }
}
