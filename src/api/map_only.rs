//! Restricts bodies to objects: a derived `Deserialize` would also read its fields, in order, from an array.

use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, MapAccess, Visitor};

/// A value that was read from an object, not from an array.
pub(super) struct MapOnly<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for MapOnly<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfMap<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfMap<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(OfMap(PhantomData)).map(MapOnly)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_in_an_array_are_no_object() {
        #[derive(Debug, Deserialize, PartialEq)]
        struct Body {
            add: u64,
        }
        let parse = |text: &str| serde_json::from_str::<MapOnly<Body>>(text).map(|body| body.0);
        assert_eq!(parse(r#"{"add": 1}"#).unwrap(), Body { add: 1 });
        assert!(parse("[1]").unwrap_err().to_string().contains("an object"));
    }
}
