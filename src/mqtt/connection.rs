//! One MQTT 5 connection to the broker: messages out, their answers in.
//!
//! The library would keep unacknowledged publishes over a reconnection and resend them by itself.
//! Here a connection has a client of its own, which is thrown away with it: whoever sends knows what is to be sent
//! again. The broker's session goes on all the same (Clean Start 0 under the target's client id), since
//! starting a new one would end the old one and so publish its will at once.

use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use rumqttc::{
    AsyncClient, DisconnectProperties, DisconnectReasonCode, Event, EventLoop, Packet, PubAckReason,
    PublishNoticeError, PublishOptions, PublishProperties, PublishResult, QoS, SubscribeFilter,
    SubscribeNoticeError, SubscribeReasonCode,
};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connect::{Connected, connect};
use super::errors::{self, ending};
use super::limits::{Learned, Limits, check_qos};
use super::reasons;
use super::target::BrokerTarget;

/// How many messages of the broker may wait to be looked at; more are passed over.
const HEARD_MAX: usize = 16;

/// Reason code of MQTT 5.
const UNSPECIFIED: u8 = 0x80;

pub(super) const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// What is handed to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// Whether the broker keeps it for later subscribers.
    pub retain: bool,
    /// MQTT 5 content type.
    pub content_type: &'static str,
    /// MQTT 5 user properties.
    pub properties: Vec<(&'static str, String)>,
}

impl Message {
    /// How many bytes it is on its way.
    pub fn packet_bytes(&self) -> usize {
        let (topic, payload) = (self.topic.clone(), self.payload.clone());
        let publish =
            rumqttc::Publish::new(topic, QoS::AtLeastOnce, payload, Some(self.publish_properties()));
        // The packet identifier, which it gets later, is of two bytes, and one more makes room for a longer length.
        publish.size() + 3
    }

    pub(super) fn user_properties(&self) -> Vec<(String, String)> {
        self.properties.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
    }

    fn publish_properties(&self) -> PublishProperties {
        PublishProperties {
            payload_format_indicator: None,
            message_expiry_interval: None,
            topic_alias: None,
            response_topic: None,
            correlation_data: None,
            user_properties: self.user_properties(),
            subscription_identifiers: Vec::new(),
            content_type: Some(self.content_type.to_owned()),
        }
    }
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

type Notice<T> = BoxFuture<'static, (T, Result<(), Option<Refusal>>)>;

/// A connection; `T` names its messages to whoever sent them.
pub(crate) struct Connection<T> {
    client: AsyncClient,
    /// Runs the library's loop in a task of its own: it must not be cancelled between two of its steps.
    driver: Driver,
    notices: FuturesUnordered<Notice<T>>,
    heard: mpsc::Receiver<Vec<u8>>,
    limits: Limits,
}

struct Driver(JoinHandle<Ending>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T: Send + 'static> Connection<T> {
    /// Connects and lays down the will. Publishes nothing.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn open(
        target: &BrokerTarget,
        will: Message,
        learned: &mut Learned,
    ) -> Result<Connection<T>, Ending> {
        let Connected { client, mut events, connack } = connect(target, &will, learned).await?;
        // It has served its purpose; from here on it would only be handed a checkpoint per message.
        events.options.clear_session_store();
        let limits = Limits::of(&connack);
        // A will that was refused once may be retained again once the broker retains.
        learned.plain_will &= !limits.retains;
        let (hear, heard) = mpsc::channel(HEARD_MAX);
        let connection = Connection {
            client,
            driver: Driver(tokio::spawn(drive(events, hear, target.section))),
            notices: FuturesUnordered::new(),
            heard,
            limits,
        };
        if let Err(what) = check_qos(&connack, target.section) {
            connection.close(false).await;
            return Err(Ending { what, explained: true, ..Ending::default() });
        }
        Ok(connection)
    }

    /// What the broker said of itself.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Sends a message, at QoS 1; its answer comes by [`Connection::answer`]. Call it only while
    /// fewer than [`Limits::window`] have none.
    pub(crate) fn send(&mut self, name: T, message: Message) -> Result<(), String> {
        let options = PublishOptions::new(QoS::AtLeastOnce)
            .retain(message.retain)
            .properties(message.publish_properties());
        let notice = self
            .client
            .try_publish_tracked(message.topic, message.payload, options)
            .map_err(|error| format!("the MQTT client rejected a message: {error}"))?;
        self.notices.push(Box::pin(async move { (name, judge(notice.wait_async().await)) }));
        Ok(())
    }

    /// Subscribes to a topic, without what this client publishes there itself; the answer comes as to a message.
    pub(crate) fn subscribe(&mut self, name: T, topic: &str) -> Result<(), String> {
        // At QoS 0: nothing piles up in the session while no box is connected.
        let filter = SubscribeFilter { nolocal: true, ..SubscribeFilter::new(topic, QoS::AtMostOnce) };
        let notice = self
            .client
            .try_subscribe_many_tracked([filter])
            .map_err(|error| format!("the MQTT client rejected a subscription: {error}"))?;
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
    pub(crate) async fn answer(&mut self) -> Answer<T> {
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
    pub(crate) async fn close(mut self, last: bool) {
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
            tracing::debug!("the connection to the broker did not close cleanly; the will remains in force");
        }
    }
}

/// Polls the library's loop until the connection ends; never lets it reconnect by itself.
async fn drive(mut events: EventLoop, hear: mpsc::Sender<Vec<u8>>, section: &str) -> Ending {
    loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::Disconnect(packet))) => {
                return errors::closed(packet.reason_code, None, section);
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => {
                // Whoever floods us is not listened to.
                let _ = hear.try_send(publish.payload.to_vec());
            }
            Ok(_) => {}
            Err(error) => return ending(&error, section),
        }
    }
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
            let what = format!("answered with {other:?}, which QoS 1 does not have");
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
