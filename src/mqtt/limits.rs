//! What the broker says in its CONNACK that it can do, as far as it matters here.

use rumqttc::ConnAck;
use serde::Serialize;

use super::options::IN_FLIGHT_MAX;
use super::reasons;

/// Reason code of MQTT 5.
const QOS_NOT_SUPPORTED: u8 = 0x9b;

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

/// What was learned of the broker by connecting, for the next time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Learned {
    /// It refuses a will that is retained.
    pub(crate) plain_will: bool,
}

impl Limits {
    pub(super) fn of(connack: &ConnAck) -> Limits {
        let properties = connack.properties.as_ref();
        Limits {
            receive_max: properties.and_then(|properties| properties.receive_max),
            packet_bytes_max: properties.and_then(|properties| properties.max_packet_size),
            retains: properties.and_then(|properties| properties.retain_available) != Some(0),
            session_expiry_s: properties.and_then(|properties| properties.session_expiry_interval),
            keep_alive_s: properties.and_then(|properties| properties.server_keep_alive),
        }
    }

    /// How many messages may await their acknowledgement, at most as many as we ever want.
    pub(crate) fn window(&self) -> usize {
        usize::from(self.receive_max.unwrap_or(u16::MAX).clamp(1, IN_FLIGHT_MAX))
    }
}

/// Whether the broker says of what it takes that QoS 1 is among it.
pub(super) fn check_qos(connack: &ConnAck, section: &str) -> Result<(), String> {
    match connack.properties.as_ref().and_then(|properties| properties.max_qos) {
        Some(0) => Err(format!(
            "the broker takes messages of QoS 0 only: {}",
            reasons::of_connection(QOS_NOT_SUPPORTED, section)
        )),
        _ => Ok(()),
    }
}
