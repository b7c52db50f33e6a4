//! The reason codes of MQTT 5 in words, with what to do about them.

/// What a code means, and what helps against it wherever it comes ("" if nothing is known to).
fn words(code: u8) -> Option<(&'static str, &'static str)> {
    const MAY_PUBLISH: &str = "give the site's user the right to publish to its topics (Mosquitto: acl_file)";
    Some(match code {
        0x80 => ("unspecified error", "the broker's own log says more"),
        0x81 => ("malformed packet", "the broker's own log says more"),
        0x82 => ("protocol error", "the broker's own log says more"),
        0x83 => ("implementation specific error", "the broker's own log says more"),
        0x84 => ("unsupported protocol version", "the broker must speak MQTT 5"),
        0x85 => ("client identifier not valid", "let the broker admit client ids that begin with tallyd-"),
        0x86 => ("bad user name or password", ""),
        0x87 => ("not authorized", ""),
        0x88 => ("server unavailable", ""),
        0x89 => ("server busy", ""),
        0x8a => ("banned", "the broker has blocked this client: lift that there"),
        0x8b => ("server shutting down", ""),
        0x8c => ("bad authentication method", ""),
        0x8d => ("keep alive timeout", "the link to the broker is slow or loses packets"),
        0x8e => ("session taken over", "another client uses the same client id"),
        0x8f => ("topic filter invalid", MAY_PUBLISH),
        0x90 => ("topic name invalid", "the broker limits what a topic is: its length, levels or characters"),
        0x91 => ("packet identifier in use", ""),
        0x93 => ("receive maximum exceeded", ""),
        0x94 => ("topic alias invalid", ""),
        0x95 => {
            ("packet too large", "raise the broker's limit (Mosquitto: max_packet_size, message_size_limit)")
        }
        0x96 => ("message rate too high", "raise the broker's limit"),
        0x97 => ("quota exceeded", "raise the broker's limit, or free what it counts"),
        0x98 => ("administrative action", "somebody at the broker closed the connection"),
        0x99 => ("payload format invalid", "the broker checks payloads: let it take the site's"),
        0x9a => (
            "retain not supported",
            "let the broker keep retained messages (Mosquitto: retain_available true)",
        ),
        0x9b => {
            ("QoS not supported", "tallyd needs QoS 1 to know what is delivered (Mosquitto: max_qos 1 or 2)")
        }
        0x9c | 0x9d => ("use another server", ""),
        0x9f => ("connection rate exceeded", "too many connections in a short time"),
        0xa0 => ("maximum connect time", ""),
        0xa2 => ("wildcard subscriptions not supported", ""),
        // As MQTT 3.1.1 brokers answer a CONNECT of version 5.
        1 => ("unacceptable protocol version", "the broker must speak MQTT 5"),
        2 => ("client identifier rejected", "let the broker admit client ids that begin with tallyd-"),
        3 => ("server unavailable", ""),
        4 => ("bad user name or password", ""),
        5 => ("not authorized", ""),
        _ => return None,
    })
}

/// The code's meaning and number.
pub(crate) fn named(code: u8) -> String {
    match words(code) {
        Some((name, _)) => format!("{name} (0x{code:02X})"),
        None => format!("reason 0x{code:02X}"),
    }
}

/// Why a connection was refused or closed, with what to do. `section`: of the configuration; it has the `url`.
pub(super) fn of_connection(code: u8, section: &str) -> String {
    let advice = match code {
        4 | 5 | 0x86 | 0x8c => {
            &*format!("check the user in {section}.url, its password and whether the broker knows it")
        }
        0x87 => &*format!("check the user in {section}.url, its password, and what the broker lets it do"),
        0x9c | 0x9d => &*format!("write the other broker into {section}.url"),
        _ => words(code).map_or("", |(_, advice)| advice),
    };
    with_advice(code, advice)
}

/// Why a message was refused, with what to do.
pub(crate) fn of_message(code: u8) -> String {
    let advice = match code {
        0x87 => "give the site's user the right to publish to its topics (Mosquitto: acl_file)",
        _ => words(code).map_or("", |(_, advice)| advice),
    };
    with_advice(code, advice)
}

fn with_advice(code: u8, advice: &str) -> String {
    let name = named(code);
    if advice.is_empty() { name } else { format!("{name}; {advice}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_told_in_words() {
        for code in (0x80..=0xa2).filter(|code| !matches!(code, 0x92 | 0x9e | 0xa1)) {
            assert!(!named(code).starts_with("reason"), "{code:#x}");
        }
        assert_eq!(named(0x95), "packet too large (0x95)");
        assert_eq!(named(0xf0), "reason 0xF0");
        for code in [4, 5, 0x86, 0x87, 0x8c, 0x9c, 0x9d] {
            assert!(of_connection(code, "ingest.mqtt").contains("ingest.mqtt.url"), "{code:#x}");
        }
        assert!(of_message(0x87).contains("acl_file"));
        assert!(of_connection(0x9b, "upstream").contains("max_qos"));
    }
}
