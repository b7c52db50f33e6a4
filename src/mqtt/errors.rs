//! The client library's errors in words that name a remedy.

use rumqttc::mqttbytes::Error as MqttBytesError;
use rumqttc::{ConnectReturnCode, ConnectionError, DisconnectReasonCode, StateError, TlsError};

use super::connection::Ending;
use super::options::CONNECT_TIMEOUT;
use super::target::BrokerTarget;
use super::{reasons, tls};

/// Why a connection ended. `section`: see [`BrokerTarget`].
pub(super) fn ending(error: &ConnectionError, section: &str) -> Ending {
    let refused = unknown_acknowledgement(error);
    let explained = match error {
        ConnectionError::MqttState(StateError::ServerDisconnect { .. })
        | ConnectionError::ConnectionRefused(_) => true,
        ConnectionError::Tls(_) => true,
        _ => refused.is_some(),
    };
    Ending { what: describe(error, section), explained, refused, ..Ending::default() }
}

/// Why a connection did not come about.
pub(super) fn not_connected(error: &ConnectionError, target: &BrokerTarget) -> Ending {
    let section = target.section;
    let mut ending = ending(error, section);
    if !target.url.tls && !ending.explained && matches!(error, ConnectionError::MqttState(_)) {
        ending.what.push_str(&format!(
            ", before it answered: if this is the broker's TLS port, use mqtts:// in {section}.url, else set \
             the port of MQTT"
        ));
    }
    ending
}

/// In words only.
fn describe(error: &ConnectionError, section: &str) -> String {
    if let Some(code) = unknown_acknowledgement(error) {
        return format!("the broker refused a message: {}", reasons::of_message(code));
    }
    match error {
        ConnectionError::ConnectionRefused(code) => {
            format!("the broker refused the connection: {}", reasons::of_connection(code_of(*code), section))
        }
        ConnectionError::Timeout(_) => {
            format!("no answer from the broker within {} s", CONNECT_TIMEOUT.as_secs())
        }
        ConnectionError::Io(error) => of_io(error, section),
        ConnectionError::Tls(TlsError::TLS(error)) => tls::describe(error, section),
        ConnectionError::Tls(TlsError::Io(error)) => of_handshake(error, section),
        ConnectionError::Tls(TlsError::DNSName(error)) => {
            format!(
                "a certificate cannot name the host in {section}.url ({error}): use a DNS name or an address"
            )
        }
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            closed(*reason_code, reason_string.as_deref(), section).what
        }
        ConnectionError::MqttState(StateError::ConnectionAborted) => {
            "the broker closed the connection without a reason".to_owned()
        }
        ConnectionError::MqttState(
            StateError::Io(error) | StateError::Deserialization(MqttBytesError::Io(error)),
        ) => format!("the connection to the broker broke: {error}"),
        ConnectionError::MqttState(StateError::AwaitPingResp) => {
            "the broker no longer answers; the link is down, or the broker hangs".to_owned()
        }
        ConnectionError::MqttState(StateError::Deserialization(error)) => {
            format!("the broker sent data that is not MQTT 5 ({error}); it must support MQTT 5")
        }
        other => other.to_string(),
    }
}

/// The broker said goodbye.
pub(super) fn closed(code: DisconnectReasonCode, said: Option<&str>, section: &str) -> Ending {
    let said = said.map(|text| format!(" ({text})")).unwrap_or_default();
    let what =
        format!("the broker closed the connection: {}{said}", reasons::of_connection(code as u8, section));
    Ending { what, explained: true, ..Ending::default() }
}

fn of_io(error: &std::io::Error, section: &str) -> String {
    of_tls(error, section).unwrap_or_else(|| format!("cannot reach the broker: {error}"))
}

fn of_handshake(error: &std::io::Error, section: &str) -> String {
    of_tls(error, section).unwrap_or_else(|| {
        format!(
            "the connection broke in the TLS handshake ({error}): does the broker use TLS on this port? Use \
             its TLS port (usually 8883), or mqtt:// without TLS"
        )
    })
}

/// What TLS says, if it is from there.
fn of_tls(error: &std::io::Error, section: &str) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(tls::describe(inner, section))
}

/// The code of an acknowledgement that the library does not know, as Mosquitto's 0x95 (packet too large): it
/// takes the whole packet for malformed and ends the connection.
fn unknown_acknowledgement(error: &ConnectionError) -> Option<u8> {
    match error {
        ConnectionError::MqttState(StateError::Deserialization(
            MqttBytesError::InvalidConnectReturnCode(code) | MqttBytesError::InvalidReason(code),
        )) if *code >= 0x80 => Some(*code),
        _ => None,
    }
}

/// The reason by which a CONNECT was refused.
pub(super) fn code_of_connect(error: &ConnectionError) -> Option<u8> {
    match error {
        ConnectionError::ConnectionRefused(code) => Some(code_of(*code)),
        _ => None,
    }
}

fn code_of(code: ConnectReturnCode) -> u8 {
    use ConnectReturnCode as Code;
    match code {
        Code::Success => 0,
        Code::RefusedProtocolVersion => 1,
        Code::BadClientId => 2,
        Code::ServiceUnavailable => 3,
        Code::UnspecifiedError => 0x80,
        Code::MalformedPacket => 0x81,
        Code::ProtocolError => 0x82,
        Code::ImplementationSpecificError => 0x83,
        Code::UnsupportedProtocolVersion => 0x84,
        Code::ClientIdentifierNotValid => 0x85,
        Code::BadUserNamePassword => 0x86,
        Code::NotAuthorized => 0x87,
        Code::ServerUnavailable => 0x88,
        Code::ServerBusy => 0x89,
        Code::Banned => 0x8a,
        Code::BadAuthenticationMethod => 0x8c,
        Code::TopicNameInvalid => 0x90,
        Code::PacketTooLarge => 0x95,
        Code::QuotaExceeded => 0x97,
        Code::PayloadFormatInvalid => 0x99,
        Code::RetainNotSupported => 0x9a,
        Code::QoSNotSupported => 0x9b,
        Code::UseAnotherServer => 0x9c,
        Code::ServerMoved => 0x9d,
        Code::ConnectionRateExceeded => 0x9f,
    }
}
