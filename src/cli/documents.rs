//! `tallyd completions` and `tallyd man`, made from the arguments themselves.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::client::ClientError;
use super::{Cli, print};

/// Print completions for a shell
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd completions bash > /etc/bash_completion.d/tallyd")]
pub(super) struct CompletionsArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write one page for each command
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd man | man -l -
  tallyd man --out /usr/local/share/man/man1")]
pub(super) struct ManArgs {
    /// Directory for one page per command; default: print the page of tallyd to standard output
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn completions(args: &CompletionsArgs) -> Result<(), ClientError> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tallyd", &mut bytes);
    print(&String::from_utf8_lossy(&bytes))
}

pub(super) fn man(args: &ManArgs) -> Result<(), ClientError> {
    if let Some(directory) = &args.out {
        return std::fs::create_dir_all(directory)
            .and_then(|()| clap_mangen::generate_to(Cli::command(), directory))
            .map_err(ClientError::Output);
    }
    let mut bytes = Vec::new();
    clap_mangen::Man::new(Cli::command()).render(&mut bytes).map_err(ClientError::Output)?;
    print(&String::from_utf8_lossy(&bytes))
}
