//! Metrics of the broker connection, from the status of this box's upstream.

use serde_json::Value;

use super::Text;
use crate::node::status::NodeStatus;

/// What `upstream.state` can be.
const STATES: [&str; 4] = ["off", "standby", "connecting", "connected"];

pub(super) fn broker(text: &mut Text, status: &NodeStatus) {
    let upstream = &status.upstream;
    let state = upstream["state"].as_str().unwrap_or("off");
    text.family(
        "tallyd_upstream_state",
        "gauge",
        "1 for the present state of this box's upstream, 0 for the others.",
    );
    for one in STATES {
        text.sample("tallyd_upstream_state", &[("state", one)], u8::from(one == state));
    }
    for (name, help, is) in [
        ("tallyd_upstream_connected", "1 if this box is connected to the broker.", state == "connected"),
        (
            "tallyd_upstream_trouble",
            "1 if an upstream error occurred since the last summary was delivered.",
            !upstream["last_error"].is_null(),
        ),
        (
            "tallyd_upstream_other_site",
            "1 if another site publishes under this site's topics.",
            !upstream["other_site"].is_null(),
        ),
    ] {
        text.gauge(name, help, u8::from(is));
    }
    for (name, member, help) in [
        ("tallyd_upstream_connections_total", "connections", "Connections made to the broker."),
        (
            "tallyd_upstream_published_total",
            "published",
            "Summaries published, including those published again.",
        ),
        (
            "tallyd_upstream_repeated_total",
            "repeated",
            "Summaries that this process published again: subscribers may receive them twice.",
        ),
        ("tallyd_upstream_delivered_total", "acknowledged", "Summaries that the broker acknowledged."),
        ("tallyd_upstream_refused_total", "refused", "Messages that the broker refused."),
        (
            "tallyd_upstream_undeliverable_total",
            "undeliverable",
            "Summaries published to the undeliverable topic.",
        ),
    ] {
        text.counter(name, help, number(upstream, member));
    }
    text.gauge(
        "tallyd_upstream_refused_topics",
        "Topics that the broker refuses at present, at most 20.",
        upstream["refuses"].as_array().map_or(0, Vec::len),
    );
    text.gauge(
        "tallyd_outbox_held",
        "Summaries that the broker accepts on no topic; they are held and retried.",
        status.outbox.held,
    );
}

fn number(upstream: &Value, member: &str) -> u64 {
    upstream[member].as_u64().unwrap_or_default()
}
