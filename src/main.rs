//! Arguments, logging, exit status.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tallyd::cli::main(tallyd::cli::Cli::parse())
}
