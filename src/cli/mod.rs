//! The command line: one file a family of subcommands.

pub mod bench;
pub mod provision;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Counts what happens at the edge, exactly.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Run {
        #[arg(long)]
        config: Option<PathBuf>,
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
    Provision(provision::ProvisionArgs),
    Bench(bench::BenchArgs),
}

/// Runs a command; gives the exit status.
pub fn main(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Run { config, data_dir } => run(config, data_dir),
        Command::Provision(args) => match provision::run(&args, &mut std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
        Command::Bench(args) => match bench::run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error, 1),
        },
    }
}

fn run(config: Option<PathBuf>, data_dir: Option<PathBuf>) -> ExitCode {
    let filter = EnvFilter::try_from_env("TALLYD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(|error| error.to_string()).and_then(|runtime| {
        runtime.block_on(crate::daemon::run(config, data_dir)).map_err(|error| error.to_string())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn fail(error: &dyn std::fmt::Display, status: u8) -> ExitCode {
    // Nobody may listen any more.
    let _ = writeln!(std::io::stderr(), "tallyd: {error}");
    ExitCode::from(status)
}
