//! The node's part of the status.

use tally_core::raft::Role;

use super::handle::Shared;
use super::{Node, NodeStatus};

impl Node {}

/// Fills in what can be read at any time.
pub(super) fn complete_status(_status: &mut NodeStatus, _shared: &Shared) {
    let _ = Role::Leader;
}
