use super::*;

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_cbor::Value as Cell;
use tally_core::report::{Amount, Sum};

use crate::upstream::formats::json::Json;
use crate::upstream::formats::testing::{naming, numbered, sample};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn written(decimal: impl Into<Decimal>) -> String {
    let mut bytes = Vec::new();
    number(&mut bytes, decimal.into());
    hex(&bytes)
}

fn map(bytes: &[u8]) -> BTreeMap<String, Cell> {
    serde_cbor::from_slice(bytes).unwrap()
}

#[test]
fn a_summary_and_a_total_are_what_another_encoder_makes_of_their_fields() {
    // By cbor2 (PyPI), `dumps(..., canonical=True)`.
    let summary = concat!(
        "ac61760163736571190412646b696e6467636f756e746572646c617465f4647369746566706c616e7437647370616e19ea6065",
        "636c6f636b6673796e6365646573746172741b0000019aae27430065746f74616c1a0001d86666736572696573726c696e6531",
        "2f7072657373332f706172747367736974655f6964703966336335316432613037626536343468696e6372656173651825"
    );
    let counter = numbered("line1/press3/parts", Amount::Counter(37), 120_934);
    let message = Cbor.summary(&naming(), &counter).unwrap();
    assert_eq!(hex(&message.payload), summary);
    assert_eq!(message.topic, "tally/plant7/summary-cbor/line1/press3/parts");
    assert_eq!((message.retain, message.content_type), (false, "application/cbor"));
    let properties = [("site_id", "9f3c51d2a07be644".to_owned()), ("seq", "1042".to_owned())];
    assert_eq!(message.properties, properties);
    let total = concat!(
        "a7636d6178f94f90636d696ef9c00063736571190412646c617374f94d60646d65616ef941006474696d651b0000019aae282d",
        "6065636f756e7404"
    );
    let message = Cbor.total(&naming(), &numbered("t", Amount::Sample(sample(10_000_000_000)), 4)).unwrap();
    assert_eq!(hex(&message.payload), total);
    assert_eq!((message.topic.as_str(), message.retain), ("tally/plant7/total-cbor/t", true));
}

#[test]
fn the_fields_are_those_of_json() {
    let amounts =
        [Amount::Counter(37), Amount::Updown { up: 5, down: 12 }, Amount::Sample(sample(-2_500_000_000))];
    for amount in amounts {
        let one = numbered("t", amount, -7);
        let pairs = [
            (Cbor.summary(&naming(), &one), Json.summary(&naming(), &one)),
            (Cbor.total(&naming(), &one), Json.total(&naming(), &one)),
            (
                Some(Cbor.undeliverable(&naming(), &one, "x", "y")),
                Some(Json.undeliverable(&naming(), &one, "x", "y")),
            ),
        ];
        for (cbor, json) in pairs {
            let (cbor, json) = (cbor.unwrap(), json.unwrap());
            let json: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&json.payload).unwrap();
            let mut names: Vec<&String> = json.keys().collect();
            names.sort();
            assert_eq!(map(&cbor.payload).keys().collect::<Vec<_>>(), names);
        }
    }
    let aside = Cbor.undeliverable(&naming(), &numbered("t", Amount::Counter(1), 1), "x", "y");
    assert_eq!(aside.topic, "tally/plant7/undeliverable-cbor");
}

#[test]
fn integers_are_as_short_as_can_be_and_bignums_beyond_64_bits() {
    // RFC 8949, appendix A.
    for (value, bytes) in [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (1_000_000, "1a000f4240"),
        (1 << 53 | 1, "1b0020000000000001"),
        (u64::MAX.into(), "1bffffffffffffffff"),
        (18_446_744_073_709_551_616, "c249010000000000000000"),
        (-1, "20"),
        (-1000, "3903e7"),
        (-18_446_744_073_709_551_616, "3bffffffffffffffff"),
        (-18_446_744_073_709_551_617, "c349010000000000000000"),
        (i128::MAX, "c2507fffffffffffffffffffffffffffffff"),
        (i128::MIN, "c3507fffffffffffffffffffffffffffffff"),
    ] {
        assert_eq!(written(value), bytes, "{value}");
    }
    assert_eq!(written(u128::MAX), "c250ffffffffffffffffffffffffffffffff");
}

#[test]
fn a_sum_keeps_every_place() {
    // RFC 8949, 3.4.4: 273.15.
    assert_eq!(written(Sum(273_150_000_000)), "c48221196ab3");
    assert_eq!(written(Sum(-2_500_000_000)), "c4822038 18".replace(' ', ""));
    assert_eq!(written(Sum(10_000_000_000)), "0a");
    assert_eq!(written(Sum(i128::MAX)), "c48228c2507fffffffffffffffffffffffffffffff");
}

proptest! {
    #[test]
    fn one_message_has_one_encoding_and_its_keys_are_in_order(
        name in "[a-z/]{1,60}", increase: u128, total: i128, late: bool
    ) {
        let mut one = numbered(&name, Amount::Counter(increase), total);
        one.summary.late = late;
        let bytes = Cbor.summary(&naming(), &one).unwrap().payload;
        prop_assert_eq!(&bytes, &Cbor.summary(&naming(), &one).unwrap().payload);
        let keys = map(&bytes).into_keys().map(|key| serde_cbor::to_vec(&key).unwrap());
        let mut keys: Vec<Vec<u8>> = keys.collect();
        // RFC 8949, 4.2.1: by the bytes of the encoded keys; so they stand in the message.
        keys.sort();
        let mut rest = &bytes[1..];
        for key in keys {
            let place = rest.windows(key.len()).position(|window| window == key);
            prop_assert!(place.is_some(), "{}", hex(&bytes));
            rest = &rest[place.unwrap_or_default() + key.len()..];
        }
    }
}
