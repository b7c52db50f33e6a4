//! A whole node that was away while others came.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use tally_core::id::{KeyHash, LogIndex, NodeId};
use tally_core::raft::MemberRole;

use super::wire::Frame;
use super::{Input, Jobs, Links, Node, NodeConfig, NodeParts};
use crate::clock::{Moment, TimeSource, Wall};
use crate::identity::{Identity, MemberRecord, SiteId};
use crate::metrics::Metrics;
use crate::random::Random;
use crate::storage::faulty::FaultyFileSystem;
use crate::storage::{Options, Owner, Storage};
use crate::transport::{Event, Lane, PeerStatus, SendError, TransportError, TransportMetrics};

/// Keeps whom the node connects to.
#[derive(Debug, Default)]
struct Pins(Mutex<Vec<NodeId>>);

impl Links for Pins {
    fn send(&self, _to: NodeId, _lane: Lane, _frame: Bytes) -> Result<(), SendError> {
        Ok(())
    }

    fn datagram(&self, _to: NodeId, _frame: Bytes) -> Result<(), SendError> {
        Ok(())
    }

    fn has_room(&self, _to: NodeId, _lane: Lane) -> bool {
        true
    }

    fn peers(&self) -> Vec<PeerStatus> {
        Vec::new()
    }

    fn set_members(&self, members: &[MemberRecord]) -> Result<(), TransportError> {
        *self.0.lock().unwrap() = members.iter().map(|member| member.id).collect();
        Ok(())
    }
}

fn member(id: u64) -> MemberRecord {
    MemberRecord {
        id: NodeId(id),
        name: format!("box{id}"),
        address: format!("10.0.0.{id}:7400"),
        role: MemberRole::Voter,
        key: KeyHash([id as u8; 32]),
    }
}

#[test]
fn a_box_that_was_away_lets_in_whom_another_names_and_an_older_list_is_no_news() {
    let members = [1, 2, 3].map(member).to_vec();
    let identity =
        Identity { site: "test".into(), site_id: SiteId(7), node: 3, window_ms: 60_000, level: 1, members };
    let (fs, owner) = (FaultyFileSystem::new(1), Owner { site_id: 7, node: 3 });
    let (storage, recovered) = Storage::open(fs, Path::new("/data"), owner, Options::default()).unwrap();
    let (pins, (jobs, _inbox)) = (Arc::<Pins>::default(), Jobs::queue());
    let parts = NodeParts {
        identity,
        recovered,
        unsent: None,
        storage_metrics: storage.metrics(),
        jobs,
        links: Some(pins.clone()),
        transport_metrics: Arc::<TransportMetrics>::default(),
        metrics: Arc::<Metrics>::default(),
        time: TimeSource::simulated(),
        random: Random::seeded(1),
    };
    let moment = Moment { now: Instant::now(), wall: Wall { us: 1, synced: true } };
    let (mut node, _commands, _handle) = Node::new(parts, NodeConfig::default(), moment).unwrap();
    let mut hears = |index: u64, ids: &[u64]| -> Vec<u64> {
        let members = ids.iter().copied().map(member).collect();
        let frame = Frame::Members { index: LogIndex(index), members }.encode();
        node.take(Input::Links(Event::Received { from: NodeId(1), lane: Some(Lane::Control), frame }));
        node.step();
        pins.0.lock().unwrap().iter().map(|id| id.0).collect()
    };
    assert_eq!(hears(0, &[1, 2, 3, 9]), [1, 2, 3], "of what it has applied itself nobody else tells it");
    assert_eq!(hears(50, &[1, 3, 4, 5]), [1, 2, 3, 4, 5], "4 or 5 may lead");
    assert_eq!(hears(40, &[1, 2, 3, 6]), [1, 2, 3, 4, 5]);
    assert_eq!(hears(1 << 62, &[1, 8]), [1, 2, 3, 4, 5], "no log has such an entry");
    assert_eq!(hears(60, &[]), [1, 2, 3, 4, 5], "a site has members");
    assert_eq!(hears(60, &[3, 7]), [1, 2, 3, 4, 5, 7], "also from one that was removed");
}
