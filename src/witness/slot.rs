//! Serves one site: receives frames, writes records, sends answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tally_core::id::NodeId;
use tally_core::raft::WitnessRecord;
use tokio::sync::{mpsc, watch};
use tracing::{error, info, warn};

use super::WitnessError;
use super::keeper::{Answer, Heard, Ignored, Keeper};
use super::store::Store;
use crate::dropped::DroppedMessages;
use crate::figures::Counter;
use crate::identity::Identity;
use crate::site::MemberRecord;
use crate::startup;
use crate::storage::RealFileSystem;
use crate::transport::{Event, Lane, Transport};

/// The most waiting frames; beyond it, the peers' streams are not read. A site sends little to its witness.
const EVENTS_MAX: usize = 64;

/// The part of a slot that its status shows.
#[derive(Debug)]
pub(super) struct SlotShared {
    /// The identity, except for the members, which change.
    pub(super) identity: Identity,
    members: Mutex<Vec<MemberRecord>>,
    pub(super) transport: Arc<Transport>,
    /// Messages of members that were dropped.
    pub(super) dropped: DroppedMessages,
    /// Answers sent.
    pub(super) answers: Counter,
    /// Records that could not be written.
    pub(super) failures: Counter,
    view: Mutex<View>,
}

/// The state that the slot publishes after each change.
#[derive(Clone, Debug, Default)]
pub(super) struct View {
    /// The durable record.
    pub(super) record: WitnessRecord,
    /// The number of records written in all incarnations of this witness.
    pub(super) writes: u64,
    /// The number of starts of this witness.
    pub(super) boot: u64,
    /// Why the latest record could not be written; `None` once a write succeeds.
    pub(super) trouble: Option<String>,
}

impl SlotShared {
    /// The site's members, as a leader last sent them.
    pub(super) fn members(&self) -> MutexGuard<'_, Vec<MemberRecord>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A site's witness.
#[derive(Debug)]
pub(super) struct Slot {
    keeper: Keeper,
    store: Store,
    dir: PathBuf,
    shared: Arc<SlotShared>,
    events: mpsc::Receiver<Event>,
}

impl Slot {
    /// Reads the record and starts to listen.
    pub(super) async fn open(
        dir: &Path,
        identity: Identity,
        listen: SocketAddr,
    ) -> Result<Slot, WitnessError> {
        let me = identity.me();
        let (store, record) = Store::open(RealFileSystem, dir, &me.name)?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let transport =
            startup::transport(&identity, dir, store.boot(), (listen, sender, Arc::default())).await?;
        info!("{:?} is the witness of site {:?}, listening on {listen} (UDP)", me.name, identity.site);
        let view = View { record, writes: store.writes(), boot: store.boot(), trouble: None };
        let shared = SlotShared {
            members: Mutex::new(identity.members.clone()),
            identity: identity.clone(),
            transport,
            dropped: DroppedMessages::default(),
            answers: Counter::default(),
            failures: Counter::default(),
            view: Mutex::new(view),
        };
        Ok(Slot {
            keeper: Keeper::new(identity, record),
            store,
            dir: dir.to_owned(),
            shared: Arc::new(shared),
            events,
        })
    }

    pub(super) fn shared(&self) -> Arc<SlotShared> {
        Arc::clone(&self.shared)
    }

    /// Serves the site until `stop` is set.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => event,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            let Some(event) = event else { break };
            let Event::Received { from, frame, .. } = event else { continue };
            if let Some((to, answer)) = self.take(from, &frame).await {
                self.shared.answers.raise();
                // Whoever is gone asks again when it is back.
                let _ = self.shared.transport.send(to, Lane::Control, answer);
            }
        }
        self.shared.transport.close().await;
    }

    /// Handles a frame and returns the answer. Everything that must be durable for the answer is.
    async fn take(&mut self, from: NodeId, frame: &Bytes) -> Option<Answer> {
        match self.keeper.hear(from, frame) {
            Ok(Heard::Answer(answer)) => Some(answer),
            Ok(Heard::Store(record)) => self.store(&record).await,
            Ok(Heard::Members(identity)) => {
                self.connect(identity).await;
                None
            }
            Ok(Heard::Nothing) => None,
            Err(Ignored { reason, why }) => {
                self.shared.dropped.drop_because(from, reason, why.as_deref().unwrap_or("ignored"));
                None
            }
        }
    }

    /// Connects to the members that a leader has told of, and keeps them for the next start.
    async fn connect(&mut self, identity: Identity) {
        let site = &self.shared.identity.site;
        let names: Vec<&str> = identity.members.iter().map(|member| member.name.as_str()).collect();
        info!("site {site:?}: the members are {names:?}");
        if let Err(error) = self.shared.transport.set_members(&identity.members) {
            warn!("site {site:?}: cannot connect to the members: {error}");
        }
        self.shared.members().clone_from(&identity.members);
        let dir = self.dir.clone();
        let saved = tokio::task::spawn_blocking(move || identity.save(&dir)).await;
        if let Ok(Err(error)) = saved {
            warn!("site {site:?}: cannot save the members, so a restart forgets them: {error}");
        }
    }

    async fn store(&mut self, record: &WitnessRecord) -> Option<Answer> {
        let result = self.store.write(record).await;
        let site = &self.shared.identity.site;
        let mut view = self.shared.view();
        match result {
            Ok(()) => {
                if view.trouble.take().is_some() {
                    info!("site {site:?}: the record can be written again");
                }
                let answer = self.keeper.stored();
                view.record = *self.keeper.record();
                view.writes = self.store.writes();
                info!("site {site:?}: record {}: {record:?}", view.writes);
                answer
            }
            Err(why) => {
                let answer = self.keeper.not_stored();
                self.shared.failures.raise();
                // It is asked again and again: the same trouble is told once.
                if view.trouble.as_ref() != Some(&why) {
                    error!(
                        "site {site:?}: the record cannot be written, so the witness answers nothing: {why}"
                    );
                    view.trouble = Some(why);
                }
                answer
            }
        }
    }
}

#[cfg(test)]
#[path = "slot_tests.rs"]
mod tests;
