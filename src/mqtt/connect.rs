//! The way to the broker's answer, and the probe that goes no further.

use std::io;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use rumqttc::{AsyncClient, ConnAck, ConnectionError, Event, EventLoop, NetworkOptions, Packet};
use tokio::net::TcpStream;

use super::connection::{DISCONNECT_TIMEOUT, Ending, Message};
use super::errors::{code_of_connect, not_connected};
use super::limits::{Learned, check_qos};
use super::options::{CONNECT_TIMEOUT, IN_FLIGHT_MAX, options, plain_options};
use super::target::BrokerTarget;

/// Reason code of MQTT 5.
const RETAIN_NOT_SUPPORTED: u8 = 0x9a;

/// An address of the broker that does not answer holds up the next one for so long.
const STAGGER: Duration = Duration::from_millis(250);
/// Most addresses of a broker's name that are tried.
const ADDRESSES_MAX: usize = 16;

/// A client that is connected, and what the broker answered.
pub(super) struct Connected {
    pub(super) client: AsyncClient,
    pub(super) events: EventLoop,
    pub(super) connack: ConnAck,
}

/// Connects and lays down the will. A broker without retained messages refuses a will that is retained: it is given
/// one that is not.
pub(super) async fn connect(
    target: &BrokerTarget,
    will: &Message,
    learned: &mut Learned,
) -> Result<Connected, Ending> {
    loop {
        let mut will = will.clone();
        will.retain &= !learned.plain_will;
        let capacity = usize::from(IN_FLIGHT_MAX) + 8;
        let (client, mut events) = AsyncClient::builder(options(target, will)).capacity(capacity).build();
        match connack(&mut events).await {
            Ok(connack) => return Ok(Connected { client, events, connack }),
            Err(error) if code_of_connect(&error) == Some(RETAIN_NOT_SUPPORTED) && !learned.plain_will => {
                learned.plain_will = true;
            }
            Err(error) => return Err(not_connected(&error, target)),
        }
    }
}

/// The broker's answer to the CONNECT.
async fn connack(events: &mut EventLoop) -> Result<ConnAck, ConnectionError> {
    loop {
        if let Event::Incoming(Packet::ConnAck(connack)) = events.poll().await? {
            return Ok(connack);
        }
    }
}

/// Whether the broker takes a connection from here: not a look at a port, behind which nobody may be, but
/// TLS, credentials and the broker's answer, which must not say that it could not serve a leader. By a name of its own,
/// so that no other box's connection is disturbed, and without a will or a session.
pub(crate) async fn probe(target: BrokerTarget, name: String) -> Result<(), String> {
    let mut options = plain_options(&target, format!("{}-{name}", target.client_id));
    options.set_clean_start(true);
    let (client, mut events) = AsyncClient::builder(options).capacity(1).build();
    let serves = match tokio::time::timeout(CONNECT_TIMEOUT, connack(&mut events)).await {
        Ok(Ok(connack)) => check_qos(&connack, target.section),
        Ok(Err(error)) => return Err(not_connected(&error, &target).what),
        Err(_) => return Err(format!("no answer from the broker within {} s", CONNECT_TIMEOUT.as_secs())),
    };
    let farewell = async {
        // The loop ends once the packet is out.
        if client.disconnect_now().await.is_ok() {
            while events.poll().await.is_ok() {}
        }
    };
    // It has answered: however the connection ends.
    let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, farewell).await;
    serves
}

/// Connects to the first of the broker's addresses that answers; each has a little time before the next is tried,
/// too. Not the library's own way, whose look-ups of names would take up the runtime's threads if they hang.
pub(super) async fn to_any_address(broker: String, network: NetworkOptions) -> io::Result<TcpStream> {
    let addresses = crate::resolve::addresses(&broker).await.map_err(io::Error::other)?;
    let mut tries: FuturesUnordered<_> = (0..)
        .zip(addresses)
        .take(ADDRESSES_MAX)
        .map(|(place, address)| {
            let network = network.clone();
            async move {
                tokio::time::sleep(STAGGER * place).await;
                rumqttc::default_socket_connect(address.to_string(), network).await
            }
        })
        .collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    while let Some(connected) = tries.next().await {
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
