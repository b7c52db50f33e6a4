//! A published total never goes back: neither the number that it includes nor, for a counter, the total itself.

use std::collections::BTreeMap;

use serde::Deserialize;
use tallyd::mqtt::Message;

use crate::forms::Form;

#[derive(Clone, Copy, Debug, Deserialize)]
struct Fields {
    seq: u64,
    #[serde(default)]
    total: i128,
    #[serde(default)]
    increase: i128,
}

#[derive(Debug, Default)]
pub(crate) struct Retained(BTreeMap<(Form, String), Fields>);

impl Retained {
    /// The broker has taken a total of a series.
    pub(crate) fn taken(&mut self, form: Form, series: &str, message: &Message) {
        let new: Fields = match form {
            Form::Json => serde_json::from_slice(&message.payload).expect("a total is JSON"),
            Form::Cbor => serde_cbor::from_slice(&message.payload).expect("a total is CBOR"),
        };
        let old = self.0.insert((form, series.to_owned()), new).unwrap_or(Fields { seq: 0, ..new });
        assert!(new.seq >= old.seq, "retained: {series} goes back from number {} to {}", old.seq, new.seq);
        let falls = new.total < old.total && new.increase >= 0 && series.starts_with("counts/");
        assert!(!falls, "retained: {series} goes back from {} to {}", old.total, new.total);
    }
}
