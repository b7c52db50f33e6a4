//! A target as the client library wants it told.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{
    Broker, LastWill, LastWillProperties, MqttOptions, NetworkOptions, QoS, TlsConfiguration, Transport,
};

use super::connect::to_any_address;
use super::connection::Message;
use super::store::NothingPending;
use super::target::BrokerTarget;

/// How many messages may await their acknowledgement; less if the broker says so.
pub(crate) const IN_FLIGHT_MAX: u16 = 100;

/// How long after the connection broke the broker publishes the will.
pub(crate) const WILL_DELAY_S: u32 = 30;

/// How long the broker keeps the session; beyond the will's delay, or it would cut that short.
pub(super) const SESSION_EXPIRY_S: u32 = 120;

/// The largest packet that the broker may send us: a message of somebody else's, and answers.
const INCOMING_BYTES_MAX: u32 = 16 * 1024;

const KEEP_ALIVE_S: u16 = 15;
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For a connection that publishes: its session goes on, and its will is laid down.
pub(super) fn options(target: &BrokerTarget, will: Message) -> MqttOptions {
    let mut options = plain_options(target, target.client_id.clone());
    options
        .set_clean_start(false)
        .set_max_packet_size(Some(INCOMING_BYTES_MAX))
        .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
        .set_session_store(NothingPending)
        .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX)
        .set_max_request_batch(64)
        .set_last_will(LastWill {
            qos: QoS::AtLeastOnce,
            retain: will.retain,
            properties: Some(LastWillProperties {
                delay_interval: Some(WILL_DELAY_S),
                payload_format_indicator: None,
                message_expiry_interval: None,
                content_type: Some(will.content_type.to_owned()),
                response_topic: None,
                correlation_data: None,
                user_properties: will.user_properties(),
            }),
            topic: will.topic.into_bytes().into(),
            message: will.payload.into(),
        });
    options
}

/// Where to, by what name, and what it takes to be let in.
pub(super) fn plain_options(target: &BrokerTarget, client_id: String) -> MqttOptions {
    let url = &target.url;
    let mut options = MqttOptions::new(client_id, Broker::tcp(url.host.clone(), url.port));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_keep_alive(KEEP_ALIVE_S).set_connect_timeout(CONNECT_TIMEOUT).set_network_options(network);
    options.set_socket_connector(to_any_address);
    match (&url.user, &target.password) {
        (Some(user), Some(password)) => {
            options.set_credentials(user.clone(), password.reveal().as_bytes().to_vec());
        }
        (Some(user), None) => {
            options.set_username(user.clone());
        }
        (None, _) => {}
    }
    if let Some(tls) = &target.tls {
        options.set_transport(Transport::tls_with_config(TlsConfiguration::Rustls(Arc::clone(tls))));
    }
    options
}
