//! Decimal numbers of StatsD lines as exact fractions, so that what a sampling rate leaves over is
//! carried to the next increment instead of being rounded away.

/// A decimal number: `digits` times ten to the power of `exponent`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    digits: u64,
    exponent: i32,
}

/// A decimal's exponent is kept within this, either way: no counter needs more.
const EXPONENT_MAX: i32 = 18;

/// The grid on which fractions are added that have no common denominator of 64 bits.
const GRID: u64 = 1_000_000_000_000_000_000;

impl Decimal {
    /// One.
    pub const ONE: Decimal = Decimal { digits: 1, exponent: 0 };

    /// Reads `12`, `0.25`, `.5`, `1e3`: no sign, at most 19 digits that count. `None` for anything else.
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
        let mut digits = 0u64;
        for &byte in whole.iter().chain(fraction) {
            if !byte.is_ascii_digit() {
                return None;
            }
            digits = digits.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
        }
        let exponent = power.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        if digits == 0 {
            return Some(Decimal { digits: 0, exponent: 0 });
        }
        (-EXPONENT_MAX..=EXPONENT_MAX).contains(&exponent).then_some(Decimal { digits, exponent })
    }

    /// Whether it can be a sampling rate: more than 0 and at most 1.
    pub fn is_rate(self) -> bool {
        let one = if self.exponent > 0 { 0 } else { 10u128.pow(self.exponent.unsigned_abs()) };
        self.digits > 0 && u128::from(self.digits) <= one
    }

    /// This divided by a rate: the whole part and what is left over. `None` if the whole part is
    /// over `max` or the rate is none.
    pub fn over(self, rate: Decimal, max: u64) -> Option<(u64, Fraction)> {
        if !rate.is_rate() {
            return None;
        }
        let (mut above, mut below) = (u128::from(self.digits), u128::from(rate.digits));
        let power = 10u128.pow((self.exponent - rate.exponent).unsigned_abs());
        if self.exponent >= rate.exponent {
            above = above.checked_mul(power)?;
        } else {
            // At most 10^18: a rate's digits are at most ten to the power that its exponent takes away.
            below = below.checked_mul(power)?;
        }
        let whole = u64::try_from(above / below).ok().filter(|&whole| whole <= max)?;
        Some((whole, Fraction::reduced(above % below, below)))
    }
}

/// Digits after a sign, if any: the power of ten.
fn parse_power(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    let mut power = 0i32;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        power = power * 10 + i32::from(byte - b'0');
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
            (a.on_grid() + b.on_grid(), u128::from(GRID))
        };
        let whole = above / below;
        *self = Fraction::reduced(above % below, below);
        u64::try_from(whole).unwrap_or(u64::MAX)
    }

    /// `above` is less than `below`, which has 64 bits.
    fn reduced(above: u128, below: u128) -> Fraction {
        let shared = gcd(above, below);
        match (u64::try_from(above / shared), u64::try_from(below / shared)) {
            (Ok(above), Ok(below)) => Fraction { above, below },
            _ => Fraction::ZERO,
        }
    }

    fn on_grid(self) -> u128 {
        let below = u128::from(self.below);
        (u128::from(self.above) * u128::from(GRID) + below / 2) / below
    }
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
        for text in
            ["", ".", "e1", "1.2.3", "-1", "+1", "1e", "1e1000", "0x1", "1 ", "nan", "99999999999999999999"]
        {
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
        fn no_bytes_and_no_rates_panic(value in "[0-9.eE+-]{0,24}", rate in "[0-9.eE-]{0,24}") {
            if let (Some(value), Some(rate)) = (Decimal::parse(value.as_bytes()), Decimal::parse(rate.as_bytes())) {
                let mut left = Fraction { above: u64::MAX - 1, below: u64::MAX };
                if let Some((_, part)) = value.over(rate, u64::MAX) {
                    prop_assert!(left.carry(part) <= 1);
                }
            }
        }
    }
}
