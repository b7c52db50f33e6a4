//! The site as the upstream sees it: its outbox, its leadership, and nothing else.

use std::future::Future;
use std::sync::Arc;

use super::formats::{Numbered, SiteState};
use crate::node::BrokerWish;
use crate::site::SeriesId;

/// Gives as many held numbers as asked for, the oldest, and how many there are.
pub type HeldReader = Arc<dyn Fn(usize) -> (Vec<(Numbered, u8)>, usize) + Send + Sync>;

/// Where the replicated outbox stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Up to which number the broker is known to have everything.
    pub delivered: u64,
    /// The last number given.
    pub numbered_last: u64,
    /// Summaries that have no number yet and may be given one.
    pub numberable: usize,
    /// How many may have a number and not be delivered.
    pub numbered_max: u64,
}

/// What the upstream needs of the site. Errors are texts: none of them is decided upon, only shown.
pub trait Outbox: Send + Sync + 'static {
    /// In which term this box leads; `None` if it does not, as far as it knows.
    fn leads(&self) -> Option<u64>;

    /// This box's name.
    fn name(&self) -> String;

    /// Says whether this box reaches the broker: leadership may move for it. `None`: not known.
    fn seen(&self, reached: Option<bool>);

    /// What is wanted of this box for the same reason.
    fn wish(&self) -> BrokerWish;

    /// Returns when `leads`, `wish` or the outbox may have changed. May be cancelled.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// ReadIndex: when it returns, this box knows of every leader and entry that came before the call.
    fn fence(&self) -> impl Future<Output = Result<(), String>> + Send;

    /// Gives the oldest `count` unnumbered summaries their numbers.
    fn number(&self, count: u32) -> impl Future<Output = Result<(), String>> + Send;

    /// Records that the broker has everything up to a number.
    fn delivered(&self, up_to: u64) -> impl Future<Output = Result<(), String>> + Send;

    /// Whether refused numbers can be set aside: all boxes know how.
    fn sets_aside(&self) -> bool;

    /// The broker does not take a number: it is held while those after it go on. `cause`: see
    /// [`crate::site::Held`].
    fn set_aside(&self, seq: u64, cause: u8) -> impl Future<Output = Result<(), String>> + Send;

    /// A held number was delivered after all.
    fn released(&self, seq: u64) -> impl Future<Output = Result<(), String>> + Send;

    /// Whether a number is held.
    fn holds(&self, seq: u64) -> bool;

    /// The held numbers with why, in order.
    fn held(&self) -> Vec<(Numbered, u8)>;

    /// Reads the held numbers for whoever shows them.
    fn held_reader(&self) -> HeldReader;

    /// The name of a series that a summary is of.
    fn series_name(&self, series: SeriesId) -> String;

    /// Where the outbox stands, as far as applied here.
    fn position(&self) -> Position;

    /// Numbered, undelivered summaries after a number, in order.
    fn numbered(&self, after: u64, limit: usize) -> Vec<Numbered>;

    /// For the status topic.
    fn state(&self) -> SiteState;
}
