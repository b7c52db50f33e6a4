//! `tallyd run`: the daemon, its log and its exit status.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use super::{Failure, tries};
use crate::daemon::{self, RunError};

const EXAMPLE: &str = "\
Examples:
  tallyd run --data-dir /tmp/tally     a site of one box, without any configuration
  tallyd run --config /etc/tallyd/tallyd.toml

The log goes to standard error. TALLYD_LOG says how much: error, warn, info (the default), debug, or a level for
a part, such as info,tallyd::transport=debug.";

/// Run the daemon
///
/// With no configuration file anywhere and an empty data directory: a working site of one box.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct RunArgs {
    /// The configuration; default: tallyd.toml in the data directory, else /etc/tallyd/tallyd.toml
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where the box keeps everything
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
}

/// Runs until a signal ends it.
pub fn run(args: RunArgs) -> Result<(), Failure> {
    let stderr = io::stderr();
    let colours = stderr.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let filter = filter(std::env::var("TALLYD_LOG").ok().as_deref())?;
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(io::stderr).init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(tries::FAILED, format!("cannot start: {error}")))?;
    runtime.block_on(daemon::run(args.config, args.data_dir)).map_err(|error| {
        let usage = matches!(error, RunError::Config(_));
        Failure::new(if usage { tries::USAGE } else { tries::FAILED }, error.to_string())
    })
}

fn filter(text: Option<&str>) -> Result<EnvFilter, Failure> {
    let text = text.filter(|text| !text.trim().is_empty()).unwrap_or("info");
    EnvFilter::try_new(text).map_err(|error| {
        Failure::new(tries::USAGE, format!("TALLYD_LOG: {error}; it is a level such as info or debug"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_log_should_say_is_checked() {
        for text in [None, Some(""), Some("debug"), Some("info,tallyd::transport=debug")] {
            assert!(filter(text).is_ok(), "{text:?}");
        }
        let failure = filter(Some("tallyd=loud")).unwrap_err();
        assert_eq!(failure.status, tries::USAGE);
        assert!(failure.text.contains("TALLYD_LOG"), "{}", failure.text);
    }
}
