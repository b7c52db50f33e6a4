//! Real endpoints on loopback.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use tally_core::raft::MemberRole;

use super::*;
use crate::identity::{Authority, MemberRecord, SiteId};

#[path = "refused_tests.rs"]
mod refused;

/// What comes so soon does not come by the idle timeout of 3 s.
const SOONER: Duration = Duration::from_millis(2500);

/// A site whose boxes can be started, each with a directory of its own.
struct TestSite {
    dirs: Vec<tempfile::TempDir>,
    identities: Vec<Identity>,
}

/// A running box, as far as the transport goes.
struct TestBox {
    transport: Transport,
    events: mpsc::Receiver<Event>,
    metrics: Arc<TransportMetrics>,
}

impl TestSite {
    fn new(count: u64) -> TestSite {
        let site_id = SiteId::random().unwrap();
        let authority = Authority::found("test", site_id).unwrap();
        let mut dirs = Vec::new();
        let mut members = Vec::new();
        for id in 1..=count {
            let dir = tempfile::tempdir().unwrap();
            let name = format!("box{id}");
            let issued = authority.issue(&name, site_id).unwrap();
            issued.save(dir.path()).unwrap();
            let address = free_address().to_string();
            members.push(MemberRecord {
                id: NodeId(id),
                name,
                address,
                role: MemberRole::Voter,
                key: issued.key_hash,
            });
            dirs.push(dir);
        }
        let identity = |node| Identity {
            site: "test".into(),
            site_id,
            node,
            window_ms: 60_000,
            level: 1,
            members: members.clone(),
        };
        TestSite { dirs, identities: (1..=count).map(identity).collect() }
    }

    fn address(&self, node: u64) -> SocketAddr {
        self.identities[node as usize - 1].me().address.parse().unwrap()
    }

    fn keys(&self, node: u64) -> Keys {
        Keys::load(self.dirs[node as usize - 1].path()).unwrap()
    }

    /// As if the storage had been opened once more.
    fn next_incarnation(&self, node: u64) -> Incarnations {
        let dir = self.dirs[node as usize - 1].path();
        let boot =
            std::fs::read_to_string(dir.join("boot")).map_or(0, |text| text.parse::<u64>().unwrap()) + 1;
        std::fs::write(dir.join("boot"), boot.to_string()).unwrap();
        Incarnations::load(dir, boot)
    }

    async fn start(&self, node: u64) -> TestBox {
        self.start_with(node, 1024).await
    }

    async fn start_with(&self, node: u64, events_max: usize) -> TestBox {
        let (sender, events) = mpsc::channel(events_max);
        let metrics = Arc::<TransportMetrics>::default();
        let identity = &self.identities[node as usize - 1];
        let listen = self.address(node);
        let incarnations = self.next_incarnation(node);
        let keys = self.keys(node);
        let started = Transport::start(identity, keys, listen, sender, metrics.clone(), incarnations).await;
        TestBox { transport: started.unwrap(), events, metrics }
    }

    /// The two boxes of a site of two, connected, by one connection: box 1 does not know where box 2 is, and so does
    /// not dial it.
    async fn pair() -> (TestSite, TestBox, TestBox) {
        let mut site = TestSite::new(2);
        site.identities[0].members[1].address.clear();
        let (mut one, mut two) = (site.start(1).await, site.start(2).await);
        one.wait_connected(2).await;
        two.wait_connected(1).await;
        (site, one, two)
    }
}

impl TestBox {
    async fn next(&mut self) -> Event {
        within(self.events.recv()).await.expect("the transport ended")
    }

    async fn wait_connected(&mut self, peer: u64) {
        while self.next().await != Event::Connected(NodeId(peer)) {}
    }

    /// The next frame, whatever happens to connections meanwhile.
    async fn frame(&mut self) -> (Option<Lane>, Bytes) {
        loop {
            if let Event::Received { lane, frame, .. } = self.next().await {
                return (lane, frame);
            }
        }
    }

    async fn wait_refused(&self, reason: Refusal) {
        wait_until(|| self.metrics.refused(reason).get() > 0).await;
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("nothing happened within 10 s")
}

async fn wait_until(condition: impl Fn() -> bool) {
    within(async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

fn free_address() -> SocketAddr {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn frames_arrive_on_each_lane_in_order() {
    let (_site, one, mut two) = TestSite::pair().await;
    for number in 0..500u32 {
        for lane in Lane::ALL {
            let length = if number % 50 == 0 { 60_000 } else { 100 };
            let mut frame = vec![0; length];
            frame[..4].copy_from_slice(&number.to_le_bytes());
            let frame = Bytes::from(frame);
            while let Err(error) = one.transport.send(NodeId(2), lane, frame.clone()) {
                assert_eq!(error, SendError::Full);
                tokio::task::yield_now().await;
            }
        }
    }
    let mut next = [0u32; 4];
    while next != [500; 4] {
        let (lane, frame) = two.frame().await;
        let lane = lane.expect("no datagram was sent").index();
        assert_eq!(u32::from_le_bytes(frame[..4].try_into().unwrap()), next[lane]);
        next[lane] += 1;
    }
    assert_eq!(two.metrics.frames_received.get(), 2000);
    assert_eq!(one.metrics.frames_sent.get(), 2000);
}

#[tokio::test]
async fn the_longest_frame_of_each_lane_arrives() {
    let (_site, mut one, two) = TestSite::pair().await;
    for lane in Lane::ALL {
        let frame = Bytes::from(vec![9; lane.frame_bytes_max()]);
        assert_eq!(two.transport.send(NodeId(1), lane, frame.clone()), Ok(()));
        let came = one.frame().await;
        assert!(came == (Some(lane), frame), "{lane:?}");
        let longer = Bytes::from(vec![9; lane.frame_bytes_max() + 1]);
        assert_eq!(two.transport.send(NodeId(1), lane, longer), Err(SendError::TooLarge));
    }
}

#[tokio::test]
async fn a_datagram_goes_beside_and_a_long_one_on_the_control_lane() {
    let (_site, one, mut two) = TestSite::pair().await;
    one.transport.datagram(NodeId(2), Bytes::from_static(b"tick")).unwrap();
    assert_eq!(two.frame().await, (None, Bytes::from_static(b"tick")));
    let long = Bytes::from(vec![5; 5000]);
    one.transport.datagram(NodeId(2), long.clone()).unwrap();
    assert_eq!(two.frame().await, (Some(Lane::Control), long));
}

#[tokio::test]
async fn a_node_that_is_behind_holds_its_peers_back_and_loses_no_frame() {
    let site = TestSite::new(2);
    let (mut one, mut two) = (site.start(1).await, site.start_with(2, 4).await);
    one.wait_connected(2).await;
    two.wait_connected(1).await;
    let mut sent = 0u32;
    let full = |sent: u32| {
        let mut frame = vec![0; 100_000];
        frame[..4].copy_from_slice(&sent.to_le_bytes());
        one.transport.send(NodeId(2), Lane::Entries, frame.into()) == Err(SendError::Full)
    };
    // Nobody reads at the other end: the queue fills, for good. Each look gives the connection a turn.
    within(async {
        let mut refused = 0;
        while refused < 200 {
            if full(sent) {
                refused += 1;
            } else {
                sent += 1;
                refused = 0;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert!(sent < 200, "{sent} frames of 100 kB fit into bounded queues");
    one.transport.datagram(NodeId(2), Bytes::from_static(b"lost")).unwrap();
    wait_until(|| two.metrics.datagrams_dropped.get() == 1).await;
    for number in 0..sent {
        let (_, frame) = two.frame().await;
        assert_eq!(u32::from_le_bytes(frame[..4].try_into().unwrap()), number);
    }
}

#[tokio::test]
async fn garbage_does_not_disturb() {
    let (site, one, mut two) = TestSite::pair().await;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut byte = 1u8;
    for length in 0..1400usize {
        let garbage: Vec<u8> = (0..length)
            .map(|_| {
                byte = byte.wrapping_mul(73).wrapping_add(29);
                byte
            })
            .collect();
        socket.send_to(&garbage, site.address(2)).unwrap();
    }
    one.transport.send(NodeId(2), Lane::Control, Bytes::from_static(b"fine")).unwrap();
    assert_eq!(two.frame().await.1, Bytes::from_static(b"fine"));
    assert_eq!((two.metrics.connections_made.get(), two.metrics.connections_ended.get()), (1, 0));
    assert!(REFUSALS.iter().all(|reason| two.metrics.refused(*reason).get() == 0));
}

#[test]
fn a_peer_killed_and_restarted_is_connected_again_fast() {
    let site = Arc::new(TestSite::new(2));
    run(async {
        let one = site.start_with(1, 100_000).await;
        for _ in 0..5 {
            let first_incarnation = site.clone();
            tokio::task::spawn_blocking(move || live_and_be_killed(&first_incarnation)).await.unwrap();
            let start = Instant::now();
            let mut two = site.start(2).await;
            two.wait_connected(1).await;
            println!("connected again {:?} after the restart", start.elapsed());
            assert!(start.elapsed() < SOONER, "{:?}", start.elapsed());
            // What box 1 sends before it notices that the first incarnation is over is lost: it sends again.
            let hello = Bytes::from_static(b"hello");
            let came = async { while two.frame().await.1 != hello {} };
            let sending = async {
                loop {
                    let _ = one.transport.send(NodeId(2), Lane::Control, hello.clone());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            within(async {
                tokio::select! { () = came => {}, () = sending => {} }
            })
            .await;
            println!("and frames came through {:?} after it", start.elapsed());
            assert!(start.elapsed() < SOONER, "{:?}", start.elapsed());
            two.transport.close().await;
            drop(two);
            wait_until(|| UdpSocket::bind(site.address(2)).is_ok()).await;
        }
    });
}

/// Box 2 from its start until, connected, it ends as by kill -9: its tasks and its socket are gone, and
/// nobody is told.
fn live_and_be_killed(site: &TestSite) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let two = runtime.block_on(async {
        let mut two = site.start(2).await;
        two.wait_connected(1).await;
        two
    });
    drop(runtime);
    drop(two);
}

#[test]
fn a_restarted_peer_that_does_not_dial_is_noticed_by_its_reset() {
    let mut site = TestSite::new(2);
    // Box 2 thinks that box 1 is elsewhere.
    site.identities[1].members[0].address = free_address().to_string();
    let site = Arc::new(site);
    run(async {
        let mut one = site.start(1).await;
        let first_incarnation = site.clone();
        tokio::task::spawn_blocking(move || live_and_be_killed(&first_incarnation)).await.unwrap();
        one.wait_connected(2).await;
        let mut two = site.start(2).await;
        let start = Instant::now();
        assert_eq!(one.transport.send(NodeId(2), Lane::Control, Bytes::from_static(b"lost")), Ok(()));
        assert_eq!(one.next().await, Event::Disconnected(NodeId(2)));
        one.wait_connected(2).await;
        two.wait_connected(1).await;
        println!("noticed and connected again in {:?}", start.elapsed());
        assert!(start.elapsed() < SOONER, "not by the idle timeout: {:?}", start.elapsed());
    });
}

#[tokio::test]
async fn dials_that_cross_end_in_one_connection_that_works_both_ways() {
    for _ in 0..20 {
        if have_crossed().await {
            return;
        }
    }
    panic!("no two dials crossed");
}

/// Starts two boxes, which dial each other, and looks at what comes of it; whether their dials crossed.
async fn have_crossed() -> bool {
    let site = TestSite::new(2);
    let (mut one, mut two) = (site.start(1).await, site.start(2).await);
    one.wait_connected(2).await;
    two.wait_connected(1).await;
    one.transport.send(NodeId(2), Lane::Requests, Bytes::from_static(b"ping")).unwrap();
    assert_eq!(two.frame().await.1, Bytes::from_static(b"ping"));
    two.transport.send(NodeId(1), Lane::Requests, Bytes::from_static(b"pong")).unwrap();
    assert_eq!(one.frame().await.1, Bytes::from_static(b"pong"));
    for each in [&one, &two] {
        wait_until(|| each.metrics.connections_made.get() == each.metrics.connections_ended.get() + 1).await;
    }
    for each in [&mut one, &mut two] {
        while let Ok(event) = each.events.try_recv() {
            assert!(!matches!(event, Event::Disconnected(_)), "nobody was cut off meanwhile");
        }
    }
    [&one, &two].iter().any(|each| each.metrics.connections_made.get() > 1)
}

#[tokio::test]
async fn the_one_that_goes_tells_its_peers_at_once() {
    let (_site, mut one, two) = TestSite::pair().await;
    let start = Instant::now();
    two.transport.close().await;
    assert_eq!(one.next().await, Event::Disconnected(NodeId(2)));
    assert!(start.elapsed() < SOONER, "not by the idle timeout");
    let frame = Bytes::from_static(b"late");
    assert_eq!(one.transport.send(NodeId(2), Lane::Control, frame.clone()), Err(SendError::NotConnected));
    assert_eq!(one.transport.datagram(NodeId(2), frame.clone()), Err(SendError::NotConnected));
    assert_eq!(one.transport.send(NodeId(7), Lane::Control, frame), Err(SendError::NotAPeer));
}

#[tokio::test]
async fn a_port_in_use_and_another_boxs_key_are_named() {
    let site = TestSite::new(2);
    let _one = site.start(1).await;
    let (sender, _events) = mpsc::channel(1);
    let start = |identity: u64, keys: u64| {
        let identity = &site.identities[identity as usize - 1];
        Transport::start(
            identity,
            site.keys(keys),
            site.address(1),
            sender.clone(),
            Arc::default(),
            Incarnations::load(site.dirs[0].path(), 1),
        )
    };
    let text = start(1, 1).await.unwrap_err().to_string();
    assert!(text.contains(&site.address(1).to_string()) && text.contains("another program"), "{text}");
    let text = start(1, 2).await.unwrap_err().to_string();
    assert!(text.contains("node.key") && text.contains("box1"), "{text}");
}

#[tokio::test]
async fn three_boxes_are_all_connected_soon_after_they_start() {
    let site = TestSite::new(3);
    let start = Instant::now();
    let mut boxes = vec![site.start(1).await, site.start(2).await, site.start(3).await];
    for each in &mut boxes {
        let mut peers = 0;
        while peers < 2 {
            peers += u32::from(matches!(each.next().await, Event::Connected(_)));
        }
    }
    println!("three boxes connected in {:?}", start.elapsed());
    assert!(boxes.iter().all(|each| each.transport.peers().iter().all(|peer| peer.connected)));
}

/// Prints the round trip between two threads, one right after another and after pauses. It depends as
/// much on whether the scheduler puts both on one core as on the transport, and on what else runs: to
/// compare two versions, run it alone and pinned (`taskset`).
#[test]
fn the_round_trip_is_measured() {
    let site = Arc::new(TestSite::new(2));
    let other = site.clone();
    let (stop, mut stopped) = tokio::sync::oneshot::channel::<()>();
    let echo = std::thread::spawn(move || {
        run(async {
            let mut two = other.start(2).await;
            loop {
                let event = tokio::select! { event = two.events.recv() => event, _ = &mut stopped => return };
                if let Some(Event::Received { from, lane: Some(lane), frame }) = event {
                    two.transport.send(from, lane, frame).unwrap();
                }
            }
        });
    });
    run(async {
        let mut one = site.start(1).await;
        one.wait_connected(2).await;
        for (pause, count) in [(Duration::ZERO, 3000), (Duration::from_millis(1), 300)] {
            let mut times = Vec::new();
            for number in 0..count {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                let start = Instant::now();
                let frame = Bytes::from(vec![number as u8; 200]);
                one.transport.send(NodeId(2), Lane::Entries, frame.clone()).unwrap();
                assert_eq!(one.frame().await, (Some(Lane::Entries), frame));
                times.push(start.elapsed());
            }
            times.sort();
            let (p50, p99) = (times[count / 2], times[count * 99 / 100]);
            println!("round trip of 200 bytes, {pause:?} between: p50 {p50:?}, p99 {p99:?}");
        }
    });
    stop.send(()).unwrap();
    echo.join().unwrap();
}

fn run(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future);
}

#[tokio::test]
async fn a_member_that_is_added_connects_and_one_that_is_removed_is_cut_off() {
    let (site, mut one, mut two) = TestSite::pair().await;
    let both = site.identities[0].members.clone();
    one.transport.set_members(&both[..1]).unwrap();
    two.transport.set_members(&both[1..]).unwrap();
    while one.next().await != Event::Disconnected(NodeId(2)) {}
    while two.next().await != Event::Disconnected(NodeId(1)) {}
    let frame = Bytes::from_static(b"hello");
    assert_eq!(one.transport.send(NodeId(2), Lane::Control, frame.clone()), Err(SendError::NotAPeer));
    two.transport.set_members(&both).unwrap();
    one.transport.set_members(&both).unwrap();
    one.wait_connected(2).await;
    one.transport.send(NodeId(2), Lane::Control, frame.clone()).unwrap();
    assert_eq!(two.frame().await, (Some(Lane::Control), frame));
}

#[tokio::test]
async fn a_stranger_is_refused_until_it_is_a_member() {
    let (site, one, two) = TestSite::pair().await;
    let both = site.identities[0].members.clone();
    one.transport.set_members(&both[..1]).unwrap();
    one.wait_refused(Refusal::UnknownKey).await;
    one.transport.set_members(&both).unwrap();
    wait_until(|| one.transport.peers().iter().all(|peer| peer.connected)).await;
    drop(two);
}
