//! Once the faults end, everything settles: all boxes have the same state, and nothing waits.

use tally_core::id::NodeId;
use tally_core::raft::MemberRole;
use tally_core::time::SiteTime;
use tallyd::identity::MemberRecord;
use tallyd::site::Site;

use crate::boxes::{Incarnation, SimBox};
use crate::plan::Micros;

/// Whether all members run and have nothing left to commit.
pub(crate) fn is_committed(boxes: &[&SimBox]) -> bool {
    boxes.iter().all(|one| one.incarnation.as_ref().is_some_and(has_committed))
}

fn has_committed(incarnation: &Incarnation) -> bool {
    let backlog = incarnation.handle.accumulator().backlog();
    let is_idle = backlog.cells == 0 && backlog.waiting == 0;
    is_idle && incarnation.node.is_settled() && incarnation.node.has_applied_all()
}

/// Whether all members run, agree, are what they are meant to be, and have nothing left to commit or to publish, but for
/// series that the broker `refuses`.
pub(crate) fn is_at_rest(boxes: &[&SimBox], refuses: impl Fn(&str) -> bool) -> bool {
    let state = |one: &SimBox| {
        let incarnation = one.incarnation.as_ref()?;
        let is_done = has_committed(incarnation);
        let (state, is_published) = incarnation.handle.site(|site| {
            let is_delivered = site.numberable_len() == 0 && site.delivered() == site.numbered_last();
            let waits = site.held(0, usize::MAX).into_iter().map(|held| held.summary.series);
            let only_refused = waits.map(|series| site.name(series)).all(&refuses);
            let is_cleared = site.departures_due(1).is_empty();
            let is_published =
                is_delivered && is_cleared && only_refused && site.close_due(SiteTime(u64::MAX)).is_none();
            ((site.applied(), site.digest()), is_published)
        });
        (is_done && is_published && members_are_in_force(incarnation)).then_some(state)
    };
    let Some((first, others)) = boxes.split_first() else { return false };
    let first = state(first);
    first.is_some() && boxes.iter().any(|one| one.leads()) && others.iter().all(|one| state(one) == first)
}

/// What it may still have to do.
pub(crate) fn describe(incarnation: &Incarnation) -> String {
    format!(
        "{}, {}: {:?}, by {:?}, connects to {:?}, waits for {:?}, is to clear {:?}",
        if has_committed(incarnation) { "committed" } else { "commits" },
        if members_are_in_force(incarnation) { "as wished" } else { "not as wished" },
        incarnation.handle.site(wishes),
        incarnation.node.configuration(),
        incarnation.outlet.pinned(),
        incarnation.handle.status().changing.waits,
        incarnation.handle.site(|site| site.departures_due(3))
    )
}

/// Whom the site names, and who is leaving.
fn wishes(site: &Site) -> (Vec<(NodeId, MemberRole)>, Vec<NodeId>) {
    let named = site.members().iter().map(|member| (member.id, member.role));
    (named.collect(), site.members_leaving().iter().map(|member| member.id).collect())
}

/// Whether all members are what they are meant to be, nobody else has a part in anything, and nobody else is connected.
fn members_are_in_force(incarnation: &Incarnation) -> bool {
    let (_, configuration) = incarnation.node.configuration();
    incarnation.handle.site(|site| {
        let voters = site.members().iter().filter(|member| member.role == MemberRole::Voter).count();
        let is = |member: &MemberRecord| {
            let can_be = member.role != MemberRole::Witness || voters.is_multiple_of(2);
            configuration.role(member.id) == can_be.then_some(member.role)
        };
        let is_member = |id: &NodeId| site.members().iter().any(|member| member.id == *id);
        site.members().iter().all(is)
            && !configuration.is_joint()
            && configuration.ids().all(|id| is_member(&id))
            && incarnation.outlet.pinned().iter().all(is_member)
            && incarnation.outlet.pinned().len() == site.members().len()
    })
}

/// A node that is woken because it is due does what is due: it is not due again and again at the same time.
pub(crate) fn it_sleeps(now: Micros, incarnation: &mut Incarnation) {
    let (since, times) = &mut incarnation.woken;
    if now > *since + 10_000 {
        (*since, *times) = (now, 0);
    }
    *times += 1;
    assert!(*times < 200, "no spinning: a node is due again and again: {}", incarnation.node.describe_due());
}
