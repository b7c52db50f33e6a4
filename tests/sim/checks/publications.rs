//! A number is published with the same content each time, whoever publishes it, on whichever topic and in whichever
//! format; and what the broker took, each number once, adds up to the site's totals.

use std::collections::{BTreeMap, BTreeSet};

use tallyd::mqtt::Message;
use tallyd::site::Site;

use super::Told;
use crate::broker::Topic;
use crate::forms::{Cell, Fields, Form, Forms};

#[derive(Debug)]
struct Publication {
    fields: Fields,
    /// What its own topics get, by format.
    payloads: BTreeMap<Form, Vec<u8>>,
    /// In which formats the broker has it.
    taken: BTreeSet<Form>,
    /// The broker has it on the topic for those that their own topics do not take.
    is_aside: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Publications {
    /// Whatever was sent, by number.
    sent: BTreeMap<u64, Publication>,
}

impl Publications {
    /// A box sends a message; the number of the summary that it has, if it has one.
    pub(crate) fn sent(&mut self, topic: &Topic, message: &Message) -> Option<u64> {
        let (form, is_own) = match topic {
            Topic::Summary(form, _) => (*form, true),
            Topic::Undeliverable(form) => (*form, false),
            Topic::Total(..) | Topic::Status | Topic::Subscription => return None,
        };
        let seq = message.properties.iter().find(|(name, _)| *name == "seq").map(|(_, seq)| seq.parse());
        let seq = seq.expect("a summary names its number").expect("which is one");
        let known = self.sent.get_mut(&seq);
        if let Some(payload) = known.as_ref().and_then(|one| one.payloads.get(&form)).filter(|_| is_own) {
            let is_same = *payload == message.payload;
            assert!(is_same, "publications: number {seq} is published with other content: {form:?}");
            return Some(seq);
        }
        let mut fields = form.read(&message.payload);
        assert_eq!(whole(&fields, "seq"), i128::from(seq), "publications: it names two numbers");
        if !is_own {
            // The same with where it could not go, and why.
            let more = ["topic", "reason"].map(|name| fields.remove(name));
            assert!(more.iter().all(Option::is_some), "publications: number {seq} does not say why");
        }
        let one = match known {
            Some(one) => one,
            None => self.sent.entry(seq).or_insert(Publication {
                fields: fields.clone(),
                payloads: BTreeMap::new(),
                taken: BTreeSet::new(),
                is_aside: false,
            }),
        };
        assert_eq!(one.fields, fields, "publications: number {seq} is published with other content");
        if is_own {
            one.payloads.insert(form, message.payload.clone());
        }
        Some(seq)
    }

    /// The broker has taken a summary.
    pub(crate) fn taken(&mut self, seq: u64, topic: &Topic) {
        let Some(one) = self.sent.get_mut(&seq) else { return };
        match topic {
            Topic::Summary(form, _) => drop(one.taken.insert(*form)),
            _ => one.is_aside = true,
        }
    }

    /// Of a site that has come to rest, with all windows closed and delivered.
    pub(crate) fn add_up(&self, site: &Site, forms: Forms, told: &Told) {
        let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
        for (expected, (seq, one)) in (1..).zip(&self.sent) {
            assert_eq!(*seq, expected, "publications: a gap in the numbers");
            // Whether a number is told as undeliverable, or held, goes by the first format.
            let is_there = one.is_aside || one.taken.contains(&forms[0]);
            let is_complete = one.is_aside || told.was_held(*seq);
            let is_complete = is_complete || forms.iter().all(|form| one.taken.contains(form));
            assert!(
                is_there && is_complete,
                "publications: the broker does not have number {seq} in each format"
            );
            let Some(Cell::Text(series)) = one.fields.get("series") else { panic!("a summary of no series") };
            *sums.entry(series).or_default() += increase(&one.fields);
        }
        for (series, sum) in sums {
            let total = site.find(series).map_or(0, |id| site.series_total(id));
            assert_eq!(sum, total, "publications: what the broker has of {series} is not its total");
        }
    }

    pub(crate) fn numbers(&self) -> usize {
        self.sent.len()
    }

    /// How many of them in more than one format.
    pub(crate) fn numbers_of_two(&self) -> usize {
        self.sent.values().filter(|one| one.payloads.len() > 1).count()
    }
}

fn whole(fields: &Fields, name: &str) -> i128 {
    match fields.get(name) {
        None => 0,
        Some(Cell::Whole(number)) => *number,
        Some(other) => panic!("publications: {name} is no whole number, but {other:?}"),
    }
}

/// What a summary adds: a sample has a count, an updown two directions.
fn increase(fields: &Fields) -> i128 {
    whole(fields, "increase") + whole(fields, "up") - whole(fields, "down") + whole(fields, "count")
}
