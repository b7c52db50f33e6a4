//! A file of the data directory that this process may not use: whose process it is, and what to do.

use std::io;
use std::path::Path;

use crate::identity::IDENTITY;

/// How far above a file its data directory is at most.
const DEPTH_MAX: usize = 3;

/// Says what to do about an error at a file or directory below a data directory; empty if it is not one of permissions.
/// Begins with "; ".
pub(crate) fn advice(error: &io::Error, path: &Path) -> String {
    let user = rustix::process::geteuid();
    // What root may not do, a change of owners does not mend.
    if error.kind() != io::ErrorKind::PermissionDenied || user.is_root() {
        return String::new();
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    advice_for(user.as_raw(), &passwd, path)
}

fn advice_for(uid: u32, passwd: &str, path: &Path) -> String {
    // A name is followed by a colon: the user's own group, too. A number has no such group.
    let (user, owner) = match name(uid, passwd) {
        Some(name) => (format!("user {name:?}"), format!("{name}:")),
        None => (format!("user number {uid}"), uid.to_string()),
    };
    match data_directory(path) {
        Some(dir) => format!(
            "; this process runs as {user}: give it the data directory with `chown -R {owner} {}`",
            dir.display()
        ),
        // Nothing above a data directory is to be given away.
        None => format!("; this process runs as {user}, which needs access to it"),
    }
}

fn name(uid: u32, passwd: &str) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, _, number) = (fields.next()?, fields.next()?, fields.next()?);
        (number.parse() == Ok(uid)).then_some(name)
    })
}

/// The nearest directory at or above the path that holds an identity, or that may not even be looked into.
fn data_directory(path: &Path) -> Option<&Path> {
    let holds_data = |dir: &&Path| dir.is_absolute() && dir.join(IDENTITY).try_exists().unwrap_or(true);
    path.ancestors().take(DEPTH_MAX).filter(|dir| dir.is_dir()).find(holds_data)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0::/root:/bin/sh\nbroken\ntallyd:x:990:990:Tallyd:/var/lib/tallyd:/usr/sbin/nologin\n";

    #[test]
    fn the_user_is_named_with_the_command_that_gives_it_the_data_directory() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path().join("data");
        std::fs::create_dir_all(dir.join("log")).unwrap();
        std::fs::write(dir.join(IDENTITY), "{}").unwrap();
        for file in ["node.key", "log/1", "log", "."] {
            let said = advice_for(990, PASSWD, &dir.join(file));
            assert!(said.contains("\"tallyd\""), "{said}");
            let given = said.split('`').nth(1).unwrap().trim_end_matches("/.");
            assert_eq!(given, format!("chown -R tallyd: {}", dir.display()), "{file}");
        }
        let said = advice_for(1234, PASSWD, &dir.join("node.key"));
        assert!(
            said.contains("1234") && said.contains(&format!("chown -R 1234 {}", dir.display())),
            "{said}"
        );
    }

    #[test]
    fn nothing_above_a_data_directory_is_given_away() {
        let scratch = tempfile::tempdir().unwrap();
        for path in ["not-there", "tallyd.toml"] {
            let said = advice_for(990, PASSWD, &scratch.path().join(path));
            assert!(said.contains("\"tallyd\"") && !said.contains("chown"), "{said}");
        }
    }

    #[test]
    fn other_errors_get_no_such_advice() {
        assert_eq!(advice(&io::Error::from(io::ErrorKind::NotFound), Path::new("/data/log")), "");
    }
}
