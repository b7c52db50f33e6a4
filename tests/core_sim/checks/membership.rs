//! Membership: a leader changes the members only when the configuration in force is committed, and an entry of its own
//! term is; and the configuration in force is always the latest of the log, also when its entry was dropped.

use tally_core::id::NodeId;
use tally_core::raft::{Configuration, LogView, Position};

use crate::cores::Core;
use crate::log::Log;

/// A leader is about to put a configuration at `position`.
pub(crate) fn the_one_before_is_committed(node: NodeId, core: &dyn Core, log: &Log, position: Position) {
    let commit = core.commit_index();
    let before = log.configurations().map(|(index, _)| index).find(|index| *index < position.index);
    let committed = log.position(commit).unwrap_or_default();
    assert!(
        before.is_none_or(|before| before <= commit),
        "membership: {node} changes the members at {} before those of {before:?} are committed",
        position.index
    );
    assert_eq!(
        committed.term, position.term,
        "membership: {node} changes the members before anything of its term is committed"
    );
}

/// `base` is the configuration before the log's first entry.
pub(crate) fn the_latest_is_in_force(node: NodeId, core: &dyn Core, log: &Log, base: &Configuration) {
    let latest = log.configurations().next().map_or(base, |(_, configuration)| configuration);
    assert_eq!(
        core.configuration(),
        latest,
        "membership: {node} goes by members that are not its log's latest"
    );
}
