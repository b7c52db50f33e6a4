//! The outbox of a running box: its node's handle, seen as [`Outbox`].

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::formats::{Numbered, SiteState};
use super::outbox::{Ask, HeldReader, Outbox, Position, SiteView};
use crate::node::{BrokerWish, Handle, RoleView};
use crate::request::RequestError;
use crate::site::{DepartureView, Level, SeriesId, Site, Summary};

/// See the module.
#[derive(Debug)]
pub struct NodeOutbox {
    handle: Handle,
    role: watch::Receiver<RoleView>,
    applied: watch::Receiver<u64>,
    wish: watch::Receiver<BrokerWish>,
}

impl NodeOutbox {
    /// The outbox of the node of this handle.
    pub fn new(handle: Handle) -> NodeOutbox {
        let (role, applied, wish) = (handle.role(), handle.applied(), handle.broker_wish());
        NodeOutbox { handle, role, applied, wish }
    }
}

impl SiteView for NodeOutbox {
    fn leads(&self) -> Option<u64> {
        let role = self.role.borrow();
        role.leads.then_some(role.term)
    }

    fn name(&self) -> String {
        self.handle.identity().me().name.clone()
    }

    fn seen(&self, reached: Option<bool>) {
        self.handle.broker_seen(reached);
    }

    fn wish(&self) -> BrokerWish {
        *self.wish.borrow()
    }

    fn sets_aside(&self) -> bool {
        self.handle.site(|site| site.level() >= Level::TWO)
    }

    fn passes_over(&self) -> bool {
        self.handle.site(|site| site.level() >= Level::FOUR)
    }

    fn holds(&self, seq: u64) -> bool {
        self.handle.site(|site| site.holds(seq))
    }

    fn held(&self) -> Vec<(Numbered, u8)> {
        self.handle.site(|site| held(site, usize::MAX))
    }

    fn held_reader(&self) -> HeldReader {
        let handle = self.handle.clone();
        Arc::new(move |limit| handle.site(|site| (held(site, limit), site.held_len())))
    }

    fn departures_due(&self, limit: usize) -> Vec<DepartureView> {
        self.handle.site(|site| site.departures_due(limit))
    }

    fn series_name(&self, series: SeriesId) -> String {
        self.handle.site(|site| site.name(series).to_owned())
    }

    fn position(&self) -> Position {
        self.handle.site(|site| Position {
            delivered: site.delivered(),
            numbered_last: site.numbered_last(),
            numberable: site.numberable_len(),
            numbered_max: site.settings().outbox_numbered_max(),
            held: site.held_len(),
            departures: site.departures_len(),
        })
    }

    fn numbered(&self, after: u64, limit: usize) -> Vec<Numbered> {
        self.handle.site(|site| {
            let summaries = site.numbered(after, limit).into_iter();
            summaries.filter_map(|summary| named(site, summary)).collect()
        })
    }

    fn state(&self) -> SiteState {
        let status = self.handle.status();
        SiteState {
            leader: status.leader,
            boxes: status.members.iter().filter(|member| member.connected).count(),
            outbox: self.handle.site(|site| site.outbox_len() + site.held_len()),
            time: self.handle.clock().site().0,
        }
    }
}

impl Outbox for NodeOutbox {
    async fn changed(&mut self) {
        let changed = tokio::select! {
            changed = self.role.changed() => changed,
            changed = self.applied.changed() => changed,
            changed = self.wish.changed() => changed,
        };
        if changed.is_err() {
            // The node is gone: nothing changes any more, and the stop of the upstream is under way.
            std::future::pending::<()>().await;
        }
    }

    fn ask(&self, ask: Ask) -> BoxFuture<'static, Result<(), String>> {
        let handle = self.handle.clone();
        Box::pin(async move {
            let asked = match ask.body() {
                None => handle.fence().await,
                Some(body) => handle.propose_locally(body).await,
            };
            asked.map_err(|error: RequestError| error.to_string())
        })
    }
}

fn held(site: &Site, limit: usize) -> Vec<(Numbered, u8)> {
    let held = site.held(0, limit).into_iter();
    held.filter_map(|held| Some((named(site, held.summary)?, held.cause))).collect()
}

fn named(site: &Site, summary: Summary) -> Option<Numbered> {
    let seq = summary.seq?;
    let (name, is_present) = site.name_of(summary.series, seq);
    let (name, since) = (name.to_owned(), site.since(summary.series));
    Some(Numbered { seq, name, since, is_present, summary })
}
