//! The client of the HTTP API. It tries several boxes in turn, and each request ends in one of four ways: done, not
//! done, not tried, or unknown.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::client::answer::{Judged, RequestRefused, judge};
use crate::backoff::Backoff;
use crate::random;

mod answer;
mod url;

pub use answer::RequestRefused as RefusedBy;
use url::ServerUrl;

/// The longest answer that the client accepts, in bytes.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// How long a box may take to accept a connection before the next is tried.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(2);

/// How much longer than `--timeout` the client waits for an answer: a box says after 10 s that an add was not counted,
/// and a client that tries for 10 s should receive it.
const GRACE: Duration = Duration::from_secs(2);

/// The client tells a box how long it waits, less this margin, so that the answer arrives in time.
const HEARING: Duration = Duration::from_millis(500);

/// The least time that each box has to answer, however many boxes there are.
const SHARE_LEAST: Duration = Duration::from_secs(1);

/// The pause after each box was tried once: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// By which part of itself that wait is moved at random.
const PAUSE_SPREAD: f64 = 0.25;

/// The message for an address that refuses connections.
const NOBODY: &str =
    "connection refused: is tallyd running? Start it with `tallyd run`, or name another box with --url";

/// Where the site is, and how to talk to it.
#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Address of a box; several comma-separated addresses are tried in turn
    #[arg(long, env = "TALLYD_URL", value_name = "URL", default_value = "http://127.0.0.1:7480")]
    pub url: String,
    /// File with the token of a box that requires one (its api.token_file)
    #[arg(long, env = "TALLYD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// How long to keep trying: 500ms, 10s, 2m
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = super::text::duration)]
    pub timeout: Duration,
    /// Print JSON for programs
    #[arg(long)]
    pub json: bool,
}

/// Why a command has no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Exit status 1: failed, nothing was done.
    #[error("{0}")]
    Failed(Box<RequestRefused>),
    /// Exit status 1: a check found something wrong.
    #[error("{0}")]
    Found(String),
    /// Exit status 2: wrong usage.
    #[error("{0}")]
    Usage(String),
    /// Exit status 3: could not be tried, or no try was committed.
    #[error("{0}")]
    NotTried(String),
    /// Exit status 4: the request may or may not have taken effect.
    #[error("outcome unknown: the request may or may not have taken effect: {0}")]
    Unknown(String),
    /// The answer is not what the API gives.
    #[error("cannot parse the answer of {0} ({1}); does another program, or another version, listen there?")]
    Answer(String, String),
    /// The output could not be written.
    #[error("cannot write the output: {0}")]
    Output(#[source] std::io::Error),
    /// The reader closed the output.
    #[error("the reader closed the output")]
    ReaderGone,
}

impl ClientError {
    /// The exit status of the command.
    pub fn exit_status(&self) -> u8 {
        match self {
            ClientError::ReaderGone => 0,
            ClientError::Failed(_)
            | ClientError::Found(_)
            | ClientError::Answer(..)
            | ClientError::Output(_) => 1,
            ClientError::Usage(_) => 2,
            ClientError::NotTried(_) => 3,
            ClientError::Unknown(_) => 4,
        }
    }
}

/// How a request is retried when a try fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Changes nothing: try again; give up when no box can be reached.
    Read,
    /// Applied once however often it is sent: try again until the time is up.
    Repeatable,
    /// Sent again only if the try before was certainly not done.
    Once,
}

/// A request, sent to the first box that accepts it.
#[derive(Clone, Debug)]
pub struct Call {
    /// GET, POST, PUT.
    pub method: Method,
    /// Path and query, percent-encoded.
    pub path: String,
    /// JSON, or nothing.
    pub body: Bytes,
    /// The idempotency key.
    pub key: Option<String>,
    /// What to do after a failed try.
    pub policy: Policy,
}

impl Call {
    /// A read.
    pub fn get(path: String) -> Call {
        Call { method: Method::GET, path, body: Bytes::new(), key: None, policy: Policy::Read }
    }
}

/// Talks to the boxes of one site.
#[derive(Debug)]
pub struct Client {
    targets: Vec<ServerUrl>,
    token: Option<String>,
    /// When trying ends.
    deadline: Instant,
    /// How long one box may take to answer.
    try_max: Duration,
}

/// What came of one try at one box.
#[derive(Debug)]
enum Tried {
    /// The connection could not be made: nothing was sent.
    Unreached(String),
    /// Something was sent and no whole answer came.
    Broken(String),
    /// An answer.
    Answered(u16, Bytes),
}

impl Client {
    /// A client as the arguments say; its time begins now.
    ///
    /// # Errors
    /// Addresses and token files that are not usable.
    pub fn new(server: &Server) -> Result<Client, ClientError> {
        let targets = url::targets(&server.url).map_err(ClientError::Usage)?;
        // An empty variable of the environment names no file.
        let file = server.token_file.as_deref().filter(|path| !path.as_os_str().is_empty());
        let token = file.map(read_token);
        // A box that hangs must leave time for the others.
        let share = match u32::try_from(targets.len()) {
            Ok(1) => server.timeout + GRACE,
            Ok(count) => (server.timeout / count).max(SHARE_LEAST) + HEARING,
            Err(_) => GRACE,
        };
        let deadline = Instant::now() + server.timeout;
        Ok(Client { targets, token: token.transpose()?, deadline, try_max: share })
    }

    /// Sends a request to the boxes in turn until one settles it or the time is up.
    ///
    /// # Errors
    /// [`ClientError::Failed`], [`ClientError::NotTried`] or [`ClientError::Unknown`].
    pub async fn call(&self, call: &Call) -> Result<Bytes, ClientError> {
        let mut history = History::default();
        let mut backoff = Backoff::new(PAUSE.0, PAUSE.1, PAUSE_SPREAD);
        loop {
            let mut reached = false;
            for target in &self.targets {
                let last_word = self.deadline + GRACE;
                let until = match call.policy {
                    // It would not be tried again: better to wait for what this box says.
                    Policy::Once => last_word,
                    Policy::Read | Policy::Repeatable => last_word.min(Instant::now() + self.try_max),
                };
                let tried = self.attempt(target, call, until).await;
                reached |= !matches!(tried, Tried::Unreached(_));
                if let Some(end) = history.take(target, call.policy, tried) {
                    return end;
                }
                if Instant::now() >= self.deadline {
                    return Err(history.end());
                }
            }
            // Only an add is worth waiting until somebody starts a box.
            if call.policy != Policy::Repeatable && !reached {
                return Err(history.end());
            }
            let pause = backoff.next(random::jitter());
            sleep(pause.min(self.deadline.saturating_duration_since(Instant::now()))).await;
            if Instant::now() >= self.deadline {
                return Err(history.end());
            }
        }
    }

    /// Begins a request whose answer is read as it comes; at the first box that answers it.
    pub(super) async fn open(&self, path: &str) -> Result<Response<Incoming>, ClientError> {
        let mut history = History::default();
        for target in &self.targets {
            let until = self.deadline.min(Instant::now() + self.try_max);
            let call = Call::get(path.to_owned());
            let tried = match self.send(target, &call, until).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => read_whole(response, until).await,
                Err(tried) => tried,
            };
            if let Some(end) = history.take(target, Policy::Read, tried) {
                return Err(end.err().unwrap_or_else(|| history.end()));
            }
        }
        Err(history.end())
    }

    async fn attempt(&self, target: &ServerUrl, call: &Call, until: Instant) -> Tried {
        match self.send(target, call, until).await {
            Ok(response) => read_whole(response, until).await,
            Err(tried) => tried,
        }
    }

    async fn send(
        &self,
        target: &ServerUrl,
        call: &Call,
        until: Instant,
    ) -> Result<Response<Incoming>, Tried> {
        let connect = timeout_at(until, timeout(CONNECT_TIME_MAX, TcpStream::connect(&target.authority)));
        let stream = match connect.await {
            Ok(Ok(Ok(stream))) => stream,
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::ConnectionRefused => {
                return Err(Tried::Unreached(NOBODY.to_owned()));
            }
            Ok(Ok(Err(error))) => return Err(Tried::Unreached(error.to_string())),
            Ok(Err(_)) | Err(_) => {
                return Err(Tried::Unreached("no connection within the time limit".to_owned()));
            }
        };
        let broken = |error: hyper::Error| Tried::Broken(error.to_string());
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the sender and the answer; its errors show there.
        tokio::spawn(connection);
        let patience = until.saturating_duration_since(Instant::now()).saturating_sub(HEARING);
        let request =
            self.request(target, call, patience).map_err(|error| Tried::Unreached(error.to_string()))?;
        match timeout_at(until, sender.send_request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(broken(error)),
            Err(_) => Err(Tried::Broken("no answer within the time limit".to_owned())),
        }
    }

    fn request(
        &self,
        target: &ServerUrl,
        call: &Call,
        patience: Duration,
    ) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", target.base, call.path))
            .header(header::HOST, &target.authority)
            .header(header::USER_AGENT, concat!("tallyd/", env!("CARGO_PKG_VERSION")));
        if !call.body.is_empty() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if call.policy == Policy::Repeatable && patience.as_secs() > 0 {
            // It takes the add back in time and says so: that is certain, and silence is not.
            request = request.header("prefer", format!("wait={}", patience.as_secs()));
        }
        if let Some(key) = &call.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Full::new(call.body.clone()))
    }
}

fn read_token(file: &Path) -> Result<String, ClientError> {
    let failed = |why: String| {
        ClientError::Usage(format!("cannot use the cannot use the token file {}: {why}", file.display()))
    };
    let token = std::fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
    let token = token.trim();
    if token.is_empty() || !token.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Err(failed("a token is one line of printable ASCII characters".to_owned()));
    }
    Ok(token.to_owned())
}

async fn read_whole(response: Response<Incoming>, until: Instant) -> Tried {
    let status = response.status().as_u16();
    match timeout_at(until, Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect()).await {
        Ok(Ok(body)) => Tried::Answered(status, body.to_bytes()),
        Ok(Err(error)) => Tried::Broken(error.to_string()),
        Err(_) => Tried::Broken("the answer was not complete within the time limit".to_owned()),
    }
}

/// What the tries so far came to.
#[derive(Debug, Default)]
struct History {
    /// A try whose outcome is unknown, and which nothing has settled.
    unknown: Option<String>,
    /// The latest refusal over a bound: time may help.
    over_bound: Option<Box<RequestRefused>>,
    /// Of each box, the latest try that was not done.
    not_done: Vec<(ServerUrl, String)>,
}

impl History {
    /// Records one try; returns the result if the try settles the request.
    fn take(
        &mut self,
        target: &ServerUrl,
        policy: Policy,
        tried: Tried,
    ) -> Option<Result<Bytes, ClientError>> {
        match tried {
            Tried::Unreached(why) => self.not_done(target, why),
            Tried::Broken(why) => return self.unknown(target, policy, &why),
            Tried::Answered(status, body) => match judge(status, &body) {
                Judged::Done => return Some(Ok(body)),
                Judged::NotDone(why) => self.not_done(target, why),
                Judged::Unknown(why) => return self.unknown(target, policy, &why),
                Judged::OverBound(refused) => self.over_bound = Some(refused),
                Judged::RequestRefused(refused) => {
                    // Only some refusals tell about earlier tries, too.
                    if self.unknown.is_some() && !refused.settles_earlier_tries() {
                        return Some(Err(self.end()));
                    }
                    return Some(Err(ClientError::Failed(refused)));
                }
            },
        }
        None
    }

    fn unknown(
        &mut self,
        target: &ServerUrl,
        policy: Policy,
        why: &str,
    ) -> Option<Result<Bytes, ClientError>> {
        match policy {
            // A read has no outcome that could be unknown.
            Policy::Read => self.not_done(target, why.to_owned()),
            Policy::Repeatable => self.unknown = Some(format!("{target}: {why}")),
            Policy::Once => return Some(Err(ClientError::Unknown(format!("{target}: {why}")))),
        }
        None
    }

    fn not_done(&mut self, target: &ServerUrl, why: String) {
        self.not_done.retain(|(known, _)| known != target);
        self.not_done.push((target.clone(), why));
    }

    /// The result where no try settled the request.
    fn end(&mut self) -> ClientError {
        if let Some(why) = self.unknown.take() {
            return ClientError::Unknown(why);
        }
        if let Some(refused) = self.over_bound.take() {
            return ClientError::Failed(refused);
        }
        let said: Vec<String> =
            self.not_done.drain(..).map(|(target, why)| format!("{target}: {why}")).collect();
        let said = if said.is_empty() {
            "the time limit passed before any box could be tried".to_owned()
        } else {
            said.join("; ")
        };
        ClientError::NotTried(said)
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
