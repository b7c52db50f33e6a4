//! 128 secret bits as people type them: a prefix and 30 letters, Crockford's base 32 in lower case, in groups of five.
//! The last four letters are a check of 20 bits.

use ring::digest;

const LETTERS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const LENGTH: usize = 30;
const GROUP: usize = 5;
const CHECK_BITS: u32 = 20;

/// A kind of secret.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SecretForm {
    /// What it begins with, without the hyphen.
    pub(crate) prefix: &'static str,
    /// What the check is derived with, so that one kind is never taken for another.
    pub(crate) check: &'static [u8],
}

/// Why a text is not such a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// It does not look like one.
    Shape,
    /// A letter is wrong.
    Mistyped,
}

impl SecretForm {
    /// Reads one as it is typed: in capitals too, with other hyphens or none, with `o` for 0 and `i` or `l` for 1.
    pub(crate) fn parse(self, text: &str) -> Result<[u8; 16], Unreadable> {
        let text = text.trim().to_ascii_lowercase();
        let letters = text.strip_prefix(self.prefix).ok_or(Unreadable::Shape)?;
        // 150 bits, of which the highest two are zero.
        let (mut high, mut low, mut count) = (0u128, 0u32, 0);
        for letter in letters.bytes().filter(|letter| *letter != b'-') {
            let value = match letter {
                b'o' => 0,
                b'i' | b'l' => 1,
                _ => LETTERS.iter().position(|known| *known == letter).ok_or(Unreadable::Shape)?,
            };
            count += 1;
            if count > LENGTH {
                return Err(Unreadable::Shape);
            }
            // The last four letters are the check.
            if count <= LENGTH - 4 {
                if high >> 123 != 0 {
                    return Err(Unreadable::Mistyped);
                }
                high = high << 5 | value as u128;
            } else {
                low = low << 5 | value as u32;
            }
        }
        if count != LENGTH {
            return Err(Unreadable::Shape);
        }
        let secret = high.to_be_bytes();
        if self.check_of(&secret) == low { Ok(secret) } else { Err(Unreadable::Mistyped) }
    }

    /// One as it is shown.
    pub(crate) fn reveal(self, secret: &[u8; 16]) -> String {
        let (high, low) = (u128::from_be_bytes(*secret), self.check_of(secret));
        let of_high = (0..LENGTH - 4).rev().map(|place| (high >> (5 * place) & 31) as usize);
        let of_low = (0..4).rev().map(|place| (low >> (5 * place) & 31) as usize);
        let mut text = format!("{}-", self.prefix);
        for (place, value) in of_high.chain(of_low).enumerate() {
            if place > 0 && place % GROUP == 0 {
                text.push('-');
            }
            text.push(char::from(LETTERS[value]));
        }
        text
    }

    fn check_of(self, secret: &[u8; 16]) -> u32 {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(self.check);
        context.update(secret);
        let hash = context.finish();
        let head = hash.as_ref().first_chunk().map_or(0, |head| u32::from_be_bytes(*head));
        head >> (32 - CHECK_BITS)
    }
}
