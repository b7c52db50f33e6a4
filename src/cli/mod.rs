//! The command line: one file a family of subcommands.

pub mod add;
pub mod bench;
pub mod client;
pub mod connection;
pub mod docs;
pub mod provision;
pub mod read;
pub mod run;
pub mod settings;
pub mod status;
pub mod table;
pub mod tries;
pub mod url;
pub mod watch;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

const EXAMPLE: &str = "\
Examples:
  tallyd run --data-dir /tmp/tally     a site of one box, working at once
  tallyd add coffee 1
  tallyd get coffee

Exit status: 0 done; 1 failed, certainly not done; 2 wrong usage; 3 could not be tried, or every try ended
not-committed; 4 outcome unknown.";

/// Counts what happens at the edge, exactly
#[derive(Debug, Parser)]
#[command(name = "tallyd", version, about, after_help = EXAMPLE, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Provision(provision::ProvisionArgs),
    Add(add::AddArgs),
    Get(read::GetArgs),
    Series(read::SeriesArgs),
    Windows(read::WindowsArgs),
    Watch(watch::WatchArgs),
    Settings(settings::SettingsArgs),
    Status(status::StatusArgs),
    Bench(bench::BenchArgs),
    Completions(docs::CompletionsArgs),
    Man(docs::ManArgs),
}

/// Why a command ends without having done what it is for.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub status: u8,
    /// What, where, what to do; empty: nothing to say.
    pub text: String,
}

impl Failure {
    /// A failure with something to say.
    pub fn new(status: u8, text: impl Into<String>) -> Failure {
        Failure { status, text: text.into() }
    }
}

impl From<io::Error> for Failure {
    /// Of writing output: who closed the pipe has read enough.
    fn from(error: io::Error) -> Failure {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Failure::new(tries::DONE, "");
        }
        Failure::new(tries::FAILED, format!("cannot write the output: {error}"))
    }
}

/// Reads the arguments of this process and runs the command.
pub fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli),
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let text = error.render().to_string();
            let text = text.strip_prefix("error: ").map_or(text.clone(), |rest| format!("tallyd: {rest}"));
            let _ = write!(io::stderr(), "{text}");
            ExitCode::from(tries::USAGE)
        }
    }
}

/// Runs a command; gives the exit status.
pub fn run(cli: Cli) -> ExitCode {
    let mut out = io::stdout().lock();
    let result = cli.command.run(&mut out).and_then(|()| Ok(out.flush()?));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.text.is_empty() {
                // Nobody may listen any more.
                let _ = writeln!(io::stderr(), "tallyd: {}", failure.text);
            }
            ExitCode::from(failure.status)
        }
    }
}

impl Command {
    fn run(self, out: &mut dyn Write) -> Result<(), Failure> {
        match self {
            Command::Run(args) => run::run(args),
            Command::Provision(args) => provision::run(&args, out).map_err(|error| {
                let usage = matches!(error, provision::ProvisionError::Usage(_));
                Failure::new(if usage { tries::USAGE } else { tries::FAILED }, error.to_string())
            }),
            Command::Add(args) => wait(add::run(&args, out)),
            Command::Get(args) => wait(read::get(&args, out)),
            Command::Series(args) => wait(read::series(&args, out)),
            Command::Windows(args) => wait(read::windows(&args, out)),
            Command::Watch(args) => wait(watch::run(&args, out)),
            Command::Settings(args) => wait(settings::run(&args, out)),
            Command::Status(args) => wait(status::run(&args, out)),
            Command::Bench(args) => bench(&args),
            Command::Completions(args) => docs::completions(&args, out),
            Command::Man(args) => docs::man(&args, out),
        }
    }
}

fn bench(args: &bench::BenchArgs) -> Result<(), Failure> {
    use bench::BenchError;
    bench::run(args).map_err(|error| match error {
        BenchError::Usage(text) => Failure::new(tries::USAGE, text),
        BenchError::Control(bench::control::ControlError::Wire { .. }) => {
            Failure::new(tries::NOT_TRIED, error.to_string())
        }
        BenchError::Control(_) => Failure::new(tries::FAILED, error.to_string()),
        BenchError::Io(error) if error.kind() == io::ErrorKind::BrokenPipe => error.into(),
        BenchError::Io(error) => Failure::new(tries::FAILED, error.to_string()),
    })
}

/// Runs a client command.
fn wait(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(tries::NOT_TRIED, format!("cannot start: {error}")))?;
    let result = runtime.block_on(command);
    // A look-up of a name may still hang; nobody needs it any more.
    runtime.shutdown_background();
    result
}

/// Prints what a box answered.
fn print(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    out.write_all(text.as_bytes())?;
    if !text.ends_with('\n') {
        out.write_all(b"\n")?;
    }
    Ok(out.flush()?)
}

/// Prints what was done: the output may fail, but that does not undo it.
fn print_done(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    print(out, text).map_err(|failure| match failure.text.as_str() {
        "" => failure,
        why => Failure::new(tries::DONE, format!("done, but {why}")),
    })
}

/// An answer as the form that is documented.
fn parsed<'a, T: serde::Deserialize<'a>>(body: &'a str) -> Result<T, Failure> {
    serde_json::from_str(body).map_err(|error| {
        Failure::new(
            tries::FAILED,
            format!(
                "the answer is not as documented ({error}): is the box of another version? --json prints it"
            ),
        )
    })
}

/// The name of a series, checked before anything is sent.
fn series_name(text: &str) -> Result<String, String> {
    match tally_core::id::SeriesName::new(text) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
