//! The formats of what is published, read back: the same fields, whichever it is.

use std::collections::BTreeMap;

use serde_cbor::Value;
use serde_json::value::RawValue;
use tallyd::upstream::Formats;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Form {
    Json,
    Cbor,
}

/// What a site publishes, as in its boxes' configuration.
pub(crate) type Forms = &'static [Form];

/// Lists of formats that a seed can take; most sites have the first.
pub(crate) const FORMS: [Forms; 4] =
    [&[Form::Json], &[Form::Cbor], &[Form::Json, Form::Cbor], &[Form::Cbor, Form::Json]];

/// A field's value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Cell {
    Text(String),
    Flag(bool),
    Whole(i128),
    Other(f64),
}

pub(crate) type Fields = BTreeMap<String, Cell>;

pub(crate) fn formats(forms: Forms) -> Formats {
    let names = forms.iter().map(|form| form.name().to_owned()).collect::<Vec<String>>();
    names.try_into().expect("they are listed once, and known")
}

impl Form {
    fn name(self) -> &'static str {
        match self {
            Form::Json => "json",
            Form::Cbor => "cbor",
        }
    }

    /// What a level of a topic is for, and in which format.
    pub(crate) fn split(of: &str) -> (&str, Form) {
        match of.strip_suffix("-cbor") {
            Some(of) => (of, Form::Cbor),
            None => (of, Form::Json),
        }
    }

    /// The fields of a message.
    pub(crate) fn read(self, payload: &[u8]) -> Fields {
        match self {
            Form::Json => {
                let fields: BTreeMap<String, Box<RawValue>> =
                    serde_json::from_slice(payload).expect("it is JSON");
                fields.into_iter().map(|(name, value)| (name, of_json(value.get()))).collect()
            }
            Form::Cbor => {
                let fields: BTreeMap<String, Value> = serde_cbor::from_slice(payload).expect("it is CBOR");
                fields.into_iter().map(|(name, value)| (name, of_cbor(&value))).collect()
            }
        }
    }
}

fn of_json(text: &str) -> Cell {
    match text {
        "true" | "false" => Cell::Flag(text == "true"),
        _ if text.starts_with('"') => Cell::Text(serde_json::from_str(text).expect("a text")),
        _ => text.parse().map(Cell::Whole).unwrap_or_else(|_| Cell::Other(text.parse().expect("a number"))),
    }
}

fn of_cbor(value: &Value) -> Cell {
    match value {
        Value::Text(text) => Cell::Text(text.clone()),
        Value::Bool(flag) => Cell::Flag(*flag),
        Value::Integer(number) => Cell::Whole(*number),
        Value::Float(number) => Cell::Other(*number),
        // A decimal fraction, of which the decoder leaves out the tag: ten to the first, times the second.
        Value::Array(parts) => match parts[..] {
            [Value::Integer(power), Value::Integer(digits)] => {
                Cell::Other(format!("{digits}e{power}").parse().expect("a number"))
            }
            _ => panic!("no decimal fraction: {parts:?}"),
        },
        other => panic!("nothing that a history comes to: {other:?}"),
    }
}

#[test]
fn the_same_fields_are_read_of_either_format() {
    let json = br#"{"seq":3,"late":false,"series":"a","sum":-12.5,"min":2.0}"#;
    let cbor = [
        b"\xa5\x63seq\x03\x64late\xf4\x66series\x61a".as_slice(),
        b"\x63sum\xc4\x82\x20\x38\x7c\x63min\xf9\x40\x00",
    ];
    assert_eq!(Form::Json.read(json), Form::Cbor.read(&cbor.concat()));
}
