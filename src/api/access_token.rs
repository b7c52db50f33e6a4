//! An access token as its holder has it: `tallya1-` and 30 letters.

use std::fmt;

use ring::digest;

use crate::letters::{SecretForm, Unreadable};
use crate::random::{self, NoRandom};
use crate::site::AccessHash;

const FORM: SecretForm = SecretForm { prefix: "tallya1", check: b"tally/1 access check" };

/// A token's secret. Only [`AccessToken::reveal`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct AccessToken([u8; 16]);

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(***)")
    }
}

impl AccessToken {
    /// Makes a token that nobody else has.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn random() -> Result<AccessToken, NoRandom> {
        random::bytes().map(AccessToken)
    }

    /// Reads one as it is typed.
    ///
    /// # Errors
    /// It is not one.
    pub(crate) fn parse(text: &str) -> Result<AccessToken, Unreadable> {
        FORM.parse(text).map(AccessToken)
    }

    /// The token as it is shown, once.
    pub(crate) fn reveal(&self) -> String {
        FORM.reveal(&self.0)
    }

    /// What the site keeps of it. The bits are random: there is nothing to stretch.
    pub(crate) fn hash(&self) -> AccessHash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        AccessHash(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_shown_and_is_no_join_token() {
        let token = AccessToken::random().unwrap();
        let text = token.reveal();
        assert!(text.starts_with("tallya1-") && text.len() == 8 + 30 + 5, "{text}");
        assert_eq!(AccessToken::parse(&format!(" {}\n", text.to_uppercase())), Ok(token.clone()));
        assert!(crate::join::Token::parse(&text).is_err());
        assert_eq!(AccessToken::parse(&text.replacen("tallya1", "tally1", 1)), Err(Unreadable::Shape));
        assert_eq!(AccessToken::parse(&text[..text.len() - 1]), Err(Unreadable::Shape));
        assert!(!format!("{token:?}").contains(&text[8..13]));
    }

    #[test]
    fn what_the_site_keeps_is_sha_256_of_the_bits() {
        let hash = AccessToken([0; 16]).hash();
        // As `head -c 16 /dev/zero | sha256sum` says.
        assert_eq!(hash.0[..4], [0x37, 0x47, 0x08, 0xff]);
    }
}
