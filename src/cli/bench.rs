//! `tallyd bench`: load on a site of your own, with latencies as a histogram, what the boxes used for
//! it, and a proof that what was acknowledged is what is held.

pub mod control;
pub mod ledger;
pub mod load;
pub mod output;
pub mod process;
pub mod script;
pub mod statsd;
pub mod wire;

use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::Instant;

use self::control::{Control, ControlError, Leadership};
use self::ledger::Proof;
use self::load::{Behaviour, Load, Tally};
use self::output::{BenchRun, Report, StatsdRun};
use self::process::{Figures, Usage};
use self::script::{Requests, Script};
use self::wire::BenchTarget;

/// Put load on a site of your own and measure it.
///
/// Each client has one connection and one request outstanding. With several --clients, one run
/// after the other is made. Totals of the series are compared before and after each run.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  tallyd bench --clients 1,16,64,256 --seconds 10
  tallyd bench --batch 100 --clients 10
  tallyd bench --failover --url http://a:7480,http://b:7480,http://c:7480 --seconds 60
  tallyd bench --statsd 127.0.0.1:8125 --rate 2500000")]
pub struct BenchArgs {
    /// Boxes; load enters through the first, with --failover through all. The others' processes are measured too
    #[arg(long, env = "TALLYD_URL", value_delimiter = ',', default_value = "http://127.0.0.1:7480")]
    pub url: Vec<String>,
    /// How many clients; several numbers: one run each
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub clients: Vec<u32>,
    /// How long each run is measured
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub seconds: f64,
    /// How long each run goes before it is measured
    #[arg(long, default_value_t = 0.5, value_parser = not_negative)]
    pub warm_up: f64,
    /// How many series the adds are spread over
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub series: u32,
    /// The series are PREFIX/0000 and so on
    #[arg(long, default_value = "bench", value_parser = prefix)]
    pub prefix: String,
    /// Send an Idempotency-Key with each add, and retry until the outcome is known
    #[arg(long)]
    pub keys: bool,
    /// Send numbered reports with an add to N different series each, instead of single adds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4_096), conflicts_with_all = ["keys", "failover"])]
    pub batch: Option<u32>,
    /// Clients at all boxes that retry with keys at the next one; gaps between acknowledgements are listed
    #[arg(long)]
    pub failover: bool,
    /// When a try is given up and made again at the next box, in milliseconds; by default 500 with --failover, never without
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub try_timeout: Option<u64>,
    /// After the end, how many seconds outstanding adds may take to become known
    #[arg(long, default_value_t = 10.0, value_parser = positive)]
    pub settle: f64,
    /// Shortest gap between acknowledgements that is listed, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50.0, value_parser = positive)]
    pub gap: f64,
    /// Send StatsD increments to this UDP address instead
    #[arg(long, value_name = "HOST:PORT", conflicts_with_all = ["keys", "batch", "failover"])]
    pub statsd: Option<String>,
    /// StatsD increments a second; 0: as many as possible
    #[arg(long, default_value_t = 0, requires = "statsd")]
    pub rate: u64,
    /// Send each datagram in a system call of its own
    #[arg(long, requires = "statsd")]
    pub single: bool,
    /// Processes to measure; by default those that the boxes at loopback URLs name
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// An argument that cannot be used.
    #[error("{0}")]
    Usage(String),
    /// The boxes cannot be asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Sockets, threads, the output.
    #[error("{0}")]
    Io(#[from] io::Error),
}

fn positive(text: &str) -> Result<f64, String> {
    not_negative(text)
        .and_then(|number| if number > 0.0 { Ok(number) } else { Err("it must be above 0".to_owned()) })
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=1e6).contains(&number) { Ok(number) } else { Err("it must be from 0 to 1000000".to_owned()) }
}

fn prefix(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'/');
    match tally_core::id::SeriesName::new(text) {
        Ok(_) if text.len() <= 64 && text.bytes().all(plain) => Ok(text.to_owned()),
        Ok(_) => Err("up to 64 of letters, digits and - _ . / can stand here".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Runs the bench and prints what came of it.
///
/// # Errors
/// Only when there is nothing to report: errors under load are part of the report.
pub fn run(args: &BenchArgs) -> Result<(), BenchError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(bench(args))?;
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        out.write_all(output::table(&report).as_bytes())?;
    }
    out.flush()?;
    Ok(())
}

/// Runs the bench.
///
/// # Errors
/// As [`run`].
pub async fn bench(args: &BenchArgs) -> Result<Report, BenchError> {
    let targets: Result<Vec<BenchTarget>, String> =
        args.url.iter().map(|url| BenchTarget::parse(url)).collect();
    let targets = targets.map_err(BenchError::Usage)?;
    if let Some(batch) = args.batch.filter(|&batch| batch > args.series) {
        return Err(BenchError::Usage(format!("--batch {batch}: there are only {} --series", args.series)));
    }
    let keyed = args.keys || args.failover;
    let requests = Requests::new(&targets[0].authority, &args.prefix, args.series as usize, keyed);
    let site = Site { targets, requests: Arc::new(requests), pids: Vec::new(), args };
    let pids = if args.pids.is_empty() { site.find_pids().await } else { args.pids.clone() };
    let site = Site { pids, ..site };
    let mut report = Report::new(args, keyed);
    match &args.statsd {
        Some(address) => {
            let mut addresses = address
                .to_socket_addrs()
                .map_err(|error| BenchError::Usage(format!("{address}: {error}")))?;
            let to = addresses.next().ok_or_else(|| BenchError::Usage(format!("{address}: no address")))?;
            report.statsd = Some(site.statsd_run(to).await?);
        }
        None => {
            for &clients in &args.clients {
                report.runs.push(site.run(clients).await?);
            }
        }
    }
    Ok(report)
}

/// What all runs share.
struct Site<'a> {
    targets: Vec<BenchTarget>,
    requests: Arc<Requests>,
    pids: Vec<u32>,
    args: &'a BenchArgs,
}

impl Site<'_> {
    /// The processes of the boxes on this machine, as far as they say.
    async fn find_pids(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        for target in self.targets.iter().filter(|target| target.address.ip().is_loopback()) {
            let Ok(mut control) = Control::connect(target).await else { continue };
            let Ok(status) = control.status().await else { continue };
            let pid = status.get("pid").and_then(serde_json::Value::as_u64);
            pids.extend(pid.and_then(|pid| u32::try_from(pid).ok()));
        }
        pids
    }

    /// A box that answers: the first, if it does.
    async fn any_control(&self) -> Result<Control, BenchError> {
        let mut first_error = None;
        for target in &self.targets {
            match Control::connect(target).await {
                Ok(control) => return Ok(control),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.map_or_else(|| BenchError::Usage("no --url".to_owned()), BenchError::from))
    }

    async fn run(&self, clients: u32) -> Result<BenchRun, BenchError> {
        let args = self.args;
        let mut control = self.any_control().await?;
        let leadership_before = control.leadership().await?;
        let before = control.totals(&self.requests.series[0], &self.list_prefix()).await?;
        let scripts = self.scripts(clients, &mut control).await?;
        let try_timeout = args.try_timeout.or(args.failover.then_some(500)).map(Duration::from_millis);
        let behaviour = Behaviour {
            targets: if args.failover { self.targets.clone() } else { vec![self.targets[0].clone()] },
            spread: args.failover,
            try_timeout,
            settle: Duration::from_secs_f64(args.settle),
            gap_ms_least: args.gap,
        };
        let load = Load::start(behaviour, scripts, self.requests.series.len()).await;
        tokio::time::sleep(Duration::from_secs_f64(args.warm_up)).await;
        let meter = Meter::start(&self.pids);
        load.measure(Duration::from_secs_f64(args.seconds)).await;
        let (boxes, client_cpu_s) = meter.stop();
        let tally = load.finish().await;
        let (leadership_after, proof) = self.prove(&tally, &before).await?;
        Ok(BenchRun::new(clients, &tally, (leadership_before, leadership_after), boxes, client_cpu_s, proof))
    }

    async fn scripts(&self, clients: u32, control: &mut Control) -> Result<Vec<Script>, BenchError> {
        // Keys of another run must not come again: they would not be counted.
        let nonce = crate::random::quick(crate::clock::wall_ms());
        let mut scripts = Vec::with_capacity(clients as usize);
        for client in 0..clients {
            let requests = Arc::clone(&self.requests);
            scripts.push(match self.args.batch {
                None => Script::adds(requests, nonce, client),
                Some(batch) => {
                    let source = format!("bench-{client}");
                    let epoch = control.open_epoch(&source).await?;
                    Script::reports(requests, client, batch as usize, source, epoch)
                }
            });
        }
        Ok(scripts)
    }

    /// Compares what clients were told with the totals; a site that just changed its leader gets a while.
    async fn prove(
        &self,
        tally: &Tally,
        before: &std::collections::HashMap<String, i128>,
    ) -> Result<(Leadership, Proof), BenchError> {
        let end = Instant::now() + Duration::from_secs_f64(self.args.settle);
        loop {
            let read = async {
                let mut control = self.any_control().await?;
                let after = control.totals(&self.requests.series[0], &self.list_prefix()).await?;
                Ok::<_, BenchError>((control.leadership().await?, after))
            };
            match read.await {
                Ok((leadership, after)) => {
                    return Ok((leadership, tally.ledger.prove(&self.requests.series, before, &after)));
                }
                Err(error) if Instant::now() >= end => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn statsd_run(&self, to: SocketAddr) -> Result<StatsdRun, BenchError> {
        let mut control = self.any_control().await?;
        let first = &self.requests.series[0];
        let before: i128 = control.totals(first, &self.list_prefix()).await?.values().sum();
        let meter = Meter::start(&self.pids);
        let (names, rate, trains) = (self.requests.series.clone(), self.args.rate, !self.args.single);
        let span = Duration::from_secs_f64(self.args.seconds);
        let sender = tokio::task::spawn_blocking(move || statsd::send(to, &names, rate, span, trains));
        let sent = sender.await.map_err(io::Error::other)??;
        let (boxes, client_cpu_s) = meter.stop();
        // Counts that nobody waits for are committed once a second.
        let end = Instant::now() + Duration::from_secs_f64(self.args.settle);
        loop {
            let after: i128 = control.totals(first, &self.list_prefix()).await?.values().sum();
            let held = after - before;
            if held >= i128::from(sent.increments) || Instant::now() >= end {
                let status = control.status().await?;
                return Ok(StatsdRun::new(&sent, held, &status, boxes, client_cpu_s));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn list_prefix(&self) -> String {
        format!("{}/", self.args.prefix)
    }
}

/// Measures processes from its start to its stop.
struct Meter {
    before: Vec<(u32, Figures)>,
    own: Option<Figures>,
}

impl Meter {
    fn start(pids: &[u32]) -> Meter {
        let figures = |&pid: &u32| Figures::of(pid).ok().map(|figures| (pid, figures));
        Meter { before: pids.iter().filter_map(figures).collect(), own: Figures::of(std::process::id()).ok() }
    }

    /// The processes that were there at both ends, and the processor seconds of this one.
    fn stop(self) -> (Vec<Usage>, f64) {
        let usage = |(pid, before): &(u32, Figures)| Some(Figures::of(*pid).ok()?.since(before, *pid));
        let boxes = self.before.iter().filter_map(usage).collect();
        let own = self.own.zip(Figures::of(std::process::id()).ok());
        (boxes, own.map_or(0.0, |(before, after)| after.cpu_s - before.cpu_s))
    }
}

#[cfg(test)]
#[path = "bench/bench_tests.rs"]
mod tests;
