//! What must hold in every history; one file an invariant. Each panics at the first step that breaks it.

mod conservation;
mod delivery;
mod digests;
mod lasts;
mod leaders;
pub(crate) mod progress;
mod reads;
mod site_time;

pub(crate) use conservation::Conservation;
pub(crate) use delivery::Delivery;
pub(crate) use digests::Digests;
pub(crate) use lasts::Lasts;
pub(crate) use leaders::Leaders;
pub(crate) use reads::Reads;
pub(crate) use site_time::SiteTimes;

use tally_core::id::NodeId;

use crate::boxes::Incarnation;

/// A incarnation of a box.
pub(crate) type OneIncarnation = (NodeId, u64);

/// What is looked at in a whole history.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    /// The feature level that the site was founded with.
    pub(crate) founded: u32,
    pub(crate) conservation: Conservation,
    pub(crate) delivery: Delivery,
    pub(crate) digests: Digests,
    pub(crate) lasts: Lasts,
    pub(crate) leaders: Leaders,
    pub(crate) reads: Reads,
    pub(crate) site_times: SiteTimes,
}

impl Checks {
    /// Looks at a box after each of its steps.
    pub(crate) fn digests_and_leaders(&mut self, at: NodeId, incarnation: &Incarnation) {
        incarnation.handle.site(|site| {
            self.digests.look(at, site);
            self.site_times.look(site);
        });
        let role = *incarnation.handle.role().borrow();
        if role.leads {
            self.leaders.leads(at, role.term);
        }
    }
}
