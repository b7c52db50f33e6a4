//! The project's own commands, `cargo xtask ...`: what builds, verifies and shows Tallyd.
#![expect(clippy::print_stdout, reason = "a command-line tool prints")]

mod bench;
mod cross;
mod demo;
mod dist;
mod http;
mod run;
#[cfg(test)]
mod service_tests;
mod site;
mod size;
mod soak;
mod system;
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
    /// Check everything that must hold before a change lands: format, lints, documentation, tests,
    /// microcontroller build, dependencies. Changes no files; installs missing tools.
    Verify(verify::Arguments),
    /// Run a site of three boxes on this machine that counts, loses its leader, and proves that nothing was lost.
    Demo(demo::Arguments),
    /// Measure a site of three boxes on this machine, in several rounds with medians.
    Bench(bench::Arguments),
    /// Run the simulations from a random seed on, and the fuzzers, until the time is up.
    Soak(soak::Arguments),
    /// Measure the core on a microcontroller; fail if it is larger than allowed.
    Size(size::Arguments),
    /// Build the core for microcontrollers; fetch what that needs.
    Targets(targets::Arguments),
    /// Build the daemon for another machine; fetch what that needs.
    Cross(cross::Arguments),
    /// Make what people install: archives, packages, a container image, checksums.
    Dist(dist::Arguments),
    /// Install, run, hang, upgrade and purge the package on machines with a real systemd (as root).
    System(system::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Verify(arguments) => verify::verify(&arguments),
        Command::Demo(arguments) => demo::demo(&arguments),
        Command::Bench(arguments) => bench::bench(&arguments),
        Command::Soak(arguments) => soak::soak(&arguments),
        Command::Size(arguments) => size::size(&arguments),
        Command::Targets(arguments) => targets::targets(&arguments),
        Command::Cross(arguments) => cross::cross(&arguments),
        Command::Dist(arguments) => dist::dist(&arguments),
        Command::System(arguments) => system::system(&arguments),
    }
}
