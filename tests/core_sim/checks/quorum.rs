//! What a majority is, told once more and plainly: of the voters of each half of a configuration.

use tally_core::id::NodeId;
use tally_core::raft::Configuration;

pub(crate) fn has_quorum(configuration: &Configuration, has: impl Fn(NodeId) -> bool) -> bool {
    is_most(configuration.voters(), &has) && is_most(configuration.outgoing(), &has)
}

/// Of nobody, nobody is enough: then there is no such half.
fn is_most(of: impl Iterator<Item = NodeId>, has: impl Fn(NodeId) -> bool) -> bool {
    let (mut all, mut having) = (0, 0);
    for id in of {
        all += 1;
        having += usize::from(has(id));
    }
    all == 0 || having > all / 2
}
