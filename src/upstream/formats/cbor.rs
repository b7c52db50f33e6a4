//! CBOR: the fields of the JSON messages as a map under the same keys, encoded deterministically (RFC 8949, 4.2.1).
//!
//! Exact numbers stay exact: beyond 64 bits they are bignums (tags 2 and 3), with places decimal fractions (tag 4).

use serde::Serialize;

use super::Format;
use super::decimal::Decimal;
use super::fields::{FieldValue, Fields};
use crate::deliberate::{self, Bug};

/// See the module.
pub(super) struct Cbor;

impl Format for Cbor {
    fn name(&self) -> &'static str {
        "cbor"
    }

    fn topic_suffix(&self) -> &'static str {
        "-cbor"
    }

    fn content_type(&self) -> &'static str {
        "application/cbor"
    }

    fn encode(&self, fields: &Fields<'_>) -> Vec<u8> {
        let mut fields: Vec<_> = fields.iter().collect();
        // By their encodings: of short texts the length comes first.
        fields.sort_unstable_by_key(|(name, _)| (name.len(), *name));
        let mut bytes = Vec::with_capacity(256);
        head(&mut bytes, MAP, fields.len() as u64);
        for (name, value) in fields {
            write(&mut bytes, name);
            match value {
                FieldValue::Text(text) => write(&mut bytes, text),
                FieldValue::Flag(flag) => write(&mut bytes, flag),
                FieldValue::Exact(decimal) => number(&mut bytes, *decimal),
                FieldValue::Float(value) => write(&mut bytes, value),
            }
        }
        bytes
    }
}

/// Major types, as they stand in the first three bits of an item.
const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1 << 5;
const BYTES: u8 = 2 << 5;
const ARRAY: u8 = 4 << 5;
const MAP: u8 = 5 << 5;
const TAG: u8 = 6 << 5;

/// The first bytes of an item: its major type and its number, which is its value, length or tag.
fn head(bytes: &mut Vec<u8>, major: u8, number: u64) {
    let first = bytes.len();
    write(bytes, &number);
    bytes[first] |= major;
}

fn write(bytes: &mut Vec<u8>, value: &impl Serialize) {
    let written = serde_cbor::to_writer(bytes, value);
    written.expect("texts, floats and integers of 64 bits always encode, and a vector takes them");
}

/// A whole number as an integer, another as a decimal fraction: ten to the first, times the second.
fn number(bytes: &mut Vec<u8>, decimal: Decimal) {
    if decimal.places > 0 {
        head(bytes, TAG, 4);
        head(bytes, ARRAY, 2);
        integer(bytes, true, decimal.places.into());
    }
    integer(bytes, decimal.negative, decimal.digits);
}

/// As short as can be: beyond 64 bits as a bignum without leading zeros.
fn integer(bytes: &mut Vec<u8>, negative: bool, magnitude: u128) {
    // A negative integer stands as what it is below -1.
    let is_below = negative && !deliberate::is(Bug::NegativesOffByOne);
    let below = if is_below { magnitude - 1 } else { magnitude };
    match u64::try_from(below) {
        Ok(below) => head(bytes, if negative { NEGATIVE } else { UNSIGNED }, below),
        Err(_) => {
            let digits = below.to_be_bytes();
            let digits = &digits[below.leading_zeros() as usize / 8..];
            head(bytes, TAG, if negative { 3 } else { 2 });
            head(bytes, BYTES, digits.len() as u64);
            bytes.extend_from_slice(digits);
        }
    }
}

#[cfg(test)]
#[path = "cbor_tests.rs"]
mod tests;
