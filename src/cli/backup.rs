//! `tallyd backup` and `tallyd restore`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use http_body_util::BodyExt;
use tally_core::id::{LogIndex, Subterm, Term};
use tally_core::raft::{HardState, Position};

use super::client::{Client, ClientError, Server};
use super::progress::Progress;
use super::{Failure, print_done, text};
use crate::backup::{self, Backup, BackupHead};
use crate::clock::wall_ms;
use crate::identity::{Identity, SiteId, is_name};
use crate::site::{BootstrapSettings, Site};
use crate::storage::{Options, Owner, RealFileSystem, Storage};

/// Keep the whole site in a file
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example:
  tallyd backup /mnt/usb/plant7.tallyd

Any box of the site makes one, while it runs. It has everything that was acknowledged before: totals,
windows, the outbox, settings, idempotency keys; not the members, their keys, nor join tokens.")]
pub(super) struct BackupArgs {
    /// File to write; it is complete, or not there
    file: PathBuf,
    #[command(flatten)]
    server: Server,
}

/// Found a site of one box from a backup
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example: and then start it
  tallyd restore plant7.tallyd --data-dir /var/lib/tallyd
  tallyd run --data-dir /var/lib/tallyd

The site has a new id, so that subscribers do not take its numbers for those of the old one, and `since` of
its series says that they begin now: their totals are those of the backup. Other boxes join it anew.")]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    /// Data directory of the new site; it must be empty or not exist
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Name of the new site; default: that of the backup
    #[arg(long, value_name = "NAME")]
    site: Option<String>,
    /// Keep the site's id: only if the old site is gone for good
    #[arg(long)]
    keep_site_id: bool,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

pub(super) async fn backup(args: BackupArgs) -> Result<(), ClientError> {
    let failed = |error: io::Error| unwritten(&args.file, &error);
    let mut name = args.file.clone().into_os_string();
    name.push(".tmp");
    let temporary = PathBuf::from(name);
    let received = receive(&args, &temporary).await;
    let head = match received {
        Ok(head) => head,
        Err(error) => {
            // Half a backup is none.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
    };
    if let Err(error) = fs::rename(&temporary, &args.file) {
        let _ = fs::remove_file(&temporary);
        return Err(failed(error));
    }
    sync_parent(&args.file).map_err(failed)?;
    if args.server.json {
        let head = serde_json::to_string(&head).expect("a head has only texts and numbers");
        return print_done(&format!("{head}\n"));
    }
    let BackupHead { site, site_id, series, applied, time, .. } = head;
    let file = args.file.display().to_string();
    print_done(&format!(
        "{} has site {site} ({site_id}) up to entry {applied}, of {}: {series} series\n",
        text::printable(&file),
        text::time(time)
    ))
}

/// The file, or its part before it is whole, cannot be written.
fn unwritten(file: &Path, error: &io::Error) -> ClientError {
    let file = file.display().to_string();
    ClientError::Local(format!("cannot write {}: {error}; no backup was made", text::printable(&file)))
}

async fn receive(args: &BackupArgs, temporary: &Path) -> Result<BackupHead, ClientError> {
    let client = Client::new(&args.server)?;
    let mut answer = client.open("/v1/backup").await?.into_body();
    let all = hyper::body::Body::size_hint(&answer).exact().unwrap_or(0);
    let mut file = File::create(temporary).map_err(|error| unwritten(temporary, &error))?;
    let (mut bytes, mut progress) = (Vec::new(), Progress::begin("backup"));
    while let Some(frame) = answer.frame().await {
        let frame = frame.map_err(|error| {
            ClientError::NotTried(format!("the box broke off the backup: {error}; nothing was kept"))
        })?;
        if let Some(part) = frame.data_ref() {
            file.write_all(part).map_err(|error| unwritten(temporary, &error))?;
            bytes.extend_from_slice(part);
            if bytes.len() as u64 > backup::BACKUP_BYTES_MAX {
                let why = format!("more than {} bytes", backup::BACKUP_BYTES_MAX);
                return Err(ClientError::Answer(args.server.shown(), why));
            }
            progress.show(bytes.len() as u64, all);
        }
    }
    progress.end();
    let (head, _) =
        backup::check(&bytes).map_err(|error| ClientError::Answer(args.server.shown(), error.to_string()))?;
    file.sync_all().map_err(|error| unwritten(temporary, &error))?;
    Ok(head)
}

fn sync_parent(file: &Path) -> io::Result<()> {
    let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all())
}

pub(super) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let usage = |why: String| Failure { status: 2, text: why };
    let failed = |why: String| Failure { status: 1, text: why };
    if let Some(name) = args.site.as_deref().filter(|name| !is_name(name)) {
        return Err(usage(format!("--site: {name:?} is not a name (1 to 32 of a-z 0-9 -)")));
    }
    let dir = &args.data_dir;
    let found = fs::read_dir(dir).map(|mut names| names.next().is_some());
    let was_there = found.is_ok();
    match found {
        Ok(false) => {}
        Ok(true) => return Err(usage(format!("--data-dir: {} is not empty", dir.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(format!("cannot read {}: {error}", dir.display()))),
    }
    let in_file = |why: &dyn std::fmt::Display| failed(format!("{}: {why}", args.file.display()));
    let length = fs::metadata(&args.file).map_err(|error| in_file(&error))?.len();
    if length > backup::BACKUP_BYTES_MAX {
        return Err(in_file(&format!("no backup has {length} bytes")));
    }
    let bytes = fs::read(&args.file).map_err(|error| in_file(&error))?;
    let Backup { head, mut site } = Backup::read(&bytes).map_err(|error| in_file(&error))?;
    let name = args.site.clone().unwrap_or_else(|| head.site.clone());
    let site_id =
        if args.keep_site_id { head.site_id } else { random_id().map_err(|why| failed(why.to_string()))? };
    site.refound(site_id.0, wall_ms());
    let made = make(dir, &head, &name, site_id, &site).map_err(failed);
    let identity = made.inspect_err(|_| {
        // The next try wants the directory empty. One that was there stays: somebody made it, perhaps as a mount point.
        let _ = if was_there { empty(dir) } else { fs::remove_dir_all(dir) };
    })?;
    let done = match args.json {
        true => serde_json::json!({
            "site": identity.site, "site_id": identity.site_id, "box": identity.me().name, "data_dir": dir,
            "series": head.series, "applied": head.applied, "time": head.time,
        })
        .to_string(),
        false => format!(
            "site {} ({}) is founded in {} with {} series as of {}; start it: tallyd run --data-dir {}",
            identity.site,
            identity.site_id,
            dir.display(),
            head.series,
            text::time(head.time),
            dir.display()
        ),
    };
    print_done(&format!("{done}\n")).map_err(|error| Failure::new(error.exit_status(), &error))
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn random_id() -> Result<SiteId, crate::identity::IdentityError> {
    SiteId::random()
}

/// Makes the data directory; the identity comes last, so that half a directory is no box's.
fn make(dir: &Path, head: &BackupHead, name: &str, site_id: SiteId, site: &Site) -> Result<Identity, String> {
    let level = site.level();
    let identity =
        Identity::make_single(dir, (name, site_id), &head.node, "").map_err(|error| error.to_string())?;
    let identity = Identity { window_ms: head.window_ms, level: level.get(), ..identity };
    let base_span = tally_core::window::Span::from_millis(head.window_ms).ok_or("the head is damaged")?;
    let founding = BootstrapSettings { site: name.to_owned(), site_id: site_id.0, base_span, level };
    // As the box will read it.
    let state = Site::restore(&founding, &site.snapshot()).map_err(|error| error.to_string())?;
    let owner = Owner { site_id: site_id.0, node: identity.node };
    let (mut storage, _) =
        Storage::open(RealFileSystem, dir, owner, Options::default()).map_err(|error| error.to_string())?;
    let position = Position { index: LogIndex(state.applied().0), term: Term(1), subterm: Subterm(0) };
    let hard_state = HardState { term: Term(1), vote: None };
    storage
        .install_snapshot(position, Bytes::from(state.snapshot()), hard_state)
        .map_err(|error| error.to_string())?;
    drop(storage);
    identity.save(dir).map_err(|error| error.to_string())?;
    Ok(identity)
}
