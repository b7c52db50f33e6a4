//! One HTTP/1.1 connection to a box and one request on it.

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::url::Url;

/// The largest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What is asked of a box.
#[derive(Clone, Debug)]
pub struct Question {
    /// What to do.
    pub method: Method,
    /// Path and query, encoded.
    pub path: String,
    /// JSON.
    pub body: Option<String>,
    /// The idempotency key.
    pub key: Option<String>,
}

impl Question {
    /// A read.
    pub fn get(path: String) -> Question {
        Question { method: Method::GET, path, body: None, key: None }
    }
}

/// An answer that has come whole.
#[derive(Clone, Debug)]
pub struct Received {
    /// The HTTP status.
    pub status: u16,
    /// Of any content.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// Nothing was sent.
    NotReached(String),
    /// The request was sent, at least in part: it may have been done.
    AfterSending(String),
}

/// A connection; dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    url: Url,
    sender: http1::SendRequest<Full<Bytes>>,
    /// Moves the bytes; ended when dropped.
    _driver: JoinSet<()>,
}

impl Connection {
    /// Connects until then, at the latest.
    pub async fn open(url: &Url, until: Instant) -> Result<Connection, Lost> {
        let connecting = TcpStream::connect((url.host.as_str(), url.port));
        let stream = match timeout_at(until, connecting).await {
            Err(_) => return Err(Lost::NotReached(format!("{url} does not accept a connection in time"))),
            Ok(Err(error)) => return Err(Lost::NotReached(why_not_connected(url, &error))),
            Ok(Ok(stream)) => stream,
        };
        // Without it small requests only wait longer.
        let _ = stream.set_nodelay(true);
        let (sender, driver) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Lost::NotReached(format!("{url}: {error}")))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // Whoever waits for the answer is told of the error too.
            let _ = driver.await;
        });
        Ok(Connection { url: url.clone(), sender, _driver: tasks })
    }

    /// Sends a question; gives the answer's head with its body to come.
    pub async fn send(
        &mut self,
        question: &Question,
        token: Option<&str>,
    ) -> Result<Response<Incoming>, Lost> {
        let url = &self.url;
        let mut request = Request::builder()
            .method(question.method.clone())
            .uri(format!("{}{}", url.base, question.path))
            .header(header::HOST, url.authority())
            .header(header::USER_AGENT, concat!("tallyd/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if let Some(key) = &question.key {
            request = request.header("idempotency-key", key);
        }
        if question.body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let body = Full::new(Bytes::from(question.body.clone().unwrap_or_default()));
        let request = request.body(body).map_err(|error| Lost::NotReached(format!("{url}: {error}")))?;
        self.sender.send_request(request).await.map_err(|error| {
            let why =
                std::error::Error::source(&error).map(|source| format!(": {source}")).unwrap_or_default();
            Lost::AfterSending(format!("{url}: the connection broke before the answer ({error}{why})"))
        })
    }
}

/// Asks and reads the whole answer.
pub async fn exchange(
    url: &Url,
    question: &Question,
    token: Option<&str>,
    connect_until: Instant,
    answer_until: Instant,
) -> Result<Received, Lost> {
    let mut connection = Connection::open(url, connect_until).await?;
    let answer = async {
        let response = connection.send(question, token).await?;
        let status = response.status().as_u16();
        let body = read_all(url, response.into_body()).await?;
        Ok(Received { status, body })
    };
    timeout_at(answer_until, answer)
        .await
        .unwrap_or_else(|_| Err(Lost::AfterSending(format!("{url} does not answer in time"))))
}

/// The rest of an answer.
pub async fn read_all(url: &Url, body: Incoming) -> Result<Vec<u8>, Lost> {
    match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) => {
            Err(Lost::AfterSending(format!("{url}: the connection broke within the answer ({error})")))
        }
    }
}

fn why_not_connected(url: &Url, error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => {
            format!(
                "nothing listens at {url}: is tallyd running there? `tallyd run` starts it; --url names others"
            )
        }
        _ => format!("cannot connect to {url}: {error}"),
    }
}
