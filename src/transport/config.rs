//! The configuration of QUIC: for a LAN, low latency and little memory.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    AckFrequencyConfig, ClientConfig, EndpointConfig, ServerConfig, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use tally_core::id::NodeId;

use super::address::{self, Versions};
use super::congestion::Floor;
use super::tls::{self, Pins};
use super::{Lane, TransportError};
use crate::identity::Keys;

/// A connection to a peer that is silent for this long ends. (Raft notices much sooner; this frees the connection.)
const IDLE_MAX: VarInt = VarInt::from_u32(3000);
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The assumed round trip before it is measured. The usual 333 ms would make a lost first packet cost a second;
/// this repeats it after 60 ms, which on a slower network only sends one packet too many.
const RTT_INITIAL: Duration = Duration::from_millis(20);

/// How long a peer may wait before it acknowledges. This limits how late a lost last packet is noticed.
const ACK_DELAY_MAX: Duration = Duration::from_millis(5);
/// How many packets one acknowledgement may cover, which saves packets under load.
const ACK_PACKETS: u32 = 8;

/// The most unread bytes of a stream: enough for 1 Gbit/s at 8 ms.
const STREAM_WINDOW_BYTES: u32 = 1 << 20;

/// Binds the port and makes the endpoint; returns also its IP versions.
pub(super) fn endpoint(
    keys: &Keys,
    pins: &Arc<Pins>,
    listen: SocketAddr,
) -> Result<(quinn::Endpoint, Versions), TransportError> {
    bind(keys, tls::server(keys, pins), listen)
}

/// The same for a box that is no member yet.
pub(super) fn stranger_endpoint(
    keys: &Keys,
    listen: SocketAddr,
) -> Result<(quinn::Endpoint, Versions), TransportError> {
    bind(keys, tls::stranger_server(keys), listen)
}

fn bind(
    keys: &Keys,
    tls: Result<rustls::ServerConfig, rustls::Error>,
    listen: SocketAddr,
) -> Result<(quinn::Endpoint, Versions), TransportError> {
    let fail = |source: io::Error| {
        let remedy = match source.kind() {
            io::ErrorKind::AddrInUse => "another program, perhaps another tallyd, uses this port",
            io::ErrorKind::AddrNotAvailable => {
                "this machine does not have this address; [::] stands for all addresses"
            }
            io::ErrorKind::PermissionDenied => {
                "use a port of 1024 or more, or run with the permission to bind lower ports"
            }
            _ => "check the address",
        };
        TransportError::Listen { address: listen, source, remedy }
    };
    let (socket, versions) = address::bind(listen).map_err(fail)?;
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, &keys.derive("stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset_key));
    // The same after a restart, as the reset key: else packets for the old incarnation's connections would be
    // taken for garbage, and not answered with the reset that tells the peer to connect anew.
    let cid_key = u64::from_le_bytes(*keys.derive("connection ids").first_chunk().expect("32 bytes have 8"));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(cid_key)));
    config.min_reset_interval(Duration::from_millis(1));
    let tls = tls.map_err(|error| TransportError::Tls(error.to_string()))?;
    let tls = QuicServerConfig::try_from(tls).map_err(|error| TransportError::Tls(error.to_string()))?;
    let mut server = ServerConfig::with_crypto(Arc::new(tls));
    server.transport_config(Arc::new(transport()));
    // What strangers can make the box hold before they have proved anything.
    server.max_incoming(64).incoming_buffer_size(8 * 1024).incoming_buffer_size_total(64 * 1024);
    let endpoint =
        quinn::Endpoint::new(config, Some(server), socket, Arc::new(TokioRuntime)).map_err(fail)?;
    Ok((endpoint, versions))
}

/// Makes the configuration for dialling a peer.
pub(super) fn client(keys: &Keys, pins: &Arc<Pins>, peer: NodeId) -> Result<ClientConfig, TransportError> {
    let tls = tls::client(keys, pins, peer).map_err(|error| TransportError::Tls(error.to_string()))?;
    let tls = QuicClientConfig::try_from(tls).map_err(|error| TransportError::Tls(error.to_string()))?;
    let mut client = ClientConfig::new(Arc::new(tls));
    client.transport_config(Arc::new(transport()));
    Ok(client)
}

/// Makes the configuration for dialling a box where neither knows the other yet.
pub(super) fn stranger_client() -> Result<ClientConfig, TransportError> {
    let tls = tls::stranger_client().map_err(|error| TransportError::Tls(error.to_string()))?;
    let tls = QuicClientConfig::try_from(tls).map_err(|error| TransportError::Tls(error.to_string()))?;
    let mut client = ClientConfig::new(Arc::new(tls));
    client.transport_config(Arc::new(transport()));
    Ok(client)
}

fn transport() -> TransportConfig {
    let lanes = Lane::ALL.len() as u32;
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_PACKETS)).max_ack_delay(Some(ACK_DELAY_MAX));
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        // A lane whose sender changes connections and comes back opens a second stream.
        .max_concurrent_uni_streams(VarInt::from_u32(2 * lanes))
        .max_idle_timeout(Some(IDLE_MAX.into()))
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .initial_rtt(RTT_INITIAL)
        .ack_frequency_config(Some(acks))
        .congestion_controller_factory(Arc::new(Floor))
        // Room for all lanes, so that one that is not read does not hold up the others.
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(2 * lanes * STREAM_WINDOW_BYTES))
        .send_window(u64::from((lanes + 1) * STREAM_WINDOW_BYTES))
        .send_fairness(false)
        .datagram_receive_buffer_size(Some(64 * 1024))
        .datagram_send_buffer_size(64 * 1024);
    config
}
