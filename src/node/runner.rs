//! Wakes the node in the daemon, whenever an input comes and when something is due. All waiting is here.

use std::sync::{Arc, OnceLock};

use tokio::sync::mpsc;

use super::disk::DiskThread;
use super::{
    COMMANDS_MAX, Command, Done, Handle, Input, Jobs, Links, Node, NodeConfig, NodeError, NodeParts,
    StartError,
};
use crate::accumulator::Accumulator;
use crate::clock::{MachineClocks, TimeSource};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::random::Random;
use crate::storage::{FileSystem, Owner, Recovered, Storage};
use crate::transport::{Event, Transport};

/// What a box's node runs on.
#[allow(missing_debug_implementations, reason = "a file system error has no useful text")]
pub struct RunnerParts<F: FileSystem> {
    /// Who this box is.
    pub identity: Identity,
    /// Its disk.
    pub storage: Storage<F>,
    /// What was found on it.
    pub recovered: Recovered,
    /// Its way to the others; none in a site of one that nobody can reach, until it gets one.
    pub transport: Arc<OnceLock<Arc<Transport>>>,
    /// What comes from the others.
    pub transport_events: mpsc::Receiver<Event>,
    /// Counters.
    pub metrics: Arc<Metrics>,
}

/// The node with what wakes it, ready to [`run`](Runner::run).
#[derive(Debug)]
pub struct Runner {
    // Goes first: the disk thread ends when nobody has jobs for it any more.
    node: Node,
    disk: DiskThread,
    clocks: MachineClocks,
    accumulator: Arc<Accumulator>,
    transport: Arc<OnceLock<Arc<Transport>>>,
    commands: mpsc::Receiver<Command>,
    disk_done: mpsc::UnboundedReceiver<Done>,
    transport_events: mpsc::Receiver<Event>,
}

impl Runner {
    /// Puts a node together and starts its disk thread.
    ///
    /// # Errors
    /// What is on disk does not fit the site, or there is no thread for the disk.
    pub fn start<F: FileSystem + 'static>(
        parts: RunnerParts<F>,
        config: NodeConfig,
    ) -> Result<(Runner, Handle), StartError> {
        let RunnerParts { identity, storage, recovered, transport, transport_events, metrics } = parts;
        let owner = Owner { site_id: identity.site_id.0, node: identity.node };
        let mut clocks = MachineClocks::default();
        let (jobs, inbox) = Jobs::queue();
        let parts = NodeParts {
            identity,
            recovered,
            unsent: super::read_unsent(&storage, owner),
            storage_metrics: storage.metrics(),
            jobs,
            links: transport.get().cloned().map(|transport| transport as Arc<dyn Links>),
            transport_metrics: transport.get().map(|transport| transport.metrics()).unwrap_or_default(),
            metrics,
            time: TimeSource::default(),
            random: Random::default(),
        };
        let (node, commands, handle) = Node::new(parts, config, clocks.read())?;
        let (disk, disk_done) = DiskThread::start(storage, inbox)?;
        let accumulator = Arc::clone(handle.accumulator());
        let runner =
            Runner { node, disk, clocks, accumulator, transport, commands, disk_done, transport_events };
        Ok((runner, handle))
    }

    /// Runs until it is told to stop (by [`Handle::stop`]) or cannot go on.
    ///
    /// # Errors
    /// Why it cannot go on.
    pub async fn run(mut self) -> Result<(), NodeError> {
        self.node.step();
        while !self.node.is_over() {
            let due = tokio::time::Instant::from_std(self.node.due());
            let first = tokio::select! {
                biased;
                done = self.disk_done.recv() => match done {
                    Some(done) => Some(Input::Disk(done)),
                    None => return Err(NodeError::Disk),
                },
                Some(event) = self.transport_events.recv() => Some(Input::Links(event)),
                Some(command) = self.commands.recv() => Some(Input::Command(command)),
                () = self.accumulator.woken() => None,
                () = tokio::time::sleep_until(due) => None,
            };
            self.node.wake(self.clocks.read());
            if let Some(first) = first {
                self.node.take(first);
            }
            self.drain();
            self.node.step();
            #[cfg(debug_assertions)]
            self.node.flip_if_asked();
        }
        // On the heap: the whole node goes along.
        Box::pin(self.leave()).await
    }

    /// Takes in what else is ready, so that one step serves it all.
    fn drain(&mut self) {
        for _ in 0..COMMANDS_MAX {
            let done = self.disk_done.try_recv().ok().map(Input::Disk);
            let event = self.transport_events.try_recv().ok().map(Input::Links);
            let command = self.commands.try_recv().ok().map(Input::Command);
            let mut any = false;
            for input in [done, event, command].into_iter().flatten() {
                self.node.take(input);
                any = true;
            }
            if !any {
                return;
            }
        }
    }

    /// Ends in good order, and tells the other boxes.
    async fn leave(self) -> Result<(), NodeError> {
        let Runner { node, mut disk, transport, .. } = self;
        let stopped = node.finish();
        if let Some(transport) = transport.get() {
            transport.close().await;
        }
        if let Some(end_by) = stopped.end_by {
            disk.end_by(end_by);
        }
        for reply in stopped.replies {
            // Whoever asked may have given up waiting.
            let _ = reply.send(());
        }
        stopped.failed.map_or(Ok(()), Err)
    }
}
