//! `tallyd watch`: totals and windows as they change.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt;
use serde_json::Value;
use serde_json::value::RawValue;
use tokio::time::{sleep, timeout};

use super::client::{Client, ClientError, Server};
use super::{print, text};
use crate::units::Unit;

/// The longest line of the stream that is taken, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// How long is waited before a broken stream is taken up again.
const PAUSE: Duration = Duration::from_millis(500);

/// A box says every 10 s that it lives; beyond this, the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// Print totals and windows as they change, until interrupted
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Example: everything of a line, for a program
  tallyd watch line1/ --json")]
pub(super) struct WatchArgs {
    /// How the series' names begin; default: all
    #[arg(default_value = "")]
    prefix: String,
    /// End after so many lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(args: WatchArgs) -> Result<(), ClientError> {
    let path = format!("/v1/watch?prefix={}", text::in_query(&args.prefix));
    let mut left = args.count.unwrap_or(u64::MAX);
    let (mut watched, mut told) = (false, false);
    loop {
        // Each connection has the whole time to be made.
        let response = match Client::new(&args.server)?.open(&path).await {
            Ok(response) => response,
            Err(error @ ClientError::NotTried(_)) if watched => {
                // The box is away for a while: whoever watches wants to see it come back.
                if !std::mem::replace(&mut told, true) {
                    note(&format!("{error}; trying on"));
                }
                sleep(PAUSE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        if watched {
            note("watching again; changes in between were not shown");
        }
        (watched, told) = (true, false);
        let mut body = response.into_body();
        let mut lines = Lines::default();
        while let Ok(Some(Ok(frame))) = timeout(SILENCE_MAX, body.frame()).await {
            let Some(data) = frame.data_ref() else { continue };
            for event in lines.push(data) {
                print(&shown(&event, args.server.json))?;
                left -= 1;
                if left == 0 {
                    return Ok(());
                }
            }
        }
        note("the stream of changes ended");
        sleep(PAUSE).await;
    }
}

/// Beside the output, which may be a program's input.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "tallyd: {text}");
}

/// An event of the stream: its name and its data.
type Event = (String, String);

/// Events from pieces of the stream, however these are cut.
#[derive(Debug, Default)]
struct Lines {
    rest: Vec<u8>,
    event: String,
}

impl Lines {
    fn push(&mut self, piece: &[u8]) -> Vec<Event> {
        let mut events = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            // A line that long is none of the API's: cut, it is no JSON, and shown as nothing.
            if self.rest.len() + part.len() <= LINE_BYTES_MAX {
                self.rest.extend_from_slice(part);
            }
            if !part.ends_with(b"\n") {
                continue;
            }
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.rest)).trim_end().to_owned();
            if let Some(event) = line.strip_prefix("event:") {
                self.event = event.trim().to_owned();
            } else if let Some(data) = line.strip_prefix("data:") {
                events.push((self.event.clone(), data.trim().to_owned()));
            }
        }
        events
    }
}

fn shown((event, data): &Event, json: bool) -> String {
    if json {
        // Only what is JSON goes where JSON is expected.
        let data = serde_json::from_str::<&RawValue>(data).map_or("null", |raw| raw.get());
        return format!("{{\"event\":{},\"data\":{data}}}\n", Value::from(event.as_str()));
    }
    let value: Value = serde_json::from_str(data).unwrap_or_default();
    let series = text::printable(value["series"].as_str().unwrap_or("?"));
    if event == "total" {
        return format!("{series}  {}\n", exact(data, "total"));
    }
    let start = value["start"].as_u64().map_or(String::new(), text::time);
    let span = value["span"].as_u64().map_or(String::new(), |ms| Unit::Duration.format(ms));
    let amount = match value["kind"].as_str() {
        Some("counter") => format!("+{}", exact(data, "increase")),
        Some("updown") => format!("+{} -{}", exact(data, "up"), exact(data, "down")),
        _ => format!(
            "{} values, last {}",
            exact(data, "count"),
            value["last"].as_f64().map_or(String::new(), text::number)
        ),
    };
    let late = if value["late"] == true { "  late" } else { "" };
    format!("{series}  {amount}  in {span} from {start}{late}\n")
}

/// A number with all its digits, which a float would cut.
fn exact(data: &str, key: &str) -> String {
    let map: Option<std::collections::BTreeMap<&str, &RawValue>> = serde_json::from_str(data).ok();
    map.and_then(|map| map.get(key).map(|raw| raw.get().to_owned())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream = ": hello\n\nevent: total\ndata: {\"series\":\"é\",\"total\":5}\n\n: keepalive\n\n\
                      event: window\ndata: {}\n\n";
        for size in 1..stream.len() {
            let mut lines = Lines::default();
            let events: Vec<Event> =
                stream.as_bytes().chunks(size).flat_map(|piece| lines.push(piece)).collect();
            assert_eq!(events.len(), 2, "{size}");
            assert_eq!(events[0], ("total".to_owned(), r#"{"series":"é","total":5}"#.to_owned()));
            assert_eq!(events[1].0, "window");
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory_without_end() {
        let mut lines = Lines::default();
        for _ in 0..100 {
            assert!(lines.push(&vec![b'x'; 1 << 16]).is_empty());
        }
        assert!(lines.rest.len() <= LINE_BYTES_MAX);
    }

    #[test]
    fn a_change_is_one_line() {
        let total =
            ("total".to_owned(), format!(r#"{{"series":"a","kind":"updown","total":{}}}"#, i128::MIN));
        assert_eq!(shown(&total, false), format!("a  {}\n", i128::MIN));
        assert_eq!(shown(&total, true), format!("{{\"event\":\"total\",\"data\":{}}}\n", total.1));
        let window =
            r#"{"series":"a","kind":"counter","start":1763858400000,"span":60000,"increase":37,"late":true}"#;
        assert_eq!(
            shown(&("window".into(), window.into()), false),
            "a  +37  in 1m from 2025-11-23 00:40:00Z  late\n"
        );
        assert_eq!(shown(&("x".into(), "{".into()), true), "{\"event\":\"x\",\"data\":null}\n");
    }
}
