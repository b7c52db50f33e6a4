//! Accepts connections from other boxes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, ConnectionError, Incoming};
use tokio::task::JoinSet;

use super::peer::{Fresh, Peer};
use super::refusal::CLOSE_REFUSED;
use super::stranger::{self, JOIN_NAME};
use super::tls::JOIN_ALPN;
use super::{Refusal, TransportShared, link};

/// The most simultaneous handshakes: each costs some processor time and a few KiB before the other side has
/// proved anything.
const HANDSHAKES_MAX: usize = 32;
/// With this many handshakes, a peer must first prove that its address is not forged.
const HANDSHAKES_UNVALIDATED_MAX: usize = 8;
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(3);

/// Accepts until the endpoint closes.
pub(super) async fn accept(shared: Arc<TransportShared>) {
    let mut handshakes = JoinSet::new();
    while let Some(incoming) = shared.endpoint.accept().await {
        while handshakes.try_join_next().is_some() {}
        if handshakes.len() >= HANDSHAKES_MAX {
            shared.refusals.refuse(Refusal::TooManyHandshakes, incoming.remote_address());
            incoming.refuse();
        } else if handshakes.len() >= HANDSHAKES_UNVALIDATED_MAX && incoming.may_retry() {
            // It may retry, so this cannot fail.
            let _ = incoming.retry();
        } else {
            handshakes.spawn(admit(shared.clone(), incoming));
        }
    }
}

async fn admit(shared: Arc<TransportShared>, incoming: Incoming) {
    let address = incoming.remote_address();
    let refusal = match tokio::time::timeout(HANDSHAKE_TIME_MAX, handshake(&shared, incoming)).await {
        Ok(Ok(Caller::Member(peer, fresh))) => return link::start(shared, peer, *fresh).await,
        Ok(Ok(Caller::Stranger(connection))) => {
            return stranger::hand_over(shared.strangers.get(), connection);
        }
        Ok(Err(refusal)) => refusal,
        Err(_) => Some(Refusal::HandshakeTimeout),
    };
    if let Some(reason) = refusal {
        shared.refusals.refuse(reason, address);
    }
}

/// Who connected.
enum Caller {
    Member(Arc<Peer>, Box<Fresh>),
    /// Somebody who may hold a token.
    Stranger(Connection),
}

/// Returns the authenticated peer and its connection, or the refusal (`None`: the peer went away by itself).
async fn handshake(shared: &TransportShared, incoming: Incoming) -> Result<Caller, Option<Refusal>> {
    let why = |error: ConnectionError| Refusal::of(&error);
    let begun = Instant::now();
    let mut connecting = incoming.accept().map_err(why)?;
    let data = connecting.handshake_data().await.map_err(why)?;
    let data = data.downcast::<HandshakeData>().ok();
    let asked_for = data.as_ref().and_then(|data| data.server_name.as_deref());
    let joins = data.as_ref().is_some_and(|data| data.protocol.as_deref() == Some(JOIN_ALPN));
    if asked_for != Some(if joins { JOIN_NAME } else { &shared.server_name }) {
        return Err(Some(Refusal::OtherSite));
    }
    let connection = connecting.await.map_err(why)?;
    if joins {
        return Ok(Caller::Stranger(connection));
    }
    if connection.peer_identity().is_none() {
        connection.close(CLOSE_REFUSED, Refusal::NoCertificate.as_str().as_bytes());
        return Err(Some(Refusal::NoCertificate));
    }
    let id = shared.pins.peer_of(&connection).ok_or(Some(Refusal::UnknownKey))?;
    let peer = shared.peer(id).ok_or(Some(Refusal::UnknownKey))?;
    let accepted = link::accept_control(&connection).await;
    let (first, hello) = accepted.map_err(|error| error.map_or(Some(Refusal::UnknownLane), why))?;
    if let Err(refusal) = shared.incarnations.admit(&peer, hello).await {
        connection.close(CLOSE_REFUSED, refusal.as_str().as_bytes());
        peer.note_refusal(refusal);
        return Err(Some(refusal));
    }
    let control = link::open_control(&connection, shared.hello()).await.map_err(why)?;
    let incarnation = hello.incarnation;
    let fresh = Fresh { connection, control, first, incarnation, dialled_here: false, begun };
    Ok(Caller::Member(peer, Box::new(fresh)))
}
