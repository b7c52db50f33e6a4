//! `tallyd add`: one add, counted once however often it has to be tried.

use bytes::Bytes;
use clap::{Args, ValueEnum};
use hyper::Method;
use serde::Deserialize;

use super::client::{Call, Client, ClientError, Policy, Server};
use super::{print_done, series_name, text};

/// Add to a series, and wait until that is committed
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  tallyd add line1/press3/parts          one more
  tallyd add line1/press3/parts 12       twelve more
  tallyd add stock/screws -3             a negative amount makes and needs an updown
  tallyd add hall/temperature 21.5 --kind sample

The add has an idempotency key and is tried, at each --url in turn, until --timeout: it is counted
once at most, and exactly once if the exit status is 0. With exit status 4, the same command with
the printed --key settles it.")]
pub(super) struct AddArgs {
    /// Series, such as line1/press3/parts
    #[arg(value_parser = series_name)]
    series: String,
    /// How much; default 1. A value, for a sample
    #[arg(allow_negative_numbers = true, default_value = "1", value_name = "N")]
    amount: String,
    /// Kind of the series, where the amount does not tell: a positive one is for a counter, or for an
    /// updown that there is already
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Idempotency key, 1 to 64 visible characters; default: a random one
    #[arg(long, value_parser = checked_key)]
    key: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindArg {
    Counter,
    Updown,
    Sample,
}

impl KindArg {
    fn path(self) -> &'static str {
        match self {
            KindArg::Counter => "counters",
            KindArg::Updown => "updowns",
            KindArg::Sample => "samples",
        }
    }
}

#[derive(Deserialize)]
struct Answer {
    total: Option<i128>,
    count: Option<i128>,
}

pub(super) async fn run(args: AddArgs) -> Result<(), ClientError> {
    let client = Client::new(&args.server)?;
    let negative = args.amount.starts_with('-');
    let kind = args.kind.unwrap_or(if negative { KindArg::Updown } else { KindArg::Counter });
    let key = match &args.key {
        Some(key) => key.clone(),
        None => random_key()?,
    };
    let mut result = client.call(&call(&args, kind, &key)?).await;
    if let Err(ClientError::Failed(refused)) = &result
        && args.kind.is_none()
        && kind == KindArg::Counter
        && refused.problem["is"] == "updown"
    {
        // The series goes up and down, and this is up. A refused add leaves its key unused.
        result = client.call(&call(&args, KindArg::Updown, &key)?).await;
    }
    let body = match result {
        Ok(body) => body,
        Err(ClientError::Unknown(why)) => {
            return Err(ClientError::Unknown(format!("{why}; to settle it, run the same with --key {key}")));
        }
        Err(other) => return Err(other),
    };
    shown(&args, &body)
}

fn shown(args: &AddArgs, body: &Bytes) -> Result<(), ClientError> {
    let answer: Answer = serde_json::from_slice(body).map_err(not_understood)?;
    let text = match (answer.total, answer.count) {
        (Some(total), _) => total.to_string(),
        (None, Some(count)) => format!("{count} values"),
        (None, None) => return Err(not_understood("it has neither total nor count")),
    };
    if args.server.json {
        return print_done(&format!("{}\n", String::from_utf8_lossy(body).trim_end()));
    }
    print_done(&format!("{}  {text}\n", args.series))
}

/// Whoever answered so may have counted.
fn not_understood(why: impl std::fmt::Display) -> ClientError {
    ClientError::Unknown(format!(
        "the answer is not understood; is it another program, or another version? ({why})"
    ))
}

fn call(args: &AddArgs, kind: KindArg, key: &str) -> Result<Call, ClientError> {
    Ok(Call {
        method: Method::POST,
        path: format!("/v1/{}/{}", kind.path(), text::in_path(&args.series)),
        body: body(kind, &args.amount)?,
        key: Some(key.to_owned()),
        policy: Policy::Repeatable,
    })
}

/// The body, with the amount as it was typed: bounds are the box's to know.
fn body(kind: KindArg, amount: &str) -> Result<Bytes, ClientError> {
    let usage = |what: &str| ClientError::Usage(format!("{amount:?} is not {what}"));
    Ok(Bytes::from(match kind {
        KindArg::Sample => {
            let value: f64 = amount.parse().map_err(|_| usage("a number"))?;
            if !value.is_finite() {
                return Err(usage("a finite number"));
            }
            format!("{{\"value\":{value:?}}}")
        }
        KindArg::Counter | KindArg::Updown => {
            let add: i128 =
                amount.parse().map_err(|_| usage("a whole number (for samples: --kind sample)"))?;
            format!("{{\"add\":{add}}}")
        }
    }))
}

fn random_key() -> Result<String, ClientError> {
    crate::random::bytes()
        .map(|random| format!("cli-{:032x}", u128::from_be_bytes(random)))
        .map_err(|_| ClientError::NotTried("the system's random generator does not answer".to_owned()))
}

fn checked_key(key: &str) -> Result<String, String> {
    let fits = (1..=64).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { Ok(key.to_owned()) } else { Err("a key has 1 to 64 visible ASCII characters".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_sent_as_typed_and_garbage_is_wrong_usage() {
        let of = |kind, amount| body(kind, amount).map_err(|error| error.exit_status());
        assert_eq!(of(KindArg::Counter, "5"), Ok(Bytes::from_static(br#"{"add":5}"#)));
        assert_eq!(of(KindArg::Updown, "-5"), Ok(Bytes::from_static(br#"{"add":-5}"#)));
        assert_eq!(of(KindArg::Sample, "21"), Ok(Bytes::from_static(br#"{"value":21.0}"#)));
        assert_eq!(of(KindArg::Sample, "-1e-9"), Ok(Bytes::from_static(br#"{"value":-1e-9}"#)));
        for (kind, amount) in [
            (KindArg::Counter, "x"),
            (KindArg::Counter, "1.5"),
            (KindArg::Sample, "NaN"),
            (KindArg::Sample, ""),
        ] {
            assert_eq!(of(kind, amount), Err(2), "{amount}");
        }
    }

    #[test]
    fn two_keys_are_never_the_same() {
        let (one, two) = (random_key().unwrap(), random_key().unwrap());
        assert_ne!(one, two);
        assert!(checked_key(&one).is_ok());
    }
}
