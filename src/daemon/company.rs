//! A box that others join: how it gets the transport that it was founded without, and whom it takes in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::info;

use crate::api::{Name, Problem};
use crate::config::Found;
use crate::identity::Identity;
use crate::join::serve::{self, Host};
use crate::node::{Handle, Links};
use crate::request::MemberError;
use crate::site::{MemberChange, MemberRecord};
use crate::startup::{self, StartupError};
use crate::transport::{Event, Transport, TransportError, TransportMetrics, likely_addresses};

/// How long this process may need to let go of a port that it had itself.
const PORT_WAIT: Duration = Duration::from_secs(3);

/// The way to the other boxes, or what it takes to make one.
#[derive(Debug)]
pub(super) struct Company {
    identity: Identity,
    dir: PathBuf,
    listen: SocketAddr,
    /// Where others reach this box, as the configuration has it.
    advertise: Option<String>,
    boot: u64,
    events: mpsc::Sender<Event>,
    pub(super) metrics: Arc<TransportMetrics>,
    pub(super) transport: Arc<OnceLock<Arc<Transport>>>,
    /// This process had the port before: it waited for a site, or was a member of another one.
    had_port: bool,
    /// The task that takes others in.
    host: Option<JoinHandle<()>>,
}

impl Drop for Company {
    fn drop(&mut self) {
        // It holds on to the transport, and so to the port.
        if let Some(host) = &self.host {
            host.abort();
        }
    }
}

impl Company {
    /// `boot`: how often this member has started. What comes from the others goes to `events`.
    pub(super) fn new(
        found: &Found,
        identity: Identity,
        boot: u64,
        events: mpsc::Sender<Event>,
        had_port: bool,
    ) -> Company {
        let cluster = &found.config.cluster;
        Company {
            identity,
            dir: found.dir.clone(),
            listen: cluster.listen,
            advertise: cluster.advertise.clone(),
            boot,
            events,
            metrics: Arc::default(),
            transport: Arc::default(),
            had_port,
            host: None,
        }
    }

    /// Whether nobody can reach this box: it was founded without an address, and is alone until it gets one.
    pub(super) fn is_alone(&self) -> bool {
        self.identity.members.len() < 2 && self.identity.me().address.is_empty()
    }

    /// Begins to listen to the others; those who want to join come out.
    pub(super) async fn start(&self) -> Result<mpsc::Receiver<quinn::Connection>, StartupError> {
        let until = Instant::now() + if self.had_port { PORT_WAIT } else { Duration::ZERO };
        let transport = loop {
            let (events, metrics) = (self.events.clone(), Arc::clone(&self.metrics));
            let parts = (self.listen, events, metrics);
            match startup::transport(&self.identity, &self.dir, self.boot, parts).await {
                Err(StartupError::Transport(TransportError::Listen { source, .. }))
                    if source.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < until =>
                {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                started => break started?,
            }
        };
        let strangers = transport.admit_strangers();
        // It is started once: by the start of the box, or by the first request that needs it.
        let _ = self.transport.set(transport);
        Ok(strangers)
    }

    /// Takes in those who hold a token.
    pub(super) fn take_in(&mut self, handle: &Handle, strangers: mpsc::Receiver<quinn::Connection>) {
        let Some(transport) = self.transport.get().cloned() else { return };
        let host = Host { handle: handle.clone(), transport };
        self.host = Some(tokio::spawn(serve::serve(host, strangers)));
    }

    /// Where others reach this box; if it is nowhere yet, there from now on.
    pub(super) async fn advertise(
        &mut self,
        handle: &Handle,
        address: Option<String>,
    ) -> Result<String, Problem> {
        let me = handle.identity().node_id();
        handle.fence().await?;
        let record = handle.site(|site| site.members().iter().find(|member| member.id == me).cloned());
        let Some(record) = record else {
            return Err(Problem::new(Name::NotCommitted, "this box is not a member of its site yet: retry"));
        };
        if self.transport.get().is_some() {
            return match address {
                Some(other) if other != record.address => Err(refused(format!(
                    "this box is reached at {} already: leave --advertise out, or change the address by \
                     `tallyd member add {}={other} --id {} --key {}`",
                    record.address, record.name, record.id, record.key
                ))),
                _ => Ok(record.address),
            };
        }
        let known = Some(record.address.clone()).filter(|address| !address.is_empty());
        let Some(address) = address.or_else(|| self.advertise.clone()).or(known) else {
            return Err(refused(self.ask_for_address()));
        };
        self.be_reached(handle, MemberRecord { address: address.clone(), ..record }).await?;
        Ok(address)
    }

    /// First the site agrees on the address, then it is in the identity, then the box listens: each step is made again if
    /// the power fails between them and the operator asks again.
    async fn be_reached(&mut self, handle: &Handle, record: MemberRecord) -> Result<(), Problem> {
        let address = record.address.clone();
        handle.change_members(&MemberChange::Put(record)).await.map_err(|error| match error {
            MemberError::Refused(why) => refused(why.to_string()),
            MemberError::Request(error) => error.into(),
        })?;
        let own = self.identity.node_id();
        for member in self.identity.members.iter_mut().filter(|member| member.id == own) {
            member.address.clone_from(&address);
        }
        self.identity.save(&self.dir).map_err(|error| refused(error.to_string()))?;
        let strangers = self.start().await.map_err(|error| refused(error.to_string()))?;
        if let Some(transport) = self.transport.get().cloned() {
            handle.connect(transport as Arc<dyn Links>).await;
        }
        self.take_in(handle, strangers);
        info!("other boxes reach this one at {address} from now on");
        Ok(())
    }

    fn ask_for_address(&self) -> String {
        let port = self.listen.port();
        let likely: Vec<String> = likely_addresses()
            .iter()
            .map(|ip| format!("--advertise {}", SocketAddr::new(*ip, port)))
            .collect();
        let likely = if likely.is_empty() { "--advertise HOST:PORT".to_owned() } else { likely.join(" or ") };
        format!("nobody can reach this box yet: say where the others will, once: {likely}")
    }
}

fn refused(why: String) -> Problem {
    Problem::new(Name::MemberRefused, why)
}
