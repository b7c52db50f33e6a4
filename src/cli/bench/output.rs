//! What the bench prints: one JSON object, or tables for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use serde_json::Value;

use super::BenchArgs;
use super::control::Leadership;
use super::ledger::{Gap, Proof};
use super::load::Tally;
use super::process::Usage;
use super::statsd::Sent;

/// All runs of one call.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `adds`, `reports`, `failover` or `statsd`.
    pub mode: &'static str,
    /// The boxes.
    pub urls: Vec<String>,
    /// How many series.
    pub series: u32,
    /// Whether adds carried idempotency keys.
    pub keys: bool,
    /// Adds a report; 1 without reports.
    pub batch: u32,
    /// Seconds that each run was to be measured.
    pub seconds: f64,
    /// The runs over HTTP.
    pub runs: Vec<BenchRun>,
    /// The run over StatsD.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statsd: Option<StatsdRun>,
}

/// A run over HTTP.
#[derive(Clone, Debug, Serialize)]
pub struct BenchRun {
    /// Clients.
    pub clients: u32,
    /// Seconds measured.
    pub seconds: f64,
    /// Acknowledged increments in that time.
    pub adds: u64,
    /// A second.
    pub adds_per_s: f64,
    /// Requests a second.
    pub requests_per_s: f64,
    /// Latencies in milliseconds.
    pub p50_ms: f64,
    /// Likewise.
    pub p90_ms: f64,
    /// Likewise.
    pub p99_ms: f64,
    /// Likewise.
    pub max_ms: f64,
    /// Failed tries by type, warm-up and end included.
    pub errors: BTreeMap<String, u64>,
    /// By how much the term rose.
    pub elections: u64,
    /// Before the run.
    pub before: Leadership,
    /// After it.
    pub after: Leadership,
    /// What was acknowledged against what is held, warm-up and end included.
    pub proof: Proof,
    /// Gaps between acknowledgements, in order.
    pub gaps: Vec<Gap>,
    /// What the boxes used.
    pub cost: Cost,
}

/// What the measured processes used.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Cost {
    /// One by one.
    pub boxes: Vec<Usage>,
    /// Processor seconds of them all.
    pub cpu_s: f64,
    /// The same for 100,000 adds.
    pub cpu_s_per_100k_adds: f64,
    /// Bytes that they wrote to disk.
    pub written_bytes: u64,
    /// The same for 1,000 adds.
    pub written_bytes_per_1k_adds: f64,
    /// The largest resident memory of one afterwards.
    pub resident_bytes_max: u64,
    /// Processor seconds of this client.
    pub client_cpu_s: f64,
}

/// A run over StatsD.
#[derive(Clone, Debug, Serialize)]
pub struct StatsdRun {
    /// Increments sent.
    pub sent: u64,
    /// Datagrams that they were in.
    pub datagrams: u64,
    /// In how many seconds.
    pub seconds: f64,
    /// A second.
    pub sent_per_s: f64,
    /// By how much the totals rose.
    pub held: i128,
    /// Sent and not held.
    pub missing: i128,
    /// Datagrams that the box says its kernel dropped, since it started.
    pub lost_datagrams: Option<u64>,
    /// What the box used.
    pub cost: Cost,
}

impl Report {
    pub(super) fn new(args: &BenchArgs, keys: bool) -> Report {
        let mode = match args {
            BenchArgs { statsd: Some(_), .. } => "statsd",
            BenchArgs { failover: true, .. } => "failover",
            BenchArgs { batch: Some(_), .. } => "reports",
            _ => "adds",
        };
        Report {
            mode,
            urls: args.url.clone(),
            series: args.series,
            keys,
            batch: args.batch.unwrap_or(1),
            seconds: args.seconds,
            runs: Vec::new(),
            statsd: None,
        }
    }
}

impl BenchRun {
    pub(super) fn new(
        clients: u32,
        tally: &Tally,
        (before, after): (Leadership, Leadership),
        boxes: Vec<Usage>,
        client_cpu_s: f64,
        proof: Proof,
    ) -> BenchRun {
        let seconds = tally.measured.as_secs_f64();
        let quantile_ms = |quantile| tally.latency.value_at_quantile(quantile) as f64 / 1e3;
        BenchRun {
            clients,
            seconds,
            adds: tally.adds,
            adds_per_s: tally.adds as f64 / seconds,
            requests_per_s: tally.requests as f64 / seconds,
            p50_ms: quantile_ms(0.5),
            p90_ms: quantile_ms(0.9),
            p99_ms: quantile_ms(0.99),
            max_ms: tally.latency.max() as f64 / 1e3,
            errors: tally.errors.clone(),
            elections: after.term.saturating_sub(before.term),
            before,
            after,
            proof,
            gaps: tally.gaps.list().to_vec(),
            cost: Cost::new(boxes, client_cpu_s, tally.adds),
        }
    }

    /// The longest gap, in milliseconds; 0 without any.
    pub fn gap_ms_max(&self) -> f64 {
        self.gaps.iter().map(|gap| gap.ms).fold(0.0, f64::max)
    }
}

impl Cost {
    fn new(boxes: Vec<Usage>, client_cpu_s: f64, adds: u64) -> Cost {
        // Not `sum`: of nothing that is -0.
        let cpu_s = boxes.iter().fold(0.0, |sum, usage| sum + usage.cpu_s);
        let written_bytes: u64 = boxes.iter().map(|usage| usage.written_bytes).sum();
        let each = |amount: f64, of: f64| if adds == 0 { 0.0 } else { amount * of / adds as f64 };
        Cost {
            cpu_s,
            cpu_s_per_100k_adds: each(cpu_s, 1e5),
            written_bytes,
            written_bytes_per_1k_adds: each(written_bytes as f64, 1e3),
            resident_bytes_max: boxes.iter().map(|usage| usage.resident_bytes_after).max().unwrap_or(0),
            client_cpu_s,
            boxes,
        }
    }
}

impl StatsdRun {
    pub(super) fn new(
        sent: &Sent,
        held: i128,
        status: &Value,
        boxes: Vec<Usage>,
        client_cpu_s: f64,
    ) -> StatsdRun {
        StatsdRun {
            sent: sent.increments,
            datagrams: sent.datagrams,
            seconds: sent.seconds,
            sent_per_s: sent.increments as f64 / sent.seconds,
            held,
            missing: i128::from(sent.increments) - held,
            lost_datagrams: status.pointer("/ingest/statsd/lost").and_then(Value::as_u64),
            cost: Cost::new(boxes, client_cpu_s, sent.increments),
        }
    }
}

/// Tables for people.
pub fn table(report: &Report) -> String {
    let mut text = format!(
        "{} at {}: {} series, {}, {} add{} a request, {} s a run\n\n",
        report.mode,
        report.urls.join(", "),
        report.series,
        if report.keys { "idempotency keys" } else { "no keys" },
        report.batch,
        if report.batch == 1 { "" } else { "s" },
        report.seconds,
    );
    if !report.runs.is_empty() {
        text += &aligned(&runs_table(report));
    }
    for run in &report.runs {
        notes(&mut text, run);
    }
    if let Some(statsd) = &report.statsd {
        text += &aligned(&statsd_table(statsd));
    }
    text
}

fn runs_table(report: &Report) -> Vec<Vec<String>> {
    let head = "clients,adds/s,p50 ms,p90 ms,p99 ms,max ms,errors,elections,acknowledged,unknown,held,lost,doubled,\
                longest gap ms,cpu s/100k,MB written/1k,RSS MiB,client cpu s";
    let mut rows = vec![head.split(',').map(str::to_owned).collect()];
    for run in &report.runs {
        let (proof, cost) = (&run.proof, &run.cost);
        let measured = |text: String| if cost.boxes.is_empty() { "-".to_owned() } else { text };
        rows.push(vec![
            run.clients.to_string(),
            format!("{:.0}", run.adds_per_s),
            format!("{:.2}", run.p50_ms),
            format!("{:.2}", run.p90_ms),
            format!("{:.2}", run.p99_ms),
            format!("{:.2}", run.max_ms),
            run.errors.values().sum::<u64>().to_string(),
            run.elections.to_string(),
            proof.acknowledged.to_string(),
            proof.unknown.to_string(),
            proof.held.to_string(),
            proof.lost.to_string(),
            proof.doubled.to_string(),
            format!("{:.0}", run.gap_ms_max()),
            measured(format!("{:.2}", cost.cpu_s_per_100k_adds)),
            measured(format!("{:.3}", cost.written_bytes_per_1k_adds / 1e6)),
            measured(format!("{:.1}", cost.resident_bytes_max as f64 / f64::from(1 << 20))),
            format!("{:.1}", cost.client_cpu_s),
        ]);
    }
    rows
}

fn statsd_table(run: &StatsdRun) -> Vec<Vec<String>> {
    let head = "sent/s,sent,datagrams,held,missing,lost datagrams,cpu s/100k,RSS MiB,client cpu s";
    vec![
        head.split(',').map(str::to_owned).collect(),
        vec![
            format!("{:.0}", run.sent_per_s),
            run.sent.to_string(),
            run.datagrams.to_string(),
            run.held.to_string(),
            run.missing.to_string(),
            run.lost_datagrams.map_or("-".to_owned(), |lost| lost.to_string()),
            format!("{:.4}", run.cost.cpu_s_per_100k_adds),
            format!("{:.1}", run.cost.resident_bytes_max as f64 / f64::from(1 << 20)),
            format!("{:.1}", run.cost.client_cpu_s),
        ],
    ]
}

/// What does not fit a row: errors by type, a new leader.
fn notes(text: &mut String, run: &BenchRun) {
    for (kind, count) in &run.errors {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{} clients: {count} times {kind}", run.clients);
    }
    if run.before != run.after {
        let name = |leadership: &Leadership| leadership.leader.clone().unwrap_or_else(|| "nobody".to_owned());
        let _ = writeln!(
            text,
            "{} clients: {} led in term {}, then {} in term {}",
            run.clients,
            name(&run.before),
            run.before.term,
            name(&run.after),
            run.after.term
        );
    }
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
        text += &cells.join("  ");
        text.push('\n');
    }
    text
}
