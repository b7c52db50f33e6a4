//! The admin socket: who may open it administers the box. It is a file, so the system's permissions decide.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;
use tracing::{info, warn};

use super::ApiError;
use crate::environment;

/// Its file's name.
pub(crate) const SOCKET: &str = "tallyd.sock";
/// Where the service's is.
pub(crate) const SERVICE_SOCKET: &str = "/run/tallyd/tallyd.sock";
/// How long a stop waits until its file is removed.
const REMOVED_WITHIN: Duration = Duration::from_millis(200);
/// How many connections wait until they are accepted.
const BACKLOG: i32 = 64;
/// Its members may connect, too, where there is this group.
const GROUP: &str = "tallyd";
const MODE_OF_GROUP: u32 = 0o660;

/// A bound socket. While it lives no other process takes its place.
#[derive(Debug)]
pub(crate) struct AdminSocket {
    path: PathBuf,
    listener: StdListener,
    inode: u64,
    _lock: File,
}

/// Where the socket is to be, the first that no other process serves.
///
/// `named`: what the configuration says; nothing else is tried then.
pub(crate) fn places(named: Option<&Path>, data_dir: &Path) -> Vec<PathBuf> {
    if let Some(path) = named {
        return vec![path.to_owned()];
    }
    // systemd names all that a unit has, divided by colons.
    let runtime = environment::value("RUNTIME_DIRECTORY");
    let runtime = runtime.and_then(|dirs| std::env::split_paths(&dirs).next());
    let first = runtime.map(|dir| dir.join(SOCKET)).or_else(of_session);
    // Absolute: it is told to whoever may be elsewhere.
    let places = first.into_iter().chain([data_dir.join(SOCKET)]);
    places.map(|path| std::path::absolute(&path).unwrap_or(path)).collect()
}

/// That of this user's session.
pub(crate) fn of_session() -> Option<PathBuf> {
    environment::value("XDG_RUNTIME_DIR").map(|dir| Path::new(&dir).join("tallyd").join(SOCKET))
}

impl AdminSocket {
    /// Binds the first place that is free. A box goes on without a socket if none can be had, unless its configuration
    /// names one.
    ///
    /// # Errors
    /// The place that the configuration names cannot be had.
    pub(crate) fn bind(named: Option<&Path>, data_dir: &Path) -> Result<Option<AdminSocket>, ApiError> {
        let mut why = Vec::new();
        for path in places(named, data_dir) {
            match AdminSocket::bind_at(&path) {
                Ok(socket) => {
                    info!("the admin socket is {}", path.display());
                    socket.link_from(data_dir);
                    return Ok(Some(socket));
                }
                Err(source) if named.is_some() => return Err(ApiError::Socket { path, source }),
                Err(error) => why.push(format!("{}: {error}", path.display())),
            }
        }
        warn!("no admin socket ({}): set api.socket; admin tokens still work", why.join("; "));
        Ok(None)
    }

    fn bind_at(path: &Path) -> io::Result<AdminSocket> {
        if let Some(dir) = path.parent().filter(|dir| !dir.exists()) {
            DirBuilder::new().mode(0o700).create(dir)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.with_added_extension("lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::new(io::ErrorKind::AddrInUse, "another tallyd serves it"),
            TryLockError::Error(error) => error,
        })?;
        // Whoever has the lock is alone here: what is left is of a process that was killed.
        match fs::symlink_metadata(path) {
            Ok(found) if found.file_type().is_socket() || found.is_symlink() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other("there is something that is not a socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        // Before it has a name: nobody else may connect in between, whatever the umask.
        rustix::fs::fchmod(&socket, rustix::fs::Mode::from_raw_mode(0o600))?;
        socket.bind(&SockAddr::unix(path)?)?;
        socket.listen(BACKLOG)?;
        socket.set_nonblocking(true)?;
        // Only root and the group's own members may give it to the group: the others' socket is for its owner alone.
        if let Some(group) = group_id()
            && rustix::fs::chown(path, None, Some(rustix::fs::Gid::from_raw(group))).is_ok()
        {
            fs::set_permissions(path, fs::Permissions::from_mode(MODE_OF_GROUP))?;
        }
        let inode = fs::symlink_metadata(path)?.ino();
        Ok(AdminSocket { path: path.to_owned(), listener: socket.into(), inode, _lock: lock })
    }

    /// Makes it found by the data directory alone, wherever it is.
    fn link_from(&self, data_dir: &Path) {
        let link = data_dir.join(SOCKET);
        if std::path::absolute(&link).is_ok_and(|link| link == self.path) {
            return;
        }
        let _ = fs::remove_file(&link);
        if let Err(error) = std::os::unix::fs::symlink(&self.path, &link) {
            info!("cannot make {}: {error}", link.display());
        }
    }

    /// Whether it is still where it was made.
    pub(crate) fn is_there(&self) -> bool {
        is_it(&self.path, self.inode)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The listener, for the runtime.
    ///
    /// # Errors
    /// The descriptor cannot be had twice.
    pub(crate) fn listener(&self) -> io::Result<UnixListener> {
        UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for AdminSocket {
    /// On a disk that hangs the file stays, and the next start replaces it: a stop waits for no disk.
    fn drop(&mut self) {
        let (path, inode) = (self.path.clone(), self.inode);
        let (done, is_done) = mpsc::channel();
        let remove = move || {
            if is_it(&path, inode) {
                let _ = fs::remove_file(&path);
            }
            // Nobody may wait any more.
            let _ = done.send(());
        };
        if thread::Builder::new().name("socket".to_owned()).spawn(remove).is_ok() {
            let _ = is_done.recv_timeout(REMOVED_WITHIN);
        }
    }
}

fn is_it(path: &Path, inode: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.ino() == inode)
}

fn group_id() -> Option<u32> {
    let groups = fs::read_to_string("/etc/group").ok()?;
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (name == GROUP).then(|| number.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream;

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(SOCKET);
        // As a killed process leaves it.
        drop(StdListener::bind(&path).unwrap());
        assert!(UnixStream::connect(&path).is_err());
        let first = AdminSocket::bind_at(&path).unwrap();
        let error = AdminSocket::bind_at(&path).unwrap_err();
        assert!(error.to_string().contains("another tallyd serves it"), "{error}");
        assert!(UnixStream::connect(&path).is_ok() && first.is_there());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o117, 0);
        drop(first);
        assert!(!path.exists());
        AdminSocket::bind_at(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = AdminSocket::bind_at(&path).unwrap_err();
        assert!(error.to_string().contains("not a socket") && path.exists(), "{error}");
    }

    #[test]
    fn a_second_box_has_its_socket_in_its_data_directory_and_a_named_one_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let (named, data) = (directory.path().join("named.sock"), directory.path());
        let first = AdminSocket::bind(Some(&named), data).unwrap().unwrap();
        assert!(UnixStream::connect(data.join(SOCKET)).is_ok(), "found by the data directory, too");
        let error = AdminSocket::bind(Some(&named), data).unwrap_err().to_string();
        assert!(error.contains("api.socket") && error.contains("another tallyd"), "{error}");
        drop(first);
        let long = directory.path().join("x".repeat(120)).join("y.sock");
        assert!(AdminSocket::bind(Some(&long), data).is_err());
    }
}
