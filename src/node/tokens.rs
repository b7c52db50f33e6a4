//! What other rooms ask of the site about join tokens, and for boxes that hold one.

use super::Handle;
use super::handle::unknown;
use crate::random::random_u128;
use crate::request::{JoinError, RequestError, TokenError};
use crate::site::{Applied, JoinRequest, Joined, Level, TokenChange, entry};

impl Handle {
    /// Makes or revokes a join token.
    ///
    /// # Errors
    /// Why the tokens do not change, or that nobody knows whether they do.
    pub async fn change_tokens(&self, change: &TokenChange) -> Result<(), TokenError> {
        self.check_tokens()?;
        match self.propose(entry::token(random_u128() as u64, change)).await? {
            Applied::Token { result, .. } => Ok(result?),
            _ => Err(unknown("the site returned an unexpected answer").into()),
        }
    }

    /// Makes a box that holds a token a member. Asked again for the same key, it has the same answer.
    ///
    /// # Errors
    /// Why it is none, or that nobody knows whether it is.
    pub async fn join(&self, request: &JoinRequest) -> Result<Joined, JoinError> {
        self.check_tokens()?;
        match self.propose(entry::join(request)).await? {
            Applied::Joined { result, .. } => Ok(result?),
            _ => Err(unknown("the site returned an unexpected answer").into()),
        }
    }

    /// Boxes of an older release could not read such entries.
    fn check_tokens(&self) -> Result<(), RequestError> {
        if self.site(|site| site.level()) >= Level::THREE {
            return Ok(());
        }
        let why = "join tokens need all boxes of the site to be updated; `tallyd status` shows who is not";
        Err(RequestError::NotCommitted { why: why.to_owned() })
    }
}
