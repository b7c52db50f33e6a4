//! How the broker is, as this box's upstream shows it in the status.

use serde_json::Value;

use super::Text;
use crate::node::status::NodeStatus;

/// What `upstream.state` can be.
const STATES: [&str; 4] = ["off", "standby", "connecting", "connected"];

pub(super) fn broker(text: &mut Text, status: &NodeStatus) {
    let upstream = &status.upstream;
    let state = upstream["state"].as_str().unwrap_or("off");
    text.family("tallyd_upstream_state", "gauge", "1 for what the upstream of this box is doing.");
    for one in STATES {
        text.sample("tallyd_upstream_state", &[("state", one)], u8::from(one == state));
    }
    for (name, help, is) in [
        ("tallyd_upstream_connected", "1 if this box is connected to the broker.", state == "connected"),
        (
            "tallyd_upstream_trouble",
            "1 if something went wrong upstream since the last summary was delivered.",
            !upstream["last_error"].is_null(),
        ),
        (
            "tallyd_upstream_other_site",
            "1 if another site publishes under the topics of this one.",
            !upstream["other_site"].is_null(),
        ),
    ] {
        text.gauge(name, help, u8::from(is));
    }
    for (name, member, help) in [
        ("tallyd_upstream_connections_total", "connections", "Connections to the broker that were made."),
        (
            "tallyd_upstream_published_total",
            "published",
            "Summaries handed to the broker, those published again included.",
        ),
        (
            "tallyd_upstream_repeated_total",
            "repeated",
            "Of these, how many this process had published before: subscribers may have them twice.",
        ),
        ("tallyd_upstream_delivered_total", "acknowledged", "Summaries that the broker acknowledged."),
        ("tallyd_upstream_refused_total", "refused", "Messages that the broker refused."),
        (
            "tallyd_upstream_undeliverable_total",
            "undeliverable",
            "Summaries published to the topic for those that their own topics do not take.",
        ),
    ] {
        text.counter(name, help, number(upstream, member));
    }
    text.gauge(
        "tallyd_upstream_refused_topics",
        "Topics that the broker refuses now, 20 at most.",
        upstream["refuses"].as_array().map_or(0, Vec::len),
    );
    text.gauge(
        "tallyd_outbox_held",
        "Summaries that the broker takes on no topic: held, and tried again.",
        status.outbox.held,
    );
}

fn number(upstream: &Value, member: &str) -> u64 {
    upstream[member].as_u64().unwrap_or_default()
}
