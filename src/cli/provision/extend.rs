//! `tallyd provision --extend`: a further member of a site that was provisioned before, or one made anew.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tally_core::id::NodeId;
use tally_core::raft::MemberRole;

use super::{
    BoxPlan, ProvisionArgs, ProvisionError, Provisioned, ProvisionedBox, SITE_FILE, check_empty, failed,
    json, plans, usage,
};
use crate::identity::{Authority, Identity, MEMBERS_MAX, MemberRecord, create_directory, write_file};

/// What was made; printed with `--json`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Extended {
    #[serde(flatten)]
    pub(super) made: ProvisionedBox,
    /// In whose place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replaces: Option<Replaced>,
}

/// A member that has a successor under its name.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Replaced {
    /// Its number.
    pub(super) id: NodeId,
    /// Where its directory is now; absent if there was none any more.
    pub(super) directory: Option<PathBuf>,
}

/// Makes a further box, or a witness, for the site that was provisioned into `dir`.
pub(super) fn extend(dir: &Path, args: &ProvisionArgs) -> Result<Extended, ProvisionError> {
    let Ok([new]) = <[BoxPlan; 1]>::try_from(plans(args)?) else {
        return Err(usage("--extend makes one member at a time: one --box, or one --witness"));
    };
    let file = dir.join(SITE_FILE);
    let mut site = read_site(&file)?;
    let old = match args.replace {
        true => Some(to_replace(&site, &new)?),
        false => check_new(&site, &new).map(|()| None)?,
    };
    let directory = dir.join(&new.name);
    if old.is_none() {
        check_empty(&directory)?;
    }
    let authority = Authority::load(dir, &site.site, site.site_id).map_err(failed)?;
    let issued = authority.issue(&new.name, site.site_id).map_err(failed)?;
    // The number is taken before anything else: what is left of a try that breaks off shares it with nobody.
    let id = site.boxes.iter().map(|each| each.id.0).fold(site.last_id, u64::max) + 1;
    site.last_id = id;
    write_file(&file, json(&site).as_bytes(), 0o644).map_err(failed)?;
    let replaces = old.map(|old| set_aside(dir, &old)).transpose()?;
    // Whoever has the new one's name is the old one.
    site.boxes.retain(|each| each.name != new.name);
    let key = issued.key_hash;
    let (name, address, role) = (new.name.clone(), new.address(), new.role);
    let made = ProvisionedBox { id: NodeId(id), name, address, key, role, directory };
    let identity = identity(&site, &made);
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
    Ok(Extended { made, replaces })
}

fn read_site(file: &Path) -> Result<Provisioned, ProvisionError> {
    let text = fs::read(file).map_err(|error| {
        failed(format!(
            "cannot read {}: {error}; --extend names the directory that `tallyd provision --out` made",
            file.display()
        ))
    })?;
    serde_json::from_slice(&text)
        .map_err(|error| failed(format!("{} cannot be understood: {error}", file.display())))
}

/// A further member has a name and an address of its own.
fn check_new(site: &Provisioned, new: &BoxPlan) -> Result<(), ProvisionError> {
    let (option, address) = (new.option(), new.address());
    if let Some(other) = site.boxes.iter().find(|other| other.name == new.name) {
        return Err(usage(format!(
            "{option}: the name {:?} is taken, by number {} at {}: choose another, or make that one anew with \
             --replace",
            new.name, other.id, other.address
        )));
    }
    match site.boxes.iter().find(|other| other.address == address) {
        None => Ok(()),
        Some(other) => Err(usage(format!(
            "{option}: the address {address} is taken, by {:?}: choose another, or make that one anew with \
             --replace {} {}={address}",
            other.name,
            option_of(other.role),
            other.name
        ))),
    }
}

/// The member in whose place the new one is to be.
fn to_replace(site: &Provisioned, new: &BoxPlan) -> Result<ProvisionedBox, ProvisionError> {
    let (option, address) = (new.option(), new.address());
    let Some(old) = site.boxes.iter().find(|other| other.name == new.name) else {
        let names: Vec<&str> = site.boxes.iter().map(|each| each.name.as_str()).collect();
        return Err(usage(format!(
            "--replace: the site has no {:?}; it has {}; a further one is made without --replace",
            new.name,
            names.join(", ")
        )));
    };
    if option_of(old.role) != option {
        let right = option_of(old.role);
        return Err(usage(format!("{option}: {:?} is made anew with {right} {0}={address}", new.name)));
    }
    match site.boxes.iter().find(|other| other.address == address && other.name != new.name) {
        None => Ok(old.clone()),
        Some(other) => Err(usage(format!(
            "{option}: the address {address} is taken, by {:?}: choose another",
            other.name
        ))),
    }
}

const fn option_of(role: MemberRole) -> &'static str {
    if matches!(role, MemberRole::Witness) { "--witness" } else { "--box" }
}

/// Moves the directory of a member out of the way of its successor, beside it, over nothing.
fn set_aside(dir: &Path, old: &ProvisionedBox) -> Result<Replaced, ProvisionError> {
    let from = dir.join(&old.name);
    if fs::symlink_metadata(&from).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(Replaced { id: old.id, directory: None });
    }
    // A try that broke off may have left a directory of another number here.
    let id = Identity::load(&from).ok().flatten().map_or(old.id, |identity| identity.node_id());
    let name = format!("{}.old-{id}", old.name);
    let further = (2..).map(|turn| dir.join(format!("{name}-{turn}")));
    let mut free = std::iter::once(dir.join(&name)).chain(further);
    let to = free.find(|path| fs::symlink_metadata(path).is_err()).expect("there is always a further name");
    let moved = fs::rename(&from, &to).and_then(|()| fs::File::open(dir)?.sync_all());
    moved.map_err(|error| {
        failed(format!("cannot move {} to {}: {error}; nothing was replaced", from.display(), to.display()))
    })?;
    Ok(Replaced { id: old.id, directory: Some(to) })
}

/// Who the new member is, and whom it knows.
fn identity(site: &Provisioned, made: &ProvisionedBox) -> Identity {
    // The newest of the others, should the site have had more than an identity can list. A witness that it may
    // have is no matter of a box that does not vote yet, nor of another witness.
    let others =
        site.boxes.iter().rev().filter(|each| each.role != MemberRole::Witness).take(MEMBERS_MAX - 1);
    let mut members: Vec<MemberRecord> = others.map(|each| member(each, MemberRole::Voter)).collect();
    members.reverse();
    // A box follows in silence until the site's leader says more.
    members
        .push(member(made, if made.role == MemberRole::Witness { made.role } else { MemberRole::Observer }));
    Identity {
        site: site.site.clone(),
        site_id: site.site_id,
        node: made.id.0,
        window_ms: site.window_ms,
        level: site.level,
        members,
    }
}

fn member(each: &ProvisionedBox, role: MemberRole) -> MemberRecord {
    let ProvisionedBox { id, name, address, key, role: _, directory: _ } = each.clone();
    MemberRecord { id, name, address, role, key }
}
