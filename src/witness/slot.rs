//! A site's witness at work: frames in, records to disk, answers out.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tally_core::id::NodeId;
use tally_core::raft::{Message, Reaction, Witness, WitnessRecord};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info};

use super::store::Store;
use crate::daemon::RunError;
use crate::identity::{Identity, Keys};
use crate::metrics::Counter;
use crate::node::{said_by_witness, said_to_witness};
use crate::transport::{Event, Lane, Lives, Transport, TransportMetrics};

/// Frames that wait; beyond, the peers' streams are not read. A site says little to its witness.
const EVENTS_MAX: usize = 64;

/// What a slot shows of itself.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) transport: Arc<Transport>,
    /// Messages that led to nothing: not for a witness, stale, of nobody.
    pub(super) ignored: Counter,
    /// Frames that could not be read.
    pub(super) malformed: Counter,
    /// Answers to what was asked.
    pub(super) answers: Counter,
    /// Records that the disk did not take.
    pub(super) failures: Counter,
    view: Mutex<View>,
}

/// What the slot writes down after each change.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// What is durable.
    pub(super) record: WitnessRecord,
    /// How many records were written, in all lives of this witness.
    pub(super) writes: u64,
    /// How often this witness was started.
    pub(super) boot: u64,
    /// Why the latest record could not be written, until one can.
    pub(super) trouble: Option<String>,
}

impl Shared {
    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A site's witness.
#[derive(Debug)]
pub(super) struct Slot {
    witness: Witness,
    store: Store,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Event>,
}

impl Slot {
    /// Reads the record and begins to listen.
    pub(super) async fn open(dir: &Path, identity: Identity, listen: SocketAddr) -> Result<Slot, RunError> {
        let me = identity.me();
        let (store, record) = Store::open(dir, &me.name)?;
        let keys = Keys::load(dir)?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let lives = Lives::load(dir, store.boot());
        let metrics = Arc::new(TransportMetrics::default());
        let transport = Transport::start(&identity, keys, listen, sender, metrics, lives).await?;
        info!("{:?} is the witness of site {:?}, at {listen} (UDP)", me.name, identity.site);
        let view = View { record, writes: store.writes(), boot: store.boot(), trouble: None };
        let shared = Shared {
            identity,
            transport: Arc::new(transport),
            ignored: Counter::default(),
            malformed: Counter::default(),
            answers: Counter::default(),
            failures: Counter::default(),
            view: Mutex::new(view),
        };
        Ok(Slot { witness: Witness::new(record), store, shared: Arc::new(shared), events })
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Serves the site until it is told to stop.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some(event) = event else { break };
            let Event::Received { from, frame, .. } = event else { continue };
            if let Some((to, message)) = self.take(from, &frame).await {
                self.shared.answers.raise();
                // Whoever is gone asks again when it is back.
                let _ = self.shared.transport.send(to, Lane::Control, said_by_witness(message));
            }
        }
        self.shared.transport.close().await;
    }

    /// What a frame leads to; what has to be durable for that is.
    async fn take(&mut self, from: NodeId, frame: &Bytes) -> Option<(NodeId, Message)> {
        let message = match said_to_witness(frame) {
            Ok(Some(message)) => message,
            Ok(None) => {
                self.shared.ignored.raise();
                return None;
            }
            Err(_) => {
                self.shared.malformed.raise();
                return None;
            }
        };
        match self.witness.handle(from, &message) {
            Ok(Reaction::Answer(answer)) => Some((from, answer)),
            Ok(Reaction::Store(record)) => self.store(&record).await,
            Err(why) => {
                debug!("ignored, of box {from}: {why:?}: {message:?}");
                self.shared.ignored.raise();
                None
            }
        }
    }

    async fn store(&mut self, record: &WitnessRecord) -> Option<(NodeId, Message)> {
        let result = self.store.write(record).await;
        let site = &self.shared.identity.site;
        let mut view = self.shared.view();
        match result {
            Ok(()) => {
                if view.trouble.take().is_some() {
                    info!("site {site:?}: records can be written again");
                }
                let answer = self.witness.stored();
                view.record = *self.witness.record();
                view.writes = self.store.writes();
                info!("site {site:?}: record {}: {record:?}", view.writes);
                answer
            }
            Err(why) => {
                self.witness.not_stored();
                self.shared.failures.raise();
                // It is asked again and again: the same trouble is told once.
                if view.trouble.as_ref() != Some(&why) {
                    error!("site {site:?}: nothing is answered, since the record cannot be written: {why}");
                    view.trouble = Some(why);
                }
                None
            }
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
