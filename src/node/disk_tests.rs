//! Whole nodes on failing disks: who leads, what is reported, and that nothing is lost.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tally_core::id::NodeId;
use tally_core::raft::MemberRole;
use tally_core::report::Amount;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::{DiskFault, Handle, NodeConfig, NodeError, Runner, RunnerParts, StopTimes, TransferReason};
use crate::identity::{Authority, Identity, Keys, MemberRecord, SiteId};
use crate::metrics::Metrics;
use crate::request::Add;
use crate::storage::faulty::{Fault, FaultyFileSystem};
use crate::storage::{Options, Owner, Storage};
use crate::transport::{Event, Incarnations, Transport, TransportMetrics};

struct TestBox {
    fs: FaultyFileSystem,
    handle: Handle,
    task: JoinHandle<Result<(), NodeError>>,
    /// A box alone hears of nobody; the channel is to stay open all the same.
    _events: mpsc::Sender<Event>,
}

struct TestSite {
    boxes: Vec<TestBox>,
    added: u64,
}

impl TestSite {
    async fn start(count: u64) -> TestSite {
        let disk_hung_after = Duration::from_millis(400);
        TestSite::start_with(count, NodeConfig { disk_hung_after, ..NodeConfig::default() }).await
    }

    async fn start_with(count: u64, config: NodeConfig) -> TestSite {
        let site_id = SiteId::random().unwrap();
        let authority = Authority::found("test", site_id).unwrap();
        let sockets: Vec<UdpSocket> =
            (0..count).map(|_| UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
        let mut dirs = Vec::new();
        let mut members = Vec::new();
        for (id, socket) in (1..).zip(&sockets) {
            let dir = tempfile::tempdir().unwrap();
            let name = format!("box{id}");
            let issued = authority.issue(&name, site_id).unwrap();
            issued.save(dir.path()).unwrap();
            let address = socket.local_addr().unwrap().to_string();
            members.push(MemberRecord {
                id: NodeId(id),
                name,
                address,
                role: MemberRole::Voter,
                key: issued.key_hash,
            });
            dirs.push(dir);
        }
        drop(sockets);
        let mut boxes = Vec::new();
        for (node, dir) in (1..=count).zip(&dirs) {
            let members = members.clone();
            let identity =
                Identity { site: "test".into(), site_id, node, window_ms: 60_000, level: 1, members };
            boxes.push(start_box(identity, dir.path(), config.clone()).await);
        }
        TestSite { boxes, added: 0 }
    }

    /// The box that leads, as a majority sees it too.
    async fn leader(&self) -> usize {
        wait(|| self.agreed_leader().is_some()).await;
        self.agreed_leader().unwrap()
    }

    fn agreed_leader(&self) -> Option<usize> {
        let roles: Vec<_> = self.boxes.iter().map(|one| *one.handle.role().borrow()).collect();
        let leads = roles.iter().position(|role| role.leads)?;
        let id = self.boxes[leads].handle.identity().node_id();
        let agree = roles.iter().filter(|role| role.leader == Some(id)).count();
        (agree > roles.len() / 2).then_some(leads)
    }

    /// One add at that box, retried under its key until it is answered.
    async fn add(&mut self, at: usize) {
        self.added += 1;
        let add = one_part(Some(format!("key-{}", self.added)));
        let answered = async {
            while let Err(error) = self.boxes[at].handle.add(add.clone()).await {
                assert!(matches!(
                    error,
                    super::RequestError::NotCommitted { .. } | super::RequestError::OutcomeUnknown { .. }
                ));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), answered).await.expect("the add is never answered");
    }

    fn total(&self, at: usize) -> i128 {
        self.boxes[at].handle.site(|site| site.find("parts").map_or(0, |id| site.series_total(id)))
    }

    /// All boxes have the same state, and it is exact; then they end.
    async fn end(self) {
        let applied = |one: &TestBox| {
            let status = one.handle.status();
            (status.applied, status.digest)
        };
        wait(|| {
            let first = applied(&self.boxes[0]);
            self.boxes.iter().all(|one| applied(one) == first && one.handle.status().storage.state.is_none())
        })
        .await;
        for at in 0..self.boxes.len() {
            assert_eq!(self.total(at), i128::from(self.added), "box {}", at + 1);
        }
        for one in self.boxes {
            one.handle.stop(StopTimes::from(Instant::now())).await;
            one.task.await.unwrap().unwrap();
        }
    }
}

async fn start_box(identity: Identity, dir: &Path, config: NodeConfig) -> TestBox {
    let fs = FaultyFileSystem::new(identity.node);
    let owner = Owner { site_id: identity.site_id.0, node: identity.node };
    let options = Options { segment_bytes: 256 << 10, ..Options::default() };
    let (storage, recovered) = Storage::open(fs.clone(), Path::new("/data"), owner, options).unwrap();
    let (events, transport_events) = mpsc::channel(1024);
    let transport = Arc::new(OnceLock::new());
    if identity.members.len() > 1 {
        let keys = Keys::load(dir).unwrap();
        let listen = identity.me().address.parse().unwrap();
        let metrics = Arc::<TransportMetrics>::default();
        let incarnations = Incarnations::load(dir, recovered.boot);
        let started = Transport::start(&identity, keys, listen, events.clone(), metrics, incarnations).await;
        transport.set(Arc::new(started.unwrap())).unwrap();
    }
    let metrics = Arc::<Metrics>::default();
    let parts = RunnerParts { identity, storage, recovered, transport, transport_events, metrics };
    let (runner, handle) = Runner::start(parts, config).unwrap();
    TestBox { fs, handle, task: tokio::spawn(runner.run()), _events: events }
}

fn one_part(key: Option<String>) -> Add {
    Add { series: "parts".to_owned(), amount: Amount::Counter(1), key }
}

async fn wait(condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), holds).await.expect("it never came to hold");
}

#[tokio::test]
async fn a_leader_whose_disk_takes_nothing_hands_over_says_so_reads_on_and_comes_back() {
    for (kind, state) in [
        (ErrorKind::StorageFull, DiskFault::Full),
        (ErrorKind::ReadOnlyFilesystem, DiskFault::ReadOnly),
        (ErrorKind::Other, DiskFault::Failing),
    ] {
        let mut site = TestSite::start(3).await;
        let leader = site.leader().await;
        site.add(leader).await;
        site.boxes[leader].fs.break_down(Some(kind));
        let handle = site.boxes[leader].handle.clone();
        let other = (leader + 1) % 3;
        site.add(other).await;
        wait(|| handle.status().storage.state == Some(state)).await;
        wait(|| site.agreed_leader().is_some_and(|next| next != leader)).await;
        for _ in 0..5 {
            site.add(other).await;
        }
        let status = handle.status();
        assert_eq!((status.transfers.disk, status.transfers.failed), (1, 0), "it did not just step down");
        assert_eq!(status.transfers.last.map(|last| last.reason), Some(TransferReason::Disk));
        assert!(!status.ready && handle.ready().await.is_err());
        assert!(status.storage.what.is_some_and(|what| what.contains("/data/log")));
        assert!(status.storage.since.is_some() && status.storage.advice.is_some());
        assert!(site.total(leader) >= 1, "it goes on reading what it knows");
        let refused = handle.add(one_part(None)).await.unwrap_err().to_string();
        assert!(refused.contains(state.as_str()) && refused.contains("try another box"), "{refused}");
        site.boxes[leader].fs.break_down(None);
        wait(|| handle.status().storage.state.is_none() && handle.status().ready).await;
        assert!(handle.status().storage.what.is_none());
        assert!(handle.status().storage.failures > 0);
        site.add(leader).await;
        site.end().await;
    }
}

#[tokio::test]
async fn a_follower_whose_disk_fails_disturbs_nobody() {
    let mut site = TestSite::start(3).await;
    let leader = site.leader().await;
    site.add(leader).await;
    let term = site.boxes[leader].handle.status().term;
    let follower = (leader + 1) % 3;
    site.boxes[follower].fs.break_down(Some(ErrorKind::Other));
    // For several election timeouts: a quarter of a second, half a second and a second between tries.
    while site.boxes[follower].handle.status().storage.failures < 4 {
        site.add(leader).await;
    }
    assert_eq!(site.agreed_leader(), Some(leader));
    assert_eq!(site.boxes[leader].handle.status().term, term);
    // Nor is it given leadership, however wanted.
    let wanted = Some(site.boxes[follower].handle.identity().node_id());
    let refused = site.boxes[leader].handle.transfer(wanted).await.unwrap_err().to_string();
    assert!(refused.contains("rejects writes"), "{refused}");
    assert!(site.boxes[follower].handle.ready().await.is_err(), "it hears the leader and cannot commit");
    site.boxes[follower].fs.break_down(None);
    site.end().await;
}

#[tokio::test]
async fn of_two_boxes_the_one_with_an_unhealthy_disk_stands_down_since_the_other_is_no_majority() {
    let mut site = TestSite::start(2).await;
    let leader = site.leader().await;
    site.add(leader).await;
    site.boxes[leader].fs.break_down(Some(ErrorKind::StorageFull));
    site.added += 1;
    let asked = site.boxes[1 - leader].handle.clone();
    let asking = tokio::spawn(async move { asked.add(one_part(Some("two".to_owned()))).await });
    let handle = site.boxes[leader].handle.clone();
    wait(|| handle.status().storage.state == Some(DiskFault::Full) && !handle.role().borrow().leads).await;
    assert_eq!(handle.status().transfers.disk, 0);
    site.boxes[leader].fs.break_down(None);
    // Committed by whoever leads then, or told that it is not known: then it is asked for again.
    if asking.await.unwrap().is_err() {
        let again = async {
            while site.boxes[leader].handle.add(one_part(Some("two".to_owned()))).await.is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), again).await.expect("it is never answered");
    }
    site.end().await;
}

#[tokio::test]
async fn when_all_disks_fail_nobody_leads_for_long_and_the_site_comes_back_with_them() {
    let mut site = TestSite::start(3).await;
    let leader = site.leader().await;
    site.add(leader).await;
    site.boxes.iter().for_each(|one| one.fs.break_down(Some(ErrorKind::Other)));
    site.added += 1;
    let asked = site.boxes[leader].handle.clone();
    let asking = tokio::spawn(async move { asked.add(one_part(Some("all".to_owned()))).await });
    // Its own write and the others' fail, in whatever order: whoever was handed leadership cannot take it.
    wait(|| site.boxes.iter().all(|one| !one.handle.role().borrow().leads)).await;
    site.boxes.iter().for_each(|one| one.fs.break_down(None));
    if asking.await.unwrap().is_err() {
        let again = async {
            while site.boxes[leader].handle.add(one_part(Some("all".to_owned()))).await.is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), again).await.expect("it is never answered");
    }
    site.end().await;
}

#[tokio::test]
async fn a_leader_whose_disk_hangs_hands_over_and_goes_on_when_it_answers() {
    let mut site = TestSite::start(3).await;
    let leader = site.leader().await;
    site.add(leader).await;
    site.boxes[leader].fs.hang(true);
    // The others have it on their disks.
    site.add(leader).await;
    let handle = site.boxes[leader].handle.clone();
    wait(|| handle.status().storage.state == Some(DiskFault::Hung)).await;
    wait(|| site.agreed_leader().is_some_and(|next| next != leader)).await;
    site.add((leader + 1) % 3).await;
    assert_eq!(site.total(leader), 2);
    assert!(handle.status().storage.waiting_ms >= 400);
    assert_eq!(handle.status().transfers.disk, 1);
    site.boxes[leader].fs.hang(false);
    wait(|| handle.status().storage.state.is_none()).await;
    site.add(leader).await;
    site.end().await;
}

#[tokio::test]
async fn a_follower_whose_disk_hangs_disturbs_nobody() {
    let mut site = TestSite::start(3).await;
    let leader = site.leader().await;
    site.add(leader).await;
    let follower = (leader + 1) % 3;
    let term = site.boxes[leader].handle.status().term;
    site.boxes[follower].fs.hang(true);
    while site.boxes[follower].handle.status().storage.waiting_ms < 1500 {
        site.add(leader).await;
    }
    assert_eq!(site.boxes[follower].handle.status().storage.state, Some(DiskFault::Hung));
    assert_eq!((site.agreed_leader(), site.boxes[leader].handle.status().term), (Some(leader), term));
    let verdict = site.boxes[follower].handle.status().verdict;
    assert!(verdict.text.starts_with("does NOT count: this box's disk is hung"), "{}", verdict.text);
    assert!(verdict.text.ends_with("the others go on"), "{}", verdict.text);
    let handle = site.boxes[leader].handle.clone();
    wait(|| handle.status().verdict.text.ends_with("takes no writes")).await;
    assert!(handle.status().verdict.counts, "two of three go on");
    site.boxes[follower].fs.hang(false);
    site.end().await;
}

#[tokio::test]
async fn a_box_whose_disk_is_slower_than_the_others_takes_snapshots_under_steady_load() {
    let config = NodeConfig { snapshot_log_bytes: 64 << 10, ..NodeConfig::default() };
    let mut site = TestSite::start_with(3, config).await;
    let leader = site.leader().await;
    site.add(leader).await;
    let (slow, handle) = ((leader + 1) % 3, site.boxes[leader].handle.clone());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let handle = handle.clone();
        clients.spawn(async move {
            loop {
                let _ = handle.add(one_part(None)).await;
            }
        });
    }
    site.boxes[slow].fs.slow_down(Duration::from_millis(15));
    let handle = site.boxes[slow].handle.clone();
    let (mut saved, mut grown) = (std::collections::BTreeSet::new(), 0);
    let began = Instant::now();
    while saved.len() < 5 {
        let storage = handle.status().storage;
        saved.insert(storage.snapshot_index);
        grown = storage.replay_bytes.max(grown);
        assert!(grown < 320 << 10 && began.elapsed() < Duration::from_secs(20), "{grown} bytes, {saved:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    clients.shutdown().await;
    assert_eq!(handle.status().storage.snapshot_failures, 0);
}

#[tokio::test]
async fn a_box_alone_whose_disk_hangs_says_that_it_does_not_count_until_it_answers() {
    let mut site = TestSite::start(1).await;
    site.leader().await;
    let handle = site.boxes[0].handle.clone();
    wait(|| handle.status().verdict.text == "works; tolerates none: the site has one box").await;
    site.boxes[0].fs.hang(true);
    let adding = tokio::spawn({
        let handle = handle.clone();
        async move { handle.add(one_part(Some("key-1".to_owned()))).await }
    });
    wait(|| handle.status().storage.state == Some(DiskFault::Hung)).await;
    let status = handle.status();
    assert!(!status.verdict.counts && !status.ready, "{}", status.verdict.text);
    assert!(status.verdict.text.starts_with("does NOT count: this box's disk is hung (a write"));
    assert!(!status.tolerates.text.contains("tolerates"), "{}", status.tolerates.text);
    site.boxes[0].fs.hang(false);
    wait(|| handle.status().verdict.counts).await;
    // Whatever it was told: sent again under its key it counts once.
    let _ = adding.await;
    site.add(0).await;
    site.end().await;
}

#[tokio::test]
async fn a_box_alone_gets_over_any_single_failure_of_its_disk() {
    let mut site = TestSite::start(1).await;
    site.leader().await;
    for after in 0..6 {
        for fault in [Fault::Error(ErrorKind::Other), Fault::Error(ErrorKind::StorageFull)] {
            let before = site.boxes[0].fs.faults();
            site.boxes[0].fs.fail_after(after, fault);
            while site.boxes[0].fs.faults() == before {
                site.add(0).await;
            }
            site.add(0).await;
        }
    }
    assert!(site.boxes[0].handle.status().storage.failures > 0);
    site.end().await;
}

#[tokio::test]
async fn a_partition_full_of_the_boxs_own_log_is_emptied_by_a_snapshot() {
    // By itself none would be due.
    let config = NodeConfig { snapshot_log_bytes: 1 << 30, ..NodeConfig::default() };
    let mut site = TestSite::start_with(1, config).await;
    site.leader().await;
    let fs = site.boxes[0].fs.clone();
    fs.fill_up(300 << 10); // a segment and a little
    for _ in 0..400 {
        site.add(0).await;
    }
    let storage = site.boxes[0].handle.status().storage;
    assert!(storage.snapshot_index > 0 && storage.failures > 0, "{storage:?}");
    site.end().await;
}

#[tokio::test]
async fn a_box_whose_disk_never_answers_can_still_be_stopped() {
    let site = TestSite::start(1).await;
    site.leader().await;
    let TestBox { fs, handle, task, .. } = site.boxes.into_iter().next().unwrap();
    fs.hang(true);
    let asking = tokio::spawn({
        let handle = handle.clone();
        async move { handle.add(one_part(Some("key-1".to_owned()))).await }
    });
    wait(|| handle.status().storage.state == Some(DiskFault::Hung)).await;
    let times = StopTimes::from(Instant::now());
    handle.stop(times).await;
    task.await.unwrap().unwrap();
    assert!(Instant::now() < times.end_by + Duration::from_secs(1), "nobody waits for the disk any longer");
    assert!(asking.await.unwrap().is_err());
    fs.hang(false);
}
