//! The command line: what it takes, and one file a family of subcommands that talk to the HTTP API.

mod add;
pub mod client;
mod documents;
pub mod provision;
mod reads;
mod settings;
mod status;
mod text;
mod watch;

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

pub use client::{ClientError, Server};

/// Counts what happens at the edge, exactly
#[derive(Parser, Clone, Debug)]
#[command(name = "tallyd", version, propagate_version = true, after_help = EXAMPLE)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLE: &str = "\
Example: a site of one box, and a count in it
  tallyd run --data-dir ./tally &
  tallyd add coffee
  tallyd get coffee

Exit status: 0 done; 1 failed, certainly not done; 2 wrong usage; 3 could not be tried, or certainly
not committed; 4 outcome unknown.";

/// All that the program can do.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// Run the daemon
    Run(RunArgs),
    Provision(provision::ProvisionArgs),
    Add(add::AddArgs),
    Get(reads::GetArgs),
    Series(reads::SeriesArgs),
    Windows(reads::WindowsArgs),
    Watch(watch::WatchArgs),
    Settings(settings::SettingsArgs),
    Status(status::StatusArgs),
    Completions(documents::CompletionsArgs),
    Man(documents::ManArgs),
}

/// Arguments of `tallyd run`.
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Example: a site of one box in a folder of its own, without any configuration
  tallyd run --data-dir ./tally
Example: a box that was provisioned
  tallyd run --data-dir /var/lib/tallyd")]
pub struct RunArgs {
    /// Configuration file; default: tallyd.toml in the data directory, then /etc/tallyd/tallyd.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory; default: systemd's STATE_DIRECTORY, else /var/lib/tallyd for root, else the
    /// user's state directory
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

impl Command {
    /// Runs a command that is a client of the API or needs nothing at all; gives others back, for
    /// which the program has more to set up. The exit status is as `tallyd --help` says; errors are
    /// written to standard error.
    ///
    /// # Errors
    /// The commands that are not for here.
    #[expect(clippy::result_large_err, reason = "called once")]
    pub fn run_client(self) -> Result<u8, Command> {
        let result = match self {
            Command::Add(args) => blocking(|| add::run(args)),
            Command::Get(args) => blocking(|| reads::get(args)),
            Command::Series(args) => blocking(|| reads::series(args)),
            Command::Windows(args) => blocking(|| reads::windows(args)),
            Command::Watch(args) => blocking(|| watch::run(args)),
            Command::Settings(args) => blocking(|| settings::run(args)),
            Command::Status(args) => blocking(|| status::run(args)),
            Command::Completions(args) => documents::completions(&args),
            Command::Man(args) => documents::man(&args),
            other => return Err(other),
        };
        Ok(match result {
            Ok(()) => 0,
            Err(error) => {
                // Nobody may be there to read it.
                let _ = writeln!(io::stderr(), "tallyd: {error}");
                error.exit_status()
            }
        })
    }
}

/// Runs a client on a runtime of its own.
fn blocking<F: Future<Output = Result<(), ClientError>>>(run: impl FnOnce() -> F) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ClientError::NotTried(format!("no runtime: {error}")))?;
    runtime.block_on(run())
}

/// Writes to standard output. A reader that went away (`| head`) wants no more: that is no error.
fn print(text: &str) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClientError::ReaderGone),
        Err(error) => Err(ClientError::Output(error)),
    }
}

/// A series as an argument, checked.
fn series_name(text: &str) -> Result<String, String> {
    tally_core::id::SeriesName::new(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
