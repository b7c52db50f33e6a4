//! `tallyd completions` and `tallyd man`: made by the argument parser's own tools.

use std::io::Write;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, Failure, tries};

/// Print completions for a shell
#[derive(Args, Clone, Debug)]
#[command(after_help = "Example:\n  tallyd completions bash > /etc/bash_completion.d/tallyd")]
pub struct CompletionsArgs {
    /// Which shell
    pub shell: Shell,
}

/// Print the man page
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  tallyd man > tallyd.1\n  tallyd man add > tallyd-add.1")]
pub struct ManArgs {
    /// The page of this command
    pub command: Option<String>,
}

/// Prints completions.
pub fn completions(args: &CompletionsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    // Into memory first: the generator panics where writing fails, at a closed pipe too.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tallyd", &mut script);
    Ok(out.write_all(&script)?)
}

/// Prints a page.
pub fn man(args: &ManArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let mut whole = Cli::command().disable_help_subcommand(true);
    whole.build();
    let command = match &args.command {
        None => whole,
        Some(name) => whole.find_subcommand(name).cloned().ok_or_else(|| {
            let names: Vec<&str> = whole.get_subcommands().map(clap::Command::get_name).collect();
            Failure::new(
                tries::USAGE,
                format!("there is no command {name:?}; there are {}", names.join(", ")),
            )
        })?,
    };
    Ok(clap_mangen::Man::new(command).render(&mut { out })?)
}
