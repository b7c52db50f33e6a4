//! Decimal numbers of StatsD lines as exact fractions, so that what a sampling rate leaves over is
//! carried to the next increment instead of being rounded away.

/// A decimal number: `digits` times ten to the power of `exponent`.
///
/// A number of more than 19 digits that count (20 where they fit 64 bits) is rounded to so many, halves up: to a
/// relative 10^-18, far below what a double can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    digits: u64,
    exponent: i32,
}

/// An exponent of more than this is this: no number that counts is so large or so small.
const EXPONENT_MAX: i32 = 1_000_000;

/// A rate of so many digits (10) is the rounding of another number, as a rule.
const DOUBLE_DIGITS_MIN: u64 = 1_000_000_000;

/// The grid on which fractions are added that have no common denominator of 64 bits.
const GRID: u64 = 1_000_000_000_000_000_000;

impl Decimal {
    /// One.
    pub const ONE: Decimal = Decimal { digits: 1, exponent: 0 };

    /// Reads `12`, `0.25`, `.5`, `1e3`, `5e-05`, of any length: no sign. `None` for anything else.
    pub fn parse(text: &[u8]) -> Option<Decimal> {
        let (mantissa, power) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
            Some(at) => (&text[..at], parse_power(&text[at + 1..])?),
            None => (text, 0),
        };
        let (whole, fraction) = match mantissa.iter().position(|&byte| byte == b'.') {
            Some(at) => (&mantissa[..at], trim_zeros(&mantissa[at + 1..])),
            None => (mantissa, &[][..]),
        };
        if whole.is_empty() && mantissa.len() < 2 {
            return None;
        }
        let (digits, dropped) = read_digits(whole.iter().chain(fraction))?;
        if digits == 0 {
            return Some(Decimal { digits: 0, exponent: 0 });
        }
        // A datagram has 64 KiB at most.
        let places = dropped - i32::try_from(fraction.len()).ok()?;
        Some(Decimal { digits, exponent: power.saturating_add(places) })
    }

    /// Whether it can be a sampling rate: more than 0 and at most 1.
    pub fn is_rate(self) -> bool {
        let one = match 10u64.checked_pow(self.exponent.unsigned_abs()) {
            // A negative power of ten too small for 64 bits: so are all digits with it, but not positive ones.
            None => return self.digits > 0 && self.exponent < 0,
            Some(_) if self.exponent > 0 => 0,
            Some(one) => one,
        };
        self.digits > 0 && self.digits <= one
    }

    /// This divided by a rate: the whole part and what is left over. `None` if the whole part is
    /// over `max` or the rate is none.
    ///
    /// A rate of 10 digits or more is a double that a program printed, 1/1400 as 0.0007142857142857143, say: where a
    /// whole number lies within what a double cannot tell apart, that is meant.
    pub fn over(self, rate: Decimal, max: u64) -> Option<(u64, Fraction)> {
        if !rate.is_rate() {
            return None;
        }
        if self.digits == 0 {
            return Some((0, Fraction::ZERO));
        }
        let (mut above, mut below) = (u128::from(self.digits), u128::from(rate.digits));
        let power = 10u128.checked_pow(self.exponent.abs_diff(rate.exponent));
        if self.exponent >= rate.exponent {
            // Beyond 128 bits it is more than 64 bits however large the rate's digits are.
            above = above.checked_mul(power?)?;
        } else {
            // Beyond 128 bits it is less than half of the grid's unit: nothing.
            let Some(divisor) = power.and_then(|power| below.checked_mul(power)) else {
                return Some((0, Fraction::ZERO));
            };
            below = divisor;
        }
        let whole = u64::try_from(above / below).ok()?;
        let left = above % below;
        // What a double's rounding may have put beside a whole number.
        let slack = if rate.digits >= DOUBLE_DIGITS_MIN { above >> 52 } else { 0 };
        let (whole, left) = if left <= slack {
            (whole, Some(Fraction::ZERO))
        } else if below - left <= slack {
            (whole, None)
        } else {
            (whole, Fraction::of(left, below))
        };
        let (whole, left) = match left {
            Some(left) => (whole, left),
            None => (whole.checked_add(1)?, Fraction::ZERO),
        };
        (whole <= max).then_some((whole, left))
    }
}

/// The number that digits make, and how many of them at its end are only zeros in it: what 64 bits do not hold is
/// rounded. `None`: something is no digit.
fn read_digits<'a>(bytes: impl Iterator<Item = &'a u8>) -> Option<(u64, i32)> {
    let (mut digits, mut dropped, mut rounds_up) = (0u64, 0i32, false);
    for &byte in bytes {
        if !byte.is_ascii_digit() {
            return None;
        }
        let digit = u64::from(byte - b'0');
        let more = digits.checked_mul(10).and_then(|digits| digits.checked_add(digit));
        match more.filter(|_| dropped == 0) {
            Some(more) => digits = more,
            None => {
                rounds_up |= dropped == 0 && digit >= 5;
                dropped = dropped.checked_add(1)?;
            }
        }
    }
    // 2^64 - 1 with another digit to round up stays as it is: that is a relative 10^-19.
    Some((digits.saturating_add(u64::from(rounds_up)), dropped))
}

/// Digits after a sign, if any: the power of ten, within [`EXPONENT_MAX`].
fn parse_power(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut power = 0i32;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        power = (power * 10 + i32::from(byte - b'0')).min(EXPONENT_MAX);
    }
    Some(if negative { -power } else { power })
}

fn trim_zeros(digits: &[u8]) -> &[u8] {
    let end = digits.iter().rposition(|&byte| byte != b'0').map_or(0, |at| at + 1);
    &digits[..end]
}

/// A part of one: `above / below`, less than 1, in lowest terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fraction {
    above: u64,
    below: u64,
}

impl Fraction {
    /// Nothing.
    pub const ZERO: Fraction = Fraction { above: 0, below: 1 };

    /// Adds another and hands out the whole that comes of it: 0 or 1. Exact as long as the common
    /// denominator has 64 bits (always for one rate, in practice for any few); to 10^-18 beyond.
    pub fn carry(&mut self, other: Fraction) -> u64 {
        let (a, b) = (*self, other);
        let shared = gcd(u128::from(a.below), u128::from(b.below));
        let common = u128::from(a.below) / shared * u128::from(b.below);
        let (above, below) = if common <= u128::from(u64::MAX) {
            let widen = |part: Fraction| u128::from(part.above) * (common / u128::from(part.below));
            (widen(a) + widen(b), common)
        } else {
            let grained = |part: Fraction| u128::from(on_grid(part.above.into(), part.below.into()));
            (grained(a) + grained(b), u128::from(GRID))
        };
        let whole = above / below;
        // Of a whole denominator of 64 bits, which `of` takes as it is.
        *self = Fraction::of(above % below, below).unwrap_or(Fraction::ZERO);
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// `above` is less than `below`. As it is if both have 64 bits in lowest terms, else the nearest on the grid;
    /// `None`: that is one.
    fn of(above: u128, below: u128) -> Option<Fraction> {
        let shared = gcd(above, below);
        if let (Ok(above), Ok(below)) = (u64::try_from(above / shared), u64::try_from(below / shared)) {
            return Some(Fraction { above, below });
        }
        let above = on_grid(above, below);
        if above == GRID {
            return None;
        }
        let shared = gcd(u128::from(above), u128::from(GRID)) as u64;
        Some(Fraction { above: above / shared, below: GRID / shared })
    }
}

/// The nearest number of grid units to `above / below`, which is less than 1.
fn on_grid(mut above: u128, mut below: u128) -> u64 {
    // So that a digit more fits; what is cut is a relative 2^-120.
    if below > u128::MAX / 10 {
        (above, below) = (above >> 4, below >> 4);
    }
    let mut units = 0;
    for _ in 0..18 {
        above *= 10;
        units = units * 10 + (above / below) as u64;
        above %= below;
    }
    units + u64::from(above * 2 >= below)
}

fn gcd(mut a: u128, mut b: u128) -> u128 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAX: u64 = (1 << 53) - 1;

    fn decimal(text: &str) -> Decimal {
        Decimal::parse(text.as_bytes()).unwrap()
    }

    fn counted(times: u64, value: &str, rate: &str) -> u64 {
        let mut left = Fraction::ZERO;
        (0..times)
            .map(|_| {
                let (whole, part) = decimal(value).over(decimal(rate), MAX).unwrap();
                whole + left.carry(part)
            })
            .sum()
    }

    #[test]
    fn what_a_rate_leaves_over_is_carried_exactly() {
        assert_eq!(counted(3, "1", "0.3"), 10);
        assert_eq!(counted(1_000, "1", "0.3"), 3_333);
        assert_eq!(counted(7_000, "1", "0.7"), 10_000);
        assert_eq!(counted(10, "0.1", "1"), 1);
        assert_eq!(counted(1_000, "0.001", "1"), 1);
        assert_eq!(counted(99, "1", "0.99"), 100);
        assert_eq!(counted(1, "5", "0.1"), 50);
        assert_eq!(counted(4, "2.5e-1", "1"), 1);
    }

    #[test]
    fn mixed_rates_carry_exactly_too() {
        let mut left = Fraction::ZERO;
        let mut total = 0;
        for rate in ["0.3", "0.7", "0.9", "0.11"].repeat(693) {
            let (whole, part) = decimal("1").over(decimal(rate), MAX).unwrap();
            total += whole + left.carry(part);
        }
        // 693 times (10/3 + 10/7 + 10/9 + 100/11)
        assert_eq!(total, 2_310 + 990 + 770 + 6_300);
        assert_eq!(left, Fraction::ZERO);
    }

    #[test]
    fn fractions_without_a_common_denominator_stay_within_a_billionth() {
        let rates = ["0.999999999999999989", "0.999999999999999967", "0.300000000000000011"];
        let mut left = Fraction::ZERO;
        let mut total = 0;
        for rate in rates.repeat(3_000) {
            let (whole, part) = decimal("0.1").over(decimal(rate), MAX).unwrap();
            total += whole + left.carry(part);
        }
        // 3,000 times a hair over (0.1 + 0.1 + 0.333...) is a hair under or over 1,600.
        assert!(total == 1_599 || total == 1_600, "{total}");
    }

    #[test]
    fn only_numbers_are_read() {
        for text in ["", ".", "e1", "1.2.3", "-1", "+1", "1e", "1e+", "0x1", "1 ", "nan", "1e1.5", "1e-"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(decimal("1."), decimal("1.000000000000000000000000"));
        assert_eq!(decimal(".5"), decimal("0.5"));
        assert_eq!(decimal("1e3").over(Decimal::ONE, MAX), Some((1_000, Fraction::ZERO)));
    }

    #[test]
    fn a_rate_is_more_than_nothing_and_at_most_one() {
        for (text, is) in [
            ("0", false),
            ("1", true),
            ("1.0", true),
            ("1.01", false),
            ("0.5", true),
            ("1e-9", true),
            ("2", false),
            ("1e1", false),
            ("10e-1", true),
            ("11e-1", false),
            ("0.0007142857142857143", true),
            ("1e-400", true),
            ("0e-400", false),
            ("1e400", false),
            ("0.99999999999999999999999", true),
        ] {
            assert_eq!(decimal(text).is_rate(), is, "{text}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused() {
        assert_eq!(decimal("9007199254740992").over(Decimal::ONE, MAX), None);
        assert_eq!(decimal("9007199254740991").over(Decimal::ONE, MAX), Some((MAX, Fraction::ZERO)));
        assert_eq!(decimal("9007199254740991").over(decimal("0.5"), MAX), None);
        assert_eq!(decimal("18446744073709551615e18").over(decimal("1e-18"), MAX), None);
    }

    #[test]
    fn any_finite_decimal_is_read_however_long_or_small() {
        for text in
            ["5e-05", "1e-300", "1e-99999999999", "0.0007142857142857143", "0.1234567890123456789012345"]
        {
            assert_eq!(decimal(text).over(Decimal::ONE, MAX).unwrap().0, 0, "{text}");
        }
        assert_eq!(decimal("99999999999999999999").over(Decimal::ONE, MAX), None);
        assert_eq!(decimal("1e99999999999").over(Decimal::ONE, MAX), None);
        assert_eq!(decimal("0e99999999999").over(Decimal::ONE, MAX), Some((0, Fraction::ZERO)));
        // Digits that 64 bits do not hold are rounded, halves up.
        assert_eq!(decimal("1.00000000000000000005"), decimal("1.0000000000000000001"));
        assert_eq!(decimal("18446744073709551615.5").digits, u64::MAX);
        let zeros = format!("{}1.{}", "0".repeat(300), "0".repeat(300));
        assert_eq!(decimal(&zeros), Decimal::ONE);
        assert_eq!(decimal(&format!("0.{}1", "0".repeat(40))), Decimal { digits: 1, exponent: -41 });
    }

    #[test]
    fn rates_and_values_as_languages_print_doubles_add_up() {
        // 1/1400: whoever sends 1 in 1,400 means 1,400 each; the double is a hair off.
        assert_eq!(counted(1, "1", "0.0007142857142857143"), 1_400);
        assert_eq!(counted(1_000, "1", "0.0007142857142857143"), 1_400_000);
        for many in 1..10_000u64 {
            for text in [format!("{}", 1.0 / many as f64), format!("{:e}", 1.0 / many as f64)] {
                assert_eq!(counted(3, "1", &text), 3 * many, "{text}");
            }
        }
        assert_eq!(counted(20_000, "5e-05", "1"), 1);
        assert_eq!(counted(3, "0.3333333333333333", "1"), 0);
        assert_eq!(counted(4, "0.33333333333333331", "1"), 1);
        assert_eq!(counted(1, "1e-5", "1e-5"), 1);
        assert_eq!(counted(1, "1", "1e-300".replace("300", "15").as_str()), 1_000_000_000_000_000);
        assert_eq!(decimal("1").over(decimal("1e-300"), MAX), None);
        // Of what no 64 bits hold the nearest 10^-18 is kept, and 1 less a hair is 1.
        assert_eq!(counted(1, "0.9999999999999999999999", "1"), 1);
        assert_eq!(counted(2, "0.49999999999999999", "0.99999999999999998"), 1);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_beyond_the_part_still_carried(
            value in 1u64..1_000_000, rate in 1u64..=1_000, times in 1u64..2_000,
        ) {
            let value = format!("{}.{:03}", value / 1_000, value % 1_000);
            let rate_text = format!("{}.{:03}", rate / 1_000, rate % 1_000);
            let thousandths: u64 = value.replace('.', "").parse().unwrap();
            // value / rate, times over, rounded down
            let exact = u128::from(thousandths) * u128::from(times) / u128::from(rate);
            prop_assert_eq!(u128::from(counted(times, &value, &rate_text)), exact);
        }

        #[test]
        fn every_double_is_a_value_and_one_of_up_to_1_a_rate(bits in any::<u64>()) {
            let double = f64::from_bits(bits >> 1);
            prop_assume!(double.is_finite());
            for text in [format!("{double}"), format!("{double:e}")] {
                let read = Decimal::parse(text.as_bytes());
                prop_assert!(read.is_some(), "{}", text);
                prop_assert_eq!(read.unwrap().is_rate(), double > 0.0 && double <= 1.0, "{}", text);
            }
        }

        #[test]
        fn no_bytes_and_no_rates_panic(value in "[0-9.eE+-]{0,48}", rate in "[0-9.eE-]{0,48}") {
            if let (Some(value), Some(rate)) = (Decimal::parse(value.as_bytes()), Decimal::parse(rate.as_bytes())) {
                let mut left = Fraction { above: u64::MAX - 1, below: u64::MAX };
                if let Some((_, part)) = value.over(rate, u64::MAX) {
                    prop_assert!(left.carry(part) <= 1);
                }
            }
        }
    }
}
