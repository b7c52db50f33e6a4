//! What must hold in every history; one file an invariant. Each panics at the first step that breaks it.

mod conservation;
mod delivery;
mod digests;
mod histories;
mod lasts;
mod leaders;
pub(crate) mod progress;
mod reads;
mod refused;
pub(crate) mod replicas;
mod site_time;
mod stamps;
mod windows;

pub(crate) use conservation::Conservation;
pub(crate) use delivery::Delivery;
pub(crate) use digests::Digests;
pub(crate) use histories::Histories;
pub(crate) use lasts::Lasts;
pub(crate) use leaders::Leaders;
pub(crate) use reads::Reads;
pub(crate) use refused::RefusedCells;
pub(crate) use site_time::SiteTimes;
pub(crate) use stamps::Stamps;
pub(crate) use windows::Windows;

use tally_core::id::NodeId;

use crate::boxes::Incarnation;

/// A incarnation of a box.
pub(crate) type OneIncarnation = (NodeId, u64);

/// What is looked at in a whole history.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The feature level that the site was founded with.
    pub(crate) founded: u32,
    /// Whether limits are so low that they are reached.
    pub(crate) is_narrow: bool,
    pub(crate) conservation: Conservation,
    pub(crate) delivery: Delivery,
    pub(crate) digests: Digests,
    pub(crate) histories: Histories,
    pub(crate) lasts: Lasts,
    pub(crate) leaders: Leaders,
    pub(crate) reads: Reads,
    pub(crate) refused: RefusedCells,
    pub(crate) site_times: SiteTimes,
    pub(crate) stamps: Stamps,
    pub(crate) windows: Windows,
}

impl Checks {
    /// Looks at a box after each of its steps.
    pub(crate) fn digests_and_leaders(&mut self, at: NodeId, incarnation: &mut Incarnation) {
        for logged in incarnation.logged.drain(..) {
            self.stamps.logged(at, &logged);
        }
        incarnation.handle.site(|site| {
            self.digests.look(at, site);
            self.site_times.look(site);
            // Before level 2 what follows a step back is late up to where site time was.
            if self.founded >= 2 {
                self.windows.look((at, incarnation.number), site);
            }
        });
        let role = *incarnation.handle.role().borrow();
        if role.leads {
            self.leaders.leads(at, role.term);
        }
    }
}
