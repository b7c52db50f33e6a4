//! Accepts connections from other boxes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::HandshakeData;
use quinn::{ConnectionError, Incoming};
use tokio::task::JoinSet;

use super::peer::{Fresh, Peer};
use super::refusal::CLOSE_REFUSED;
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
        Ok(Ok((peer, fresh))) => return link::start(shared, peer, fresh).await,
        Ok(Err(refusal)) => refusal,
        Err(_) => Some(Refusal::HandshakeTimeout),
    };
    if let Some(reason) = refusal {
        shared.refusals.refuse(reason, address);
    }
}

/// Returns the authenticated peer and its connection, or the refusal (`None`: the peer went away by itself).
async fn handshake(
    shared: &TransportShared,
    incoming: Incoming,
) -> Result<(Arc<Peer>, Fresh), Option<Refusal>> {
    let why = |error: ConnectionError| Refusal::of(&error);
    let begun = Instant::now();
    let mut connecting = incoming.accept().map_err(why)?;
    let data = connecting.handshake_data().await.map_err(why)?;
    let asked_for = data.downcast::<HandshakeData>().ok().and_then(|data| data.server_name);
    if asked_for.as_ref() != Some(&shared.server_name) {
        return Err(Some(Refusal::OtherSite));
    }
    let connection = connecting.await.map_err(why)?;
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
    Ok((
        peer,
        Fresh { connection, control, first, incarnation: hello.incarnation, dialled_here: false, begun },
    ))
}
