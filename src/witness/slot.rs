//! Serves one site: receives frames, writes records, sends answers.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tally_core::id::{LogIndex, NodeId};
use tally_core::raft::{Message, Reaction, Witness, WitnessRecord};
use tokio::sync::{mpsc, watch};
use tracing::{debug, error, info, warn};

use super::WitnessError;
use super::store::Store;
use crate::dropped::{DroppedMessages, Reason};
use crate::figures::Counter;
use crate::identity::Identity;
use crate::node::{ToWitness, decode_to_witness, encode_from_witness};
use crate::site::MemberRecord;
use crate::startup;
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
    witness: Witness,
    store: Store,
    dir: PathBuf,
    /// The last log index of the leader that last sent the members.
    members_as_of: LogIndex,
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
        let (store, record) = Store::open(dir, &me.name)?;
        let (sender, events) = mpsc::channel(EVENTS_MAX);
        let transport =
            startup::transport(&identity, dir, store.boot(), (listen, sender, Arc::default())).await?;
        info!("{:?} is the witness of site {:?}, listening on {listen} (UDP)", me.name, identity.site);
        let view = View { record, writes: store.writes(), boot: store.boot(), trouble: None };
        let shared = SlotShared {
            members: Mutex::new(identity.members.clone()),
            identity,
            transport,
            dropped: DroppedMessages::default(),
            answers: Counter::default(),
            failures: Counter::default(),
            view: Mutex::new(view),
        };
        Ok(Slot {
            witness: Witness::new(record),
            store,
            dir: dir.to_owned(),
            members_as_of: LogIndex::ZERO,
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
            if let Some((to, message)) = self.take(from, &frame).await {
                self.shared.answers.raise();
                // Whoever is gone asks again when it is back.
                let _ = self.shared.transport.send(to, Lane::Control, encode_from_witness(message));
            }
        }
        self.shared.transport.close().await;
    }

    /// Handles a frame and returns the answer. Everything that must be durable for the answer is.
    async fn take(&mut self, from: NodeId, frame: &Bytes) -> Option<(NodeId, Message)> {
        let message = match decode_to_witness(frame) {
            Ok(ToWitness::Core(message)) => message,
            Ok(ToWitness::Members(index, members)) => {
                self.know_members(from, index, members).await;
                return None;
            }
            Ok(ToWitness::Other) => {
                self.shared.dropped.count_one(from, Reason::NotForThis);
                return None;
            }
            Err(_) => {
                self.shared.dropped.count_one(from, Reason::UnreadableFrame);
                return None;
            }
        };
        match self.witness.handle(from, &message) {
            Ok(Reaction::Answer(answer)) => Some((from, answer)),
            Ok(Reaction::Store(record)) => self.store(&record).await,
            Err(why) => {
                debug!("ignored a message of box {from}: {why:?}: {message:?}");
                self.shared.dropped.count_one(from, why.into());
                None
            }
        }
    }

    /// Accepts the list of members from a leader: new members may connect, removed ones may not. The list is saved in
    /// `identity.json`. It is not a promise: a leader sends a lost list again.
    async fn know_members(&mut self, from: NodeId, index: LogIndex, mut members: Vec<MemberRecord>) {
        let (site, me) = (&self.shared.identity.site, self.shared.identity.me());
        let own = members.iter().find(|record| record.id == me.id);
        // A leader that was cut off may tell an old list; one without this witness is none to live by.
        if index < self.members_as_of || own.is_none_or(|own| own.key != me.key || own.role != me.role) {
            return self.shared.dropped.count_one(from, Reason::StaleMembers);
        }
        self.members_as_of = index;
        // What the site calls it and where it says this witness is must agree with this machine's own files.
        members.iter_mut().filter(|member| member.id == me.id).for_each(|own| *own = me.clone());
        if members == *self.shared.members() {
            return;
        }
        let identity = Identity { members, ..self.shared.identity.clone() };
        if let Err(why) = identity.check() {
            return self.shared.dropped.drop_because(from, Reason::BadConfiguration, &why);
        }
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

    async fn store(&mut self, record: &WitnessRecord) -> Option<(NodeId, Message)> {
        let result = self.store.write(record).await;
        let site = &self.shared.identity.site;
        let mut view = self.shared.view();
        match result {
            Ok(()) => {
                if view.trouble.take().is_some() {
                    info!("site {site:?}: the record can be written again");
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
                    error!(
                        "site {site:?}: the record cannot be written, so the witness answers nothing: {why}"
                    );
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
