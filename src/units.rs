//! Durations, sizes, counts and addresses as people write them: `60s`, `15m`, `64MiB`, `20000`, `127.0.0.1:7480`.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

const DURATIONS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];
const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Milliseconds.
    Duration,
    /// Bytes.
    Bytes,
    /// Things.
    Count,
}

impl Unit {
    /// The number that a text says, in milliseconds, bytes or things.
    pub(crate) fn parse(self, text: &str) -> Result<u64, String> {
        let text = text.trim();
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (digits, suffix) = text.split_at(digits);
        let number: u64 = digits.parse().map_err(|_| self.expected(text))?;
        let factor = match self {
            Unit::Count if suffix.is_empty() => 1,
            Unit::Count => return Err(self.expected(text)),
            // Zero is zero in every unit.
            Unit::Duration if suffix.is_empty() && number == 0 => 1,
            Unit::Bytes if suffix.is_empty() => 1,
            Unit::Duration => factor_of(&DURATIONS, suffix).ok_or_else(|| self.expected(text))?,
            Unit::Bytes => factor_of(&SIZES, suffix).ok_or_else(|| self.expected(text))?,
        };
        number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))
    }

    /// The normal form: the largest unit that divides it.
    pub(crate) fn format(self, value: u64) -> String {
        let units: &[(&str, u64)] = match self {
            Unit::Count => return value.to_string(),
            Unit::Duration if value == 0 => return "0s".to_string(),
            Unit::Bytes if value == 0 => return "0B".to_string(),
            Unit::Duration => &DURATIONS,
            Unit::Bytes => &SIZES,
        };
        let whole = units.iter().find(|(_, factor)| value.is_multiple_of(*factor));
        whole.map_or_else(|| value.to_string(), |(suffix, factor)| format!("{}{suffix}", value / factor))
    }

    fn expected(self, text: &str) -> String {
        let example = match self {
            Unit::Duration => "a duration such as 500ms, 60s, 15m, 12h or 30d",
            Unit::Bytes => "a size such as 512KiB, 64MiB or 1GiB",
            Unit::Count => "a whole number such as 20000",
        };
        format!("{text:?} is not {example}")
    }
}

/// A number as people read it: 1,204.
#[must_use]
pub fn grouped(number: u128) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The address that a text says; `example` is what an error shows.
///
/// # Errors
/// It is not an IP address with a port.
pub(crate) fn socket_address(text: &str, example: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address and port such as {example}"))
}

/// For `deserialize_with`: a text that says a duration.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    Unit::Duration.parse(&text).map(Duration::from_millis).map_err(serde::de::Error::custom)
}

/// For `deserialize_with`: a text that says a size in bytes.
pub(crate) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Unit::Bytes.parse(&text).map(Some).map_err(serde::de::Error::custom)
}

fn factor_of(units: &[(&str, u64)], suffix: &str) -> Option<u64> {
    units.iter().find(|(name, _)| *name == suffix).map(|(_, factor)| *factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let texts = [0, 999, 1_204, 120_934, 1_000_000].map(grouped);
        assert_eq!(texts, ["0", "999", "1,204", "120,934", "1,000,000"]);
    }
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_normal_form_reads_back(value in any::<u64>(), zeros in 0u32..64) {
            let value = value >> zeros;
            for unit in [Unit::Duration, Unit::Bytes, Unit::Count] {
                prop_assert_eq!(unit.parse(&unit.format(value)), Ok(value));
            }
        }
    }

    #[test]
    fn values_are_shown_in_the_largest_unit_that_divides_them() {
        assert_eq!(Unit::Duration.format(60_000), "1m");
        assert_eq!(Unit::Duration.format(90_000), "90s");
        assert_eq!(Unit::Duration.format(1_500), "1500ms");
        assert_eq!(Unit::Duration.format(30 * 86_400_000), "30d");
        assert_eq!(Unit::Bytes.format(64 << 20), "64MiB");
        assert_eq!(Unit::Bytes.format(1_000_000), "1000000B");
    }

    #[test]
    fn what_is_no_value_is_refused_with_an_example() {
        for (unit, text) in [
            (Unit::Duration, "60"),
            (Unit::Duration, "1.5s"),
            (Unit::Duration, "s"),
            (Unit::Duration, "-1s"),
            (Unit::Bytes, "64MB"),
            (Unit::Count, "1k"),
            (Unit::Count, ""),
        ] {
            let error = unit.parse(text).unwrap_err();
            assert!(error.contains("such as"), "{error}");
        }
        assert!(Unit::Duration.parse("99999999999999999d").unwrap_err().contains("too large"));
    }
}
