//! Dials the other boxes.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, ConnectionError};

use super::peer::{Fresh, Peer};
use super::refusal::CLOSE_REFUSED;
use super::{Event, Refusal, TransportShared, address, config, link};
use crate::backoff::Backoff;
use crate::random;

const DELAY_FIRST: Duration = Duration::from_millis(20);
const DELAY_MAX: Duration = Duration::from_secs(1);
/// The time limit of one dial; QUIC repeats its first packet several times meanwhile.
const DIAL_TIME_MAX: Duration = Duration::from_millis(1500);
/// A connection that lasted this long resets the backoff.
const GOOD_AFTER: Duration = Duration::from_secs(2);
/// The interval at which an unreachable peer is logged.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// When a connection is lost, both sides dial; the side that does not decide gives the other this head start.
const YIELD: Duration = Duration::from_millis(10);

/// Dials a peer whenever there is no connection to it. Never returns.
pub(super) async fn keep_connected(shared: Arc<TransportShared>, peer: Arc<Peer>) {
    let mut connected = peer.watch_connected();
    let mut tries = Tries::default();
    let mut logged: Option<Instant> = None;
    let mut by_other_key = false;
    loop {
        if *connected.borrow_and_update() {
            let since = Instant::now();
            if connected.wait_for(|connected| !connected).await.is_err() {
                return;
            }
            if since.elapsed() >= GOOD_AFTER {
                tries = Tries::default();
            }
            if !peer.decides {
                tokio::time::sleep(YIELD).await;
            }
        }
        tokio::select! {
            biased;
            _ = connected.wait_for(|connected| *connected) => continue,
            () = tokio::time::sleep(tries.next_delay()) => {}
        }
        shared.metrics.dials.raise();
        let begun = Instant::now();
        // The peer may be quicker; then this dial is given up, unless the peer can have taken it already: two
        // boxes that each give up their own dial for the other's would have none.
        let outcome = tokio::select! {
            biased;
            outcome = in_time(connect(&shared, &peer, tries.made, by_other_key)) => outcome,
            _ = connected.wait_for(|connected| *connected) => continue,
        };
        let outcome = match outcome {
            Ok(connection) => in_time(confirm(&shared, &peer, connection, begun)).await,
            Err(why) => Err(why),
        };
        let why = match outcome {
            Ok(fresh) => {
                link::start(shared.clone(), peer.clone(), fresh).await;
                continue;
            }
            Err(why) => why,
        };
        shared.metrics.dials_failed.raise();
        match peer.refused() {
            // An error means that the node is gone already.
            Some(Refusal::OwnRemoved) => drop(shared.events.send(Event::Retired(peer.id)).await),
            Some(Refusal::OwnUnknownKey) => by_other_key = !by_other_key && shared.other_key().is_some(),
            _ => {}
        }
        // Not at the first try: at a start of the whole site the others may be a moment later.
        if tries.made > 3 && logged.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            logged = Some(Instant::now());
            tracing::warn!("cannot reach {} at {}: {why}; retrying", peer.name, peer.address);
        }
    }
}

async fn in_time<T>(step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    tokio::time::timeout(DIAL_TIME_MAX, step).await.unwrap_or_else(|_| Err("no answer".into()))
}

/// Tries one of the peer's addresses once.
async fn connect(
    shared: &TransportShared,
    peer: &Peer,
    tries: u32,
    by_other_key: bool,
) -> Result<Connection, String> {
    let address = resolve(shared, peer, tries).await?;
    let client = match shared.other_key().filter(|_| by_other_key) {
        Some(keys) => config::client(&keys, &shared.pins, peer.id).map_err(|error| error.to_string())?,
        None => peer.client.clone(),
    };
    let connecting = shared
        .endpoint
        .connect_with(client, address, &shared.server_name)
        .map_err(|error| error.to_string())?;
    connecting.await.map_err(|error| explain(shared, peer, address, &error))
}

/// Waits until the peer has accepted the connection: the peer checks this box's key only after this side's
/// handshake is done, then the incarnation at the beginning of the control lane, and then opens
/// its own control lane.
async fn confirm(
    shared: &TransportShared,
    peer: &Peer,
    connection: Connection,
    begun: Instant,
) -> Result<Fresh, String> {
    let address = connection.remote_address();
    let refuse = |refusal: Refusal| {
        shared.refusals.refuse(refusal, address);
        peer.note_refusal(refusal);
        connection.close(CLOSE_REFUSED, refusal.as_str().as_bytes());
        refusal.as_str().to_owned()
    };
    let control = link::open_control(&connection, shared.hello()).await;
    let control = control.map_err(|error| explain(shared, peer, address, &error))?;
    let (first, hello) = link::accept_control(&connection).await.map_err(|error| match error {
        Some(error) => explain(shared, peer, address, &error),
        None => refuse(Refusal::UnknownLane),
    })?;
    shared.incarnations.admit(peer, hello).await.map_err(refuse)?;
    Ok(Fresh { connection, control, first, incarnation: hello.incarnation, dialled_here: true, begun })
}

fn explain(shared: &TransportShared, peer: &Peer, address: SocketAddr, error: &ConnectionError) -> String {
    // Nobody there is no refusal.
    match Refusal::of(error).filter(|reason| *reason != Refusal::HandshakeTimeout) {
        Some(reason) => {
            // It may know the other one.
            if reason != Refusal::OwnUnknownKey || shared.other_key().is_none() {
                shared.refusals.refuse(reason, address);
            }
            peer.note_refusal(reason);
        }
        None => tracing::debug!("dialling {address}: {error}"),
    }
    error.to_string()
}

/// Resolves the peer's address. If a name has several addresses, the reachable ones are tried in turn.
async fn resolve(shared: &TransportShared, peer: &Peer, tries: u32) -> Result<SocketAddr, String> {
    // The key tells whether it is still the right box.
    let found = crate::resolve::addresses_or_last(&peer.address).await?;
    let reachable = shared.versions.reachable(found, address::has_route).map_err(|refusal| {
        shared.metrics.refusals_of(refusal).raise();
        peer.note_refusal(refusal);
        refusal.explain().to_owned()
    })?;
    Ok(turn(reachable, tries))
}

/// Picks the address for a try: first the one that the system prefers, then each in turn, in any order of a lookup.
fn turn(mut addresses: Vec<SocketAddr>, tries: u32) -> SocketAddr {
    let place = (tries as usize).saturating_sub(1);
    if place > 0 {
        addresses.sort_unstable();
        addresses.dedup();
    }
    addresses[place % addresses.len()]
}

/// The dials since the last good connection.
#[derive(Debug)]
struct Tries {
    made: u32,
    backoff: Backoff,
}

impl Default for Tries {
    fn default() -> Tries {
        Tries { made: 0, backoff: Backoff::new(DELAY_FIRST, DELAY_MAX, 0.5) }
    }
}

impl Tries {
    /// No wait before the first.
    fn next_delay(&mut self) -> Duration {
        self.made = self.made.saturating_add(1);
        if self.made == 1 { Duration::ZERO } else { self.backoff.next(random::jitter()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_of_a_name_has_its_turn_however_a_look_up_orders_them() {
        let all: Vec<SocketAddr> =
            ["10.0.0.2:1", "[fd00::1]:1", "10.0.0.1:1"].iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(turn(all.clone(), 1), all[0]);
        let mut rotated = all.clone();
        let mut dialled: Vec<SocketAddr> = (2..5)
            .map(|tries| {
                rotated.rotate_left(1);
                turn(rotated.clone(), tries)
            })
            .collect();
        dialled.sort_unstable();
        let mut all = all;
        all.sort_unstable();
        assert_eq!(dialled, all);
    }

    #[test]
    fn the_first_dial_is_made_at_once_and_the_next_ones_after_waits() {
        let mut tries = Tries::default();
        assert_eq!(tries.next_delay(), Duration::ZERO);
        let first = tries.next_delay();
        assert!((DELAY_FIRST / 2..=DELAY_FIRST * 3 / 2).contains(&first), "{first:?}");
        for _ in 0..40 {
            assert!(tries.next_delay() <= DELAY_MAX * 3 / 2);
        }
        assert!(tries.next_delay() >= DELAY_MAX / 2);
    }
}
