//! Arguments, logging, exit status.

use std::process::ExitCode;

fn main() -> ExitCode {
    tallyd::cli::arguments().map_or_else(|end| end, tallyd::cli::main)
}
