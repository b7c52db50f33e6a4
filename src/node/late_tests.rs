//! A whole node whose machine stands still while the node leads.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tally_core::id::{LogIndex, NodeId, Term};
use tally_core::raft::{Body, MemberRole, Message};
use tally_core::report::Amount;
use tokio::sync::mpsc;

use super::wire::Frame;
use super::{NodeConfig, Runner, RunnerParts, StopTimes};
use crate::identity::{Authority, Identity, MemberRecord, SiteId};
use crate::metrics::Metrics;
use crate::request::Add;
use crate::storage::faulty::FaultyFileSystem;
use crate::storage::{Options, Owner, Storage};
use crate::transport::Event;

/// The only voter, and a box that follows it, which can tell it of a newer term.
fn parts(metrics: &Arc<Metrics>) -> (RunnerParts<FaultyFileSystem>, mpsc::Sender<Event>) {
    let site_id = SiteId::random().unwrap();
    let authority = Authority::found("test", site_id).unwrap();
    let member = |id: u64, role| {
        let name = format!("box{id}");
        let key = authority.issue(&name, site_id).unwrap().key_hash;
        MemberRecord { id: NodeId(id), name, address: format!("127.0.0.1:{id}"), role, key }
    };
    let members = vec![member(1, MemberRole::Voter), member(2, MemberRole::Observer)];
    let identity = Identity { site: "test".into(), site_id, node: 1, window_ms: 60_000, level: 1, members };
    let (fs, owner) = (FaultyFileSystem::new(1), Owner { site_id: site_id.0, node: 1 });
    let (storage, recovered) = Storage::open(fs, Path::new("/data"), owner, Options::default()).unwrap();
    let (events, transport_events) = mpsc::channel(8);
    let metrics = Arc::clone(metrics);
    (
        RunnerParts { identity, storage, recovered, transport: Arc::default(), transport_events, metrics },
        events,
    )
}

#[tokio::test]
async fn a_leader_that_stood_still_says_so_though_a_newer_term_is_the_first_that_it_hears_of() {
    let metrics = Arc::<Metrics>::default();
    let (parts, events) = parts(&metrics);
    let (runner, handle) = Runner::start(parts, NodeConfig::default()).unwrap();
    let task = tokio::spawn(runner.run());
    let mut role = handle.role();
    let leads = role.wait_for(|role| role.leads);
    tokio::time::timeout(Duration::from_secs(20), leads).await.expect("it leads").unwrap();
    // What it had to write is written: from now on it waits for what comes.
    handle.add(Add { series: "parts".to_owned(), amount: Amount::Counter(1), key: None }).await.unwrap();
    tokio::task::yield_now().await;
    let message = Message {
        term: Term(100),
        body: Body::Appended { matched: LogIndex::ZERO, received: LogIndex::ZERO },
    };
    let frame = Frame::Raft { message, payloads: Vec::new() }.encode();
    events.try_send(Event::Received { from: NodeId(2), lane: None, frame }).unwrap();
    // Nobody else gets to run on this thread.
    let until = Instant::now() + Duration::from_secs(1);
    while Instant::now() < until {
        std::hint::spin_loop();
    }
    assert_eq!(metrics.leader_lateness.get(), 0);
    let follows = role.wait_for(|role| !role.leads);
    tokio::time::timeout(Duration::from_secs(20), follows).await.expect("it heard that").unwrap();
    assert_eq!(metrics.leader_lateness.get(), 1);
    handle.stop(StopTimes::from(Instant::now())).await;
    task.await.unwrap().unwrap();
}
