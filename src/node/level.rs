//! The feature level: each box announces the level that it can apply, and the leader raises the site's level once
//! every member supports the next one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tally_core::id::NodeId;
use tally_core::raft::MemberRole;
use tracing::info;

use super::Node;
use super::wire::Frame;
use crate::site::{Level, MemberRecord, entry};
use crate::transport::Lane;

/// A raise that was proposed is not proposed again for so long: it may be under way.
const RAISE_EVERY: Duration = Duration::from_secs(1);

/// What the other boxes can apply, as they said when they connected last.
#[derive(Debug, Default)]
pub(super) struct Levels {
    told: BTreeMap<NodeId, Told>,
    raised_at: Option<Instant>,
}

/// What a box said of its program.
#[derive(Debug)]
struct Told {
    level: Level,
    /// Empty: it does not say.
    release: String,
}

impl Levels {
    /// A peer has connected: what it said before is of another process, an older release perhaps.
    pub(super) fn forget(&mut self, peer: NodeId) {
        self.told.remove(&peer);
    }

    /// A peer has announced the level that it can apply, and its release.
    pub(super) fn on_level(&mut self, peer: NodeId, level: Level, release: String) {
        self.told.insert(peer, Told { level, release });
    }

    /// The release of a peer, as it said when it connected last.
    pub(super) fn release(&self, peer: NodeId) -> Option<&str> {
        self.told.get(&peer).map(|told| &*told.release).filter(|release| !release.is_empty())
    }

    /// The highest level that all members can apply; `None`: somebody has not said yet. A witness applies nothing.
    pub(super) fn common(&self, me: NodeId, members: &[MemberRecord]) -> Option<Level> {
        let of = |member: &MemberRecord| {
            if member.id == me { Some(Level::MAX) } else { self.told.get(&member.id).map(|told| told.level) }
        };
        let boxes = members.iter().filter(|member| member.role != MemberRole::Witness);
        boxes.map(of).try_fold(Level::MAX, |least, level| level.map(|level| least.min(level)))
    }

    fn may_raise(&mut self, now: Instant) -> bool {
        let may = self.raised_at.is_none_or(|at| now >= at + RAISE_EVERY);
        if may {
            self.raised_at = Some(now);
        }
        may
    }
}

impl Node {
    /// Tells a peer that has just connected. A box of the first release counts the frame as unreadable and goes on.
    pub(super) fn tell_level(&mut self, peer: NodeId) {
        self.levels.forget(peer);
        let release = env!("CARGO_PKG_VERSION").to_owned();
        self.send(peer, Lane::Control, &Frame::Level { level: Level::MAX, release });
    }

    /// Raises the site's level, at a leader, to what all members can apply.
    pub(super) fn raise_level(&mut self) {
        let me = self.shared.identity.node_id();
        let (level, common) = {
            let site = self.site();
            if site.level() == Level::MAX {
                return;
            }
            // Before it is told who the members are, the site cannot know that all of them can.
            let known = !site.members().is_empty();
            (site.level(), self.levels.common(me, site.members()).filter(|_| known))
        };
        let Some(common) = common.filter(|common| *common > level) else { return };
        if self.levels.may_raise(self.moment.now) && self.append(entry::level(common)).is_ok() {
            info!("all members support feature level {common}: raising the site from level {level}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_core::id::KeyHash;

    fn member(id: u64, role: MemberRole) -> MemberRecord {
        MemberRecord {
            id: NodeId(id),
            name: format!("box{id}"),
            address: String::new(),
            key: KeyHash([id as u8; 32]),
            role,
        }
    }

    #[test]
    fn the_level_is_raised_when_every_box_has_said_that_it_can_and_a_witness_is_not_asked() {
        let members =
            [member(1, MemberRole::Voter), member(2, MemberRole::Observer), member(3, MemberRole::Witness)];
        let mut levels = Levels::default();
        assert_eq!(levels.common(NodeId(1), &members), None, "box2 has not said anything");
        levels.on_level(NodeId(2), Level::ONE, "0.1.0".to_owned());
        assert_eq!(levels.common(NodeId(1), &members), Some(Level::ONE));
        levels.on_level(NodeId(2), Level::TWO, "0.1.0".to_owned());
        assert_eq!(levels.common(NodeId(1), &members), Some(Level::TWO));
        levels.forget(NodeId(2));
        assert_eq!(
            levels.common(NodeId(1), &members),
            None,
            "it has restarted, with an older release perhaps"
        );
        // A newer release can more: this one raises to what it knows itself.
        levels.on_level(NodeId(2), Level::new(9).unwrap(), "0.1.0".to_owned());
        assert_eq!(levels.common(NodeId(1), &members), Some(Level::MAX));
    }
}
