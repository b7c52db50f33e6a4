//! Another key for this box, `tallyd key rotate`, in steps that a crash may come between:
//!
//! 1. The new key is in a folder of its own, durably.
//! 2. The site agrees on it, by an entry that this box sends while it still goes by the old one.
//! 3. The identity names it: from then on this box goes by it.
//! 4. It is in the place of the old one, which is kept in a folder: a member that was away meanwhile knows no other.
//!
//! Between 2 and 3 some members know one key and some the other, so this box dials by both.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tally_core::id::KeyHash;
use tracing::{info, warn};

use crate::identity::{
    Identity, IdentityError, Keys, NODE_CERTIFICATE, NODE_KEY, create_directory, write_file,
};
use crate::node::Handle;

/// The folder with the key that this box is to go by.
pub(super) const NEXT: &str = "key.next";
/// The folder with the key that it went by before.
pub(super) const FORMER: &str = "key.former";

/// How often it is looked whether the site has agreed meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// The key that this box is to go by, made now unless a try before has.
///
/// # Errors
/// It cannot be made or written.
pub(super) fn next(dir: &Path, identity: &Identity) -> Result<Keys, IdentityError> {
    Keys::load_or_make(&dir.join(NEXT), &identity.me().name)
}

/// Does what is left of step 4.
///
/// # Errors
/// A file cannot be read or written.
pub(super) fn settle(dir: &Path, identity: &Identity) -> Result<(), IdentityError> {
    let next = dir.join(NEXT);
    if pending(dir) != Some(identity.me().key) {
        return Ok(());
    }
    // After a crash the old one may be kept already, and half replaced.
    if Keys::load(dir).is_ok_and(|keys| !identity.matches(&keys)) {
        create_directory(&dir.join(FORMER))?;
        copy(dir, &dir.join(FORMER))?;
    }
    copy(&next, dir)?;
    if let Err(error) = fs::remove_dir_all(&next) {
        warn!("cannot remove {}: {error}", next.display());
    }
    info!("this box goes by its new key, {}", identity.me().key);
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), IdentityError> {
    for (file, mode) in [(NODE_KEY, 0o600), (NODE_CERTIFICATE, 0o644)] {
        let bytes = fs::read(from.join(file)).map_err(|source| IdentityError::Io {
            doing: "read",
            path: from.join(file),
            source,
            remedy: "check that the disk works and that this user has access to the data directory",
        })?;
        write_file(&to.join(file), &bytes, mode)?;
    }
    Ok(())
}

/// The hash of the key that this box is to go by, if there is one.
fn pending(dir: &Path) -> Option<KeyHash> {
    let next = dir.join(NEXT);
    next.join(NODE_CERTIFICATE).exists().then(|| Keys::load(&next).ok().map(|keys| keys.key_hash()))?
}

/// The key for members that do not know the one that this box goes by: the next one, or the one before.
pub(super) fn other_key(dir: &Path) -> Option<Keys> {
    [NEXT, FORMER].iter().map(|folder| dir.join(folder)).find_map(|folder| {
        folder
            .join(NODE_CERTIFICATE)
            .exists()
            .then(|| Keys::load(&folder).inspect_err(|error| warn!("{error}")).ok())?
    })
}

/// Waits until the site knows this box by the key that a start before was to get: the answer was lost.
pub(super) async fn agreed(handle: &Handle, dir: &Path) -> KeyHash {
    let Some(next) = pending(dir) else { return std::future::pending().await };
    let me = handle.identity().node_id();
    let is_known = || handle.site(|site| site.members().iter().any(|one| one.id == me && one.key == next));
    while !is_known() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash_in(dir: &Path) -> KeyHash {
        Keys::load(dir).unwrap().key_hash()
    }

    #[test]
    fn a_box_goes_by_the_key_of_its_identity_whatever_step_was_the_last() {
        let scratch = tempfile::tempdir().unwrap();
        let dir = scratch.path();
        let mut identity = Identity::found_single(dir, "plant7", "box1", "").unwrap();
        let old = hash_in(dir);
        let new = next(dir, &identity).unwrap().key_hash();
        assert_eq!(next(dir, &identity).unwrap().key_hash(), new, "begun again, it is the same key");
        settle(dir, &identity).unwrap();
        assert_eq!(hash_in(dir), old, "the site has not agreed");
        assert_eq!(other_key(dir).unwrap().key_hash(), new);

        identity.members[0].key = new;
        // The power fails when half of it is in place.
        create_directory(&dir.join(FORMER)).unwrap();
        copy(dir, &dir.join(FORMER)).unwrap();
        let key = fs::read(dir.join(NEXT).join(NODE_KEY)).unwrap();
        write_file(&dir.join(NODE_KEY), &key, 0o600).unwrap();
        assert!(Keys::load(dir).is_err(), "the certificate is of the old key");
        settle(dir, &identity).unwrap();
        assert_eq!(hash_in(dir), new);
        assert_eq!(other_key(dir).unwrap().key_hash(), old);
        assert!(!dir.join(NEXT).exists());

        // Once more, without a crash.
        let third = next(dir, &identity).unwrap().key_hash();
        identity.members[0].key = third;
        settle(dir, &identity).unwrap();
        assert_eq!((hash_in(dir), other_key(dir).unwrap().key_hash()), (third, new));
    }
}
