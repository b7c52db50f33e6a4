//! Parses decimal texts to sums in units of 10^-9. Floats would lose digits.

use tally_core::report::Sum;

/// The most digits that are parsed: a sum cannot hold more.
const DIGITS_MAX: usize = 80;

/// The nearest sum to a JSON number (halves away from zero); `None` if it is no number or out of range.
pub(super) fn parse(text: &str) -> Option<Sum> {
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let places = i32::try_from(fraction.len()).ok()?;
    let is_number = !whole.is_empty()
        && whole.len() + fraction.len() <= DIGITS_MAX
        && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    if !is_number {
        return None;
    }
    // The value is DIGITS * 10^(exponent - places), the sum that times 10^9.
    let shift = exponent.checked_sub(places)?.checked_add(9)?;
    let units = scaled(whole.bytes().chain(fraction.bytes()).map(|byte| byte - b'0'), shift)?;
    Some(Sum(if negative { -units } else { units }))
}

/// Returns the number of these digits times ten to `shift`, rounded to the nearest.
fn scaled(digits: impl Iterator<Item = u8>, shift: i32) -> Option<i128> {
    let digits: Vec<u8> = digits.skip_while(|digit| *digit == 0).collect();
    if digits.is_empty() {
        return Some(0);
    }
    let kept = i64::try_from(digits.len()).ok()? + i64::from(shift);
    // i128 has 39 digits at most; below -1 not even the rounding reaches 1.
    if kept > 39 {
        return None;
    }
    if kept < 0 {
        return Some(0);
    }
    let kept = usize::try_from(kept).ok()?;
    let mut units: i128 = 0;
    for place in 0..kept {
        let digit = digits.get(place).copied().unwrap_or(0);
        units = units.checked_mul(10)?.checked_add(i128::from(digit))?;
    }
    let rounds_up = digits.get(kept).is_some_and(|next| *next >= 5);
    if rounds_up { units.checked_add(1) } else { Some(units) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_of_nine_places_are_exact() {
        for (text, units) in [
            ("0", 0),
            ("-0", 0),
            ("0.1", 100_000_000),
            ("-21.5", -21_500_000_000),
            ("0.000000001", 1),
            ("0.0000000005", 1),
            ("0.0000000004999", 0),
            ("-0.0000000015", -2),
            ("1e3", 1_000_000_000_000),
            ("1.5E+2", 150_000_000_000),
            ("25e-1", 2_500_000_000),
            ("1e-9", 1),
            ("1e-10", 0),
            ("5e-10", 1),
            ("1e-2000000000", 0),
            ("0e2000000000", 0),
            ("123456789012345678901.123456789", 123_456_789_012_345_678_901_123_456_789),
        ] {
            assert_eq!(parse(text), Some(Sum(units)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_or_too_large_is_none() {
        for text in
            ["", "-", ".5", "1e", "1e40", "1e2147483647", "1e99999999999", "1,5", "0x1", "NaN", "1.-5", "--1"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&"9".repeat(1000)), None);
    }

    #[test]
    fn it_agrees_with_floats_where_they_are_exact() {
        for value in [1.0, -2.5, 1024.125, 4e6, -3e5] {
            assert_eq!(parse(&format!("{value}")), Sum::from_value(value), "{value}");
        }
    }
}
