//! Long runs that look for what short ones miss: first whole sites on all cores of the machine, from a seed by chance on;
//! then the fuzzers, one after the other, with sites of cores beside them, until the time is up.
//!
//! `simulation`: the process that plays seeds. `fuzzers`: those that make up bytes. `process`: a child that is
//! ended in order.

mod fuzzers;
mod process;
mod simulation;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use fuzzers::Fuzzers;
use simulation::Simulation;

/// What of the time whole sites have.
const SITES_SHARE: f64 = 0.75;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Duration in minutes, without the build.
    #[arg(long, value_name = "N", default_value_t = 10)]
    minutes: u64,
    /// First seed of the simulations; default: random.
    #[arg(long, value_name = "SEED")]
    first: Option<u64>,
    /// Number of voters in each site of cores; default: 1 to 7 at random.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=7))]
    voters: Option<u64>,
}

/// The time that a run has, and whether somebody wants it to end.
struct Clock {
    until: Instant,
    interrupted: Arc<AtomicBool>,
}

pub(crate) fn soak(arguments: &Arguments) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends it at once.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&interrupted))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&interrupted)))
            .context("cannot listen for Ctrl-C")?;
    }
    let first = match arguments.first {
        Some(first) => first,
        None => by_chance()?,
    };
    let began = Instant::now();
    let sites = Simulation::build("sim", None)?;
    let cores = Simulation::build("core_sim", arguments.voters)?;
    let fuzzers = Fuzzers::build()?;
    println!("built in {:.0} s", began.elapsed().as_secs_f64());

    let span = Duration::from_secs(arguments.minutes.saturating_mul(60));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // The fuzzers have one; on a machine with one core both share it.
    let beside = processors.saturating_sub(1).max(1);
    let of_sites = span.mul_f64(SITES_SHARE);
    println!(
        "== for {:.0} s: whole sites, from seed {first} on, with {processors} threads; then for {:.0} s: sites of \
         cores alone with {beside}, and {} fuzzers in turn",
        of_sites.as_secs_f64(),
        (span - of_sites).as_secs_f64(),
        fuzzers.names().len()
    );
    let (began, clock) = (Instant::now(), |until| Clock { until, interrupted: Arc::clone(&interrupted) });
    let (sites_clock, clock) = (clock(began + of_sites), clock(began + span));
    let of_sites = sites.run(&sites_clock, first, processors)?;
    let (of_cores, fuzzed) = std::thread::scope(|scope| {
        let of_cores = scope.spawn(|| cores.run(&clock, first, beside));
        let fuzzed = fuzzers.run(&clock);
        (of_cores.join().unwrap_or_else(|_| bail!("the simulation's watcher failed")), fuzzed)
    });
    let (played, fuzzed) = ([(sites.test, of_sites), (cores.test, of_cores?)], fuzzed?);

    for (test, played) in &played {
        println!("\n== {test}\n{played}");
    }
    println!("== fuzzers\n{fuzzed}");
    let played = played.iter().flat_map(|(_, played)| &played.failures);
    let failures: Vec<&String> = played.chain(&fuzzed.failures).collect();
    if !failures.is_empty() {
        for failure in &failures {
            println!("VIOLATION: {failure}");
        }
        bail!("{} of the runs above found a violation", failures.len());
    }
    println!("no violation");
    Ok(())
}

/// A seed that leaves room for billions after it.
fn by_chance() -> Result<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    // By a multiplication that spreads neighbouring moments over all seeds.
    Ok((now.as_micros() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24)
}
