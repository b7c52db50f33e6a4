//! What must hold in every history; one file an invariant. Each panics at the first step that breaks it.

mod agreed;
mod changes;
mod conservation;
mod departed;
mod digests;
mod histories;
mod lasts;
mod leaders;
mod listeners;
mod once;
pub(crate) mod progress;
mod publications;
mod publishers;
mod reads;
mod refused;
mod removed;
pub(crate) mod replicas;
mod retained;
mod set_aside;
mod site_time;
mod stamps;
mod told;
mod windows;
mod witnesses;

pub(crate) use agreed::AgreedMembers;
pub(crate) use changes::Changes;
pub(crate) use conservation::Conservation;
pub(crate) use departed::Departed;
pub(crate) use digests::Digests;
pub(crate) use histories::Histories;
pub(crate) use lasts::Lasts;
pub(crate) use leaders::Leaders;
pub(crate) use listeners::Listeners;
pub(crate) use once::Once;
pub(crate) use publications::Publications;
pub(crate) use publishers::Publishers;
pub(crate) use reads::Reads;
pub(crate) use refused::RefusedCells;
pub(crate) use removed::Removed;
pub(crate) use retained::Retained;
pub(crate) use set_aside::SetAside;
pub(crate) use site_time::SiteTimes;
pub(crate) use stamps::Stamps;
pub(crate) use told::Told;
pub(crate) use windows::Windows;
pub(crate) use witnesses::Witnesses;

use tally_core::id::NodeId;

use crate::boxes::Incarnation;
use crate::broker::{Packet, Topic};
use crate::forms::Forms;
use crate::plan::Micros;

/// A incarnation of a box.
pub(crate) type OneIncarnation = (NodeId, u64);

/// The checks of a history.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The feature level that the site was founded with.
    pub(crate) founded: u32,
    /// What the site publishes.
    pub(crate) forms: Forms,
    /// Whether limits are so low that they are reached.
    pub(crate) is_narrow: bool,
    /// The site was put back: what it knew and counted is not what was acknowledged.
    pub(crate) is_put_back: bool,
    /// So many clients have series that are removed and renamed.
    pub(crate) fading: u64,
    pub(crate) agreed: AgreedMembers,
    pub(crate) changes: Changes,
    pub(crate) conservation: Conservation,
    pub(crate) departed: Departed,
    pub(crate) digests: Digests,
    pub(crate) histories: Histories,
    pub(crate) lasts: Lasts,
    pub(crate) leaders: Leaders,
    pub(crate) listeners: Listeners,
    pub(crate) once: Once,
    pub(crate) publications: Publications,
    pub(crate) publishers: Publishers,
    pub(crate) reads: Reads,
    pub(crate) refused: RefusedCells,
    pub(crate) removed: Removed,
    pub(crate) set_aside: SetAside,
    pub(crate) retained: Retained,
    pub(crate) site_times: SiteTimes,
    pub(crate) stamps: Stamps,
    pub(crate) told: Told,
    pub(crate) windows: Windows,
    pub(crate) witnesses: Witnesses,
}

impl Checks {
    /// The broker has taken a message, on the connection of this serial, and keeps a subscription, or none.
    pub(crate) fn broker_took(&mut self, packet: &Packet, (serial, listens): (u64, bool)) {
        let Some(message) = &packet.message else { return };
        if !self.is_put_back {
            self.publishers.taken(packet.term);
        }
        if let Some(seq) = packet.seq {
            self.publications.taken(seq, &packet.topic);
        }
        if packet.topic == Topic::Status {
            let is_minded = self.set_aside.is_minded(&Topic::Subscription);
            self.listeners.status_taken(serial, listens, is_minded);
        }
        if let Topic::Total(form, series) = &packet.topic {
            self.retained.taken(*form, series, message);
        }
    }

    /// Looks at a box after each of its steps.
    pub(crate) fn stepped(&mut self, now: Micros, at: NodeId, incarnation: &mut Incarnation) {
        if self.is_put_back {
            return incarnation.logged.clear();
        }
        let role = *incarnation.handle.role().borrow();
        self.witnesses.leads(role.leader);
        if role.leads {
            self.leaders.leads(at, role.term);
            self.changes.leads(now, at, role.term);
        }
        for logged in std::mem::take(&mut incarnation.logged) {
            self.stamps.logged(at, &logged);
            self.changes.logged((now, at), incarnation, &logged, &self.removed);
        }
        incarnation.handle.site(|site| {
            if self.agreed.look(at, site) {
                self.removed.changed(site, role.term);
            }
            self.digests.look(at, site);
            self.site_times.look(site);
            self.departed.look(site);
            self.told.look(site, self.forms, &self.set_aside);
            // Before level 2 what follows a step back is late up to where site time was.
            if self.founded >= 2 {
                self.windows.look((at, incarnation.number), site);
            }
        });
        self.removed.look(at, incarnation);
    }
}
