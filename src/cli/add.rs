//! `tallyd add`: counts once, however often it has to be tried.

use std::io::Write;

use clap::{Args, ValueEnum};
use hyper::Method;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use tally_core::report::{ADD_MAX, SAMPLE_MAGNITUDE_MAX};

use super::client::{AskError, Client, ClientArgs};
use super::connection::Question;
use super::table::{plain, whole};
use super::tries::{self, Repeat};
use super::{Failure, parsed, print_done, series_name, url};
use crate::api::KEY_BYTES_MAX;

const EXAMPLE: &str = "\
Examples:
  tallyd add coffee
  tallyd add line1/press3/parts 12
  tallyd add yard/trucks -1                       goes down: an updown
  tallyd add yard/trucks 1 --kind updown
  tallyd add hall/temperature 21.5 --kind sample

It retries until --timeout with one idempotency key, so that it counts once. Exit status 4 says that the outcome is
unknown; the same command with the --key that was printed settles it.";

/// Add to a series, exactly once
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLE)]
pub struct AddArgs {
    /// Segments divided by slashes; the first add makes the series
    #[arg(value_parser = series_name)]
    pub series: String,
    /// How much [default: 1]
    #[arg(value_name = "N", allow_negative_numbers = true)]
    pub amount: Option<String>,
    /// The series' kind; default: counter for an N of 1 or more, updown for a negative one
    #[arg(long)]
    pub kind: Option<Kind>,
    /// Idempotency key of an earlier try whose outcome is unknown [default: a random one]
    #[arg(long, value_parser = key)]
    pub key: Option<String>,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// What a series holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Only goes up
    Counter,
    /// Goes up and down
    Updown,
    /// Measured values: count, mean, least, greatest, last
    Sample,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Updown => "updown",
            Kind::Sample => "sample",
        }
    }
}

/// What the arguments come to.
#[derive(Clone, Debug, PartialEq)]
struct Plan {
    kind: Kind,
    body: String,
}

#[derive(Deserialize)]
struct Added {
    series: String,
    total: Option<i128>,
    count: Option<i128>,
}

/// Adds and prints the total.
pub async fn run(args: &AddArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let plan = Plan::new(args.amount.as_deref(), args.kind).map_err(|why| Failure::new(tries::USAGE, why))?;
    let key = match &args.key {
        Some(key) => key.clone(),
        None => random_key()?,
    };
    let question = Question {
        method: Method::POST,
        path: format!("/v1/{}s/{}", plan.kind.as_str(), url::in_path(&args.series)),
        body: Some(plan.body),
        key: Some(key.clone()),
    };
    let client = Client::new(&args.client)?;
    let answer = client.ask(&question, Repeat::Keyed).await;
    let body = answer.map_err(|error| explained(error, &args.series, plan.kind, &key))?;
    let added: Result<Added, Failure> = parsed(&body);
    // Some other server's 200 is no promise.
    let added = added.map_err(|failure| Failure::new(tries::UNKNOWN, failure.text))?;
    if args.client.json {
        return print_done(out, &body);
    }
    let (total, what) = match (added.total, added.count) {
        (Some(total), _) => (whole(total), ""),
        (None, Some(count)) => (whole(count), " values"),
        (None, None) => return Err(Failure::new(tries::UNKNOWN, "the answer has neither total nor count")),
    };
    print_done(out, &format!("{}  {total}{what}", plain(&added.series)))
}

impl Plan {
    fn new(amount: Option<&str>, kind: Option<Kind>) -> Result<Plan, String> {
        if kind == Some(Kind::Sample) {
            let text = amount.ok_or("a sample needs its value: tallyd add SERIES VALUE --kind sample")?;
            let value: f64 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
            if !value.is_finite() || value.abs() > SAMPLE_MAGNITUDE_MAX {
                return Err(format!("a sample is at most {SAMPLE_MAGNITUDE_MAX:e} in magnitude, not {text}"));
            }
            let body = serde_json::json!({ "value": value }).to_string();
            return Ok(Plan { kind: Kind::Sample, body });
        }
        let text = amount.unwrap_or("1");
        let number: i64 = text.parse().map_err(|_| not_an_amount(text))?;
        if !(1..=ADD_MAX).contains(&number.unsigned_abs()) {
            return Err(not_an_amount(text));
        }
        let kind = kind.unwrap_or(if number > 0 { Kind::Counter } else { Kind::Updown });
        if kind == Kind::Counter && number < 0 {
            return Err(format!("a counter only goes up, not by {number}; what goes down too is an updown"));
        }
        Ok(Plan { kind, body: format!(r#"{{"add": {number}}}"#) })
    }
}

fn not_an_amount(text: &str) -> String {
    let mut said = format!("{text:?} is not a whole number from 1 to {ADD_MAX}, or from -{ADD_MAX} to -1");
    if text.parse::<f64>().is_ok_and(|value| value.fract() != 0.0) {
        said.push_str("; a measured value goes with --kind sample");
    }
    said
}

/// What a failure means for this add.
fn explained(error: AskError, series: &str, asked: Kind, key: &str) -> Failure {
    let wrong_kind = error.problem.as_ref().filter(|problem| problem.name() == "wrong-kind");
    if let Some(is) = wrong_kind.and_then(|problem| problem.is.as_deref()) {
        let text = format!(
            "{series} is of kind {is} and has it for life; this add is for kind {}; nothing was counted; use \
             another series, or --kind {is}",
            asked.as_str(),
            is = plain(is)
        );
        return Failure::new(error.status, text);
    }
    let end = match error.status {
        tries::UNKNOWN => {
            format!("; whether it was counted is unknown: the same command with --key {key} settles it")
        }
        tries::FAILED | tries::NOT_TRIED => "; nothing was counted".to_owned(),
        _ => String::new(),
    };
    Failure::new(error.status, error.text + &end)
}

fn key(text: &str) -> Result<String, String> {
    if (1..=KEY_BYTES_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err(format!("a key is 1 to {KEY_BYTES_MAX} visible ASCII characters"))
    }
}

fn random_key() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| {
        Failure::new(tries::NOT_TRIED, "the system gives no random numbers for an idempotency key")
    })?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_follows_from_the_amount_unless_it_is_given() {
        for (amount, kind, expected, body) in [
            (None, None, Kind::Counter, r#"{"add": 1}"#),
            (Some("12"), None, Kind::Counter, r#"{"add": 12}"#),
            (Some("+12"), None, Kind::Counter, r#"{"add": 12}"#),
            (Some("-2"), None, Kind::Updown, r#"{"add": -2}"#),
            (Some("2"), Some(Kind::Updown), Kind::Updown, r#"{"add": 2}"#),
            (Some("9007199254740991"), None, Kind::Counter, r#"{"add": 9007199254740991}"#),
            (Some("21.5"), Some(Kind::Sample), Kind::Sample, r#"{"value":21.5}"#),
            (Some("-1e3"), Some(Kind::Sample), Kind::Sample, r#"{"value":-1000.0}"#),
        ] {
            assert_eq!(Plan::new(amount, kind), Ok(Plan { kind: expected, body: body.to_owned() }));
        }
    }

    #[test]
    fn what_cannot_be_added_is_refused_before_anything_is_sent() {
        for (amount, kind, what) in [
            (Some("0"), None, "whole number"),
            (Some("9007199254740992"), None, "whole number"),
            (Some("-9007199254740992"), None, "whole number"),
            (Some("-9223372036854775808"), None, "whole number"),
            (Some("18446744073709551616"), None, "whole number"),
            (Some("1.5"), None, "--kind sample"),
            (Some("x"), None, "whole number"),
            (Some("-1"), Some(Kind::Counter), "only goes up"),
            (None, Some(Kind::Sample), "needs its value"),
            (Some("inf"), Some(Kind::Sample), "at most"),
            (Some("nan"), Some(Kind::Sample), "at most"),
            (Some("2e18"), Some(Kind::Sample), "at most"),
            (Some("x"), Some(Kind::Sample), "not a number"),
        ] {
            let error = Plan::new(amount, kind).unwrap_err();
            assert!(error.contains(what), "{amount:?}: {error}");
        }
    }

    #[test]
    fn keys_are_random_and_of_a_form_that_boxes_take() {
        let one = random_key().unwrap();
        assert_eq!(one.len(), 32);
        assert_ne!(one, random_key().unwrap());
        assert_eq!(key(&one), Ok(one.clone()));
        for bad in ["", "a b", "ü", &"x".repeat(65)] {
            assert!(key(bad).is_err(), "{bad:?}");
        }
    }
}
