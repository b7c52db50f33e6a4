//! `tallyd provision`: makes the identities and configuration of a fixed set of boxes, offline.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use tally_core::id::{KeyHash, NodeId};
use tally_core::raft::MemberRole;
use tally_core::window::Span;

mod extend;
mod texts;

use extend::extend;
use texts::{next_steps, next_steps_of};

use crate::identity::first_level;
use crate::identity::{
    Authority, Identity, IdentityError, Issued, MEMBERS_MAX, MemberRecord, SiteId, check_address,
    create_directory, is_name, write_file,
};
use crate::site::Level;
use crate::units::Unit;

/// The file in the output directory that lists what was made; no box needs it.
const SITE_FILE: &str = "site.json";

const EXAMPLE: &str = "\
Example: a site of three boxes
  tallyd provision --site plant7 --box box1=10.0.0.11:7400 --box box2=10.0.0.12:7400 \\
      --box box3=10.0.0.13:7400 --out plant7
  Then copy plant7/box1/ to the data directory of box1, and so on, and start tallyd on each box.
Example: a site of two boxes, and a witness that breaks ties
  tallyd provision --site plant8 --box box1=10.0.0.21:7400 --box box2=10.0.0.22:7400 \\
      --witness witness=10.0.0.5:7408 --out plant8
Example: a fourth box for that site, and then a witness
  tallyd provision --extend plant7 --box box4=10.0.0.14:7400
  tallyd provision --extend plant7 --witness witness=10.0.0.5:7407
Example: a replacement for box3, with a new machine or a new disk
  tallyd provision --extend plant7 --replace --box box3=10.0.0.13:7400";

/// Make identities and configuration for a fixed set of boxes, offline
#[derive(Args, Clone, Debug, Default)]
#[command(after_help = EXAMPLE)]
pub struct ProvisionArgs {
    /// Name of the site: 1 to 32 of a-z 0-9 -
    #[arg(long, value_name = "NAME", required_unless_present = "extend")]
    pub site: Option<String>,
    /// A box: its name, and the address at which the others reach it (QUIC, UDP); once for each of 1 to 9 boxes
    #[arg(long = "box", value_name = "NAME=HOST:PORT", required_unless_present = "extend")]
    pub boxes: Vec<String>,
    /// A witness: it votes and stores a few bytes, so that a site of 2, 4, 6 or 8 boxes tolerates one more failure
    #[arg(long, value_name = "NAME=HOST:PORT")]
    pub witness: Option<String>,
    /// Directory to make; it must be empty or not exist
    #[arg(long, value_name = "DIR", required_unless_present = "extend")]
    pub out: Option<PathBuf>,
    /// Span of the windows that are summarised, such as 60s, 5m, 1h
    #[arg(long, value_name = "SPAN", default_value = "60s")]
    pub window: String,
    /// Make another box, or a witness, for the site that was provisioned into this directory
    #[arg(long, value_name = "DIR", conflicts_with_all = ["site", "out", "window"])]
    pub extend: Option<PathBuf>,
    /// Replace the member that --box or --witness names: new keys and a new number under the same name, at
    /// the same address or another; its old directory is moved aside
    #[arg(long, requires = "extend")]
    pub replace: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The command line is wrong (exit status 2).
    #[error("{0}")]
    Usage(String),
    /// The command could not be carried out (exit status 1).
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
    /// The feature level that it is founded with. Files of the first release do not say it.
    #[serde(default = "first_level")]
    pub level: u32,
    /// Its boxes.
    pub boxes: Vec<ProvisionedBox>,
    /// The highest number that was ever given, also to a box that is not listed any more. Older files do not
    /// say it: then it is that of a listed box.
    #[serde(default)]
    pub last_id: u64,
}

/// One box of a new site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvisionedBox {
    /// Its number.
    pub id: NodeId,
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub address: String,
    /// The hash of its public key.
    pub key: KeyHash,
    /// What it is, or was when it was made.
    #[serde(default = "voter")]
    pub role: MemberRole,
    /// Its data directory, ready to copy.
    pub directory: PathBuf,
}

/// What older files do not say.
const fn voter() -> MemberRole {
    MemberRole::Voter
}

/// Runs the command and prints what was made.
///
/// # Errors
/// Why nothing was made.
pub fn run(args: &ProvisionArgs, out: &mut dyn Write) -> Result<(), ProvisionError> {
    let text = match &args.extend {
        Some(dir) => {
            let made = extend(dir, args)?;
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
///
/// # Errors
/// Why nothing was made.
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
    role: MemberRole,
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
        if args.witness.is_some() && !args.boxes.len().is_multiple_of(2) {
            return Err(usage(format!(
                "--witness: a witness requires an even number of boxes, not {}: with an odd number there is \
                 no tie to break, and one more vote would tolerate no more failures; leave the witness out, \
                 or add a box",
                args.boxes.len()
            )));
        }
        let mut boxes: Vec<BoxPlan> = Vec::new();
        for new in plans(args)? {
            let option = new.option();
            if boxes.iter().any(|other| other.name == new.name) {
                return Err(usage(format!("{option}: the name {:?} is given twice", new.name)));
            }
            if boxes.iter().any(|other| other.address() == new.address()) {
                return Err(usage(format!("{option}: the address {} is given twice", new.address())));
            }
            if let Some(other) = boxes.iter().find(|other| other.is_loopback() != new.is_loopback()) {
                return Err(usage(format!(
                    "{option}: {} is on loopback and {} is not; the two could not reach each other",
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
        let members: Vec<MemberRecord> = self
            .boxes
            .iter()
            .zip(&issued)
            .zip(1..)
            .map(|((each, issued), id)| MemberRecord {
                id: NodeId(id),
                name: each.name.clone(),
                address: each.address(),
                role: each.role,
                key: issued.key_hash,
            })
            .collect();
        authority.save(&self.out)?;
        let mut made = Provisioned {
            site: self.site.clone(),
            site_id,
            window_ms: self.window_ms,
            level: Level::MAX.get(),
            boxes: Vec::with_capacity(members.len()),
            last_id: members.iter().map(|member| member.id.0).max().unwrap_or(0),
        };
        for ((each, issued), member) in self.boxes.iter().zip(&issued).zip(&members) {
            let directory = self.out.join(&each.name);
            create_directory(&directory)?;
            issued.save(&directory)?;
            write_file(&directory.join("tallyd.toml"), each.toml().as_bytes(), 0o644)?;
            Identity {
                site: self.site.clone(),
                site_id,
                node: member.id.0,
                window_ms: self.window_ms,
                level: Level::MAX.get(),
                members: members.clone(),
            }
            .save(&directory)?;
            let MemberRecord { id, name, address, role, key } = member.clone();
            made.boxes.push(ProvisionedBox { id, name, address, key, role, directory });
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

/// The boxes that the arguments name, and the witness, if there is one, after them.
fn plans(args: &ProvisionArgs) -> Result<Vec<BoxPlan>, ProvisionError> {
    let boxes = args.boxes.iter().map(|text| BoxPlan::parse(text, MemberRole::Voter));
    boxes.chain(args.witness.iter().map(|text| BoxPlan::parse(text, MemberRole::Witness))).collect()
}

impl BoxPlan {
    fn parse(text: &str, role: MemberRole) -> Result<BoxPlan, ProvisionError> {
        let option = if role == MemberRole::Witness { "--witness" } else { "--box" };
        let (name, address) =
            text.split_once('=').ok_or_else(|| usage(format!("{option}: {text:?} is not NAME=HOST:PORT")))?;
        if !is_name(name) {
            return Err(usage(format!("{option}: {name:?} is not a name (1 to 32 of a-z 0-9 -)")));
        }
        let (host, port) = check_address(address).map_err(|why| usage(format!("{option} {name}: {why}")))?;
        // Host names do not differ by case, so neither do doubled addresses.
        let host = host.to_ascii_lowercase();
        if parse_ip(&host).is_some_and(|ip| ip.is_unspecified() || ip.is_multicast()) {
            return Err(usage(format!("{option} {name}: other boxes cannot reach {host}")));
        }
        Ok(BoxPlan { role, name: name.into(), host, port })
    }

    /// The option that asked for it.
    const fn option(&self) -> &'static str {
        if matches!(self.role, MemberRole::Witness) { "--witness" } else { "--box" }
    }

    fn address(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || parse_ip(&self.host).is_some_and(|ip| ip.is_loopback())
    }

    /// Where the box listens: everywhere on its port, by both IP versions, since a host name may stand for either, and
    /// another box's for the other; on loopback only there.
    fn listen(&self) -> String {
        let host = match parse_ip(&self.host) {
            _ if self.host == "localhost" => "127.0.0.1",
            Some(ip) if ip.is_loopback() => &self.host,
            _ => "[::]",
        };
        format!("{host}:{}", self.port)
    }

    // Names and addresses are checked to have nothing that TOML would need escaped.
    fn toml(&self) -> String {
        format!(
            "# Written by `tallyd provision`. Every other key has a default.\n\n[node]\nname = \
             \"{}\"\n\n[cluster]\nlisten = \"{}\"      # QUIC, UDP\nadvertise = \"{}\"   # where the others \
             reach this box\n",
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
    // Shorter ones are for tests, which found sites without this command.
    let millis = Unit::Duration.parse(text).ok();
    millis
        .and_then(Span::from_millis)
        .filter(|span| span.as_millis() >= 1000)
        .map(Span::as_millis)
        .ok_or_else(|| {
            usage(format!("--window: {text:?} is not a duration from 1s to 31d, such as 60s, 5m or 1h"))
        })
}

fn check_empty(dir: &Path) -> Result<(), ProvisionError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(usage(format!(
                "--out: {} is not empty; tallyd never overwrites a site's keys: choose another directory",
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
    let mut text = serde_json::to_string_pretty(made).expect("the value has only texts and numbers");
    text.push('\n');
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
