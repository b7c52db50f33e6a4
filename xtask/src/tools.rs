//! Tools that the project uses and a machine may lack: found, installed, or asked for in plain words.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// A tool of the system's packages.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tool {
    /// The broker.
    Mosquitto,
    /// Its command-line subscriber and publisher.
    MosquittoClients,
    /// `ip`: namespaces and wires for tests with real boxes.
    Iproute,
    /// `unshare` and `setpriv`: rooms for such tests.
    UtilLinux,
    /// `mount`, likewise.
    Mount,
    /// `mkfs.ext4`: small disks for such tests.
    Mkfs,
    /// Makes certificates as people make them, for tests of TLS.
    Openssl,
    /// `systemd-analyze`: how far a unit may reach.
    Systemd,
    /// `eu-strip`: takes the symbols out of programs for any machine.
    Elfutils,
    /// `systemd-nspawn`: machines with a systemd of their own.
    Nspawn,
    /// `debootstrap`: a Debian for these.
    Debootstrap,
    /// What Debian asks of a package.
    Lintian,
    /// A browser without a window, for pictures of the page.
    Chromium,
    /// A peer that `bench` puts the same load on.
    Redis,
}

impl Tool {
    const fn program(self) -> &'static str {
        match self {
            Tool::Mosquitto => "mosquitto",
            Tool::MosquittoClients => "mosquitto_sub",
            Tool::Iproute => "ip",
            Tool::UtilLinux => "unshare",
            Tool::Mount => "mount",
            Tool::Mkfs => "mkfs.ext4",
            Tool::Openssl => "openssl",
            Tool::Systemd => "systemd-analyze",
            Tool::Elfutils => "eu-strip",
            Tool::Nspawn => "systemd-nspawn",
            Tool::Debootstrap => "debootstrap",
            Tool::Lintian => "lintian",
            Tool::Chromium => "chromium",
            Tool::Redis => "redis-server",
        }
    }

    /// The package in Debian and its relatives.
    const fn package(self) -> &'static str {
        match self {
            Tool::Mosquitto => "mosquitto",
            Tool::MosquittoClients => "mosquitto-clients",
            Tool::Iproute => "iproute2",
            Tool::UtilLinux => "util-linux",
            Tool::Mount => "mount",
            Tool::Mkfs => "e2fsprogs",
            Tool::Openssl => "openssl",
            Tool::Systemd => "systemd",
            Tool::Elfutils => "elfutils",
            Tool::Nspawn => "systemd-container",
            Tool::Debootstrap => "debootstrap",
            Tool::Lintian => "lintian",
            Tool::Chromium => "chromium",
            Tool::Redis => "redis-server",
        }
    }

    /// A service that installing the package starts, and that would only be in the way.
    const fn service(self) -> Option<&'static str> {
        match self {
            Tool::Mosquitto => Some("mosquitto"),
            Tool::Redis => Some("redis-server"),
            Tool::MosquittoClients
            | Tool::Iproute
            | Tool::UtilLinux
            | Tool::Mount
            | Tool::Mkfs
            | Tool::Openssl
            | Tool::Systemd
            | Tool::Elfutils
            | Tool::Nspawn
            | Tool::Debootstrap
            | Tool::Lintian
            | Tool::Chromium => None,
        }
    }
}

/// Whether something may be installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Consent {
    Given,
    /// On a terminal the user is asked; elsewhere the answer is no.
    Ask,
}

impl Consent {
    pub(crate) const fn of(yes: bool) -> Consent {
        if yes { Consent::Given } else { Consent::Ask }
    }

    fn is_given(self, wish: &str) -> bool {
        if self == Consent::Given {
            return true;
        }
        let mut input = std::io::stdin();
        if !input.is_terminal() {
            return false;
        }
        print!("Run `{wish}` now? [Y/n] ");
        let mut answer = [0; 64];
        let read = std::io::stdout().flush().and_then(|()| input.read(&mut answer)).unwrap_or_default();
        matches!(answer[..read].trim_ascii(), b"" | b"y" | b"Y" | b"yes") && read > 0
    }
}

/// Makes sure that the tools are there: installs what is missing if this runs as root on a system
/// with apt and may do so, and otherwise names the command to run.
pub(crate) fn ensure(tools: &[Tool], consent: Consent) -> Result<()> {
    let missing: Vec<Tool> = tools.iter().copied().filter(|tool| find(tool.program()).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package()).collect();
    let wish = format!("apt-get install {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!("please install {} with this system's package manager and try again", packages.join(" and "));
    }
    if !is_root() {
        bail!("{} is missing; please run `sudo {wish}` and try again", packages.join(" and "));
    }
    if !consent.is_given(&wish) {
        bail!("{} is missing; run `{wish}`, or this command with --yes", packages.join(" and "));
    }
    println!("installing what is missing: {wish}");
    install(&packages)?;
    for service in missing.iter().filter_map(|tool| tool.service()) {
        stop_service(service);
    }
    match missing.iter().find(|tool| find(tool.program()).is_none()) {
        Some(tool) => bail!("`{wish}` did not install {}; please install it by hand", tool.program()),
        None => Ok(()),
    }
}

fn install(packages: &[&str]) -> Result<()> {
    let install = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "-y", "--no-install-recommends"]).args(packages);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    if run::collect(&mut install())?.ok {
        return Ok(());
    }
    // The lists may be missing or old.
    let update = run::collect(Command::new("apt-get").arg("update"))?;
    let outcome = run::collect(&mut install())?;
    if !outcome.ok {
        bail!("{} failed:\n{}{}", run::show(&install()), update.text, outcome.text);
    }
    Ok(())
}

/// Stops a service that a package has just started; where there is none, there is nothing to stop.
fn stop_service(name: &str) {
    let _ = run::collect(Command::new("systemctl").args(["disable", "--now", name]));
    let _ = run::collect(Command::new("service").args([name, "stop"]));
}

/// A program on the path, or where the system keeps its daemons.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// Makes sure that a cargo subcommand is there, building it if need be. `Err` says why it is not.
pub(crate) fn ensure_cargo_tool(name: &str) -> Result<()> {
    if has_cargo_tool(name) { Ok(()) } else { install_cargo_tool(name) }
}

/// The same for one release of it, which what comes out depends on.
pub(crate) fn ensure_cargo_tool_of(name: &str, version: &str) -> Result<()> {
    let subcommand = name.trim_start_matches("cargo-");
    let found = run::collect(&mut run::cargo(&[subcommand, "--version"]));
    match found.is_ok_and(|outcome| outcome.ok && outcome.text.contains(version)) {
        true => Ok(()),
        false => install_cargo_tool(&format!("{name}@{version}")),
    }
}

fn install_cargo_tool(name: &str) -> Result<()> {
    println!("installing what is missing: cargo install --locked {name} (this takes a few minutes, once)");
    let outcome = run::collect(&mut run::cargo(&["install", "--locked", name]))?;
    if !outcome.ok {
        let last = outcome.text.trim_end().lines().last().unwrap_or_default();
        bail!("`cargo install --locked {name}` failed: {last}");
    }
    Ok(())
}

/// Whether cargo knows a subcommand, by the name of its crate.
pub(crate) fn has_cargo_tool(name: &str) -> bool {
    let subcommand = name.trim_start_matches("cargo-");
    run::collect(&mut run::cargo(&[subcommand, "--version"])).is_ok_and(|outcome| outcome.ok)
}

fn is_root() -> bool {
    run::output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0")
}
