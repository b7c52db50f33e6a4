//! The site as the upstream sees it: its outbox, its leadership, and nothing else.

use std::future::Future;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::formats::{Numbered, SiteState};
use crate::node::BrokerWish;
use crate::site::{Body, DepartureView, SeriesId, entry};

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
    /// How many numbers are held.
    pub held: usize,
    /// How many names that series had are not cleared at the broker.
    pub departures: usize,
}

/// What the upstream reads of the site. Nothing here waits.
pub trait SiteView: Send + 'static {
    /// In which term this box leads; `None` if it does not, as far as it knows.
    fn leads(&self) -> Option<u64>;

    /// This box's name.
    fn name(&self) -> String;

    /// Says whether this box reaches the broker: leadership may move for it. `None`: not known.
    fn seen(&self, reached: Option<bool>);

    /// What is wanted of this box for the same reason.
    fn wish(&self) -> BrokerWish;

    /// Whether refused numbers can be set aside: all boxes know how.
    fn sets_aside(&self) -> bool;

    /// Whether numbers can be passed over: all boxes know how.
    fn passes_over(&self) -> bool;

    /// Whether a number is held.
    fn holds(&self, seq: u64) -> bool;

    /// The held numbers with why, in order.
    fn held(&self) -> Vec<(Numbered, u8)>;

    /// Reads the held numbers for whoever shows them.
    fn held_reader(&self) -> HeldReader;

    /// Up to so many names that series had and of which the broker has all summaries, in the order in which they left.
    fn departures_due(&self, limit: usize) -> Vec<DepartureView>;

    /// The name of a series that a summary is of.
    fn series_name(&self, series: SeriesId) -> String;

    /// Where the outbox stands, as far as applied here.
    fn position(&self) -> Position;

    /// Numbered, undelivered summaries after a number, in order.
    fn numbered(&self, after: u64, limit: usize) -> Vec<Numbered>;

    /// For the status topic.
    fn state(&self) -> SiteState;
}

/// What the upstream asks of the site. An answer comes when it is done, or when it is known or feared not to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// ReadIndex: when it is answered, this box knows of every leader and entry that came before it was asked.
    Fence,
    /// Give the oldest so many unnumbered summaries their numbers.
    Number(u32),
    /// Record that the broker has everything up to a number.
    Delivered(u64),
    /// The broker does not take a number: it is held while those after it go on. `cause`: see
    /// [`crate::site::Held`].
    SetAside {
        /// Which.
        seq: u64,
        /// Why.
        cause: u8,
    },
    /// A held number was delivered after all.
    Released(u64),
    /// The broker has nothing of a name that left.
    Cleared(u64),
    /// Numbers up to this one were given before the site was put back to an older state.
    PassOver(u64),
}

impl Ask {
    /// What the site's log is to have for it; a fence leaves nothing there.
    pub fn body(self) -> Option<Body> {
        match self {
            Ask::Fence => None,
            Ask::Number(count) => Some(entry::number(count)),
            Ask::Delivered(up_to) => Some(entry::delivered(up_to)),
            Ask::SetAside { seq, cause } => Some(entry::set_aside(seq, cause)),
            Ask::Released(seq) => Some(entry::released(seq)),
            Ask::Cleared(departure) => Some(entry::cleared(departure)),
            Ask::PassOver(up_to) => Some(entry::pass_over(up_to)),
        }
    }
}

/// What the running upstream needs of the site. Errors are texts: none of them is decided upon, only shown.
pub trait Outbox: SiteView {
    /// Returns when `leads`, `wish` or the outbox may have changed. May be cancelled.
    fn changed(&mut self) -> impl Future<Output = ()> + Send;

    /// Does what is asked for; meanwhile the site is read on, by the same outbox.
    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<(), String>>;
}
