//! What rooms count and tell: counters, one atomic each, so that raising one takes no lock; and families of figures for
//! `/metrics`, which the API shows without knowing them.

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Raises it by one.
    pub fn raise(&self) {
        self.add(1);
    }

    /// Raises it.
    pub fn add(&self, amount: u64) {
        self.0.fetch_add(amount, Ordering::Relaxed);
    }

    /// Its value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Figures of one name, for `/metrics`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// With `tallyd_` before it, the base unit and, of a counter, `_total` behind it.
    pub name: &'static str,
    /// `counter` or `gauge`.
    pub kind: &'static str,
    /// What it tells, a sentence.
    pub help: &'static str,
    /// The figures, each with labels of its own.
    pub samples: Vec<(Vec<(&'static str, String)>, String)>,
}

impl Family {
    /// A family without figures.
    pub fn new(name: &'static str, kind: &'static str, help: &'static str) -> Family {
        Family { name, kind, help, samples: Vec::new() }
    }

    /// A counter of one figure.
    pub fn counter(name: &'static str, help: &'static str, value: u64) -> Family {
        Family::new(name, "counter", help).with([], value)
    }

    /// The same with one figure more.
    #[must_use]
    pub fn with<const N: usize>(mut self, labels: [(&'static str, &str); N], value: impl Display) -> Family {
        let labels = labels.map(|(label, value)| (label, value.to_owned()));
        self.samples.push((labels.into(), value.to_string()));
        self
    }
}
