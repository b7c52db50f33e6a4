//! Numbers as they were counted: exact, and with one way to write them in decimal digits.

use std::fmt;

use tally_core::report::Sum;

/// An exact number: `digits` divided by ten to `places`, which are as few as can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Decimal {
    /// Whether it is below zero.
    pub(super) negative: bool,
    /// Its digits, as one whole number.
    pub(super) digits: u128,
    /// How many of them stand behind the point.
    pub(super) places: u8,
}

impl From<u128> for Decimal {
    fn from(digits: u128) -> Decimal {
        Decimal { negative: false, digits, places: 0 }
    }
}

impl From<i128> for Decimal {
    fn from(value: i128) -> Decimal {
        Decimal { negative: value < 0, digits: value.unsigned_abs(), places: 0 }
    }
}

impl From<u64> for Decimal {
    fn from(value: u64) -> Decimal {
        Decimal::from(u128::from(value))
    }
}

impl From<Sum> for Decimal {
    fn from(sum: Sum) -> Decimal {
        let mut decimal = Decimal { places: Sum::UNITS.ilog10() as u8, ..Decimal::from(sum.0) };
        while decimal.places > 0 && decimal.digits.is_multiple_of(10) {
            decimal.digits /= 10;
            decimal.places -= 1;
        }
        decimal
    }
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.negative { "-" } else { "" };
        if self.places == 0 {
            return write!(f, "{sign}{}", self.digits);
        }
        let unit = 10_u128.pow(u32::from(self.places));
        let (whole, fraction) = (self.digits / unit, self.digits % unit);
        write!(f, "{sign}{whole}.{fraction:0places$}", places = usize::from(self.places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sums_have_as_few_places_as_can_be() {
        for (units, text) in [
            (0, "0"),
            (10_000_000_000, "10"),
            (-2_500_000_000, "-2.5"),
            (1, "0.000000001"),
            (-123_456_789_012_345_678_901_000_001, "-123456789012345678.901000001"),
            (i128::MIN, "-170141183460469231731687303715.884105728"),
        ] {
            assert_eq!(Decimal::from(Sum(units)).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn every_number_is_written_to_its_last_place(units: i128, whole: u128) {
            prop_assert_eq!(Decimal::from(Sum(units)).to_string(), Sum(units).to_string());
            prop_assert_eq!(Decimal::from(units).to_string(), units.to_string());
            prop_assert_eq!(Decimal::from(whole).to_string(), whole.to_string());
        }
    }
}
