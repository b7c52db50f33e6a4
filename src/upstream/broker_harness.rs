//! For tests: an outbox in memory, on which a whole upstream runs against a broker.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tally_core::report::Amount;
use tally_core::time::SiteTime;
use tokio::sync::watch;

use super::*;
use crate::identity::SiteId;
use crate::mqtt::fake_broker::FakeBroker;
pub(super) use crate::mqtt::testing::{Broker, PATIENCE, Subscriber, payload};
use crate::node::BrokerWish;
use crate::site::{DepartureView, SeriesId, Summary};

pub(super) const SITE_ID: SiteId = SiteId(0xabcd_ef01_2345_6789);

/// The configuration of an upstream to a broker.
pub(super) trait Configures {
    fn config(&self) -> UpstreamConfig;
}

impl Configures for Broker {
    fn config(&self) -> UpstreamConfig {
        UpstreamConfig { url: Some(self.url()), ..UpstreamConfig::default() }
    }
}

impl Configures for FakeBroker {
    fn config(&self) -> UpstreamConfig {
        UpstreamConfig { url: Some(self.url()), ..UpstreamConfig::default() }
    }
}

/// The numbers of the summaries that came, as they came.
pub(super) fn seqs(subscriber: &Subscriber) -> Vec<u64> {
    subscriber.on("tally/s/summary/").iter().map(|one| payload(one)["seq"].as_u64().unwrap()).collect()
}

pub(super) fn states(messages: &[Value]) -> Vec<String> {
    let status = messages.iter().filter(|one| one["topic"] == "tally/s/status");
    status.map(|one| payload(one)["state"].as_str().unwrap().to_owned()).collect()
}

/// A site's outbox: shared by the boxes, which all know the same.
#[derive(Clone)]
pub(super) struct Site {
    state: Arc<Mutex<State>>,
    version: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct State {
    /// All summaries ever, their numbers being their places.
    all: Vec<Summary>,
    numbered: usize,
    delivered: u64,
    /// Of the box started last.
    shared: Option<SharedStatus>,
    numbered_at_once_max: usize,
    leader: BTreeMap<&'static str, u64>,
    /// What the broker did not take, and why.
    held: BTreeMap<u64, u8>,
    /// Names that left and of which the broker has everything.
    pub(super) departures: BTreeMap<u64, DepartureView>,
    pub(super) sets_aside: bool,
    pub(super) passes_over: bool,
    /// How many numbers were passed over, when all before them were delivered.
    passed_over: u64,
    pub(super) numbered_max: u64,
    /// Names of series that are not called `series/ID`.
    pub(super) names: BTreeMap<u32, String>,
    /// What is wanted of all boxes.
    wish: BrokerWish,
    /// What the boxes say of the broker.
    seen: BTreeMap<&'static str, Option<bool>>,
}

impl State {
    fn name(&self, series: SeriesId) -> String {
        self.names.get(&series.0).cloned().unwrap_or_else(|| format!("series/{}", series.0))
    }

    /// The last number given or passed over.
    fn last(&self) -> u64 {
        self.numbered as u64 + self.passed_over
    }

    fn numbered(&self, seq: u64) -> Numbered {
        let place = seq - self.passed_over - 1;
        let summary = Summary { seq: Some(seq), ..self.all[place as usize].clone() };
        Numbered { seq, name: self.name(summary.series), since: 0, is_present: true, summary }
    }
}

impl Site {
    pub(super) fn new() -> Site {
        let state = State { sets_aside: true, numbered_max: 1000, ..State::default() };
        Site { state: Arc::new(Mutex::new(state)), version: watch::Sender::new(0) }
    }

    pub(super) fn held(&self) -> Vec<(Numbered, u8)> {
        let state = self.state.lock().unwrap();
        state.held.iter().map(|(seq, cause)| (state.numbered(*seq), *cause)).collect()
    }

    /// Waits until so many are held.
    pub(super) async fn until_held(&self, seqs: &[u64]) {
        let mut changes = self.version.subscribe();
        let held = || self.held().iter().map(|(held, _)| held.seq).collect::<Vec<u64>>();
        let wait = changes.wait_for(|_| held() == seqs);
        let waited = tokio::time::timeout(PATIENCE, wait).await.map(|_| ());
        assert!(waited.is_ok(), "held are {:?}, not {seqs:?}", held());
    }

    pub(super) fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let result = change(&mut self.state.lock().unwrap());
        self.version.send_modify(|version| *version += 1);
        result
    }

    /// Closes windows: one summary for each of the named series (by number), increasing it by one.
    pub(super) fn count(&self, series: impl IntoIterator<Item = u32>) {
        self.change(|state| {
            for id in series {
                let before = state.all.iter().filter(|one| one.series == SeriesId(id)).count();
                state.all.push(Summary {
                    seq: None,
                    series: SeriesId(id),
                    start: SiteTime(60_000 * before as u64),
                    span_ms: 60_000,
                    amount: Amount::Counter(1),
                    total: Some(before as i128 + 1),
                    late: false,
                    synced: true,
                });
            }
        });
    }

    /// Closes one window as it is given, without its number.
    pub(super) fn close(&self, summary: Summary) {
        self.change(|state| state.all.push(summary));
    }

    pub(super) fn lead(&self, name: &'static str, term: u64) {
        self.change(|state| state.leader = BTreeMap::from([(name, term)]));
    }

    /// What leadership needs of all boxes from now on.
    pub(super) fn wish(&self, wish: BrokerWish) {
        self.change(|state| state.wish = wish);
    }

    /// Waits until a box says this of the broker.
    pub(super) async fn until_seen(&self, name: &'static str, reached: Option<bool>) {
        let mut changes = self.version.subscribe();
        let said = || self.state.lock().unwrap().seen.get(name).copied();
        let wait = changes.wait_for(|_| said() == Some(reached));
        let waited = tokio::time::timeout(PATIENCE, wait).await.map(|_| ());
        assert!(waited.is_ok(), "{name} says {:?}", said());
    }

    /// The most that were numbered and undelivered at a time.
    pub(super) fn numbered_at_once_max(&self) -> usize {
        self.state.lock().unwrap().numbered_at_once_max
    }

    /// Starts a box that takes itself for the leader until a fence tells it better, and returns when
    /// one has.
    pub(super) async fn start_paused(&self, name: &'static str, config: &UpstreamConfig) -> Upstream {
        let believes = Arc::new(Mutex::new(Some(1)));
        let changes = self.version.subscribe();
        let outbox = Node { site: self.clone(), name, changes, believes: Some(Arc::clone(&believes)) };
        let upstream = spawn_on(outbox, "s", SITE_ID, config).unwrap();
        let mut changes = self.version.subscribe();
        changes.wait_for(|_| believes.lock().unwrap().is_none()).await.unwrap();
        upstream
    }

    pub(super) fn delivered(&self) -> u64 {
        self.state.lock().unwrap().delivered
    }

    pub(super) async fn until_delivered(&self, number: u64) {
        let mut changes = self.version.subscribe();
        let wait = changes.wait_for(|_| self.delivered() >= number);
        let waited = tokio::time::timeout(PATIENCE, wait).await.map(|_| ());
        assert!(
            waited.is_ok(),
            "only {} delivered, {:?}",
            self.delivered(),
            self.state.lock().unwrap().shared.as_ref().map(SharedStatus::status)
        );
    }

    /// The site as a box sees it.
    pub(super) fn outbox(&self, name: &'static str) -> Node {
        Node { site: self.clone(), name, changes: self.version.subscribe(), believes: None }
    }

    pub(super) fn start(&self, name: &'static str, config: &UpstreamConfig) -> Upstream {
        self.start_as(name, SITE_ID, config, ANSWER_TIMEOUT)
    }

    pub(super) fn start_as(
        &self,
        name: &'static str,
        site_id: SiteId,
        config: &UpstreamConfig,
        answer_timeout: Duration,
    ) -> Upstream {
        let upstream = spawn_with(self.outbox(name), "s", site_id, config, answer_timeout).unwrap();
        self.state.lock().unwrap().shared = Some(upstream.shared().clone());
        upstream
    }
}

pub(super) struct Node {
    site: Site,
    name: &'static str,
    changes: watch::Receiver<u64>,
    /// What a paused box takes itself for until a fence tells it better.
    believes: Option<Arc<Mutex<Option<u64>>>>,
}

impl SiteView for Node {
    fn leads(&self) -> Option<u64> {
        if let Some(believes) = &self.believes {
            return *believes.lock().unwrap();
        }
        self.site.state.lock().unwrap().leader.get(self.name).copied()
    }

    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn seen(&self, reached: Option<bool>) {
        self.site.state.lock().unwrap().seen.insert(self.name, reached);
        self.site.version.send_modify(|version| *version += 1);
    }

    fn wish(&self) -> BrokerWish {
        self.site.state.lock().unwrap().wish
    }

    fn sets_aside(&self) -> bool {
        self.site.state.lock().unwrap().sets_aside
    }

    fn passes_over(&self) -> bool {
        self.site.state.lock().unwrap().passes_over
    }

    fn holds(&self, seq: u64) -> bool {
        self.site.state.lock().unwrap().held.contains_key(&seq)
    }

    fn held(&self) -> Vec<(Numbered, u8)> {
        self.site.held()
    }

    fn held_reader(&self) -> HeldReader {
        let site = self.site.clone();
        Arc::new(move |limit| {
            let held = site.held();
            (held[..limit.min(held.len())].to_vec(), held.len())
        })
    }

    fn departures_due(&self, limit: usize) -> Vec<DepartureView> {
        self.site.state.lock().unwrap().departures.values().take(limit).cloned().collect()
    }

    fn series_name(&self, series: SeriesId) -> String {
        self.site.state.lock().unwrap().name(series)
    }

    fn position(&self) -> Position {
        let state = self.site.state.lock().unwrap();
        Position {
            delivered: state.delivered,
            numbered_last: state.last(),
            numberable: state.all.len() - state.numbered,
            numbered_max: state.numbered_max,
            held: state.held.len(),
            departures: state.departures.len(),
        }
    }

    fn numbered(&self, after: u64, limit: usize) -> Vec<Numbered> {
        let state = self.site.state.lock().unwrap();
        let first = after.max(state.delivered);
        (first + 1..=state.last()).take(limit).map(|seq| state.numbered(seq)).collect()
    }

    fn state(&self) -> SiteState {
        let state = self.site.state.lock().unwrap();
        let outbox = state.all.len() - (state.delivered - state.passed_over) as usize;
        SiteState { leader: Some(self.name.to_owned()), boxes: 1, outbox, time: 1 }
    }
}

impl Outbox for Node {
    async fn changed(&mut self) {
        self.changes.changed().await.unwrap();
    }

    fn ask(&self, ask: Ask) -> futures_util::future::BoxFuture<'static, Result<(), String>> {
        match ask {
            Ask::Fence => self.fence(),
            Ask::Number(count) => self.number(count),
            Ask::Delivered(up_to) => self.delivered(up_to),
            Ask::SetAside { seq, cause } => self.set_aside(seq, cause),
            Ask::Released(seq) => self.released(seq),
            Ask::Cleared(departure) => {
                self.site.change(|state| state.departures.remove(&departure));
            }
            Ask::PassOver(up_to) => self.site.change(|state| {
                assert_eq!(state.delivered, state.last(), "what has a number is delivered first");
                state.passed_over += up_to - state.last();
                state.delivered = up_to;
            }),
        }
        Box::pin(std::future::ready(Ok(())))
    }
}

impl Node {
    fn fence(&self) {
        if let Some(believes) = &self.believes {
            *believes.lock().unwrap() = self.site.state.lock().unwrap().leader.get(self.name).copied();
            self.site.change(|_| ());
        }
    }

    fn number(&self, count: u32) {
        self.site.change(|state| {
            let outstanding = |state: &State| (state.last() - state.delivered) as usize;
            let room = state.numbered_max as usize - outstanding(state);
            let before = state.numbered;
            state.numbered = state.all.len().min(state.numbered + room.min(count as usize));
            assert!(state.numbered > before, "an entry that numbers nothing");
            state.numbered_at_once_max = state.numbered_at_once_max.max(outstanding(state));
        });
    }

    fn set_aside(&self, seq: u64, cause: u8) {
        self.site.change(|state| {
            assert!(state.sets_aside && seq > state.delivered && seq <= state.last());
            state.held.entry(seq).or_insert(cause);
        });
    }

    fn released(&self, seq: u64) {
        self.site.change(|state| assert!(state.held.remove(&seq).is_some(), "{seq} is not held"));
    }

    fn delivered(&self, up_to: u64) {
        self.site.change(|state| {
            assert!(up_to <= state.last(), "delivered what has no number");
            state.delivered = state.delivered.max(up_to);
        });
    }
}

/// Waits for a trouble in the status that contains a text.
pub(super) async fn trouble(upstream: &Upstream, text: &str) -> String {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            match upstream.shared().status().last_error {
                Some(trouble) if trouble.what.contains(text) => return trouble.what,
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    });
    waited.await.unwrap_or_else(|_| panic!("{:?}", upstream.shared().status()))
}

/// What this thread logs, while this lives.
pub(super) struct Log {
    lines: Arc<Mutex<Vec<u8>>>,
    _guard: tracing::subscriber::DefaultGuard,
}

#[derive(Clone)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub(super) fn of_this_thread() -> Log {
        let lines: Arc<Mutex<Vec<u8>>> = Arc::default();
        let sink = Lines(Arc::clone(&lines));
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || sink.clone());
        Log { lines, _guard: tracing::subscriber::set_default(subscriber.finish()) }
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.lines.lock().unwrap()).into_owned()
    }
}
