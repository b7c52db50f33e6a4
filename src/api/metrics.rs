//! `GET /metrics`: Prometheus text (exposition format 0.0.4), names `tallyd_*`, base units.
//!
//! Written by hand: the figures are kept elsewhere already, and the format is three kinds of lines.

use std::fmt::{Display, Write as _};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;

mod broker;

use super::{Shared, typed_response};
use crate::dropped::{DroppedMessages, REASONS};
use crate::figures::Family;
use crate::metrics::Metrics;
use crate::node::status::{AdaptiveTimeoutStatus, DISK_OK, NodeRole, NodeStatus, StateVerdict};
use crate::node::{DiskFault, TransferReason};
use crate::transport::TransportMetrics;

/// `GET /metrics`
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Response<Body> {
    let mut text = Text::default();
    let status = shared.node.status();
    raft(&mut text, &status);
    site(&mut text, &status);
    adaptive_timeout(&mut text, &status.adaptive_timeout);
    disk(&mut text, &status.storage);
    ways_in(&mut text, &status);
    broker::broker(&mut text, &status);
    counted(&mut text, shared.node.metrics());
    refused(&mut text, &shared.node.metrics().dropped, &[]);
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
        "1, with the version and what the box and its site are called.",
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
    text.gauge("tallyd_leader", "1 if this box leads.", u8::from(status.role == NodeRole::Leader));
    text.gauge("tallyd_term", "The current term.", status.term);
    text.gauge(
        "tallyd_commit_index",
        "Up to which index the log is committed, as far as this box knows.",
        status.commit,
    );
    text.gauge("tallyd_applied_index", "Up to which index this box has applied the log.", status.applied);
    text.gauge("tallyd_last_index", "The end of this box's log.", status.last);
    text.counter(
        "tallyd_leader_late_total",
        "How often this box led and its loop woke later than an election timeout.",
        status.adaptive_timeout.leader_late,
    );
    text.counter(
        "tallyd_digest_mismatches_total",
        "How often this box saw that its state differs from another box's.",
        status.state_check.mismatches,
    );
    text.gauge(
        "tallyd_state_out_of_service",
        "1 while this box's state is known to be wrong and it gets it anew.",
        u64::from(status.state_check.state == StateVerdict::OutOfService),
    );
    text.counter(
        "tallyd_campaigns_total",
        "How often this box began to campaign.",
        status.elections.campaigns,
    );
    text.counter(
        "tallyd_leader_changes_total",
        "How often the leader that this box knows changed.",
        status.elections.leader_changes,
    );
    text.family(
        "tallyd_leadership_transfers_total",
        "counter",
        "How often this box transferred leadership, by why: it did not reach the broker, its disk was unhealthy or slow, it \
         stopped, somebody asked.",
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
        "How often the other box did not take leadership.",
        transfers.failed,
    );
    text.gauge(
        "tallyd_tolerated_failures",
        "Boxes that can fail from now on without stopping the site.",
        status.tolerates.failures,
    );
    text.family("tallyd_member_connected", "gauge", "1 if this box reaches that member.");
    for member in &status.members {
        let labels = [("member", member.name.as_str())];
        text.sample("tallyd_member_connected", &labels, u8::from(member.connected));
    }
    text.family("tallyd_member_rtt_seconds", "gauge", "Round trip of the connection to that member.");
    for member in &status.members {
        if let Some(rtt_us) = member.rtt_us {
            let labels = [("member", member.name.as_str())];
            text.sample("tallyd_member_rtt_seconds", &labels, seconds(rtt_us));
        }
    }
}

fn site(text: &mut Text, status: &NodeStatus) {
    text.gauge("tallyd_series", "Series of the site.", status.series);
    text.gauge("tallyd_meters", "Meters that the site keeps the last reading of.", status.meters.count);
    text.gauge("tallyd_meter_jumps_held", "Jumps of meters that are not confirmed yet.", status.meters.held);
    let outbox = &status.outbox;
    text.gauge("tallyd_outbox_waiting", "Summaries that are not delivered.", outbox.waiting);
    text.gauge("tallyd_outbox_unnumbered", "Of these, how many have no number yet.", outbox.unnumbered);
    text.gauge("tallyd_outbox_numbered_seq", "The last number that a summary was given.", outbox.numbered);
    text.gauge(
        "tallyd_outbox_delivered_seq",
        "Up to which number the broker has acknowledged.",
        outbox.delivered,
    );
    let clock = &status.clock;
    text.gauge("tallyd_site_time_seconds", "Site time, seconds since 1970.", millis(clock.site_ms));
    text.gauge(
        "tallyd_wall_time_seconds",
        "This box's wall clock, seconds since 1970.",
        millis(clock.wall_ms),
    );
    text.gauge(
        "tallyd_clock_synced",
        "1 if site time is that of synchronised clocks, to a second.",
        u8::from(clock.synced),
    );
    let held = clock.held_ms.map_or(0.0, |held| millis(held) - millis(clock.site_ms));
    text.gauge("tallyd_clock_held_seconds", "The jump of site time that is held; 0 without one.", held);
    member_clocks(text, status);
    text.gauge("tallyd_uptime_seconds", "Since this process started.", status.uptime_s);
}

fn member_clocks(text: &mut Text, status: &NodeStatus) {
    text.family(
        "tallyd_clock_offset_seconds",
        "gauge",
        "How far a box's wall clock is ahead of site time: at the leader of all boxes, elsewhere of this one.",
    );
    for member in &status.members {
        if let Some(offset_ms) = member.clock_offset_ms {
            let labels = [("member", member.name.as_str())];
            text.sample("tallyd_clock_offset_seconds", &labels, offset_ms as f64 / 1e3);
        }
    }
    text.family("tallyd_member_clock_synced", "gauge", "1 if a time service keeps that box's wall clock.");
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
        "The election timeout in force.",
        millis(adaptive_timeout.election_timeout_ms),
    );
    text.gauge(
        "tallyd_heartbeat_interval_seconds",
        "How often a leader shows itself, in force.",
        millis(adaptive_timeout.heartbeat_ms),
    );
    text.gauge(
        "tallyd_round_trip_high_seconds",
        "A high quantile of the round trips to the slowest connected box, which the timeout follows.",
        seconds(adaptive_timeout.round_trip_us),
    );
    text.gauge(
        "tallyd_disk_write_high_seconds",
        "A high quantile of the time that this box's disk takes for a write, which the timeout follows.",
        seconds(adaptive_timeout.sync_us),
    );
}

fn disk(text: &mut Text, storage: &crate::node::status::StorageStatus) {
    text.gauge("tallyd_storage_ok", "1 if the disk takes writes.", u8::from(storage.state.is_none()));
    text.counter(
        "tallyd_storage_written_bytes_total",
        "Bytes written to log and snapshots by this process.",
        storage.bytes_written,
    );
    text.counter("tallyd_storage_syncs_total", "Syncs of the log and of snapshots.", storage.syncs);
    text.gauge("tallyd_storage_sync_mean_seconds", "Mean time of a sync.", seconds(storage.sync_us_mean));
    text.gauge("tallyd_storage_sync_max_seconds", "Longest sync.", seconds(storage.sync_us_max));
    text.counter("tallyd_storage_failures_total", "Groups that the disk did not take.", storage.failures);
    text.gauge(
        "tallyd_storage_waiting_seconds",
        "For how long the disk has had the group that it is writing.",
        millis(storage.waiting_ms),
    );
    text.family("tallyd_storage_state", "gauge", "1 for the state that the disk is in.");
    for state in std::iter::once(None).chain(DiskFault::ALL.map(Some)) {
        let name = state.map_or(DISK_OK, DiskFault::as_str);
        text.sample("tallyd_storage_state", &[("state", name)], u8::from(storage.state == state));
    }
    text.counter(
        "tallyd_snapshot_failures_total",
        "Snapshots of this box that could not be written.",
        storage.snapshot_failures,
    );
    text.gauge(
        "tallyd_replay_bytes",
        "Log since the latest snapshot: what a restart replays.",
        storage.replay_bytes,
    );
    text.gauge(
        "tallyd_storage_bytes",
        "Size of log, spare files and snapshots together.",
        storage.bytes_used,
    );
    text.gauge("tallyd_storage_max_bytes", "What they may have together.", storage.bytes_max);
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
        "Batches from before the last stop that are not committed yet.",
        accumulator.unsettled,
    );
    text.counter("tallyd_batches_total", "Batches sent.", accumulator.batches);
    text.counter("tallyd_answered_adds_total", "Adds answered as committed.", accumulator.answered);
    text.counter(
        "tallyd_refused_cells_total",
        "Cells of batches that were refused where they were applied.",
        accumulator.refused,
    );
    for family in status.ingest_figures.values().flat_map(|figures| figures.iter()) {
        text.told(family);
    }
    // What the ways in show of themselves: their numbers, by the way's name and the number's.
    text.family("tallyd_ingest", "untyped", "Figures of the ways in; /v1/status tells what they are.");
    for (way, part) in &status.ingest {
        for (name, value) in part.as_object().into_iter().flatten() {
            if let Some(value) = value.as_f64() {
                text.sample("tallyd_ingest", &[("way", way), ("figure", name)], value);
            }
        }
    }
}

/// What the rooms count as it happens.
fn counted(text: &mut Text, metrics: &Metrics) {
    for (name, help, counter) in [
        ("tallyd_api_requests_total", "Requests of HTTP clients.", &metrics.api_requests),
        (
            "tallyd_api_problems_total",
            "Of these, how many were answered with a problem.",
            &metrics.api_problems,
        ),
        (
            "tallyd_api_turned_away_total",
            "Connections of HTTP clients that were turned away because all were busy.",
            &metrics.api_turned_away,
        ),
        ("tallyd_leaderships_total", "How often this box became the leader.", &metrics.leaderships),
        ("tallyd_entries_applied_total", "Entries of the log that were applied.", &metrics.entries_applied),
        (
            "tallyd_entries_malformed_total",
            "Entries of the log that could not be read and changed nothing.",
            &metrics.entries_malformed,
        ),
        ("tallyd_storage_hangs_total", "How often the disk did not answer in time.", &metrics.disk_hangs),
    ] {
        text.counter(name, help, counter.get());
    }
}

/// What members sent that led to nothing, by reason; `labels` stand before it.
pub(crate) fn refused(text: &mut Text, refusals: &DroppedMessages, labels: &[(&str, &str)]) {
    for (name, malformed, help) in [
        (
            "tallyd_peer_frames_malformed_total",
            true,
            "What members sent that cannot be read or used, by reason.",
        ),
        (
            "tallyd_raft_ignored_total",
            false,
            "What members sent that led to nothing, by reason: stale, not awaited, of a stranger, contradictory.",
        ),
    ] {
        text.family(name, "counter", help);
        for reason in REASONS.into_iter().filter(|reason| reason.is_malformed() == malformed) {
            let labels = [labels, &[("reason", reason.as_str())]].concat();
            text.sample(name, &labels, refusals.count(reason));
        }
    }
}

/// The connections between the boxes, and those that were refused, by reason.
pub(crate) fn connections(text: &mut Text, metrics: &TransportMetrics, labels: &[(&str, &str)]) {
    for (name, help, value) in metrics.counters() {
        let name = format!("tallyd_peer_{name}_total");
        text.family(&name, "counter", help);
        text.sample(&name, labels, value);
    }
    let name = "tallyd_peer_refused_total";
    text.family(
        name,
        "counter",
        "Connections of peers that were turned away, or turned this box away, by reason.",
    );
    for (reason, value) in metrics.refusals() {
        text.sample(name, &[labels, &[("reason", reason)]].concat(), value);
    }
}

/// What became of the log.
pub(crate) fn log_figures(text: &mut Text) {
    text.counter(
        "tallyd_log_lines_lost_total",
        "Lines of the log that were lost: it could not be written, or not fast enough.",
        crate::logging::lines_lost(),
    );
}

fn seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

fn millis(millis: u64) -> f64 {
    millis as f64 / 1e3
}

/// The text as it grows. Writing to a String cannot fail.
#[derive(Debug, Default)]
pub(crate) struct Text(String);

impl Text {
    /// As an answer.
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
        counted(&mut text, &Metrics::default());
        refused(&mut text, &DroppedMessages::default(), &[]);
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
