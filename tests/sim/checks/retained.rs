//! A published total never goes back: neither the number that it includes nor, for a counter, the total itself.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tallyd::mqtt::Message;
use tallyd::site::Site;

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
    told: BTreeMap<String, Fields>,
    /// Of which series the broker retains a total.
    kept: BTreeSet<String>,
}

impl Retained {
    /// The broker has taken a total of a series.
    pub(crate) fn taken(&mut self, series: &str, message: &Message) {
        if message.payload.is_empty() {
            self.told.remove(series);
            if message.retain {
                self.kept.remove(series);
            }
            return;
        }
        if message.retain {
            self.kept.insert(series.to_owned());
        }
        let new: Fields = serde_json::from_slice(&message.payload).expect("a total is JSON");
        let old = self.told.insert(series.to_owned(), new).unwrap_or(Fields { seq: 0, ..new });
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
        let left: Vec<&String> = self.kept.iter().filter(|name| site.find(name).is_none()).collect();
        assert!(left.is_empty(), "retained: totals of series that were removed or renamed: {left:?}");
    }
}
