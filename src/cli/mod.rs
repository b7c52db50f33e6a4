//! The command line: its arguments, and one file for each family of subcommands; these are clients of the HTTP API.

mod add;
pub mod bench;
pub mod client;
mod clock;
mod doctor;
mod documents;
mod join;
mod members;
pub mod provision;
mod reads;
mod settings;
mod status;
mod text;
mod token;
mod top;
mod watch;
mod witness;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::{environment, logging};
pub use client::{ClientError, Server};

/// Counts what happens at the edge, exactly
#[derive(Parser, Clone, Debug)]
#[command(name = "tallyd", version, propagate_version = true, after_help = EXAMPLE)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example: a site of one box, and a count in it
  tallyd run --data-dir ./tally &
  tallyd add coffee
  tallyd get coffee

Exit status: 0 done; 1 failed, nothing was done; 2 wrong usage or configuration; 3 could not be tried, or not committed;
4 outcome unknown.";

/// The subcommands.
#[derive(Subcommand, Clone, Debug)]
enum Command {
    Run(RunArgs),
    Provision(provision::ProvisionArgs),
    Init(join::InitArgs),
    Token(token::TokenArgs),
    Join(join::JoinArgs),
    Add(add::AddArgs),
    Get(reads::GetArgs),
    Series(reads::SeriesArgs),
    Windows(reads::WindowsArgs),
    Watch(watch::WatchArgs),
    Settings(settings::SettingsArgs),
    Members(members::MembersArgs),
    Member(members::MemberArgs),
    Leader(members::LeaderArgs),
    Clock(clock::ClockArgs),
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Top(top::TopArgs),
    Bench(bench::BenchArgs),
    Completions(documents::CompletionsArgs),
    Man(documents::ManArgs),
}

/// Run the daemon
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = "\
Example: a site of one box in a folder of its own, without any configuration
  tallyd run --data-dir ./tally
Example: a box that was provisioned
  tallyd run --data-dir /var/lib/tallyd
Example: a witness of one site, or of each site with a directory in it
  tallyd run --witness --data-dir /var/lib/tallyd

The log goes to standard error. TALLYD_LOG sets its level: off, error, warn, info (the default), debug
or trace, or a comma-separated list that includes TARGET=LEVEL.")]
struct RunArgs {
    /// Run as a witness: vote in a site with an even number of boxes, and store only a few bytes
    #[arg(long)]
    witness: bool,
    /// Configuration file; default: tallyd.toml in the data directory, then /etc/tallyd/tallyd.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data directory; default: systemd's STATE_DIRECTORY, else /var/lib/tallyd for root, else the
    /// user's state directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Runs a command and returns the exit status that `tallyd --help` documents.
pub fn main(cli: Cli) -> ExitCode {
    let result = match cli.command {
        Command::Run(args) => return daemon(args),
        Command::Provision(args) => {
            provision::run(&args, &mut io::stdout().lock()).map_err(|error| match error {
                provision::ProvisionError::Usage(_) => Failure::new(2, &error),
                provision::ProvisionError::Failed(_) => Failure::new(1, &error),
            })
        }
        Command::Bench(args) => bench::run(&args).map_err(|error| Failure::new(bench_status(&error), &error)),
        client => run_client(client).map_err(|error| Failure::new(error.exit_status(), &error)),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The reader closed the output.
        Err(failure) if failure.status == 0 => ExitCode::SUCCESS,
        Err(failure) => {
            // The reader of standard error may be gone.
            let _ = writeln!(io::stderr(), "tallyd: {}", failure.text);
            ExitCode::from(failure.status)
        }
    }
}

/// The arguments of this process; or what it ends with: help, the version, wrong usage.
///
/// # Errors
/// The exit status, where help or a complaint was printed instead.
pub fn arguments() -> Result<Cli, ExitCode> {
    let mut command = environment::without_empty(Cli::command());
    let matches = command.try_get_matches_from_mut(std::env::args_os());
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    cli.map_err(|error| error.format(&mut command)).map_err(|error| {
        if !error.use_stderr() {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        let text = error.render().to_string();
        let text = text.strip_prefix("error: ").map_or_else(|| text.clone(), |why| format!("tallyd: {why}"));
        let _ = io::stderr().write_all(text.as_bytes());
        ExitCode::from(2)
    })
}

fn bench_status(error: &bench::BenchError) -> u8 {
    match error {
        bench::BenchError::Usage(_) => 2,
        bench::BenchError::Control(bench::control::ControlError::Wire { .. }) => 3,
        bench::BenchError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        bench::BenchError::Control(_) | bench::BenchError::Io(_) => 1,
    }
}

/// Why a command failed.
struct Failure {
    status: u8,
    text: String,
}

impl Failure {
    fn new(status: u8, error: &dyn std::fmt::Display) -> Failure {
        Failure { status, text: error.to_string() }
    }
}

/// Runs the daemon. It writes to its log only: the reader of standard error may be gone, or may never read again.
fn daemon(args: RunArgs) -> ExitCode {
    let result = logging::start(environment::text("TALLYD_LOG").as_deref())
        .map_err(|error| Failure::new(1, &format!("cannot start the log thread: {error}")))
        .and_then(|()| run_daemon(args));
    if let Err(failure) = &result {
        logging::last_words(&format!("tallyd: {}", failure.text));
    }
    logging::flush();
    ExitCode::from(result.map_or_else(|failure| failure.status, |()| 0))
}

fn run_daemon(args: RunArgs) -> Result<(), Failure> {
    if let Some(warning) = crate::config::unknown_variables(environment::names()) {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(1, &format!("cannot start the runtime: {error}")))?;
    let RunArgs { witness, config, data_dir } = args;
    let result = runtime.block_on(async {
        match witness {
            true => crate::witness::run(config, data_dir)
                .await
                .map_err(|error| Failure::new(error.exit_status(), &error)),
            false => crate::daemon::run(config, data_dir)
                .await
                .map_err(|error| Failure::new(error.exit_status(), &error)),
        }
    });
    // A file or a look-up of a name may still hang; nobody waits for it any more.
    runtime.shutdown_background();
    result
}

/// Runs the commands that call the API, or none.
fn run_client(command: Command) -> Result<(), ClientError> {
    match command {
        Command::Init(args) => blocking(|| join::init(args)),
        Command::Token(args) => blocking(|| token::run(args)),
        Command::Join(args) => blocking(|| join::join(args)),
        Command::Add(args) => blocking(|| add::run(args)),
        Command::Get(args) => blocking(|| reads::get(args)),
        Command::Series(args) => blocking(|| reads::series(args)),
        Command::Windows(args) => blocking(|| reads::windows(args)),
        Command::Watch(args) => blocking(|| watch::run(args)),
        Command::Settings(args) => blocking(|| settings::run(args)),
        Command::Members(args) => blocking(|| members::list(args)),
        Command::Member(args) => blocking(|| members::change(args)),
        Command::Leader(args) => blocking(|| members::leader(args)),
        Command::Clock(args) => blocking(|| clock::run(args)),
        Command::Status(args) => blocking(|| status::run(args)),
        Command::Doctor(args) => blocking(|| doctor::run(args)),
        Command::Top(args) => blocking(|| top::run(args)),
        Command::Completions(args) => documents::completions(&args),
        Command::Man(args) => documents::man(&args),
        Command::Run(_) | Command::Provision(_) | Command::Bench(_) => {
            Err(ClientError::Usage("this command is not a client".to_owned()))
        }
    }
}

/// Runs a client on a runtime of its own.
fn blocking<F: Future<Output = Result<(), ClientError>>>(run: impl FnOnce() -> F) -> Result<(), ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime =
        runtime.map_err(|error| ClientError::NotTried(format!("cannot start the runtime: {error}")))?;
    let result = runtime.block_on(run());
    // The look-up of a name may still hang; nobody waits for it any more.
    runtime.shutdown_background();
    result
}

/// Writes to standard output. A reader that closed it (`| head`) is not an error.
fn print(text: &str) -> Result<(), ClientError> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(ClientError::ReaderGone),
        Err(error) => Err(ClientError::Output(error)),
    }
}

/// Prints the result of a change. An output that cannot be written does not undo the change.
fn print_done(text: &str) -> Result<(), ClientError> {
    match print(text) {
        Err(error @ ClientError::Output(_)) => {
            let _ = writeln!(io::stderr(), "tallyd: the command succeeded, but {error}");
            Ok(())
        }
        result => result,
    }
}

/// Checks the name of a series. Older logs hold names that are no longer accepted; reads accept them.
fn series_name(text: &str) -> Result<String, String> {
    tally_core::id::SeriesName::stored(text).map(|name| name.to_string()).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
