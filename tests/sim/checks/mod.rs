//! What must hold in every history; one file an invariant. Each panics at the first step that breaks it.

mod conservation;
mod digests;
mod lasts;
mod leaders;
pub(crate) mod progress;
mod publications;
mod publishers;
mod reads;
mod retained;
mod set_aside;
mod site_time;
mod told;

pub(crate) use conservation::Conservation;
pub(crate) use digests::Digests;
pub(crate) use lasts::Lasts;
pub(crate) use leaders::Leaders;
pub(crate) use publications::Publications;
pub(crate) use publishers::Publishers;
pub(crate) use reads::Reads;
pub(crate) use retained::Retained;
pub(crate) use set_aside::SetAside;
pub(crate) use site_time::SiteTimes;
pub(crate) use told::Told;

use tally_core::id::NodeId;

use crate::boxes::Incarnation;
use crate::broker::{Packet, Topic};

/// A incarnation of a box.
pub(crate) type OneIncarnation = (NodeId, u64);

/// What is looked at in a whole history.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The feature level that the site was founded with.
    pub(crate) founded: u32,
    pub(crate) conservation: Conservation,
    pub(crate) digests: Digests,
    pub(crate) lasts: Lasts,
    pub(crate) leaders: Leaders,
    pub(crate) publications: Publications,
    pub(crate) publishers: Publishers,
    pub(crate) reads: Reads,
    pub(crate) set_aside: SetAside,
    pub(crate) retained: Retained,
    pub(crate) site_times: SiteTimes,
    pub(crate) told: Told,
}

impl Checks {
    /// The broker has taken a message.
    pub(crate) fn broker_took(&mut self, packet: &Packet) {
        let Some(message) = &packet.message else { return };
        self.publishers.taken(packet.term);
        if let Some(seq) = packet.seq {
            self.publications.taken(seq);
        }
        if let Topic::Total(series) = &packet.topic {
            self.retained.taken(series, message);
        }
    }

    /// Looks at a box after each of its steps.
    pub(crate) fn digests_and_leaders(&mut self, at: NodeId, incarnation: &Incarnation) {
        incarnation.handle.site(|site| {
            self.digests.look(at, site);
            self.site_times.look(site);
            self.told.look(site, &self.set_aside);
        });
        let role = *incarnation.handle.role().borrow();
        if role.leads {
            self.leaders.leads(at, role.term);
        }
    }
}
