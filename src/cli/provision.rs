//! `tallyd provision`: makes the identities and configuration of a fixed set of boxes, offline.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use tally_core::window::Span;

use crate::identity::{
    Authority, Identity, IdentityError, Issued, MEMBERS_MAX, MemberInfo, Role, SiteId, check_address,
    create_directory, is_name, write_file,
};

/// The file in the output directory that says what was made; no box needs it.
const SITE_FILE: &str = "site.json";

const EXAMPLE: &str = "\
Example: a site of three boxes
  tallyd provision --site plant7 --box box1=10.0.0.11:7400 --box box2=10.0.0.12:7400 \\
      --box box3=10.0.0.13:7400 --out plant7
  Then copy plant7/box1/ to the data directory of box1, and so on, and start tallyd on each.
Example: a fourth box for that site
  tallyd provision --extend plant7 --box box4=10.0.0.14:7400";

/// Make identities and configuration for a fixed set of boxes, offline
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLE)]
pub struct ProvisionArgs {
    /// Name of the site: 1 to 32 of a-z 0-9 -
    #[arg(long, value_name = "NAME", required_unless_present = "extend")]
    pub site: Option<String>,
    /// A box: its name and where the others reach it (QUIC, UDP); once for each of 1 to 9 boxes
    #[arg(long = "box", value_name = "NAME=HOST:PORT", required = true)]
    pub boxes: Vec<String>,
    /// Directory to make; it must not exist or be empty
    #[arg(long, value_name = "DIR", required_unless_present = "extend")]
    pub out: Option<PathBuf>,
    /// Span of the windows that summaries are made of, such as 60s, 5m, 1h
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    pub window: String,
    /// Make a further box for the site that was provisioned into this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["site", "out", "window"])]
    pub extend: Option<PathBuf>,
    /// Print what was made as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The command was not understood (exit status 2).
    #[error("{0}")]
    Usage(String),
    /// It was understood and could not be done (exit status 1).
    #[error("{0}")]
    Failed(String),
}

/// What was made; printed with `--json`, and kept in `site.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provisioned {
    /// Name of the site.
    pub site: String,
    /// Its random identity.
    pub site_id: SiteId,
    /// The span of its windows in milliseconds.
    pub window_ms: u64,
    /// Its boxes.
    pub boxes: Vec<ProvisionedBox>,
}

/// One box of a new site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionedBox {
    /// Its number.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub address: String,
    /// SHA-256 of its public key, hexadecimal.
    pub key: String,
    /// Its data directory, ready to copy.
    pub directory: PathBuf,
}

/// Runs the command and prints what was made.
pub fn run(args: &ProvisionArgs, out: &mut dyn Write) -> Result<(), ProvisionError> {
    let text = match &args.extend {
        Some(dir) => {
            let made = extend(dir, &args.boxes)?;
            if args.json { json(&made) } else { next_steps_of(&made) }
        }
        None => {
            let made = provision(args)?;
            if args.json { json(&made) } else { next_steps(&made) }
        }
    };
    // What was made stands, whoever has closed the pipe.
    let _ = out.write_all(text.as_bytes());
    Ok(())
}

/// Makes the directory.
pub fn provision(args: &ProvisionArgs) -> Result<Provisioned, ProvisionError> {
    let plan = Plan::new(args)?;
    check_empty(&plan.out)?;
    let existed = plan.out.exists();
    create_directory(&plan.out).map_err(failed)?;
    plan.make().map_err(|error| {
        // Halves of keys are of no use, and the next try wants the directory empty.
        plan.remove(existed);
        failed(error)
    })
}

/// What the arguments ask for, checked.
struct Plan {
    site: String,
    window_ms: u64,
    boxes: Vec<BoxPlan>,
    out: PathBuf,
}

struct BoxPlan {
    name: String,
    host: String,
    port: u16,
}

impl Plan {
    fn new(args: &ProvisionArgs) -> Result<Plan, ProvisionError> {
        let site = args.site.clone().ok_or_else(|| usage("--site NAME is missing"))?;
        let out = args.out.clone().ok_or_else(|| usage("--out DIR is missing"))?;
        if !is_name(&site) {
            return Err(usage(format!("--site: {site:?} is not a name (1 to 32 of a-z 0-9 -)")));
        }
        let window_ms = parse_span(&args.window)?;
        if !(1..=MEMBERS_MAX).contains(&args.boxes.len()) {
            return Err(usage(format!("a site has 1 to {MEMBERS_MAX} boxes, not {}", args.boxes.len())));
        }
        let mut boxes: Vec<BoxPlan> = Vec::new();
        for text in &args.boxes {
            let new = BoxPlan::parse(text)?;
            if boxes.iter().any(|other| other.name == new.name) {
                return Err(usage(format!("--box: the name {:?} is given twice", new.name)));
            }
            if boxes.iter().any(|other| other.address() == new.address()) {
                return Err(usage(format!("--box: the address {} is given twice", new.address())));
            }
            if let Some(other) = boxes.iter().find(|other| other.is_loopback() != new.is_loopback()) {
                return Err(usage(format!(
                    "--box: {} is on loopback and {} is not; they could not reach each other",
                    if new.is_loopback() { new.address() } else { other.address() },
                    if new.is_loopback() { other.address() } else { new.address() },
                )));
            }
            boxes.push(new);
        }
        Ok(Plan { site, window_ms, boxes, out })
    }

    fn make(&self) -> Result<Provisioned, IdentityError> {
        let site_id = SiteId::random()?;
        let authority = Authority::found(&self.site, site_id)?;
        let issued: Vec<Issued> = self
            .boxes
            .iter()
            .map(|each| authority.issue(&each.name, site_id))
            .collect::<Result<_, IdentityError>>()?;
        let members: Vec<MemberInfo> = self
            .boxes
            .iter()
            .zip(&issued)
            .zip(1..)
            .map(|((each, issued), id)| MemberInfo {
                id,
                name: each.name.clone(),
                address: each.address(),
                role: Role::Voter,
                key: issued.key_hash.clone(),
            })
            .collect();
        authority.save(&self.out)?;
        let mut made = Provisioned {
            site: self.site.clone(),
            site_id,
            window_ms: self.window_ms,
            boxes: Vec::with_capacity(members.len()),
        };
        for ((each, issued), member) in self.boxes.iter().zip(&issued).zip(&members) {
            let directory = self.out.join(&each.name);
            create_directory(&directory)?;
            issued.save(&directory)?;
            write_file(&directory.join("tallyd.toml"), each.toml().as_bytes(), 0o644)?;
            Identity {
                site: self.site.clone(),
                site_id,
                node: member.id,
                window_ms: self.window_ms,
                members: members.clone(),
            }
            .save(&directory)?;
            let MemberInfo { id, name, address, role: _, key } = member.clone();
            made.boxes.push(ProvisionedBox { id, name, address, key, directory });
        }
        write_file(&self.out.join(SITE_FILE), json(&made).as_bytes(), 0o644)?;
        Ok(made)
    }

    /// Undoes a [`Plan::make`] that failed: the directory was empty before.
    fn remove(&self, keep_directory: bool) {
        if !keep_directory {
            let _ = fs::remove_dir_all(&self.out);
            return;
        }
        for entry in fs::read_dir(&self.out).into_iter().flatten().flatten() {
            let _ = fs::remove_dir_all(entry.path()).or_else(|_| fs::remove_file(entry.path()));
        }
    }
}

impl BoxPlan {
    fn parse(text: &str) -> Result<BoxPlan, ProvisionError> {
        let (name, address) =
            text.split_once('=').ok_or_else(|| usage(format!("--box: {text:?} is not NAME=HOST:PORT")))?;
        if !is_name(name) {
            return Err(usage(format!("--box: {name:?} is not a name (1 to 32 of a-z 0-9 -)")));
        }
        let (host, port) = check_address(address).map_err(|why| usage(format!("--box {name}: {why}")))?;
        // Host names do not differ by case, so neither do doubled addresses.
        let host = host.to_ascii_lowercase();
        if parse_ip(&host).is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err(usage(format!("--box {name}: {host} is not an address that others can reach")));
        }
        Ok(BoxPlan { name: name.into(), host, port })
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || parse_ip(&self.host).is_some_and(|ip| ip.is_loopback())
    }

    /// Where the box listens: everywhere on its port; on loopback only there.
    fn listen(&self) -> String {
        let host = match parse_ip(&self.host) {
            _ if self.host == "localhost" => "127.0.0.1",
            Some(ip) if ip.is_loopback() => &self.host,
            Some(IpAddr::V6(_)) => "[::]",
            _ => "0.0.0.0",
        };
        format!("{host}:{}", self.port)
    }

    // Names and addresses are checked to have nothing that TOML would need escaped.
    fn toml(&self) -> String {
        format!(
            "# Made by `tallyd provision`. Every further key has a default.\n\n\
             [node]\nname = \"{}\"\n\n\
             [cluster]\nlisten = \"{}\"      # QUIC, UDP\nadvertise = \"{}\"   # where the others reach this box\n",
            self.name,
            self.listen(),
            self.address()
        )
    }
}

fn parse_ip(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

/// A span such as `60s`, in milliseconds: whole numbers of `ms`, `s`, `m`, `h` or `d`.
fn parse_span(text: &str) -> Result<u64, ProvisionError> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    unit_ms
        .zip(number.parse::<u64>().ok())
        .and_then(|(unit, number)| number.checked_mul(unit))
        .and_then(Span::from_millis)
        // Shorter ones are for tests, which found sites without this command.
        .filter(|span| span.as_millis() >= 1000)
        .map(Span::as_millis)
        .ok_or_else(|| {
            usage(format!("--window: {text:?} is not a span from 1s to 31d, such as 60s, 5m or 1h"))
        })
}

fn check_empty(dir: &Path) -> Result<(), ProvisionError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(usage(format!(
                "--out: {} is not empty; a site's keys are never overwritten: name another directory",
                dir.display()
            ))),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            Err(usage(format!("--out: {} is not a directory", dir.display())))
        }
        Err(error) => Err(failed(format!("cannot read {}: {error}", dir.display()))),
    }
}

fn json(made: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(made).expect("only texts and numbers");
    text.push('\n');
    text
}

/// Makes a further box for the site that was provisioned into `dir`.
fn extend(dir: &Path, boxes: &[String]) -> Result<ProvisionedBox, ProvisionError> {
    let [text] = boxes else { return Err(usage("--extend makes one box at a time: one --box")) };
    let new = BoxPlan::parse(text)?;
    let file = dir.join(SITE_FILE);
    let text = fs::read(&file).map_err(|error| {
        failed(format!(
            "cannot read {}: {error}; --extend names the directory that `tallyd provision --out` made",
            file.display()
        ))
    })?;
    let mut site: Provisioned = serde_json::from_slice(&text)
        .map_err(|error| failed(format!("{} cannot be understood: {error}", file.display())))?;
    if site.boxes.iter().any(|other| other.name == new.name || other.address == new.address()) {
        let address = new.address();
        return Err(usage(format!("--box: the site has a box {:?} or one at {address} already", new.name)));
    }
    let authority = Authority::load(dir, &site.site, site.site_id).map_err(failed)?;
    let issued = authority.issue(&new.name, site.site_id).map_err(failed)?;
    let id = site.boxes.iter().map(|each| each.id).max().unwrap_or(0) + 1;
    let directory = dir.join(&new.name);
    let key = issued.key_hash.clone();
    let made = ProvisionedBox { id, name: new.name.clone(), address: new.address(), key, directory };
    // The newest of the others, should the site have had more than an identity can list.
    let others = site.boxes.iter().rev().take(MEMBERS_MAX - 1).rev();
    let mut members: Vec<MemberInfo> = others.map(|each| member(each, Role::Voter)).collect();
    // It follows in silence until the site's leader says more.
    members.push(member(&made, Role::Observer));
    let identity = Identity {
        site: site.site.clone(),
        site_id: site.site_id,
        node: id,
        window_ms: site.window_ms,
        members,
    };
    check_empty(&made.directory)?;
    let mut write = || {
        create_directory(&made.directory)?;
        issued.save(&made.directory)?;
        write_file(&made.directory.join("tallyd.toml"), new.toml().as_bytes(), 0o644)?;
        identity.save(&made.directory)?;
        site.boxes.push(made.clone());
        write_file(&file, json(&site).as_bytes(), 0o644)
    };
    write().map_err(|error| {
        let _ = fs::remove_dir_all(&made.directory);
        failed(error)
    })?;
    Ok(made)
}

fn member(each: &ProvisionedBox, role: Role) -> MemberInfo {
    let ProvisionedBox { id, name, address, key, directory: _ } = each.clone();
    MemberInfo { id, name, address, role, key }
}

fn next_steps_of(made: &ProvisionedBox) -> String {
    format!(
        "Made {} ({}) in {}\n\nNext:\n  \
         1. copy the files in this directory to the box's data directory (/var/lib/tallyd for root), by a safe \
         way: node.key is the box's secret\n  \
         2. start it: tallyd run --data-dir DATA-DIRECTORY\n  \
         3. tell the site, at any of its boxes:\n     \
         tallyd member add {}={} --id {} --key {}\n",
        made.name,
        made.address,
        made.directory.display(),
        made.name,
        made.address,
        made.id,
        made.key
    )
}

fn next_steps(made: &Provisioned) -> String {
    let mut text = format!("Made site {} ({}):\n", made.site, made.site_id);
    for each in &made.boxes {
        text.push_str(&format!("  {:<12} {:<24} {}\n", each.name, each.address, each.directory.display()));
    }
    text.push_str(
        "\nNext, for each box:\n  \
         1. copy the files in its directory to the box's data directory (/var/lib/tallyd for root), by a safe \
         way: node.key is the box's secret\n  \
         2. start it: tallyd run --data-dir DATA-DIRECTORY\n  \
         3. look: tallyd status\n\
         Keep ca.key safe and off the boxes.\n",
    );
    text
}

fn usage(text: impl Into<String>) -> ProvisionError {
    ProvisionError::Usage(text.into())
}

fn failed(error: impl std::fmt::Display) -> ProvisionError {
    ProvisionError::Failed(error.to_string())
}

#[cfg(test)]
#[path = "provision_tests.rs"]
mod tests;
