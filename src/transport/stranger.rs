//! Connections with boxes that are no members yet: they hold a token and want to join. They show no certificate, and
//! whoever they are is proved within the connection, not by it.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::{Connection, ConnectionError, Endpoint};
use rustls::pki_types::CertificateDer;
use tally_core::id::KeyHash;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::address::{self, Versions};
use super::refusal::CLOSE_REFUSED;
use super::{Refusal, Transport, TransportError, config};
use crate::identity::{Keys, key_hash};

/// The name that joiners ask for in TLS: they do not know the site yet.
pub(super) const JOIN_NAME: &str = "join.tally";

/// How many strangers may wait to be served.
const STRANGERS_MAX: usize = 4;
/// How long one address is dialled.
const DIAL_TIME_MAX: Duration = Duration::from_secs(3);

/// Why a stranger is sent away before it has said anything.
pub(crate) const BUSY: &[u8] = b"busy";
/// This box takes in nobody: it is a witness.
pub(crate) const NOT_HERE: &[u8] = b"not-here";

/// Why a box that is not known yet was not reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// Nobody answers there.
    #[error("{0}")]
    Nobody(String),
    /// Somebody does who does not speak the protocol of joining.
    #[error("it does not take boxes by token")]
    OtherProtocol,
}

impl Transport {
    /// From now on boxes that want to join come out here.
    pub(crate) fn admit_strangers(&self) -> mpsc::Receiver<Connection> {
        let (sender, strangers) = mpsc::channel(STRANGERS_MAX);
        // Once is enough: there is one place that serves them.
        let _ = self.shared.strangers.set(sender);
        strangers
    }

    /// Whether a box that wants to join answers at an address, from this box's own port and under that key.
    pub(crate) async fn dial_back(&self, address: &str, key: KeyHash) -> Result<(), String> {
        let shared = &self.shared;
        let client = config::stranger_client().map_err(|error| error.to_string())?;
        let connection = dial(&shared.endpoint, shared.versions, &client, address).await;
        let connection = connection.map_err(|error| error.to_string())?;
        let found = key_of(&connection);
        connection.close(quinn::VarInt::from_u32(0), b"reached");
        if found == Some(key) { Ok(()) } else { Err("another box answers there".to_owned()) }
    }
}

/// Gives a connection of a stranger to whoever serves them.
pub(super) fn hand_over(strangers: Option<&mpsc::Sender<Connection>>, connection: Connection) {
    let Some(strangers) = strangers else { return connection.close(CLOSE_REFUSED, NOT_HERE) };
    if let Err(error) = strangers.try_send(connection) {
        error.into_inner().close(CLOSE_REFUSED, BUSY);
    }
}

/// A box that wants to join: it dials from the port that it will serve, and answers there.
#[derive(Debug)]
pub(crate) struct Guest {
    endpoint: Endpoint,
    versions: Versions,
    client: quinn::ClientConfig,
    answering: JoinHandle<()>,
}

impl Guest {
    /// Binds the port.
    ///
    /// # Errors
    /// The port cannot be had, or TLS cannot be set up.
    pub(crate) fn bind(keys: &Keys, listen: SocketAddr) -> Result<Guest, TransportError> {
        let (endpoint, versions) = config::stranger_endpoint(keys, listen)?;
        let client = config::stranger_client()?;
        let answering = tokio::spawn(answer(endpoint.clone()));
        Ok(Guest { endpoint, versions, client, answering })
    }

    /// Dials a box of a site.
    ///
    /// # Errors
    /// Nobody answers there, or somebody who takes in nobody.
    pub(crate) async fn dial(&self, address: &str) -> Result<Connection, DialError> {
        dial(&self.endpoint, self.versions, &self.client, address).await
    }

    /// Frees the port.
    pub(crate) async fn close(self) {
        self.answering.abort();
        self.endpoint.close(quinn::VarInt::from_u32(0), b"joined");
        let _ = tokio::time::timeout(Duration::from_millis(250), self.endpoint.wait_idle()).await;
    }
}

/// Answers the box that dials back. The handshake is all: by it this box proves its key.
async fn answer(endpoint: Endpoint) {
    while let Some(incoming) = endpoint.accept().await {
        tokio::spawn(async move {
            if let Ok(connection) = incoming.await {
                let _ = tokio::time::timeout(DIAL_TIME_MAX, connection.closed()).await;
            }
        });
    }
}

/// The key of the box at the other end, which the handshake has proved.
pub(crate) fn key_of(connection: &Connection) -> Option<KeyHash> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    key_hash(chain.first()?)
}

/// Where a connection comes from, in its usual form.
pub(crate) fn address_of(connection: &Connection) -> SocketAddr {
    address::display_form(connection.remote_address())
}

/// Dials the addresses of a box in turn.
async fn dial(
    endpoint: &Endpoint,
    versions: Versions,
    client: &quinn::ClientConfig,
    address: &str,
) -> Result<Connection, DialError> {
    let nobody = |why: String| DialError::Nobody(why);
    let found = tokio::time::timeout(DIAL_TIME_MAX, crate::resolve::addresses(address)).await;
    let found = found.map_err(|_| nobody("the name is not resolved in time".to_owned()))?.map_err(nobody)?;
    let reachable = versions.reachable(found, address::has_route);
    let reachable = reachable.map_err(|refusal| nobody(refusal.explain().to_owned()))?;
    let mut last = DialError::Nobody("no answer".to_owned());
    for address in reachable {
        let connecting = match endpoint.connect_with(client.clone(), address, JOIN_NAME) {
            Ok(connecting) => connecting,
            Err(error) => {
                last = DialError::Nobody(error.to_string());
                continue;
            }
        };
        last = match tokio::time::timeout(DIAL_TIME_MAX, connecting).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => explain(&error),
            Err(_) => DialError::Nobody("no answer".to_owned()),
        };
    }
    Err(last)
}

fn explain(error: &ConnectionError) -> DialError {
    match Refusal::of(error) {
        Some(Refusal::OtherProtocol | Refusal::RefusedByPeer) => DialError::OtherProtocol,
        _ => DialError::Nobody(error.to_string()),
    }
}

/// Where this machine is likely to be reached: the addresses from which it would send.
pub(crate) fn likely_addresses() -> Vec<std::net::IpAddr> {
    // Documentation addresses (RFC 5737, RFC 3849): nothing is sent to them.
    [("0.0.0.0:0", "192.0.2.1:9"), ("[::]:0", "[2001:db8::1]:9")]
        .into_iter()
        .filter_map(|(from, to)| {
            let socket = std::net::UdpSocket::bind(from).ok()?;
            socket.connect(to).ok()?;
            Some(socket.local_addr().ok()?.ip())
        })
        .filter(|address| !address.is_unspecified())
        .collect()
}
