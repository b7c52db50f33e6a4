//! What client commands share: where the boxes are, and asking them until there is an answer or no time.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::Failure;
use super::connection::{self, Lost, Question, Received};
use super::table::{plain, span};
use super::tries::{self, End, Next, Repeat};
use super::url::Url;
use crate::api::{Secret, TYPE_PREFIX};
use crate::site::units::Unit;

/// Where to connect, if there are others to try.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How long the answer of the last try is waited for when the time is up: what is known then is worth more.
const LAST_WORD_MAX: Duration = Duration::from_millis(500);

/// Options of all client commands.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connection")]
pub struct ClientArgs {
    /// Where boxes serve their API; several, comma-separated, are tried in turn
    #[arg(
        long,
        env = "TALLYD_URL",
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:7480"
    )]
    pub url: Vec<Url>,
    /// How long to try, in seconds or as 500ms, 30s, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = timeout)]
    pub timeout: Duration,
    /// File with the token of the boxes' api.token_file
    #[arg(long, env = "TALLYD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long)]
    pub json: bool,
}

fn timeout(text: &str) -> Result<Duration, String> {
    let longest = Duration::from_secs(24 * 3600);
    let time = match text.trim().parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| "not a time".to_owned())?,
        Err(_) => Duration::from_millis(Unit::Duration.parse(text)?),
    };
    if (Duration::from_millis(1)..=longest).contains(&time) {
        Ok(time)
    } else {
        Err("it must be from 1ms to 24h".to_owned())
    }
}

/// Asks boxes.
#[derive(Debug)]
pub struct Client {
    urls: Vec<Url>,
    timeout: Duration,
    token: Option<String>,
}

/// Why a question has no answer that helps.
#[derive(Debug)]
pub struct AskError {
    /// The exit status.
    pub status: u8,
    /// What, where, what to do.
    pub text: String,
    /// What the box said, if its saying decided.
    pub problem: Option<Problem>,
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Failure {
        Failure { status: error.status, text: error.text }
    }
}

/// What is read of an `application/problem+json`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Problem {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    detail: String,
    /// With `wrong-kind`: the series' kind.
    pub is: Option<String>,
}

impl Problem {
    /// Its stable name, empty if it is none of ours.
    pub fn name(&self) -> &str {
        self.kind.strip_prefix(TYPE_PREFIX).unwrap_or_default()
    }
}

/// How one try went.
struct Try {
    end: End,
    text: String,
    body: String,
    problem: Option<Problem>,
}

impl Client {
    /// Reads the token, too.
    pub fn new(args: &ClientArgs) -> Result<Client, Failure> {
        let file = args.token_file.as_deref().filter(|file| !file.as_os_str().is_empty());
        let token = file.map(token).transpose()?;
        Ok(Client { urls: args.url.clone(), timeout: args.timeout, token })
    }

    /// The boxes, in the order in which they are tried.
    pub fn urls(&self) -> &[Url] {
        &self.urls
    }

    /// How long to try.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What to present.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Reads, wherever there is an answer.
    pub async fn read(&self, path: String) -> Result<String, AskError> {
        self.ask(&Question::get(path), Repeat::Reads).await
    }

    /// Asks box after box until it is decided or the time is up; gives the body of the answer 200.
    pub async fn ask(&self, question: &Question, repeat: Repeat) -> Result<String, AskError> {
        let start = Instant::now();
        let until = start + self.timeout;
        let mut ends = Vec::new();
        let mut said: Vec<Option<String>> = vec![None; self.urls.len()];
        let mut unknown = None;
        for round in 0.. {
            for (place, url) in self.urls.iter().enumerate() {
                if !ends.is_empty() && Instant::now() >= until {
                    return Err(verdict(&ends, &said, unknown));
                }
                let one = self.attempt(url, question, repeat, until).await;
                ends.push(one.end);
                match (tries::next(&ends, repeat), one.end) {
                    (Next::Stop, End::Done) => return Ok(one.body),
                    (Next::Stop, End::Refused | End::RefusedForGood) => {
                        let status = tries::exit_status(&ends);
                        return Err(AskError { status, text: one.text, problem: one.problem });
                    }
                    (_, End::Unknown) => unknown = Some(one.text.clone()),
                    _ => {}
                }
                said[place] = Some(one.text);
                if tries::next(&ends, repeat) == Next::Stop {
                    return Err(verdict(&ends, &said, unknown));
                }
            }
            let nobody = ends.iter().rev().take(self.urls.len()).all(|end| *end == End::NotReached);
            if nobody && repeat != Repeat::Keyed {
                break;
            }
            if round == 0 {
                self.tell_that_it_goes_on(&said);
            }
            let wake = Instant::now() + tries::pause(round);
            if wake >= until {
                break;
            }
            sleep_until(wake).await;
        }
        Err(verdict(&ends, &said, unknown))
    }

    async fn attempt(&self, url: &Url, question: &Question, repeat: Repeat, until: Instant) -> Try {
        let now = Instant::now();
        let last_word = until + (self.timeout / 10).min(LAST_WORD_MAX);
        let boxes = u32::try_from(self.urls.len()).unwrap_or(u32::MAX);
        let (connect_until, answer_until) = if boxes == 1 {
            (until, last_word)
        } else {
            let share = (self.timeout / boxes).max(Duration::from_secs(1));
            // What must not be repeated is worth waiting for.
            let answer = if repeat == Repeat::Harms { last_word } else { last_word.min(now + share) };
            (until.min(now + CONNECT_MAX), answer)
        };
        let token = self.token.as_deref();
        match connection::exchange(url, question, token, connect_until, answer_until).await {
            Ok(received) => judge(url, received, repeat),
            Err(Lost::NotReached(text)) => Try::failed(End::NotReached, text),
            Err(Lost::AfterSending(text)) => Try::failed(lost(repeat), text),
        }
    }

    /// Whoever sits at a terminal should know what the silence means.
    fn tell_that_it_goes_on(&self, said: &[Option<String>]) {
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            let _ = writeln!(stderr, "tallyd: {}; trying for {}", joined(said), span(millis(self.timeout)));
        }
    }
}

impl Try {
    fn failed(end: End, text: String) -> Try {
        Try { end, text, body: String::new(), problem: None }
    }
}

/// What an answer that never came leaves behind.
fn lost(repeat: Repeat) -> End {
    if repeat == Repeat::Reads { End::NotDone } else { End::Unknown }
}

/// What an answer means.
fn judge(url: &Url, received: Received, repeat: Repeat) -> Try {
    let body = String::from_utf8(received.body).unwrap_or_default();
    let strange = || {
        let status = received.status;
        format!("{url} answers with status {status}, but not as tallyd does: is it the right address?")
    };
    if received.status == 200 {
        return match serde_json::from_str::<&serde_json::value::RawValue>(&body) {
            Ok(json) if json.get().starts_with('{') => {
                Try { end: End::Done, text: String::new(), body, problem: None }
            }
            _ if repeat == Repeat::Reads => Try::failed(End::Refused, strange()),
            _ => Try::failed(End::Unknown, strange()),
        };
    }
    let problem: Problem = serde_json::from_str(&body).unwrap_or_default();
    let end = meaning(received.status, problem.name(), repeat);
    if problem.name().is_empty() {
        return Try::failed(end, strange());
    }
    let mut text = format!("{url}: {} ({})", plain(&problem.detail), plain(problem.name()));
    if problem.name() == "unauthorized" {
        text.push_str("; --token-file names a file with it");
    }
    Try { end, text, body, problem: Some(problem) }
}

/// What an answer other than 200 to a question without an effect means: the text where another box may do
/// better, else the error.
pub(super) fn refused(url: &Url, status: u16, body: Vec<u8>) -> Result<String, AskError> {
    let one = judge(url, Received { status, body }, Repeat::Reads);
    match one.end {
        End::NotDone => Ok(one.text),
        _ => Err(AskError { status: tries::FAILED, text: one.text, problem: one.problem }),
    }
}

fn meaning(status: u16, name: &str, repeat: Repeat) -> End {
    match (name, status) {
        (
            "not-committed" | "not-ready" | "too-busy" | "key-table-full" | "too-many-watchers"
            | "request-timeout",
            _,
        ) => End::NotDone,
        // A series has its kind for life: an earlier try cannot have been counted, nor will it be.
        ("wrong-kind", _) => End::RefusedForGood,
        ("outcome-unknown", _) => lost(repeat),
        // Proxies say these of their own.
        ("", 429) => End::NotDone,
        ("", 408) => lost(repeat),
        (_, 300..500) => End::Refused,
        _ => lost(repeat),
    }
}

fn verdict(ends: &[End], said: &[Option<String>], unknown: Option<String>) -> AskError {
    let status = tries::exit_status(ends);
    let text = match unknown {
        Some(text) if status == tries::UNKNOWN => text,
        _ => joined(said),
    };
    AskError { status, text, problem: None }
}

fn joined(said: &[Option<String>]) -> String {
    let texts: Vec<&str> = said.iter().flatten().map(String::as_str).collect();
    texts.join("; ")
}

fn token(file: &Path) -> Result<String, Failure> {
    let failed = |why: String| {
        let text = format!("the token in {}: {why}; --token-file names another file", file.display());
        Failure { status: tries::NOT_TRIED, text }
    };
    let secret = Secret::new(std::fs::read(file).map_err(|error| failed(error.to_string()))?);
    match std::str::from_utf8(secret.expose()) {
        Ok(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') => {
            Ok(text.to_owned())
        }
        _ => Err(failed("it is not one line of visible ASCII characters".to_owned())),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_means_what_its_type_says_whatever_the_request() {
        for (status, name, keyed, reads) in [
            (503, "not-committed", End::NotDone, End::NotDone),
            (503, "outcome-unknown", End::Unknown, End::NotDone),
            (429, "too-busy", End::NotDone, End::NotDone),
            (409, "wrong-kind", End::RefusedForGood, End::RefusedForGood),
            (409, "overflow", End::Refused, End::Refused),
            (400, "malformed", End::Refused, End::Refused),
            (401, "unauthorized", End::Refused, End::Refused),
            (404, "no-such-series", End::Refused, End::Refused),
            (301, "", End::Refused, End::Refused),
            (429, "", End::NotDone, End::NotDone),
            (408, "", End::Unknown, End::NotDone),
            (502, "", End::Unknown, End::NotDone),
            (503, "", End::Unknown, End::NotDone),
            (204, "", End::Unknown, End::NotDone),
        ] {
            assert_eq!(meaning(status, name, Repeat::Keyed), keyed, "{status} {name}");
            assert_eq!(meaning(status, name, Repeat::Harms), keyed, "{status} {name}");
            assert_eq!(meaning(status, name, Repeat::Reads), reads, "{status} {name}");
        }
    }

    #[test]
    fn timeouts_are_seconds_or_have_a_unit() {
        for (text, ms) in [("10", 10_000), ("0.5", 500), ("500ms", 500), ("2m", 120_000)] {
            assert_eq!(timeout(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "0", "-1", "nan", "inf", "x", "25h", "1e300"] {
            assert!(timeout(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_token_is_read_without_its_newline_and_never_with_two_lines() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret\n").unwrap();
        assert_eq!(token(&file).unwrap(), "s3cret");
        for bad in ["", "\n", "a\nb", "\u{e9}"] {
            std::fs::write(&file, bad).unwrap();
            assert_eq!(token(&file).unwrap_err().status, tries::NOT_TRIED, "{bad:?}");
        }
        assert!(token(&dir.path().join("none")).unwrap_err().text.contains("--token-file"));
    }
}
