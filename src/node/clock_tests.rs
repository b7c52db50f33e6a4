//! A whole node that starts with a log of which only the snapshot is applied: where its site time begins.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{HardState, MemberRole, Position};
use tally_core::report::Amount;
use tally_core::time::{Elapsed, SiteTime};
use tally_core::window::Span;
use tokio::sync::mpsc;

use super::{Handle, NodeConfig, Runner, RunnerParts, StopTimes};
use crate::clock::{LeaderTime, wall_ms};
use crate::identity::{Authority, Identity, MemberRecord, SiteId};
use crate::metrics::Metrics;
use crate::request::Add;
use crate::site::{Body, BootstrapSettings, Envelope, Site, Stamp, StampedEntry, entry};
use crate::storage::faulty::FaultyFileSystem;
use crate::storage::{Entry, Options, Owner, Storage, WriteGroup};

const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;

fn stamp(site: u64, elapsed: u64) -> Stamp {
    Stamp { site: SiteTime(site), elapsed: Elapsed(elapsed), synced: true }
}

/// A box that stopped right after it applied the first of these stamped bodies, which its snapshot covers.
fn box_with_log(bodies: &[(Stamp, Body)]) -> (Runner, Handle) {
    let site_id = SiteId::random().unwrap();
    let authority = Authority::found("test", site_id).unwrap();
    let key = authority.issue("box1", site_id).unwrap().key_hash;
    let (name, address) = ("box1".to_owned(), "127.0.0.1:1".to_owned());
    let members = vec![MemberRecord { id: NodeId(1), name, address, role: MemberRole::Voter, key }];
    let identity = Identity { site: "test".into(), site_id, node: 1, window_ms: 60_000, level: 1, members };
    let base_span = Span::from_millis(identity.window_ms).unwrap();
    let founding = BootstrapSettings {
        site: identity.site.clone(),
        site_id: site_id.0,
        base_span,
        level: crate::site::Level::MAX,
    };
    let (fs, owner) = (FaultyFileSystem::new(1), Owner { site_id: site_id.0, node: 1 });

    let stamped: Vec<_> = bodies.iter().map(|(stamp, body)| StampedEntry::new(*stamp, body)).collect();
    let mut site = Site::new(&founding);
    site.apply(LogIndex(1), &stamped[0]).unwrap();
    let at = |index| Position { index: LogIndex(index), term: Term(1), ..Position::ZERO };
    let payloads = stamped.into_iter().map(|entry| Envelope::plain(entry).encode());
    let entries = payloads.zip(1..).map(|(payload, index)| Entry { position: at(index), payload });
    let hard_state = Some(HardState { term: Term(1), ..HardState::default() });
    let group = WriteGroup { hard_state, entries: entries.collect(), ..WriteGroup::default() };
    let (mut storage, _) = Storage::open(fs.clone(), Path::new("/data"), owner, Options::default()).unwrap();
    storage.write(&group).unwrap();
    storage.save_snapshot(at(1), site.snapshot().into()).unwrap();
    drop(storage);
    fs.restart(false);

    let (storage, recovered) = Storage::open(fs, Path::new("/data"), owner, Options::default()).unwrap();
    let (_events, transport_events) = mpsc::channel(1);
    let metrics = Arc::<Metrics>::default();
    let parts =
        RunnerParts { identity, storage, recovered, transport: Arc::default(), transport_events, metrics };
    Runner::start(parts, NodeConfig::default()).unwrap()
}

/// Has it lead and count; site time as stamped on the count, elapsed time, and site time as this box sees it.
async fn count_once(runner: Runner, handle: &Handle) -> (u64, u64, u64) {
    let task = tokio::spawn(runner.run());
    let add = Add { series: "parts".to_owned(), amount: Amount::Counter(1), key: None };
    let added = tokio::time::timeout(Duration::from_secs(20), handle.add(add)).await;
    added.expect("it leads").unwrap();
    let stamp = handle.site(|site| site.stamp());
    let seen = handle.clock().site().0;
    handle.stop(StopTimes::from(Instant::now())).await;
    task.await.unwrap().unwrap();
    (stamp.site.0, stamp.elapsed.0, seen)
}

#[tokio::test]
async fn a_box_that_comes_to_lead_before_it_applies_a_step_back_does_not_undo_it() {
    let late = wall_ms() + DAY_MS;
    let log = [(stamp(late, 1), entry::tick()), (stamp(wall_ms(), 2), entry::step_clock())];
    let (runner, handle) = box_with_log(&log);
    assert!(handle.clock().site().0 < late - DAY_MS / 2, "the step is in its log");
    // A leader that had not applied the step either has told it a late time.
    handle.clock().hear(LeaderTime { site: SiteTime(late), synced: true, held: None });
    let (site, _, seen) = count_once(runner, &handle).await;
    assert!(site < late - DAY_MS / 2, "{site:?}, late: {late:?}");
    assert!(seen < late - DAY_MS / 2, "{seen:?}, late: {late:?}");
}

#[tokio::test]
async fn after_a_power_cut_site_time_goes_on_where_the_log_ends_and_not_where_the_snapshot_does() {
    // The boxes' clocks say a day less: as those of boards without a battery do.
    let (snapshot, last) = (wall_ms(), wall_ms() + DAY_MS);
    let log = [
        (stamp(snapshot, 1), entry::tick()),
        (stamp(last, DAY_MS), entry::tick()),
        (stamp(last - 20, DAY_MS - 20), entry::tick()),
    ];
    let (runner, handle) = box_with_log(&log);
    let seen = handle.clock().site().0;
    assert!(
        (last..last + HOUR_MS).contains(&seen),
        "what is counted before a leader is known: {seen}, {last}"
    );
    let (site, elapsed, seen) = count_once(runner, &handle).await;
    assert!((last..last + HOUR_MS).contains(&site), "{site}, {last}");
    assert!((last..last + HOUR_MS).contains(&seen), "{seen}, {last}");
    assert!((DAY_MS..DAY_MS + HOUR_MS).contains(&elapsed), "{elapsed}");
}

#[tokio::test]
async fn after_a_power_cut_a_jump_is_held_from_where_the_log_ends_and_not_from_where_the_snapshot_does() {
    // The clocks are right and not synchronised; the snapshot is of days ago, the log of just now.
    let (snapshot, last) = (wall_ms() - 3 * DAY_MS, wall_ms() - 60_000);
    let log = [(stamp(snapshot, 1), entry::tick()), (stamp(last, 7), entry::tick())];
    let (runner, handle) = box_with_log(&log);
    let (site, _, _) = count_once(runner, &handle).await;
    assert!(site >= wall_ms() - 60_000, "{site} goes on at once to what the clocks say");
    assert_eq!(handle.clock().leader_time().held, None);
}
