//! A published total never goes back: neither the number that it includes nor, for a counter, the total itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tallyd::mqtt::Message;
use tallyd::site::Site;

use crate::forms::Form;

#[derive(Clone, Copy, Debug, Deserialize)]
struct Fields {
    seq: u64,
    #[serde(default)]
    total: i128,
    #[serde(default)]
    increase: i128,
    /// Another one: another series of the name.
    #[serde(default)]
    since: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Retained {
    told: BTreeMap<(Form, String), Fields>,
    /// Of which series the broker retains a total.
    kept: BTreeSet<(Form, String)>,
}

impl Retained {
    /// The broker has taken a total of a series.
    pub(crate) fn taken(&mut self, form: Form, series: &str, message: &Message) {
        let key = (form, series.to_owned());
        if message.payload.is_empty() {
            self.told.remove(&key);
            if message.retain {
                self.kept.remove(&key);
            }
            return;
        }
        if message.retain {
            self.kept.insert(key.clone());
        }
        let new: Fields = match form {
            Form::Json => serde_json::from_slice(&message.payload).expect("a total is JSON"),
            Form::Cbor => serde_cbor::from_slice(&message.payload).expect("a total is CBOR"),
        };
        let old = self.told.insert(key, new).unwrap_or(Fields { seq: 0, ..new });
        assert!(new.seq >= old.seq, "retained: {series} goes back from number {} to {}", old.seq, new.seq);
        let falls = new.total < old.total
            && new.since == old.since
            && new.increase >= 0
            && series.starts_with("counts/");
        assert!(!falls, "retained: {series} goes back from {} to {}", old.total, new.total);
    }

    /// The broker came back as one that retains nothing.
    pub(crate) fn lost(&mut self) {
        self.kept.clear();
    }

    /// For a site at rest: no total is retained of a series that is not there.
    pub(crate) fn hold(&self, site: &Site) {
        let is_gone = |(_, name): &&(Form, String)| site.find(name).is_none();
        let left: Vec<&(Form, String)> = self.kept.iter().filter(is_gone).collect();
        assert!(left.is_empty(), "retained: totals of series that were removed or renamed: {left:?}");
    }
}
