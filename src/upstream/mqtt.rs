//! One MQTT 5 connection to the broker; with its parts `mqtt_*.rs` the only file that knows the client library.
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
    AsyncClient, Broker, ConnAck, ConnectionError, DisconnectProperties, DisconnectReasonCode, Event,
    EventLoop, LastWill, LastWillProperties, MqttOptions, NetworkOptions, Packet, PubAckReason,
    PublishNoticeError, PublishOptions, PublishProperties, PublishResult, QoS, SubscribeFilter,
    SubscribeNoticeError, SubscribeReasonCode, TlsConfiguration, Transport,
};
use rustls::ClientConfig;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::config::{BrokerUrl, Secret};
use super::format::Message;
use super::reasons;
use crate::identity::SiteId;

#[path = "mqtt_errors.rs"]
mod errors;
#[path = "mqtt_store.rs"]
mod store;

use errors::{code_of_connect, ending, not_connected};
use store::NothingPending;

/// How many messages may await their acknowledgement; less if the broker says so.
pub(super) const IN_FLIGHT_MAX: u16 = 100;

/// How long after the connection broke the broker tells subscribers `offline`.
pub(super) const WILL_DELAY_S: u32 = 30;

/// How long the broker keeps the session; beyond the will's delay, or it would cut that short.
const SESSION_EXPIRY_S: u32 = 120;

/// The largest packet that the broker may send us: a status of another site, and answers.
const INCOMING_BYTES_MAX: u32 = 16 * 1024;

/// How many messages of the broker may wait to be looked at; more are passed over.
const HEARD_MAX: usize = 16;

/// Reason codes of MQTT 5.
const UNSPECIFIED: u8 = 0x80;
const RETAIN_NOT_SUPPORTED: u8 = 0x9a;
const QOS_NOT_SUPPORTED: u8 = 0x9b;

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
pub enum Answer<T> {
    /// The broker has it.
    Acknowledged(T),
    /// The broker refused it.
    Refused(T, Refusal),
    /// The broker sends us what we subscribed to.
    Heard(Vec<u8>),
    /// The connection is gone; nothing more comes.
    Ended(Ending),
}

/// Why a message was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The MQTT 5 reason code.
    pub code: u8,
    /// In words.
    pub what: String,
}

/// Why a connection ended or did not come about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ending {
    /// In words, with what to do.
    pub what: String,
    /// Whether the broker said why. What it only did (reset the connection, say) explains less.
    pub explained: bool,
    /// What is sent again therefore, in words to be added.
    pub again: String,
    /// The reason code by which it refused a message, where the library ends the connection over that.
    pub refused: Option<u8>,
}

/// What the broker said that it can do, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// How many messages may await their acknowledgement.
    pub receive_max: Option<u16>,
    /// The largest packet that it takes, bytes.
    pub packet_bytes_max: Option<u32>,
    /// Whether it keeps retained messages.
    pub retains: bool,
    /// How long it keeps the session, seconds, if it is not what was asked for.
    pub session_expiry_s: Option<u32>,
    /// How often it wants to hear of us, seconds, if it is not what was offered.
    pub keep_alive_s: Option<u16>,
}

impl Limits {
    /// How many messages may await their acknowledgement, at most as many as we ever want.
    pub(super) fn window(&self) -> usize {
        usize::from(self.receive_max.unwrap_or(u16::MAX).clamp(1, IN_FLIGHT_MAX))
    }
}

impl Message {
    /// How many bytes it is on its way, from a site of this identity.
    pub fn packet_bytes(&self, site_id: SiteId) -> usize {
        let properties = Some(self.properties(site_id.to_string()));
        let (topic, payload) = (self.topic.clone(), self.payload.clone());
        // The packet identifier, which it gets later, is of two bytes, and one more makes room for a longer length.
        rumqttc::Publish::new(topic, QoS::AtLeastOnce, payload, properties).size() + 3
    }

    fn properties(&self, site_id: String) -> PublishProperties {
        let mut user_properties = vec![("site_id".to_owned(), site_id)];
        user_properties.extend(self.seq.map(|seq| ("seq".to_owned(), seq.to_string())));
        PublishProperties {
            payload_format_indicator: None,
            message_expiry_interval: None,
            topic_alias: None,
            response_topic: None,
            correlation_data: None,
            user_properties,
            subscription_identifiers: Vec::new(),
            content_type: Some(self.content_type.to_owned()),
        }
    }
}

/// What was learned of the broker by connecting, for the next time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Learned {
    /// It refuses a will that is retained.
    pub(super) plain_will: bool,
}

type Notice<T> = BoxFuture<'static, (T, Result<(), Option<Refusal>>)>;

/// A connection; `T` names its messages to whoever sent them.
pub(super) struct Connection<T> {
    client: AsyncClient,
    /// Runs the library's loop in a task of its own: it must not be cancelled between two of its steps.
    driver: Driver,
    notices: FuturesUnordered<Notice<T>>,
    heard: mpsc::Receiver<Vec<u8>>,
    site_id: String,
    limits: Limits,
}

struct Driver(JoinHandle<Ending>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Connection<T> {
    /// Connects and lays down the will. Publishes nothing. A broker without retained messages refuses a
    /// will that is retained: it is given one that is not.
    pub(super) async fn open(
        target: &Target,
        will: Message,
        learned: &mut Learned,
    ) -> Result<Connection<T>, Ending> {
        let (client, events, connack) = loop {
            let mut will = will.clone();
            will.retain &= !learned.plain_will;
            let options = options(target, will);
            let capacity = usize::from(IN_FLIGHT_MAX) + 8;
            let (client, mut events) = AsyncClient::builder(options).capacity(capacity).build();
            match connack(&mut events).await {
                Ok(connack) => break (client, events, connack),
                Err(error)
                    if code_of_connect(&error) == Some(RETAIN_NOT_SUPPORTED) && !learned.plain_will =>
                {
                    learned.plain_will = true;
                }
                Err(error) => return Err(not_connected(&error, target.url.tls)),
            }
        };
        Connection::over(target, client, events, &connack, learned).await
    }

    async fn over(
        target: &Target,
        client: AsyncClient,
        mut events: EventLoop,
        connack: &ConnAck,
        learned: &mut Learned,
    ) -> Result<Connection<T>, Ending> {
        // It has served its purpose; from here on it would only be handed a checkpoint per message.
        events.options.clear_session_store();
        let properties = connack.properties.as_ref();
        let limits = Limits {
            receive_max: properties.and_then(|properties| properties.receive_max),
            packet_bytes_max: properties.and_then(|properties| properties.max_packet_size),
            retains: properties.and_then(|properties| properties.retain_available) != Some(0),
            session_expiry_s: properties.and_then(|properties| properties.session_expiry_interval),
            keep_alive_s: properties.and_then(|properties| properties.server_keep_alive),
        };
        // A will that was refused once may be retained again once the broker retains.
        learned.plain_will &= !limits.retains;
        let (hear, heard) = mpsc::channel(HEARD_MAX);
        let connection = Connection {
            client,
            driver: Driver(tokio::spawn(drive(events, hear))),
            notices: FuturesUnordered::new(),
            heard,
            site_id: target.site_id.clone(),
            limits,
        };
        if let Err(what) = check_qos(connack) {
            connection.close(false).await;
            return Err(Ending { what, explained: true, ..Ending::default() });
        }
        Ok(connection)
    }

    /// What the broker said of itself.
    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Sends a message, at QoS 1; its answer comes by [`Connection::answer`]. Call it only while
    /// fewer than [`Limits::window`] have none.
    pub(super) fn send(&mut self, name: T, message: Message) -> Result<(), String> {
        let options = PublishOptions::new(QoS::AtLeastOnce)
            .retain(message.retain)
            .properties(message.properties(self.site_id.clone()));
        let notice = self
            .client
            .try_publish_tracked(message.topic, message.payload, options)
            .map_err(|error| format!("the MQTT client did not take a message: {error}"))?;
        self.notices.push(Box::pin(async move { (name, judge(notice.wait_async().await)) }));
        Ok(())
    }

    /// Subscribes to a topic, without what this client publishes there itself; the answer comes as to a message.
    pub(super) fn subscribe(&mut self, name: T, topic: &str) -> Result<(), String> {
        // At QoS 0: nothing piles up in the session while no box is connected.
        let filter = SubscribeFilter { nolocal: true, ..SubscribeFilter::new(topic, QoS::AtMostOnce) };
        let notice = self
            .client
            .try_subscribe_many_tracked([filter])
            .map_err(|error| format!("the MQTT client did not take a subscription: {error}"))?;
        self.notices.push(Box::pin(async move {
            let result = match notice.wait_async().await {
                Ok(ack) => match ack.return_codes.first().and_then(|code| refused_filter(*code)) {
                    Some(code) => Err(Some(Refusal { code, what: reasons::named(code) })),
                    None => Ok(()),
                },
                Err(SubscribeNoticeError::Recv | SubscribeNoticeError::SessionReset) => Err(None),
                Err(error) => Err(Some(Refusal { code: UNSPECIFIED, what: error.to_string() })),
            };
            (name, result)
        }));
        Ok(())
    }

    /// The next answer. May be cancelled and called again; after `Ended`, drop the connection.
    pub(super) async fn answer(&mut self) -> Answer<T> {
        loop {
            tokio::select! {
                // Answers that came before the connection broke still count.
                biased;
                Some((name, result)) = self.notices.next(), if !self.notices.is_empty() => {
                    match result {
                        Ok(()) => return Answer::Acknowledged(name),
                        Err(Some(refusal)) => return Answer::Refused(name, refusal),
                        // The connection went; the driver says why.
                        Err(None) => {}
                    }
                }
                Some(payload) = self.heard.recv() => return Answer::Heard(payload),
                ended = &mut self.driver.0 => {
                    let ended = ended.unwrap_or_else(|error| Ending { what: error.to_string(), ..Ending::default() });
                    return Answer::Ended(ended);
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

/// The broker's answer to the CONNECT.
async fn connack(events: &mut EventLoop) -> Result<ConnAck, ConnectionError> {
    loop {
        if let Event::Incoming(Packet::ConnAck(connack)) = events.poll().await? {
            return Ok(connack);
        }
    }
}

/// Whether the broker says of what it takes that QoS 1 is among it.
fn check_qos(connack: &ConnAck) -> Result<(), String> {
    match connack.properties.as_ref().and_then(|properties| properties.max_qos) {
        Some(0) => Err(format!(
            "the broker takes messages of QoS 0 only: {}",
            reasons::of_connection(QOS_NOT_SUPPORTED)
        )),
        _ => Ok(()),
    }
}

/// Polls the library's loop until the connection ends; never lets it reconnect by itself.
async fn drive(mut events: EventLoop, hear: mpsc::Sender<Vec<u8>>) -> Ending {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Disconnect(packet))) => {
                return errors::closed(packet.reason_code, None);
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                // Whoever floods us is not listened to.
                let _ = hear.try_send(publish.payload.to_vec());
            }
            Ok(_) => {}
            Err(error) => return ending(&error),
        }
    }
}

/// Whether the broker takes a connection from here: not a look at a port, behind which nobody may be, but
/// TLS, credentials and the broker's answer, which must not say that it could not serve a leader. By a name of its own,
/// so that no other box's connection is disturbed, and without a will or a session.
pub(super) async fn probe(target: Target, name: String) -> Result<(), String> {
    let with_tls = target.url.tls;
    let mut options = plain_options(&target, format!("{}-{name}", target.client_id));
    options.set_clean_start(true);
    let (client, mut events) = AsyncClient::builder(options).capacity(1).build();
    let serves = match tokio::time::timeout(CONNECT_TIMEOUT, connack(&mut events)).await {
        Ok(Ok(connack)) => check_qos(&connack),
        Ok(Err(error)) => return Err(not_connected(&error, with_tls).what),
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

fn options(target: &Target, will: Message) -> MqttOptions {
    let mut options = plain_options(target, target.client_id.clone());
    options
        .set_clean_start(false)
        .set_max_packet_size(Some(INCOMING_BYTES_MAX))
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

/// What became of a message; `Err(None)`: the connection went.
fn judge(result: Result<PublishResult, PublishNoticeError>) -> Result<(), Option<Refusal>> {
    use PubAckReason::{NoMatchingSubscribers, Success};
    match result {
        Ok(PublishResult::Qos1(ack)) if matches!(ack.reason, Success | NoMatchingSubscribers) => Ok(()),
        Ok(PublishResult::Qos1(ack)) => {
            let code = ack.reason as u8;
            let said = ack.properties.and_then(|properties| properties.reason_string);
            let said = said.map(|text| format!(" ({text})")).unwrap_or_default();
            Err(Some(Refusal { code, what: format!("{}{said}", reasons::of_message(code)) }))
        }
        Ok(other) => {
            let what = format!("answered as {other:?}, which QoS 1 does not know");
            Err(Some(Refusal { code: UNSPECIFIED, what }))
        }
        Err(PublishNoticeError::Recv | PublishNoticeError::SessionReset) => Err(None),
        Err(error) => Err(Some(Refusal { code: UNSPECIFIED, what: error.to_string() })),
    }
}

/// The reason code by which a subscription was refused.
fn refused_filter(code: SubscribeReasonCode) -> Option<u8> {
    Some(match code {
        SubscribeReasonCode::Success(_) => return None,
        SubscribeReasonCode::NotAuthorized => 0x87,
        SubscribeReasonCode::TopicFilterInvalid => 0x8f,
        SubscribeReasonCode::PkidInUse => 0x91,
        SubscribeReasonCode::QuotaExceeded => 0x97,
        _ => UNSPECIFIED,
    })
}
