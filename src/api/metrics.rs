//! `GET /metrics`: Prometheus text (exposition format 0.0.4), names `tallyd_*`, base units.
//!
//! The text is written by hand: the figures are kept elsewhere, and the format has three kinds of lines.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;

mod broker;

use super::{ApiState, typed_response};
use crate::dropped::{DroppedMessages, REASONS};
use crate::figures::Family;
use crate::metrics::Metrics;
use crate::node::status::{AdaptiveTimeoutStatus, DISK_OK, NodeRole, NodeStatus, StateVerdict};
use crate::node::{DiskFault, TransferReason};
use crate::transport::TransportMetrics;

/// `GET /metrics`
pub(super) async fn metrics(State(shared): State<Arc<ApiState>>) -> Response<Body> {
    let mut text = Text::default();
    let status = shared.node.status();
    raft(&mut text, &status);
    site(&mut text, &status);
    adaptive_timeout(&mut text, &status.adaptive_timeout);
    disk(&mut text, &status.storage);
    ways_in(&mut text, &status);
    broker::broker(&mut text, &status);
    write_counters(&mut text, shared.node.metrics());
    write_dropped(&mut text, &shared.node.metrics().dropped, &[]);
    connections(&mut text, shared.node.transport_metrics(), &[]);
    let watchers = shared.watchers.load(Ordering::Relaxed);
    text.gauge("tallyd_api_watchers", "Clients of /v1/watch that are connected.", watchers);
    log_figures(&mut text);
    text.into_response()
}

fn raft(text: &mut Text, status: &NodeStatus) {
    text.family(
        "tallyd_build_info",
        "gauge",
        "Always 1; labels give the version and the names of the box and its site.",
    );
    text.sample(
        "tallyd_build_info",
        &[
            ("version", status.version),
            ("site", &status.site),
            ("site_id", &status.site_id),
            ("node", &status.node),
        ],
        1,
    );
    text.gauge("tallyd_ready", "1 if this box can commit.", u8::from(status.ready));
    text.gauge("tallyd_leader", "1 if this box is the leader.", u8::from(status.role == NodeRole::Leader));
    text.gauge("tallyd_term", "The current term.", status.term);
    text.gauge(
        "tallyd_commit_index",
        "Index up to which the log is committed, as far as this box knows.",
        status.commit,
    );
    text.gauge("tallyd_applied_index", "Index up to which this box has applied the log.", status.applied);
    text.gauge("tallyd_last_index", "Index of the last entry of this box's log.", status.last);
    text.counter(
        "tallyd_leader_late_total",
        "Times that this box led and its loop woke later than an election timeout.",
        status.adaptive_timeout.leader_late,
    );
    text.counter(
        "tallyd_digest_mismatches_total",
        "Times that this box found its state to differ from another box's.",
        status.state_check.mismatches,
    );
    text.gauge(
        "tallyd_state_out_of_service",
        "1 while this box is out of service to replace its wrong state.",
        u64::from(status.state_check.state == StateVerdict::OutOfService),
    );
    text.counter("tallyd_campaigns_total", "Campaigns that this box began.", status.elections.campaigns);
    text.counter(
        "tallyd_leader_changes_total",
        "Changes of the leader that this box knows.",
        status.elections.leader_changes,
    );
    text.family(
        "tallyd_leadership_transfers_total",
        "counter",
        "Leadership transfers by this box, by reason: it did not reach the broker, its disk was unhealthy or \
         slow, it stopped, its state differed, an operator requested it.",
    );
    let transfers = &status.transfers;
    for (reason, count) in [
        (TransferReason::Broker, transfers.broker),
        (TransferReason::Disk, transfers.disk),
        (TransferReason::Stopping, transfers.stopping),
        (TransferReason::Asked, transfers.asked),
        (TransferReason::State, transfers.state),
    ] {
        text.sample("tallyd_leadership_transfers_total", &[("reason", reason.as_str())], count);
    }
    text.counter(
        "tallyd_leadership_transfers_failed_total",
        "Leadership transfers that failed.",
        transfers.failed,
    );
    text.gauge(
        "tallyd_tolerated_failures",
        "Further box failures that the site tolerates.",
        status.tolerates.failures,
    );
    text.family("tallyd_member_connected", "gauge", "1 if this box is connected to that member.");
    for member in &status.members {
        let labels = [("member", member.name.as_str())];
        text.sample("tallyd_member_connected", &labels, u8::from(member.connected));
    }
    text.family("tallyd_member_rtt_seconds", "gauge", "Round-trip time of the connection to that member.");
    for member in &status.members {
        if let Some(rtt_us) = member.rtt_us {
            let labels = [("member", member.name.as_str())];
            text.sample("tallyd_member_rtt_seconds", &labels, seconds(rtt_us));
        }
    }
}

fn site(text: &mut Text, status: &NodeStatus) {
    text.gauge("tallyd_series", "Series in the site.", status.series);
    text.gauge("tallyd_meters", "Meters in the site.", status.meters.count);
    text.gauge("tallyd_meter_jumps_held", "Unconfirmed jumps of meters.", status.meters.held);
    let outbox = &status.outbox;
    text.gauge("tallyd_outbox_waiting", "Summaries that are not delivered yet.", outbox.waiting);
    text.gauge("tallyd_outbox_unnumbered", "Summaries that have no number yet.", outbox.unnumbered);
    text.gauge("tallyd_outbox_numbered_seq", "Number of the latest numbered summary.", outbox.numbered);
    text.gauge(
        "tallyd_outbox_delivered_seq",
        "Number up to which the broker has acknowledged summaries.",
        outbox.delivered,
    );
    let clock = &status.clock;
    text.gauge("tallyd_site_time_seconds", "Site time, in seconds since 1970.", millis(clock.site_ms));
    text.gauge(
        "tallyd_wall_time_seconds",
        "Wall clock of this box, in seconds since 1970.",
        millis(clock.wall_ms),
    );
    text.gauge(
        "tallyd_clock_synced",
        "1 if site time agrees with synchronised clocks to a second.",
        u8::from(clock.synced),
    );
    let held = clock.held_ms.map_or(0.0, |held| millis(held) - millis(clock.site_ms));
    text.gauge("tallyd_clock_held_seconds", "Jump of site time that is held; 0 if none.", held);
    member_clocks(text, status);
    text.gauge("tallyd_uptime_seconds", "Time since this process started.", status.uptime_s);
}

fn member_clocks(text: &mut Text, status: &NodeStatus) {
    text.family(
        "tallyd_clock_offset_seconds",
        "gauge",
        "How far a box's wall clock is ahead of site time: at the leader for all boxes, elsewhere for this \
         one.",
    );
    for member in &status.members {
        if let Some(offset_ms) = member.clock_offset_ms {
            let labels = [("member", member.name.as_str())];
            text.sample("tallyd_clock_offset_seconds", &labels, offset_ms as f64 / 1e3);
        }
    }
    text.family(
        "tallyd_member_clock_synced",
        "gauge",
        "1 if a time service synchronises that box's wall clock.",
    );
    for member in &status.members {
        if let Some(synced) = member.clock_synced {
            let labels = [("member", member.name.as_str())];
            text.sample("tallyd_member_clock_synced", &labels, u8::from(synced));
        }
    }
}

fn adaptive_timeout(text: &mut Text, adaptive_timeout: &AdaptiveTimeoutStatus) {
    text.gauge(
        "tallyd_election_timeout_seconds",
        "Election timeout in force.",
        millis(adaptive_timeout.election_timeout_ms),
    );
    text.gauge(
        "tallyd_heartbeat_interval_seconds",
        "Heartbeat interval in force.",
        millis(adaptive_timeout.heartbeat_ms),
    );
    text.gauge(
        "tallyd_round_trip_high_seconds",
        "High quantile of the round trips to the slowest connected box, which the election timeout follows.",
        seconds(adaptive_timeout.round_trip_us),
    );
    text.gauge(
        "tallyd_disk_write_high_seconds",
        "High quantile of the write times of this box's disk, which the election timeout follows.",
        seconds(adaptive_timeout.sync_us),
    );
}

fn disk(text: &mut Text, storage: &crate::node::status::StorageStatus) {
    text.gauge("tallyd_storage_ok", "1 if the disk accepts writes.", u8::from(storage.state.is_none()));
    text.counter(
        "tallyd_storage_written_bytes_total",
        "Bytes that this process wrote to log and snapshots.",
        storage.bytes_written,
    );
    text.counter("tallyd_storage_syncs_total", "Syncs of log and snapshots.", storage.syncs);
    text.gauge("tallyd_storage_sync_mean_seconds", "Mean duration of a sync.", seconds(storage.sync_us_mean));
    text.gauge(
        "tallyd_storage_sync_max_seconds",
        "Longest duration of a sync.",
        seconds(storage.sync_us_max),
    );
    text.counter(
        "tallyd_storage_failures_total",
        "Groups of entries that could not be written.",
        storage.failures,
    );
    text.gauge(
        "tallyd_storage_waiting_seconds",
        "Age of the write that the disk is working on.",
        millis(storage.waiting_ms),
    );
    text.family("tallyd_storage_state", "gauge", "1 for the present state of the disk, 0 for the others.");
    for state in std::iter::once(None).chain(DiskFault::ALL.map(Some)) {
        let name = state.map_or(DISK_OK, DiskFault::as_str);
        text.sample("tallyd_storage_state", &[("state", name)], u8::from(storage.state == state));
    }
    text.counter(
        "tallyd_snapshot_failures_total",
        "Snapshots that could not be written.",
        storage.snapshot_failures,
    );
    text.gauge(
        "tallyd_replay_bytes",
        "Bytes of log since the latest snapshot, which a restart replays.",
        storage.replay_bytes,
    );
    text.gauge("tallyd_storage_bytes", "Total size of log, spare files and snapshots.", storage.bytes_used);
    text.gauge(
        "tallyd_storage_max_bytes",
        "Limit of the total size of log, spare files and snapshots.",
        storage.bytes_max,
    );
    text.gauge("tallyd_log_bytes", "Size of the log on disk.", storage.log_bytes);
    text.gauge("tallyd_snapshot_bytes", "Size of the latest snapshot.", storage.snapshot_bytes);
    text.gauge("tallyd_snapshot_index", "Index of the latest snapshot.", storage.snapshot_index);
}

fn ways_in(text: &mut Text, status: &NodeStatus) {
    let accumulator = &status.accumulator;
    text.gauge(
        "tallyd_pending_series",
        "Series with counts that are not in a batch yet.",
        accumulator.pending,
    );
    text.gauge("tallyd_waiting_requests", "Adds that wait for their batch.", accumulator.waiting);
    text.gauge(
        "tallyd_unsettled_batches",
        "Batches saved at the last stop that are not committed yet.",
        accumulator.unsettled,
    );
    text.counter("tallyd_batches_total", "Batches sent.", accumulator.batches);
    text.counter("tallyd_answered_adds_total", "Adds answered as committed.", accumulator.answered);
    text.counter(
        "tallyd_refused_cells_total",
        "Cells of batches that the site refused.",
        accumulator.refused,
    );
    for family in status.ingest_figures.values().flat_map(|figures| figures.iter()) {
        text.told(family);
    }
    // What the ways in show of themselves: their numbers, by the way's name and the number's.
    text.family("tallyd_ingest", "untyped", "Figures of the ways in; /v1/status explains them.");
    for (way, part) in &status.ingest {
        for (name, value) in part.as_object().into_iter().flatten() {
            if let Some(value) = value.as_f64() {
                text.sample("tallyd_ingest", &[("way", way), ("figure", name)], value);
            }
        }
    }
}

/// Writes the counters of all modules.
fn write_counters(text: &mut Text, metrics: &Metrics) {
    for (name, help, counter) in [
        ("tallyd_api_requests_total", "Requests of HTTP clients.", &metrics.api_requests),
        (
            "tallyd_api_problems_total",
            "Requests of HTTP clients that were answered with a problem.",
            &metrics.api_problems,
        ),
        (
            "tallyd_api_turned_away_total",
            "Connections of HTTP clients that were refused because too many were open.",
            &metrics.api_turned_away,
        ),
        ("tallyd_leaderships_total", "Times that this box became the leader.", &metrics.leaderships),
        ("tallyd_entries_applied_total", "Log entries applied.", &metrics.entries_applied),
        (
            "tallyd_entries_malformed_total",
            "Malformed log entries, which changed nothing.",
            &metrics.entries_malformed,
        ),
        ("tallyd_storage_hangs_total", "Times that the disk did not answer in time.", &metrics.disk_hangs),
    ] {
        text.counter(name, help, counter.get());
    }
}

/// Writes the counters of dropped messages by reason, with `labels` first.
pub(crate) fn write_dropped(text: &mut Text, refusals: &DroppedMessages, labels: &[(&str, &str)]) {
    for (name, malformed, help) in [
        ("tallyd_peer_frames_malformed_total", true, "Malformed messages of members, by reason."),
        (
            "tallyd_raft_ignored_total",
            false,
            "Ignored messages of members, by reason: stale, not awaited, of an unknown sender, \
             contradictory.",
        ),
    ] {
        text.family(name, "counter", help);
        for reason in REASONS.into_iter().filter(|reason| reason.is_malformed() == malformed) {
            let labels = [labels, &[("reason", reason.as_str())]].concat();
            text.sample(name, &labels, refusals.count(reason));
        }
    }
}

/// Writes the counters of connections between the boxes, and of refused connections by reason.
pub(crate) fn connections(text: &mut Text, metrics: &TransportMetrics, labels: &[(&str, &str)]) {
    for (name, help, value) in metrics.counters() {
        let name = format!("tallyd_peer_{name}_total");
        text.family(&name, "counter", help);
        text.sample(&name, labels, value);
    }
    let name = "tallyd_peer_refused_total";
    text.family(name, "counter", "Connections with peers that either side refused, by reason.");
    for (reason, value) in metrics.refusals() {
        text.sample(name, &[labels, &[("reason", reason)]].concat(), value);
    }
}

/// Writes the counters of the log.
pub(crate) fn log_figures(text: &mut Text) {
    text.counter(
        "tallyd_log_lines_lost_total",
        "Log lines lost because the log could not be written, or not fast enough.",
        crate::logging::lines_lost(),
    );
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn millis(millis: u64) -> f64 {
    millis as f64 / 1e3
}

/// The text under construction. Writing to a `String` cannot fail.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    /// Turns the text into an answer.
    pub(crate) fn into_response(self) -> Response<Body> {
        typed_response("text/plain; version=0.0.4; charset=utf-8", self.0)
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, &[], value);
    }

    pub(crate) fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// A family as another room tells it.
    fn told(&mut self, family: &Family) {
        self.family(family.name, family.kind, family.help);
        for (labels, value) in &family.samples {
            let labels: Vec<(&str, &str)> = labels.iter().map(|(label, value)| (*label, &**value)).collect();
            self.sample(family.name, &labels, value);
        }
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (place, (label, value)) in labels.iter().enumerate() {
            let _ = write!(self.0, "{}{label}=\"", if place == 0 { "{" } else { "," });
            for c in value.chars() {
                match c {
                    '"' => self.0.push_str("\\\""),
                    '\\' => self.0.push_str("\\\\"),
                    '\n' => self.0.push_str("\\n"),
                    c => self.0.push(c),
                }
            }
            self.0.push('"');
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_label_cannot_end_its_line() {
        let mut text = Text::default();
        text.family("tallyd_x", "gauge", "Of x.");
        text.sample("tallyd_x", &[("a", "1\"\\\n2"), ("b", "")], 1.5);
        assert_eq!(
            text.0,
            "# HELP tallyd_x Of x.\n# TYPE tallyd_x gauge\ntallyd_x{a=\"1\\\"\\\\\\n2\",b=\"\"} 1.5\n"
        );
    }

    #[test]
    fn every_figure_is_described_once_and_named_after_the_program() {
        let mut text = Text::default();
        let mut status = NodeStatus::default();
        status.members.push(crate::node::status::MemberStatus {
            rtt_us: Some(70),
            clock_offset_ms: Some(-1500),
            clock_synced: Some(true),
            ..Default::default()
        });
        status.clock = crate::node::status::ClockStatus {
            site_ms: 1000,
            held_ms: Some(7_201_000),
            ..Default::default()
        };
        status.ingest.insert("statsd".to_owned(), json!({"datagrams": 5, "listen": ["x"], "lost": 3}));
        let lines = Family::new("tallyd_statsd_refused_total", "counter", "Lines that were refused.");
        let figures = [lines.with([("reason", "bad-value")], 2).with([("reason", "set")], 0)];
        status.ingest_figures.insert("statsd", figures.into());
        raft(&mut text, &status);
        site(&mut text, &status);
        adaptive_timeout(&mut text, &status.adaptive_timeout);
        disk(&mut text, &status.storage);
        status.upstream =
            serde_json::json!({"state": "connected", "published": 7, "refuses": [{"topic": "t"}]});
        ways_in(&mut text, &status);
        broker::broker(&mut text, &status);
        assert!(
            text.0.contains("\ntallyd_upstream_connected 1\n")
                && text.0.contains("\ntallyd_upstream_published_total 7\n")
        );
        write_counters(&mut text, &Metrics::default());
        write_dropped(&mut text, &DroppedMessages::default(), &[]);
        connections(&mut text, &TransportMetrics::default(), &[]);
        let mut described = std::collections::BTreeSet::new();
        for line in text.0.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert!(described.insert(rest.split(' ').next().unwrap()), "{line}");
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                assert!(name.starts_with("tallyd_") && described.contains(name), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<f64>().is_ok(), "{line}");
            }
        }
        assert!(text.0.contains("tallyd_ingest{way=\"statsd\",figure=\"datagrams\"} 5\n"), "{}", text.0);
        assert!(text.0.contains("tallyd_statsd_refused_total{reason=\"bad-value\"} 2\n"), "{}", text.0);
        assert!(text.0.contains("tallyd_member_rtt_seconds{member=\"\"} 0.00007\n"), "{}", text.0);
        assert!(text.0.contains("tallyd_clock_offset_seconds{member=\"\"} -1.5\n"), "{}", text.0);
        assert!(text.0.contains("tallyd_clock_held_seconds 7200\n"), "{}", text.0);
    }
}
