//! The data directory: owner, mode, device, space.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::super::text;
use super::machine::{Machine, Mount};
use super::{Line, Subject, look, ok, wrong};
use crate::identity::{CA_KEY, NODE_KEY};
use crate::storage::{Budget, partition_bytes};

/// Below this nothing can be written for long.
const FREE_LEAST: u64 = 16 << 20;
/// Fewer inodes do not last for the files of a box.
const INODES_LEAST: u64 = 100;

pub(super) fn check(subject: &Subject) -> Vec<Line> {
    let dir = &subject.found.dir;
    let metadata = match std::fs::metadata(dir) {
        Ok(metadata) => metadata,
        Err(error) => return vec![missing(subject, &error)],
    };
    let machine = &subject.machine;
    let real = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.clone());
    let mount = machine.mount_of(&real);
    let mut lines = vec![owner(machine, dir, &metadata)];
    lines.extend(keys(dir));
    lines.push(device(machine, &real, mount.as_ref()));
    lines.extend(space(subject));
    lines
}

fn missing(subject: &Subject, error: &std::io::Error) -> Line {
    let dir = subject.found.dir.display();
    let what = format!("{dir}: {error}");
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return look("data", what, "run the doctor as root or as the daemon's user");
    }
    match subject.runs() {
        true => look("data", what, "name the daemon's data directory with --data-dir"),
        false => wrong("data", what, "mount the data disk, or name the directory with --data-dir"),
    }
}

fn owner(machine: &Machine, dir: &Path, metadata: &std::fs::Metadata) -> Line {
    let user = machine.user(metadata.uid());
    let mode = metadata.permissions().mode() & 0o7777;
    let what = format!("{}, of {user}, mode {mode:04o}", dir.display());
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let foreign = entries.filter_map(|entry| {
        let uid = entry.metadata().ok()?.uid();
        (uid != metadata.uid()).then(|| (entry.file_name().to_string_lossy().into_owned(), uid))
    });
    if let Some((name, uid)) = foreign.min() {
        return wrong(
            "data",
            format!("{what}, but {name} in it belongs to {}", machine.user(uid)),
            format!("chown -R {user}: {}", dir.display()),
        );
    }
    let service =
        machine.read("etc/passwd").is_some_and(|users| users.lines().any(|line| line.starts_with("tallyd:")));
    if service && metadata.uid() == 0 {
        let advice = format!("if the service runs as tallyd: chown -R tallyd: {}", dir.display());
        return look("data", what, advice);
    }
    match mode & 0o027 {
        0 => ok("data", what),
        _ => {
            look("data", format!("{what}: other users may read it"), format!("chmod 0700 {}", dir.display()))
        }
    }
}

/// Private keys that others may read.
fn keys(dir: &Path) -> Option<Line> {
    let open = [NODE_KEY, CA_KEY].into_iter().find(|name| {
        let metadata = std::fs::metadata(dir.join(name));
        metadata.is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    })?;
    let file = dir.join(open);
    Some(wrong(
        "keys",
        format!("{} can be read by other users", file.display()),
        format!("chmod 0600 {}; if somebody else may have read it, replace this box", file.display()),
    ))
}

fn device(machine: &Machine, dir: &Path, mount: Option<&Mount>) -> Line {
    let Some(mount) = mount else {
        return look("device", "the mount table cannot be read", "run the doctor where /proc is mounted");
    };
    let Mount { point, kind, source, read_only } = mount;
    let what = format!("{source} ({kind}), mounted at {}", point.display());
    if let Some(missed) = unmounted(machine, dir, point) {
        return wrong(
            "device",
            format!("{missed} is in /etc/fstab and is not mounted, so this is the disk below it: {what}"),
            format!("stop tallyd, mount {missed}, start tallyd"),
        );
    }
    if *read_only {
        let advice = "find out from the system's log why, check the file system and remount it read-write";
        return wrong("device", format!("{what}, read-only"), advice);
    }
    match kind.as_str() {
        "tmpfs" | "ramfs" => wrong(
            "device",
            format!("{what}: it is in memory, and everything counted is lost when the power fails"),
            "put the data directory on a disk or card",
        ),
        "overlay" | "nfs" | "nfs4" | "cifs" | "9p" | "fuse.sshfs" => look(
            "device",
            format!("{what}: whether a sync is durable there is not for sure"),
            "put the data directory on a disk or card of this machine (in a container: on a volume)",
        ),
        _ => ok("device", what),
    }
}

/// A mount point at or above the directory that `/etc/fstab` names and that is not mounted.
fn unmounted(machine: &Machine, dir: &Path, mounted_at: &Path) -> Option<String> {
    let table = machine.read("etc/fstab")?;
    let points = table.lines().map(str::trim).filter(|line| !line.starts_with('#')).filter_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let point = fields.next()?;
        let options = fields.nth(1).unwrap_or_default();
        (!options.split(',').any(|option| option == "noauto")).then_some(point)
    });
    let above = points.filter(|point| point.starts_with('/') && dir.starts_with(point));
    let nearest = above.max_by_key(|point| point.len())?;
    (Path::new(nearest).components().count() > mounted_at.components().count()).then(|| nearest.to_owned())
}

fn space(subject: &Subject) -> Vec<Line> {
    let dir = &subject.found.dir;
    let Ok(found) = rustix::fs::statvfs(dir.as_path()) else { return Vec::new() };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let storage = &subject.status["storage"];
    let configured = subject.found.config.storage.bytes_max.map(Budget::new);
    let budget = configured.unwrap_or_else(|| Budget::of_partition(partition_bytes(dir).unwrap_or(u64::MAX)));
    let bound = storage["bytes_max"].as_u64().unwrap_or(budget.bytes_max());
    let used = storage["bytes_used"].as_u64().unwrap_or(0);
    let what = format!(
        "{} free; log and snapshots take {} of at most {}",
        text::bytes(free),
        text::bytes(used),
        text::bytes(bound)
    );
    let advice = "free some space there, or lower storage.bytes_max";
    let line = if free < FREE_LEAST && used < bound {
        wrong("space", what, advice)
    } else if free < bound.saturating_sub(used) {
        look("space", format!("{what}, for which there is no room"), advice)
    } else {
        ok("space", what)
    };
    let mut lines = vec![line];
    // Some file systems have no fixed number of them.
    if found.f_files > 0 && found.f_favail < INODES_LEAST {
        let what = format!("only {} inodes are free", found.f_favail);
        lines.push(wrong("inodes", what, "remove files that nobody needs on that file system"));
    }
    lines
}
