//! What stands in requests, as checked values: names in paths, bodies, keys, queries.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use axum::http::{HeaderMap, Uri};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Visitor};
use tally_core::id::{SERIES_NAME_BYTES_MAX, SeriesName, SeriesNameError, SourceId};
use tally_core::report::{ADD_MAX, Amount, Kind, SAMPLE_MAGNITUDE_MAX, Sample};
use tally_core::time::SiteTime;

use super::map_only::MapOnly;
use super::problem::{Name, Problem};

/// The most values in one request for samples.
pub const VALUES_MAX: usize = 1000;

/// The longest idempotency key, in bytes.
pub const KEY_BYTES_MAX: usize = 64;

/// The header of the idempotency key.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The name of a series to add to, as it stands in a path: percent-encoded, its slashes raw or encoded.
///
/// # Errors
/// What it breaks of the rules for names.
pub fn series(raw: &str) -> Result<Cow<'_, str>, Problem> {
    named(raw, |text| SeriesName::new(text).map(drop))
}

/// The same of a series to read: older logs hold names that are not taken any more.
///
/// # Errors
/// What it breaks of the rules for names.
pub(super) fn stored_series(raw: &str) -> Result<Cow<'_, str>, Problem> {
    named(raw, |text| SeriesName::stored(text).map(drop))
}

fn named(raw: &str, check: impl Fn(&str) -> Result<(), SeriesNameError>) -> Result<Cow<'_, str>, Problem> {
    // Each byte is encoded by three characters at most.
    if raw.len() > 3 * SERIES_NAME_BYTES_MAX {
        return Err(Problem::malformed(format!(
            "the series in the path: a series name has at most {SERIES_NAME_BYTES_MAX} bytes"
        )));
    }
    let name = percent_decode_str(raw)
        .decode_utf8()
        .map_err(|_| Problem::malformed("the series in the path: a series name is UTF-8"))?;
    check(&name).map_err(|error| Problem::malformed(format!("the series in the path: {error}")))?;
    Ok(name)
}

/// The idempotency key, if the request has one.
pub(super) fn key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().unwrap_or_default().trim();
    if values.next().is_some() || key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(Problem::malformed(format!(
            "Idempotency-Key: one header of 1 to {KEY_BYTES_MAX} visible ASCII characters"
        )));
    }
    Ok(Some(key.to_owned()))
}

/// How long the client waits for the answer at the most, if it says so (RFC 7240: `Prefer: wait=5`). What is
/// not understood is no preference.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let values = headers.get_all("prefer").iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split(','));
    let seconds = preferences.find_map(|one| {
        let (name, value) = one.split(';').next()?.split_once('=')?;
        let is_wait = name.trim().eq_ignore_ascii_case("wait");
        value.trim().trim_matches('"').parse().ok().filter(|_| is_wait)
    });
    seconds.map(Duration::from_secs)
}

/// The query of a request.
pub(super) fn query<T: DeserializeOwned>(uri: &Uri) -> Result<T, Problem> {
    axum::extract::Query::<T>::try_from_uri(uri)
        .map(|query| query.0)
        .map_err(|error| Problem::malformed(format!("the query: {}", error.body_text())))
}

/// The amount in the body of an add to a series of that kind.
///
/// # Errors
/// What is wrong with the request, as it is answered.
pub fn amount(kind: Kind, body: &[u8], now: SiteTime) -> Result<Amount, Problem> {
    match kind {
        Kind::Counter => {
            let add = json::<CounterBody>(body, r#"{"add": 5}"#)?.add;
            Ok(Amount::Counter(u128::from(add.0)))
        }
        Kind::Updown => {
            let add = json::<UpdownBody>(body, r#"{"add": -2}"#)?.add;
            Ok(Amount::updown(i128::from(add.0)))
        }
        Kind::Sample => samples(&json::<SampleBody>(body, r#"{"value": 21.5}"#)?, now),
    }
}

/// A JSON body, with an example of one in what is said of others.
pub(super) fn json<'a, T: Deserialize<'a>>(body: &'a [u8], example: &str) -> Result<T, Problem> {
    serde_json::from_slice::<MapOnly<T>>(body)
        .map(|MapOnly(body)| body)
        .map_err(|error| Problem::malformed(format!("the body: {error}; a body is like {example}")))
}

fn samples(body: &SampleBody, now: SiteTime) -> Result<Amount, Problem> {
    let values = match (&body.value, &body.values) {
        (Some(value), None) => std::slice::from_ref(value),
        (None, Some(values)) => values.as_slice(),
        _ => {
            return Err(Problem::malformed(r#"the body: either "value" or "values", not both and not none"#));
        }
    };
    if values.is_empty() {
        return Err(Problem::malformed(r#"the body: "values" has at least one value"#));
    }
    if values.len() > VALUES_MAX {
        let detail = format!(r#"the body: "values" has {}, at most {VALUES_MAX} go at once"#, values.len());
        return Err(Problem::new(Name::TooLarge, detail));
    }
    let mut whole: Option<Sample> = None;
    for (place, value) in values.iter().enumerate() {
        // The box puts its own source in when it reports.
        let one = Sample::observed(*value, now, SourceId(0)).ok_or_else(|| {
            let detail =
                format!("the body: value {place}: finite, of at most {SAMPLE_MAGNITUDE_MAX:e} in magnitude");
            Problem::malformed(detail)
        })?;
        whole = Some(match whole {
            None => one,
            // Of the same time: the later in the list is the last.
            Some(before) => {
                before.merged(one).map_err(|error| Problem::malformed(format!("the body: {error}")))?
            }
        });
    }
    whole.map(Amount::Sample).ok_or_else(|| Problem::malformed("the body: no value"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CounterBody {
    add: CounterAdd,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdownBody {
    add: UpdownAdd,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SampleBody {
    value: Option<f64>,
    values: Option<Vec<f64>>,
}

/// 1 to [`ADD_MAX`].
struct CounterAdd(u64);

/// -[`ADD_MAX`] to [`ADD_MAX`] without 0.
struct UpdownAdd(i64);

impl<'de> Deserialize<'de> for CounterAdd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = CounterAdd;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from 1 to {ADD_MAX}")
            }
            fn visit_u64<E: serde::de::Error>(self, add: u64) -> Result<CounterAdd, E> {
                if (1..=ADD_MAX).contains(&add) { Ok(CounterAdd(add)) } else { Err(out_of_range(add, &self)) }
            }
            fn visit_i64<E: serde::de::Error>(self, add: i64) -> Result<CounterAdd, E> {
                // Only negative numbers come this way.
                Err(E::custom(format!(
                    "a counter only goes up, by 1 to {ADD_MAX}, not by {add}; \
                                       what goes down too is an updown (POST /v1/updowns/SERIES)"
                )))
            }
        }
        deserializer.deserialize_any(Whole)
    }
}

impl<'de> Deserialize<'de> for UpdownAdd {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl Visitor<'_> for Whole {
            type Value = UpdownAdd;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a whole number from -{ADD_MAX} to {ADD_MAX}, not 0")
            }
            fn visit_u64<E: serde::de::Error>(self, add: u64) -> Result<UpdownAdd, E> {
                match i64::try_from(add) {
                    Ok(add) => self.visit_i64(add),
                    Err(_) => Err(out_of_range(add, &self)),
                }
            }
            fn visit_i64<E: serde::de::Error>(self, add: i64) -> Result<UpdownAdd, E> {
                if (1..=ADD_MAX).contains(&add.unsigned_abs()) {
                    Ok(UpdownAdd(add))
                } else {
                    Err(out_of_range(add, &self))
                }
            }
        }
        deserializer.deserialize_any(Whole)
    }
}

fn out_of_range<E: serde::de::Error>(add: impl fmt::Display, expected: &dyn serde::de::Expected) -> E {
    E::custom(format!("{add} is not {expected}"))
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
