//! One MQTT 5 connection to the broker; the only file that knows the client library.
//!
//! The library would keep unacknowledged publishes over a reconnection and resend them by itself.
//! Here a connection has a client of its own, which is thrown away with it: the outbox is the truth.
//! The broker's session goes on all the same (Clean Start 0 under the site's client id), since
//! starting a new one would end the old one and so publish its will at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rumqttc::{
    AsyncClient, Broker, ConnectReturnCode, ConnectionError, DisconnectProperties, DisconnectReasonCode,
    Event, EventLoop, LastWill, LastWillProperties, MqttOptions, NetworkOptions, Packet, PersistedAckMode,
    PersistedSession, PubAckReason, PublishNoticeError, PublishOptions, PublishProperties, PublishResult,
    QoS, SessionStore, SessionStoreKey, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::config::{BrokerUrl, Secret};
use super::format::Message;

/// How many messages may await their acknowledgement; less if the broker says so.
pub(super) const IN_FLIGHT_MAX: u16 = 100;

/// How long after the connection broke the broker tells subscribers `offline`.
const WILL_DELAY_S: u32 = 30;

/// How long the broker keeps the session; beyond the will's delay, or it would cut that short.
const SESSION_EXPIRY_S: u32 = 120;

const KEEP_ALIVE_S: u16 = 15;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// An address of the broker that does not answer holds up the next one for so long.
const STAGGER: Duration = Duration::from_millis(250);
/// Most addresses of a broker's name that are tried.
const ADDRESSES_MAX: usize = 16;
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Whom to connect to, as whom.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The broker.
    pub(super) url: BrokerUrl,
    /// The password, from wherever it came.
    pub(super) password: Option<Secret>,
    /// For `mqtts://`.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// The site's, shared by its boxes.
    pub(super) client_id: String,
    /// MQTT 5 user property `site_id` of each message.
    pub(super) site_id: String,
}

/// What became of a message, or of the connection.
#[derive(Debug)]
pub(super) enum Answer<T> {
    /// The broker has it.
    Acknowledged(T),
    /// The broker refused it, for this reason.
    Refused(T, String),
    /// The connection is gone; nothing more comes.
    Ended(String),
}

type Notice<T> = BoxFuture<'static, (T, Result<PublishResult, PublishNoticeError>)>;

/// A connection; `T` names its messages to whoever sent them.
pub(super) struct Connection<T> {
    client: AsyncClient,
    /// Runs the library's loop in a task of its own: it must not be cancelled between two of its steps.
    driver: Driver,
    notices: FuturesUnordered<Notice<T>>,
    site_id: String,
    window: usize,
    retains: bool,
}

struct Driver(JoinHandle<String>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Connection<T> {
    /// Connects and lays down the will. Publishes nothing.
    pub(super) async fn open(target: &Target, will: Message) -> Result<Connection<T>, String> {
        let options = options(target, will);
        let capacity = usize::from(IN_FLIGHT_MAX) + 8;
        let (client, mut events) = AsyncClient::builder(options).capacity(capacity).build();
        let connack = loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(connack))) => break connack,
                Ok(_) => {}
                Err(error) => return Err(describe(&error)),
            }
        };
        // It has served its purpose; from here on it would only be handed a checkpoint per message.
        events.options.clear_session_store();
        let properties = connack.properties.as_ref();
        let receive_max = properties.and_then(|properties| properties.receive_max).unwrap_or(u16::MAX);
        Ok(Connection {
            client,
            driver: Driver(tokio::spawn(drive(events))),
            notices: FuturesUnordered::new(),
            site_id: target.site_id.clone(),
            window: usize::from(receive_max.clamp(1, IN_FLIGHT_MAX)),
            retains: properties.and_then(|properties| properties.retain_available) != Some(0),
        })
    }

    /// How many more messages may be sent now.
    pub(super) fn room(&self) -> usize {
        self.window.saturating_sub(self.notices.len())
    }

    /// How many messages may await their acknowledgement at a time.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Whether the broker keeps retained messages; if not, they are sent to present subscribers only.
    pub(super) fn retains(&self) -> bool {
        self.retains
    }

    /// Sends a message, at QoS 1; its answer comes by [`Connection::answer`]. Call it only while
    /// there is [`Connection::room`].
    pub(super) fn send(&mut self, name: T, message: Message) -> Result<(), String> {
        let mut user_properties = vec![("site_id".to_owned(), self.site_id.clone())];
        user_properties.extend(message.seq.map(|seq| ("seq".to_owned(), seq.to_string())));
        let properties = PublishProperties {
            payload_format_indicator: None,
            message_expiry_interval: None,
            topic_alias: None,
            response_topic: None,
            correlation_data: None,
            user_properties,
            subscription_identifiers: Vec::new(),
            content_type: Some(message.content_type.to_owned()),
        };
        let options = PublishOptions::new(QoS::AtLeastOnce)
            .retain(message.retain && self.retains)
            .properties(properties);
        let notice = self
            .client
            .try_publish_tracked(message.topic, message.payload, options)
            .map_err(|error| format!("the MQTT client did not take a message: {error}"))?;
        self.notices.push(Box::pin(async move { (name, notice.wait_async().await) }));
        Ok(())
    }

    /// The next answer. May be cancelled and called again; after `Ended`, drop the connection.
    pub(super) async fn answer(&mut self) -> Answer<T> {
        loop {
            tokio::select! {
                // Answers that came before the connection broke still count.
                biased;
                Some((name, result)) = self.notices.next(), if !self.notices.is_empty() => {
                    if let Some(answer) = judge(name, result) {
                        return answer;
                    }
                }
                ended = &mut self.driver.0 => {
                    return Answer::Ended(ended.unwrap_or_else(|error| error.to_string()));
                }
            }
        }
    }

    /// Disconnects in order, the will included (reason 0x04). With `last`, the session ends too, so
    /// that the will is published at once; otherwise it waits its delay, in which the next leader's
    /// connection revokes it.
    pub(super) async fn close(mut self, last: bool) {
        let properties = DisconnectProperties {
            session_expiry_interval: last.then_some(0),
            reason_string: None,
            user_properties: Vec::new(),
            server_reference: None,
        };
        let reason = DisconnectReasonCode::DisconnectWithWillMessage;
        let farewell = async {
            if self.client.disconnect_now_with_properties(reason, properties).await.is_ok() {
                // The loop ends once the packet is out.
                let _ = (&mut self.driver.0).await;
            }
        };
        if tokio::time::timeout(DISCONNECT_TIMEOUT, farewell).await.is_err() {
            tracing::debug!("the broker's connection did not close in order; its will stands all the same");
        }
    }
}

/// Polls the library's loop until the connection ends; never lets it reconnect by itself.
async fn drive(mut events: EventLoop) -> String {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Disconnect(packet))) => {
                return format!("the broker closed the connection: {:?}", packet.reason_code);
            }
            Ok(_) => {}
            Err(error) => return describe(&error),
        }
    }
}

/// Whether the broker takes a connection from here: not a look at a port, behind which nobody may be, but
/// TLS, credentials and the broker's answer. By a name of its own, so that no other box's connection is
/// disturbed, and without a will or a session.
pub(super) async fn probe(target: Target, name: String) -> Result<(), String> {
    let mut options = plain_options(&target, format!("{}-{name}", target.client_id));
    options.set_clean_start(true);
    let (client, mut events) = AsyncClient::builder(options).capacity(1).build();
    let connected = async {
        loop {
            match events.poll().await {
                Ok(Event::Incoming(Packet::ConnAck(_))) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(describe(&error)),
            }
        }
    };
    match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
        Ok(result) => result?,
        Err(_) => return Err(format!("no answer from the broker within {} s", CONNECT_TIMEOUT.as_secs())),
    }
    let farewell = async {
        // The loop ends once the packet is out.
        if client.disconnect_now().await.is_ok() {
            while events.poll().await.is_ok() {}
        }
    };
    // It has answered: however the connection ends.
    let _ = tokio::time::timeout(DISCONNECT_TIMEOUT, farewell).await;
    Ok(())
}

fn options(target: &Target, will: Message) -> MqttOptions {
    let mut options = plain_options(target, target.client_id.clone());
    options
        .set_clean_start(false)
        .set_session_expiry_interval(Some(SESSION_EXPIRY_S))
        .set_session_store(NothingPending)
        .set_outgoing_inflight_upper_limit(IN_FLIGHT_MAX)
        .set_max_request_batch(64)
        .set_last_will(LastWill {
            topic: will.topic.into_bytes().into(),
            message: will.payload.into(),
            qos: QoS::AtLeastOnce,
            retain: will.retain,
            properties: Some(LastWillProperties {
                delay_interval: Some(WILL_DELAY_S),
                payload_format_indicator: None,
                message_expiry_interval: None,
                content_type: Some(will.content_type.to_owned()),
                response_topic: None,
                correlation_data: None,
                user_properties: vec![("site_id".to_owned(), target.site_id.clone())],
            }),
        });
    options
}

/// Where to, by what name, and what it takes to be let in.
fn plain_options(target: &Target, client_id: String) -> MqttOptions {
    let url = &target.url;
    let mut options = MqttOptions::new(client_id, Broker::tcp(url.host.clone(), url.port));
    let mut network = NetworkOptions::new();
    network.set_tcp_nodelay(true);
    options.set_keep_alive(KEEP_ALIVE_S).set_connect_timeout(CONNECT_TIMEOUT).set_network_options(network);
    options.set_socket_connector(connect);
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

/// Connects to the first of the broker's addresses that answers; each has a little time before the next is tried,
/// too. Not the library's own way, whose look-ups of names would take up the runtime's threads if they hang.
async fn connect(broker: String, network: NetworkOptions) -> io::Result<TcpStream> {
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
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    while let Some(connected) = tries.next().await {
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn judge<T>(name: T, result: Result<PublishResult, PublishNoticeError>) -> Option<Answer<T>> {
    use PubAckReason::{NoMatchingSubscribers, Success};
    match result {
        Ok(PublishResult::Qos1(ack)) if matches!(ack.reason, Success | NoMatchingSubscribers) => {
            Some(Answer::Acknowledged(name))
        }
        Ok(PublishResult::Qos1(ack)) => {
            let said = ack.properties.and_then(|properties| properties.reason_string);
            let reason =
                format!("{:?}{}", ack.reason, said.map(|text| format!(" ({text})")).unwrap_or_default());
            Some(Answer::Refused(name, reason))
        }
        Ok(other) => Some(Answer::Refused(name, format!("answered as {other:?}, which QoS 1 does not know"))),
        // The connection went; the driver says why.
        Err(PublishNoticeError::Recv | PublishNoticeError::SessionReset) => None,
        Err(error) => Some(Answer::Refused(name, error.to_string())),
    }
}

/// The error in words that name a remedy where there is one.
fn describe(error: &ConnectionError) -> String {
    match error {
        ConnectionError::ConnectionRefused(code) => {
            let remedy = match code {
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized => {
                    "; check the user in upstream.url and its password"
                }
                ConnectReturnCode::UnsupportedProtocolVersion | ConnectReturnCode::RefusedProtocolVersion => {
                    "; the broker must speak MQTT 5"
                }
                _ => "",
            };
            format!("the broker refused the connection: {code:?}{remedy}")
        }
        ConnectionError::Timeout(_) => {
            format!("no answer from the broker within {} s", CONNECT_TIMEOUT.as_secs())
        }
        ConnectionError::Io(error) => format!("cannot reach the broker: {error}"),
        other => other.to_string(),
    }
}

/// Tells the library that this client had a session before in which nothing was left under way. That
/// is true: what the outbox holds is published again anyway. Without it the library refuses to go on
/// with a session that the broker kept.
#[derive(Debug)]
struct NothingPending;

impl SessionStore for NothingPending {
    fn load<'a>(
        &'a self,
        key: &'a SessionStoreKey,
    ) -> BoxFuture<'a, Result<Option<PersistedSession>, rumqttc::SessionStoreError>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: Some(SESSION_EXPIRY_S),
            outgoing_inflight_upper_limit: Some(IN_FLIGHT_MAX),
            ack_mode: PersistedAckMode::Automatic,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async move { Ok(Some(session)) })
    }

    fn save<'a>(
        &'a self,
        _key: &'a SessionStoreKey,
        _session: &'a PersistedSession,
    ) -> BoxFuture<'a, Result<(), rumqttc::SessionStoreError>> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(
        &'a self,
        _key: &'a SessionStoreKey,
    ) -> BoxFuture<'a, Result<(), rumqttc::SessionStoreError>> {
        Box::pin(async { Ok(()) })
    }
}
