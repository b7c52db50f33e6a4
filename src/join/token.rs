//! The token as people see it, `tally1-` and 30 letters, and what both ends derive from it.
//!
//! See `letters` for the letters: 128 random bits and a check of 20 bits.

use std::fmt;

use ring::signature::{Ed25519KeyPair, KeyPair};
use ring::{hkdf, hmac};

use crate::letters::{SecretForm, Unreadable};
use crate::random::{self, NoRandom};
use crate::site::{SiteKey, TokenId};

const FORM: SecretForm = SecretForm { prefix: "tally1", check: b"tally/1 token check" };

/// A token's secret. Only [`Token::reveal`] shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 16]);

/// Why a text is not a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one.
    #[error("this is not a token: one begins with tally1- and has 30 letters and digits in groups of five")]
    Shape,
    /// A letter is wrong.
    #[error("the token is mistyped (its check does not fit); nothing was sent")]
    Mistyped,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id())
    }
}

impl Token {
    /// Makes a token that nobody else has.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub(crate) fn random() -> Result<Token, NoRandom> {
        random::bytes().map(Token)
    }

    /// Makes the token of these 128 bits.
    #[must_use]
    pub const fn of_secret(secret: [u8; 16]) -> Token {
        Token(secret)
    }

    /// Reads a token as it is typed: in capitals too, with other hyphens or none, with `o` for 0 and `i` or `l` for 1.
    ///
    /// # Errors
    /// It is not a token, or a letter is wrong.
    pub fn parse(text: &str) -> Result<Token, TokenError> {
        FORM.parse(text).map(Token).map_err(|why| match why {
            Unreadable::Shape => TokenError::Shape,
            Unreadable::Mistyped => TokenError::Mistyped,
        })
    }

    /// The token as it is shown, once.
    #[must_use]
    pub fn reveal(&self) -> String {
        FORM.reveal(&self.0)
    }

    fn derive(&self, part: &str) -> [u8; 32] {
        let mut out = [0; 32];
        hkdf::Salt::new(hkdf::HKDF_SHA256, b"tally/1 token")
            .extract(&self.0)
            .expand(&[part.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .expect("32 bytes are what HKDF-SHA256 gives");
        out
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> TokenId {
        let derived = self.derive("id");
        TokenId(*derived.first_chunk().expect("32 bytes have 8"))
    }

    /// The key by which the site proves itself.
    #[must_use]
    pub fn site_key(&self) -> SiteKey {
        SiteKey(self.derive("site"))
    }

    /// The public half of the key by which a joiner proves that it holds the token.
    #[must_use]
    pub fn join_public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.join_pair().public_key().as_ref());
        public
    }

    pub(super) fn join_pair(&self) -> Ed25519KeyPair {
        Ed25519KeyPair::from_seed_unchecked(&self.derive("join")).expect("every 32 bytes are a seed")
    }

    pub(super) fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.site_key().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

    /// Of the secret 00 01 .. 0f. Worked out apart by a few lines of Python (hashlib, hmac): RFC 5869 by hand.
    const SECRET: [u8; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    const VECTOR_TEXT: &str = "tally1-00041-06105-0r3gg-28a1c-60t3g-fzsrn";
    const VECTOR_ID: &str = "7ed93ee5f2d1ba61";
    const VECTOR_SITE_KEY: &str = "bf5dd0860b1aaf73c474bae5eb0b2be387c77cdffa8208b4df1c82c218641cb7";
    const VECTOR_JOIN_SEED: &str = "791bc36cd060f0f34e9db8818c5452e1cd1da3540c2670e51303d87d27dc87a6";

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn what_is_derived_is_what_another_implementation_derives() {
        let token = Token::of_secret(SECRET);
        assert_eq!(token.reveal(), VECTOR_TEXT);
        assert_eq!(token.id().to_string(), VECTOR_ID);
        assert_eq!(hex(&token.site_key().0), VECTOR_SITE_KEY);
        assert_eq!(hex(&token.derive("join")), VECTOR_JOIN_SEED);
    }

    #[test]
    fn every_wrong_letter_of_a_token_is_noticed() {
        let text = Token::of_secret(SECRET).reveal();
        for place in FORM.prefix.len() + 1..text.len() {
            let mut bytes = text.clone().into_bytes();
            if bytes[place] == b'-' {
                continue;
            }
            for letter in LETTERS.iter().filter(|letter| **letter != text.as_bytes()[place]) {
                bytes[place] = *letter;
                let wrong = String::from_utf8(bytes.clone()).unwrap();
                assert_eq!(Token::parse(&wrong), Err(TokenError::Mistyped), "{wrong}");
            }
        }
    }

    #[test]
    fn two_letters_that_changed_places_are_noticed() {
        let letters: Vec<u8> =
            Token::of_secret([0x5a; 16]).reveal().bytes().skip(7).filter(|byte| *byte != b'-').collect();
        for place in 1..letters.len() {
            let mut letters = letters.clone();
            letters.swap(place - 1, place);
            let text = format!("tally1-{}", String::from_utf8(letters.clone()).unwrap());
            let same = letters[place] == letters[place - 1];
            assert!(same || Token::parse(&text) == Err(TokenError::Mistyped), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_token_is_told_so() {
        let text = Token::of_secret(SECRET).reveal();
        for wrong in
            ["", "tally1-", "tally2-", &text[..text.len() - 1], &format!("{text}0"), &text[7..], "K10abc"]
        {
            assert_eq!(Token::parse(wrong), Err(TokenError::Shape), "{wrong:?}");
        }
        assert!(!format!("{:?}", Token::of_secret(SECRET)).contains(&text[7..12]));
    }

    proptest! {
        #[test]
        fn a_token_is_read_however_it_is_typed(secret in any::<[u8; 16]>()) {
            let token = Token::of_secret(secret);
            let text = token.reveal();
            prop_assert_eq!(text.len(), 7 + 30 + 5);
            let bare = text.replace('-', "");
            let loose = text.to_uppercase().replace('0', "O").replace("-1", "-L");
            for typed in [text.clone(), format!(" {text}\n"), bare, loose] {
                prop_assert_eq!(Token::parse(&typed), Ok(token.clone()), "{}", typed);
            }
        }

        #[test]
        fn any_text_is_a_token_or_is_not(text in "(tally1)?[-0-9a-z]{0,40}") {
            if let Ok(token) = Token::parse(&text) {
                prop_assert_eq!(Token::parse(&token.reveal()), Ok(token));
            }
        }
    }
}
