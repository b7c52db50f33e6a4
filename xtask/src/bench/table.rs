//! The figures that the project holds itself to, beside what was measured.

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::load::KEYS_MAX;
use super::median;

/// A figure: its name, where it stands, its factor, and what it is to reach.
type Figure = (&'static str, &'static str, f64, &'static str);

/// Of each round; the median counts.
const OF_ROUNDS: [Figure; 31] = [
    ("start to ready, a box alone, ms", "/start/alone_first_ms", 1.0, "under 100"),
    ("the same, started again, ms", "/start/alone_again_ms", 1.0, "under 100"),
    ("start to ready, a box that returns, ms", "/start/returning_ms", 1.0, "under 100"),
    ("start to a leader, ms", "/load/leader_ms", 1.0, "under 500"),
    ("resident memory, idle, MiB", "/load/adds/runs/0/cost/boxes/0/resident_bytes_before", MIB, "12"),
    ("1 client: adds/s", "/load/adds/runs/0/adds_per_s", 1.0, ""),
    ("1 client: p50, ms", "/load/adds/runs/0/p50_ms", 1.0, "under 0.6"),
    ("16 clients: adds/s", "/load/adds/runs/1/adds_per_s", 1.0, "12,000"),
    (WRITTEN_16, "/load/adds/runs/1/cost/written_bytes_per_1k_adds", MB, "under 1.6"),
    ("64 clients: adds/s", "/load/adds/runs/2/adds_per_s", 1.0, "25,000"),
    ("256 clients: adds/s", "/load/adds/runs/3/adds_per_s", 1.0, "1.5 times 64"),
    ("256 clients: p99, ms", "/load/adds/runs/3/p99_ms", 1.0, "under 8"),
    (WRITTEN_256, "/load/adds/runs/3/cost/written_bytes_per_1k_adds", MB, "under 0.08"),
    ("256 clients: CPU s per 100,000 adds", "/load/adds/runs/3/cost/cpu_s_per_100k_adds", 1.0, "under 2.5"),
    ("resident memory after them, MiB", "/load/adds/runs/3/cost/resident_bytes_max", MIB, "20"),
    ("100 series a report, 10 clients: adds/s", "/load/reports/runs/0/adds_per_s", 1.0, "500,000"),
    ("256 clients with keys: adds/s", "/load/keys/runs/0/adds_per_s", 1.0, ""),
    (WRITTEN_KEYS, "/load/keys/runs/0/cost/written_bytes_per_1k_adds", MB, "under 0.25"),
    ("1,024 clients: adds/s", "/load/adds/runs/4/adds_per_s", 1.0, "as 256 clients"),
    ("1,024 clients: p99, ms", "/load/adds/runs/4/p99_ms", 1.0, "under 25"),
    ("lost, 1,024 clients", "/load/adds/runs/4/proof/lost", 1.0, "0"),
    ("elections during 256 clients", "/load/adds/runs/3/elections", 1.0, "0"),
    ("lost, 256 clients", "/load/adds/runs/3/proof/lost", 1.0, "0"),
    ("counted twice, 256 clients", "/load/adds/runs/3/proof/doubled", 1.0, "0"),
    ("lost, with keys", "/load/keys/runs/0/proof/lost", 1.0, "0"),
    ("StatsD at half the rate: increments/s", "/load/statsd_half/statsd/sent_per_s", 1.0, "2,500,000"),
    ("  not held", "/load/statsd_half/statsd/missing", 1.0, "0"),
    ("  datagrams lost in the socket", "/load/statsd_half/statsd/lost_datagrams", 1.0, "0"),
    ("StatsD at full rate: increments/s", "/load/statsd_full/statsd/sent_per_s", 1.0, "5,000,000"),
    ("  not held", "/load/statsd_full/statsd/missing", 1.0, ""),
    ("  datagrams lost in the socket", "/load/statsd_full/statsd/lost_datagrams", 1.0, ""),
];

const WRITTEN_16: &str = "16 clients: MB written per 1,000 adds";
const WRITTEN_256: &str = "256 clients: MB written per 1,000 adds";
const WRITTEN_KEYS: &str = "256 clients with keys: MB per 1,000 adds";

/// Of each round, where the load was put on Redis too.
const OF_REDIS: [Figure; 3] = [
    ("Redis, 16 clients: increments/s", "/redis/16", 1.0, ""),
    ("Redis, 64 clients: increments/s", "/redis/64", 1.0, ""),
    ("Redis, 256 clients: increments/s", "/redis/256", 1.0, ""),
];

/// Of all failovers of a kind together, and of all restarts.
const OF_FAILOVERS: [Figure; 19] = [
    ("leader killed to the next add, median, ms", "/killed/median_ms", 1.0, "under 350"),
    ("  worst, ms", "/killed/worst_ms", 1.0, "1,000"),
    ("  adds acknowledged", "/killed/acknowledged", 1.0, ""),
    ("  lost", "/killed/lost", 1.0, "0"),
    ("  counted twice", "/killed/doubled", 1.0, "0"),
    ("leader silent to the next add, median, ms", "/silent/median_ms", 1.0, "under 350"),
    ("  worst, ms", "/silent/worst_ms", 1.0, "1,000"),
    ("  adds acknowledged", "/silent/acknowledged", 1.0, ""),
    ("  lost", "/silent/lost", 1.0, "0"),
    ("  counted twice", "/silent/doubled", 1.0, "0"),
    ("leader restarted: slowest add elsewhere, ms", "/restarted/median_slowest_ms", 1.0, ""),
    ("  worst, ms", "/restarted/worst_slowest_ms", 1.0, "under 100"),
    ("  adds elsewhere", "/restarted/adds_elsewhere", 1.0, ""),
    ("  failed tries elsewhere", "/restarted/failed_elsewhere", 1.0, "0"),
    ("  lost elsewhere", "/restarted/lost_elsewhere", 1.0, "0"),
    ("  adds of clients at all boxes", "/restarted/adds_everywhere", 1.0, ""),
    ("  of these, tries that were repeated", "/restarted/retried", 1.0, ""),
    ("  lost", "/restarted/lost", 1.0, "0"),
    ("  counted twice", "/restarted/doubled", 1.0, "0"),
];

const MIB: f64 = 1.0 / 1_048_576.0;
const MB: f64 = 1e-6;

/// Prints the table; gives the medians by name.
pub(super) fn print(rounds: &[Value], failovers: &Value) -> Result<Map<String, Value>> {
    println!(
        "\nkeys.max was {KEYS_MAX} in the runs with keys; load entered through one box, in the failover runs \
         through all\n"
    );
    println!("{:<44}{:>12}  {:>12}  {:<}", "", "median", "to reach", "rounds");
    let mut medians = Map::new();
    let mut last = "";
    let redis: &[Figure] = match rounds.first().is_some_and(|round| round["redis"].is_object()) {
        true => &OF_REDIS,
        false => &[],
    };
    for (name, pointer, factor, to_reach) in OF_ROUNDS.iter().chain(redis).copied() {
        if rounds.is_empty() {
            break;
        }
        let of = |round: &Value| round.pointer(pointer).and_then(Value::as_f64).map(|value| value * factor);
        let values: Vec<f64> = rounds.iter().filter_map(of).collect();
        let shown: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
        let middle = median(values).with_context(|| format!("no measurement at {pointer}"))?;
        println!("{name:<44}{middle:>12.2}  {to_reach:>12}  {}", shown.join("  "));
        medians.insert(full_name(&mut last, name), json!(middle));
    }
    for (name, pointer, factor, to_reach) in OF_FAILOVERS {
        if let Some(value) = failovers.pointer(pointer).and_then(Value::as_f64) {
            println!("{name:<44}{:>12.2}  {to_reach:>12}", value * factor);
            medians.insert(full_name(&mut last, name), json!(value * factor));
        }
    }
    Ok(medians)
}

/// An indented name belongs to the one above it.
fn full_name<'a>(last: &mut &'a str, name: &'a str) -> String {
    if name.starts_with(' ') {
        return format!("{last}: {}", name.trim_start());
    }
    *last = name;
    name.to_owned()
}
