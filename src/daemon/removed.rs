//! A box whose number was retired: it was removed from its site, or replaced. No number is used again, so that is for
//! good: it counts nothing any more, says so, and waits to be stopped or to join anew. What it holds stays where it is.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::api::Idle;
use crate::identity::{Identity, IdentityError, SiteId, write_file};
use crate::node::{Verdict, counts_unsent};
use crate::storage::{Owner, UNSENT};
use crate::units::grouped;

/// The file in the data directory that says so, for the next starts.
pub(super) const REMOVED: &str = "removed.json";

/// No file of uncommitted counts is longer.
const UNSENT_BYTES_MAX: u64 = 128 << 20;

/// What that file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Removed {
    /// Who was removed: an identity that was put here afterwards is another box's.
    site_id: SiteId,
    node: u64,
    /// What was counted here and the site has never confirmed.
    held: u64,
}

impl Removed {
    /// Whether this box was removed, as far as its directory says.
    pub(super) fn load(dir: &Path, identity: &Identity) -> Option<Removed> {
        let path = dir.join(REMOVED);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                warn!("cannot read {}: {error}", path.display());
                return None;
            }
        };
        match serde_json::from_slice::<Removed>(&bytes) {
            Ok(removed) => (removed.of() == (identity.site_id, identity.node)).then_some(removed),
            Err(error) => {
                // Whoever it reaches says it again.
                warn!("cannot use {}: {error}", path.display());
                None
            }
        }
    }

    /// This box was removed, and its node has stopped: whatever it could not commit is in its file.
    pub(super) fn now(dir: &Path, identity: &Identity) -> Removed {
        let held = u64::try_from(held(dir, identity)).unwrap_or(u64::MAX);
        Removed { site_id: identity.site_id, node: identity.node, held }
    }

    /// Writes it down, durably.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(super) fn save(&self, dir: &Path) -> Result<(), IdentityError> {
        let text = serde_json::to_vec(self).expect("it has only texts and numbers");
        write_file(&dir.join(REMOVED), &text, 0o644)
    }

    fn of(&self) -> (SiteId, u64) {
        (self.site_id, self.node)
    }

    /// What it holds, in words; empty: nothing.
    pub(super) fn holds(&self) -> String {
        match self.held {
            0 => String::new(),
            1 => "1 count that the site never confirmed".to_owned(),
            held => format!("{} counts that the site never confirmed", grouped(held.into())),
        }
    }

    /// What such a box says of itself.
    pub(super) fn idle(&self, identity: &Identity) -> Idle {
        let mut why = format!(
            "this box, {} (number {}), was removed from {}, or replaced",
            identity.me().name,
            identity.node,
            identity.site
        );
        if self.held > 0 {
            why.push_str(&format!("; it holds {}", self.holds()));
        }
        let advice = "stop it, or make a new box of it by `tallyd join HOST:PORT --token-file - --set-aside`, which \
                      keeps what it holds";
        Idle::removed(Verdict::does_not_count(why, advice), identity)
    }
}

/// What the file of uncommitted counts holds.
fn held(dir: &Path, identity: &Identity) -> u128 {
    let path = dir.join(UNSENT);
    let read = fs::metadata(&path).and_then(|data| match data.len() {
        0..=UNSENT_BYTES_MAX => fs::read(&path),
        bytes => Err(io::Error::other(format!("the file has {bytes} bytes"))),
    });
    let owner = Owner { site_id: identity.site_id.0, node: identity.node };
    match read {
        Ok(bytes) => counts_unsent(&bytes, owner).unwrap_or_else(|| {
            warn!("cannot tell how much is counted in {}", path.display());
            0
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => {
            warn!("cannot read {}: {error}", path.display());
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_box_knows_it_at_its_next_start_and_another_box_in_its_directory_is_none() {
        let scratch = tempfile::tempdir().unwrap();
        let identity = Identity::found_single(scratch.path(), "plant7", "box3", "").unwrap();
        assert_eq!(Removed::load(scratch.path(), &identity), None);
        let removed = Removed { held: 1204, ..Removed::now(scratch.path(), &identity) };
        removed.save(scratch.path()).unwrap();
        assert_eq!(Removed::load(scratch.path(), &identity), Some(removed.clone()));
        let other = Identity { site_id: SiteId(identity.site_id.0 ^ 1), ..identity.clone() };
        assert_eq!(Removed::load(scratch.path(), &other), None);
        let said = removed.idle(&identity).text().to_owned();
        assert!(
            said.starts_with("does NOT count: this box, box3 (number 1), was removed from plant7"),
            "{said}"
        );
        assert!(said.contains("1,204 counts") && said.contains("--set-aside"), "{said}");
        fs::write(scratch.path().join(REMOVED), "{").unwrap();
        assert_eq!(Removed::load(scratch.path(), &identity), None, "whoever it reaches says it again");
    }
}
