//! `cargo xtask bench`: the figures of a site of three boxes on this machine, several rounds with
//! medians, each round on a fresh site.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::run;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How many rounds; the median of each figure is shown
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// How long each run of a round is measured, in seconds
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Print one JSON object with all rounds after the table
    #[arg(long)]
    json: bool,
}

const BOXES: [&str; 3] = ["box1", "box2", "box3"];
/// Room for the keys of a round.
const KEYS_MAX: &str = "4000000";
const READY_TIMEOUT: Duration = Duration::from_secs(20);

/// A figure of a round: its name, where it stands, its factor, and what it is to reach.
type Figure = (&'static str, &'static str, &'static str, f64, &'static str);

const FIGURES: [Figure; 18] = [
    ("start to a leader, ms", "start", "/leader_ms", 1.0, "under 500"),
    ("resident memory, idle, MiB", "adds", "/runs/0/cost/boxes/0/resident_bytes_before", MIB, "12"),
    ("1 client: adds/s", "adds", "/runs/0/adds_per_s", 1.0, ""),
    ("1 client: p50, ms", "adds", "/runs/0/p50_ms", 1.0, "under 0.6"),
    ("16 clients: adds/s", "adds", "/runs/1/adds_per_s", 1.0, "12,000"),
    (
        "16 clients: MB written per 1,000 adds",
        "adds",
        "/runs/1/cost/written_bytes_per_1k_adds",
        MB,
        "under 1.6",
    ),
    ("64 clients: adds/s", "adds", "/runs/2/adds_per_s", 1.0, "25,000"),
    ("256 clients: adds/s", "adds", "/runs/3/adds_per_s", 1.0, "35,000"),
    ("256 clients: p99, ms", "adds", "/runs/3/p99_ms", 1.0, "under 15"),
    (
        "256 clients: MB written per 1,000 adds",
        "adds",
        "/runs/3/cost/written_bytes_per_1k_adds",
        MB,
        "under 0.08",
    ),
    ("256 clients: CPU s per 100,000 adds", "adds", "/runs/3/cost/cpu_s_per_100k_adds", 1.0, "under 2.5"),
    ("resident memory, after, MiB", "adds", "/runs/3/cost/resident_bytes_max", MIB, "20"),
    ("100 series a report, 10 clients: adds/s", "reports", "/runs/0/adds_per_s", 1.0, "500,000"),
    ("256 clients with keys: adds/s", "keys", "/runs/0/adds_per_s", 1.0, ""),
    (
        "256 clients with keys: MB per 1,000 adds",
        "keys",
        "/runs/0/cost/written_bytes_per_1k_adds",
        MB,
        "under 0.25",
    ),
    ("elections during 256 clients", "adds", "/runs/3/elections", 1.0, "0"),
    ("lost, 256 clients", "adds", "/runs/3/proof/lost", 1.0, "0"),
    ("counted twice, 256 clients", "adds", "/runs/3/proof/doubled", 1.0, "0"),
];

const MIB: f64 = 1.0 / 1_048_576.0;
const MB: f64 = 1e-6;

pub(crate) fn bench(arguments: &Arguments) -> Result<()> {
    let built = run::cargo(&["build", "--locked", "--release", "--package", "tallyd"]).status();
    if !built.context("cannot run cargo")?.success() {
        bail!("the daemon does not build");
    }
    let program = run::root().join("target/release/tallyd");
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        println!("round {round} of {}", arguments.rounds);
        rounds.push(one_round(&program, arguments.seconds)?);
    }
    println!("\nkeys.max was {KEYS_MAX} in the runs with keys; load entered through one box\n");
    println!("{:<44}{:>12}  {:>12}  {:<}", "", "median", "to reach", "rounds");
    let mut medians = serde_json::Map::new();
    for (name, part, pointer, factor, to_reach) in FIGURES {
        let of =
            |round: &Value| round[part].pointer(pointer).and_then(Value::as_f64).map(|value| value * factor);
        let mut values: Vec<f64> = rounds.iter().filter_map(of).collect();
        if values.is_empty() {
            bail!("`tallyd bench --json` says nothing at {part}{pointer}");
        }
        let shown: Vec<String> = values.iter().map(|value| format!("{value:.2}")).collect();
        values.sort_by(f64::total_cmp);
        let median = values[values.len() / 2];
        println!("{name:<44}{median:>12.2}  {to_reach:>12}  {}", shown.join("  "));
        medians.insert(name.to_owned(), json!(median));
    }
    if arguments.json {
        println!("{}", json!({"medians": medians, "rounds": rounds}));
    }
    Ok(())
}

fn one_round(program: &Path, seconds: u32) -> Result<Value> {
    let folder = run::root().join("target/bench");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).context("cannot empty target/bench")?;
    }
    let site = Site::start(program, &folder)?;
    let seconds = seconds.to_string();
    let measure = |more: &[&str]| -> Result<Value> {
        let mut command = Command::new(program);
        command.args(["bench", "--json", "--url", &site.urls, "--seconds", &seconds]).args(more);
        serde_json::from_str(&run::output(&mut command)?).context("`tallyd bench --json` printed no JSON")
    };
    let adds = measure(&["--clients", "1,16,64,256"])?;
    let reports = measure(&["--clients", "10", "--batch", "100"])?;
    let first = site.urls.split(',').next().unwrap_or_default();
    run::output(Command::new(program).args(["settings", "--url", first, "keys.max", KEYS_MAX]))?;
    let keys = measure(&["--clients", "256", "--keys"])?;
    let leader_ms = site.leader_after.as_secs_f64() * 1e3;
    Ok(json!({"start": {"leader_ms": leader_ms}, "adds": adds, "reports": reports, "keys": keys}))
}

/// Three boxes that end with the round.
struct Site {
    urls: String,
    leader_after: Duration,
    _boxes: Vec<OneBox>,
}

struct OneBox(Child);

impl Drop for OneBox {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    fn start(program: &Path, folder: &Path) -> Result<Site> {
        let mut provision = Command::new(program);
        provision.args(["provision", "--site", "bench", "--out"]).arg(folder);
        for name in BOXES {
            provision.arg("--box").arg(format!("{name}=127.0.0.1:{}", free_port()?));
        }
        run::output(&mut provision)?;
        let began = Instant::now();
        let mut boxes = Vec::new();
        let mut urls = Vec::new();
        for name in BOXES {
            let api = format!("127.0.0.1:{}", TcpListener::bind("127.0.0.1:0")?.local_addr()?.port());
            boxes.push(OneBox(start_box(program, &folder.join(name), &api)?));
            urls.push(format!("http://{api}"));
        }
        let status = |url: &String| {
            let printed = run::output(Command::new(program).args(["status", "--json", "--url", url])).ok()?;
            serde_json::from_str::<Value>(&printed).ok()
        };
        // Load enters through the leader: the first URL.
        let leader = loop {
            let leads =
                |url: &String| status(url).is_some_and(|it| it["role"] == "leader" && it["ready"] == true);
            if let Some(place) = urls.iter().position(leads) {
                break place;
            }
            if began.elapsed() > READY_TIMEOUT {
                bail!("no leader after {READY_TIMEOUT:?}; see the logs in {}", folder.display());
            }
        };
        let leader_after = began.elapsed();
        urls.swap(0, leader);
        Ok(Site { urls: urls.join(","), leader_after, _boxes: boxes })
    }
}

fn start_box(program: &Path, folder: &PathBuf, api: &str) -> Result<Child> {
    let log = File::create(folder.join("tallyd.log"))?;
    let mut command = Command::new(program);
    command.args(["run", "--data-dir"]).arg(folder);
    command.env("TALLYD_API_LISTEN", api).env("TALLYD_INGEST_STATSD_LISTEN", "");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("the daemon cannot be started")
}

fn free_port() -> Result<u16> {
    Ok(UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port())
}
