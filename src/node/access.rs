//! What the API asks of the site about access tokens.

use super::Handle;
use super::handle::unknown;
use crate::random::random_u128;
use crate::request::{AccessError, RequestError};
use crate::site::{AccessChange, Applied, Level, entry};

impl Handle {
    /// Makes or revokes an access token.
    ///
    /// # Errors
    /// Why the tokens do not change, or that nobody knows whether they do.
    pub async fn change_access(&self, change: &AccessChange) -> Result<(), AccessError> {
        // Boxes of an older release could not read such an entry.
        if self.site(|site| site.level()) < Level::FIVE {
            let why =
                "access tokens need all boxes of the site to be updated; `tallyd status` shows who is not";
            return Err(RequestError::NotCommitted { why: why.to_owned() }.into());
        }
        match self.propose(entry::access(random_u128() as u64, change)).await? {
            Applied::Access { result, .. } => Ok(result?),
            _ => Err(unknown("the site returned an unexpected answer").into()),
        }
    }
}
