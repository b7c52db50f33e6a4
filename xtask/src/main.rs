//! The project's own commands, `cargo xtask ...`: what builds, verifies and shows Tallyd.
#![expect(clippy::print_stdout, reason = "a command-line tool prints")]

mod bench;
mod demo;
mod http;
mod run;
mod site;
mod size;
mod soak;
mod targets;
mod tools;
mod verify;
#[cfg(test)]
mod walks;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must hold before a change lands: format, lints, documentation, tests,
    /// microcontroller build, dependencies. Changes nothing; installs what is missing.
    Verify,
    /// A site of three boxes on this machine: counts, loses its leader, and proves that nothing was lost.
    Demo(demo::Arguments),
    /// The figures of a site of three boxes on this machine, several rounds with medians.
    Bench(bench::Arguments),
    /// Plays the simulation's seeds from a start by chance, and runs the fuzzers, until the time is up.
    Soak(soak::Arguments),
    /// How large the core is on a microcontroller; fails if it is larger than it may be.
    Size(size::Arguments),
    /// Builds the core for microcontrollers, fetching what that needs.
    Targets(targets::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Verify => verify::verify(),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Soak(arguments) => soak::soak(&arguments),
        Command::Size(arguments) => size::size(&arguments),
        Command::Targets(arguments) => targets::targets(&arguments),
    }
}
