//! A whole node whose log has an operator's step of site time.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tally_core::id::{LogIndex, Term};
use tally_core::raft::{HardState, Position};
use tally_core::report::Amount;
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;
use tokio::sync::mpsc;

use super::{Add, Node, NodeConfig, Parts, StopTimes, proposals};
use crate::clock::wall_ms;
use crate::identity::{Authority, Identity, MemberInfo, Role, SiteId};
use crate::metrics::Metrics;
use crate::site::{Founding, Site, Stamp, entry};
use crate::storage::faulty::FaultyFileSystem;
use crate::storage::{Entry, Options, Owner, Storage, WriteGroup};

const DAY_MS: u64 = 86_400_000;

/// The log of a box that stopped right before it applied the step: site time was a day late.
fn write_log(fs: &FaultyFileSystem, founding: &Founding, owner: Owner) -> SiteTime {
    let late = SiteTime(wall_ms() + DAY_MS);
    let stamp = |site, elapsed| Stamp { site, elapsed: Elapsed(elapsed), synced: true };
    let tick = entry::stamped(stamp(late, 1), &entry::tick());
    let step = entry::stamped(stamp(SiteTime(wall_ms()), 2), &entry::step_clock());
    let mut site = Site::new(founding);
    site.apply(LogIndex(1), &tick).unwrap();
    let at = |index| Position { index: LogIndex(index), term: Term(1), ..Position::ZERO };
    let entries = [tick, step].into_iter().zip(1..);
    let entries =
        entries.map(|(payload, index)| Entry { position: at(index), payload: proposals::plain(&payload) });
    let hard_state = Some(HardState { term: Term(1), ..HardState::default() });
    let group = WriteGroup { hard_state, entries: entries.collect(), ..WriteGroup::default() };
    let (mut storage, _) = Storage::open(fs.clone(), Path::new("/data"), owner, Options::default()).unwrap();
    storage.write(&group).unwrap();
    storage.save_snapshot(at(1), site.snapshot().into()).unwrap();
    drop(storage);
    fs.restart(false);
    late
}

#[tokio::test]
async fn a_box_that_comes_to_lead_before_it_applies_a_step_back_does_not_undo_it() {
    let site_id = SiteId::random().unwrap();
    let authority = Authority::found("test", site_id).unwrap();
    let key = authority.issue("box1", site_id).unwrap().key_hash;
    let (name, address) = ("box1".to_owned(), "127.0.0.1:1".to_owned());
    let members = vec![MemberInfo { id: 1, name, address, role: Role::Voter, key }];
    let identity = Identity { site: "test".into(), site_id, node: 1, window_ms: 60_000, level: 1, members };
    let base_span = Span::from_millis(identity.window_ms).unwrap();
    let founding = Founding {
        site: identity.site.clone(),
        site_id: site_id.0,
        base_span,
        level: crate::site::Level::MAX,
    };
    let (fs, owner) = (FaultyFileSystem::new(1), Owner { site_id: site_id.0, node: 1 });
    let late = write_log(&fs, &founding, owner);

    let (storage, recovered) = Storage::open(fs, Path::new("/data"), owner, Options::default()).unwrap();
    let (_events, transport_events) = mpsc::channel(1);
    let metrics = Arc::<Metrics>::default();
    let parts = Parts { identity, storage, recovered, transport: None, transport_events, metrics };
    let (node, handle) = Node::new(parts, NodeConfig::default()).unwrap();
    assert!(handle.clock().site() >= late, "it takes a late time for right, as others may that led before");
    let task = tokio::spawn(node.run());
    let add = Add { series: "parts".to_owned(), amount: Amount::Counter(1), key: None };
    let added = tokio::time::timeout(Duration::from_secs(20), handle.add(add)).await;
    added.expect("it leads").unwrap();
    let (stamp, seen) = (handle.site(|site| site.stamp().site), handle.clock().site());
    assert!(stamp.0 < late.0 - DAY_MS / 2, "{stamp:?}, late: {late:?}");
    assert!(seen.0 < late.0 - DAY_MS / 2, "{seen:?}, late: {late:?}");
    handle.stop(StopTimes::default()).await;
    task.await.unwrap().unwrap();
}
