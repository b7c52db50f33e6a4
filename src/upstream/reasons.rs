//! Why the broker does not take a number, in words.

pub(super) use crate::mqtt::of_message;

/// Why a number is set aside: a reason code of MQTT, or 0 for a connection that broke over it.
pub(super) fn of_cause(cause: u8) -> String {
    match cause {
        0 => "the connection broke three times when it was published alone".to_owned(),
        code => crate::mqtt::named(code),
    }
}
