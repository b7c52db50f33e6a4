//! `tallyd watch`: a line a changed total or closed window, from whichever box answers.

use std::io::Write;
use std::time::Duration;

use clap::Args;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::client::{AskError, Client, ClientArgs};
use super::connection::{Connection, Lost, Question, read_all};
use super::read::{Series, Window};
use super::table::{measured, plain, span, time, whole};
use super::tries::{self, End};
use super::url::{self, Url};
use super::{Failure, parsed};

/// Boxes say every 10 s that they live; beyond this, the connection is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(25);

/// The longest line of an event, in bytes.
const LINE_BYTES_MAX: usize = 1 << 20;

/// Print changes as they come, until it is interrupted
#[derive(Args, Clone, Debug)]
#[command(after_help = "Examples:\n  tallyd watch\n  tallyd watch line1/ --json | jq .total")]
pub struct WatchArgs {
    /// Only of series whose names begin so
    #[arg(default_value = "", hide_default_value = true)]
    pub prefix: String,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// Watches at one box after the other; ends when none has answered for --timeout.
pub async fn run(args: &WatchArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let question = Question::get(format!("/v1/watch?prefix={}", url::in_query(&args.prefix)));
    let mut until = Instant::now() + client.timeout();
    let mut watched = false;
    for round in 0.. {
        let mut said: Vec<String> = Vec::new();
        let mut reached = false;
        for url in client.urls() {
            let stream = match connect(&client, url, &question, until).await? {
                Ok(stream) => stream,
                Err((end, text)) => {
                    reached |= end != End::NotReached;
                    said.push(text);
                    continue;
                }
            };
            if watched {
                note(&format!("watching at {url} again; what changed in between was not shown"));
            }
            watched = true;
            let why = follow(url, stream, args.client.json, out).await?;
            note(&format!("{why}; going on at the next box"));
            reached = true;
            until = Instant::now() + client.timeout();
        }
        // Before the first event there may be a mistake in --url; later the boxes are known to exist.
        if Instant::now() >= until || !(reached || watched) {
            return Err(Failure::new(tries::NOT_TRIED, said.join("; ")));
        }
        sleep(tries::pause(round)).await;
    }
    Ok(())
}

/// A stream of events, with the connection that it lives on.
struct Stream {
    body: Incoming,
    _connection: Connection,
}

/// Gives the stream; or how the try failed, if others may do better.
async fn connect(
    client: &Client,
    url: &Url,
    question: &Question,
    until: Instant,
) -> Result<Result<Stream, (End, String)>, Failure> {
    let asking = async {
        let mut connection = Connection::open(url, until).await?;
        let response = connection.send(question, client.token()).await?;
        let status = response.status().as_u16();
        if status == 200 {
            return Ok(Ok(Stream { body: response.into_body(), _connection: connection }));
        }
        let body = read_all(url, response.into_body()).await?;
        Ok(Err((status, body)))
    };
    match timeout_at(until, asking).await {
        Err(_) => Ok(Err((End::NotDone, format!("{url} does not answer in time")))),
        Ok(Err(Lost::NotReached(text))) => Ok(Err((End::NotReached, text))),
        Ok(Err(Lost::AfterSending(text))) => Ok(Err((End::NotDone, text))),
        Ok(Ok(Ok(stream))) => Ok(Ok(stream)),
        Ok(Ok(Err((status, body)))) => match super::client::refused(url, status, body) {
            Ok(text) => Ok(Err((End::NotDone, text))),
            Err(error) => Err(AskError::into(error)),
        },
    }
}

/// Prints events until the stream ends; says why it did.
async fn follow(url: &Url, mut stream: Stream, json: bool, out: &mut dyn Write) -> Result<String, Failure> {
    let mut events = Events::default();
    loop {
        let frame = match timeout(SILENCE_MAX, stream.body.frame()).await {
            Err(_) => return Ok(format!("{url} is silent")),
            Ok(None) => return Ok(format!("{url} ended the connection")),
            Ok(Some(Err(error))) => return Ok(format!("{url}: the connection broke ({error})")),
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        let mut text = String::new();
        if !events.take(&data, |name, data| {
            if let Some(line) = if json { as_json(name, data) } else { told(name, data) } {
                text.push_str(&line);
                text.push('\n');
            }
        }) {
            return Ok(format!("{url} sends no events as tallyd does"));
        }
        out.write_all(text.as_bytes())?;
        out.flush()?;
    }
}

fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "tallyd: {text}");
}

/// Takes server-sent events apart, however they were cut.
#[derive(Debug, Default)]
struct Events {
    line: Vec<u8>,
    name: String,
    data: String,
}

impl Events {
    /// Calls `each` with the name and the data of each event that is whole; `false`: a line is too long.
    fn take(&mut self, bytes: &[u8], mut each: impl FnMut(&str, &str)) -> bool {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() + self.data.len() > LINE_BYTES_MAX {
                return false;
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.end_line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r']), &mut each);
            }
        }
        true
    }

    fn end_line(&mut self, line: &str, each: &mut impl FnMut(&str, &str)) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            _ if line.is_empty() => {
                if !self.data.is_empty() {
                    each(&self.name, &self.data);
                }
                self.name.clear();
                self.data.clear();
            }
            "event" => value.clone_into(&mut self.name),
            "data" => self.data.push_str(value),
            // Comments keep the connection alive; other fields mean nothing here.
            _ => {}
        }
    }
}

/// An event as one JSON object: its data with its name, the digits as they came.
fn as_json(name: &str, data: &str) -> Option<String> {
    let object: &serde_json::value::RawValue = serde_json::from_str(data).ok()?;
    let rest = object.get().strip_prefix('{')?;
    let name = serde_json::Value::from(name).to_string();
    let comma = if rest.trim_start().starts_with('}') { "" } else { "," };
    Some(format!("{{\"event\":{name}{comma}{rest}"))
}

/// An event as a line for people; `None` for one that this version does not know.
fn told(name: &str, data: &str) -> Option<String> {
    match name {
        "total" => {
            let one: Series = parsed(data).ok()?;
            let last = one.last.filter(|_| one.kind == "sample");
            let last = last.map(|last| format!(" values, last {}", measured(last))).unwrap_or_default();
            Some(format!("total   {}  {}{last}", plain(&one.series), whole(one.total)))
        }
        "window" => {
            let window: Window = parsed(data).ok()?;
            let remarks = window.remarks();
            let remarks = if remarks.is_empty() { remarks } else { format!(" ({remarks})") };
            let series = plain(window.series.as_deref()?);
            let (start, length) = (time(window.start), span(window.span));
            Some(format!("window  {series}  {}  {start} UTC, {length}{remarks}", window.summed()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": watching from index 7\n\nevent: total\ndata: {\"series\":\"a\",\"kind\":\"counter\",\
        \"total\":1234}\n\n: keepalive\n\nevent: window\r\ndata: {\"series\":\"a\",\"kind\":\"counter\",\"start\":0,\
        \"span\":60000,\"increase\":34,\"late\":true,\"clock\":\"synced\"}\r\n\r\nevent: later\ndata: {}\n\n";

    fn lines(cut: usize, each: fn(&str, &str) -> Option<String>) -> Vec<String> {
        let mut events = Events::default();
        let mut lines = Vec::new();
        for piece in STREAM.as_bytes().chunks(cut) {
            assert!(events.take(piece, |name, data| lines.extend(each(name, data))));
        }
        lines
    }

    #[test]
    fn events_are_the_same_however_they_are_cut() {
        let whole = lines(usize::MAX, told);
        assert_eq!(whole, ["total   a  1,234", "window  a  +34  1970-01-01 00:00:00 UTC, 1m (late)"]);
        for cut in 1..40 {
            assert_eq!(lines(cut, told), whole, "{cut}");
        }
    }

    #[test]
    fn for_programs_an_event_is_one_object_with_its_name() {
        let lines = lines(usize::MAX, as_json);
        assert_eq!(lines[0], r#"{"event":"total","series":"a","kind":"counter","total":1234}"#);
        assert_eq!(lines[2], r#"{"event":"later"}"#);
        for line in lines {
            serde_json::from_str::<serde_json::Value>(&line).unwrap();
        }
        assert_eq!(as_json("total", "no json"), None);
    }

    #[test]
    fn a_line_without_end_is_not_kept() {
        let mut events = Events::default();
        let piece = vec![b'x'; 64 << 10];
        let taken = (0..32).filter(|_| events.take(&piece, |_, _| panic!("an event"))).count();
        assert_eq!(taken, 16);
    }
}
