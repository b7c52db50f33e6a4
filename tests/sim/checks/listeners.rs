//! Whoever says that the site is there listens for another site of its name: it has subscribed on its connection, or the
//! broker has kept the subscription, or minds it.

use std::collections::BTreeSet;

#[derive(Debug, Default)]
pub(crate) struct Listeners {
    /// Connections on which somebody subscribed.
    subscribed: BTreeSet<u64>,
}

impl Listeners {
    /// A box subscribes on the connection that has this serial at the broker.
    pub(crate) fn subscribes(&mut self, serial: u64) {
        self.subscribed.insert(serial);
    }

    /// The broker has taken a status on a connection.
    pub(crate) fn status_taken(&self, serial: u64, is_kept: bool, is_minded: bool) {
        assert!(
            is_kept || is_minded || self.subscribed.contains(&serial),
            "listeners: a status is published, and nobody listens for another site of the same name"
        );
    }
}
