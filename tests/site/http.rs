//! A small HTTP/1.1 client that takes only what is well-formed: one connection, kept alive, one request
//! at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::harness::within;

/// How long an answer may take unless said otherwise: longer than any box waits for the site.
const ANSWER_MAX: Duration = Duration::from_secs(15);

/// A client of one address; connects when it is first needed, and again after an error.
#[derive(Debug)]
pub(crate) struct Client {
    address: SocketAddr,
    /// The admin socket that is used instead.
    socket: Option<PathBuf>,
    answer_max: Duration,
    namespace: Option<PathBuf>,
    stream: Option<BufReader<Box<dyn Stream>>>,
}

/// TCP or a socket of the file system.
trait Stream: Read + Write + std::fmt::Debug + Send + Sync {}

impl<T: Read + Write + std::fmt::Debug + Send + Sync> Stream for T {}

/// A whole answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Client {
    pub(crate) fn new(port: u16) -> Client {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Client { address, socket: None, answer_max: ANSWER_MAX, namespace: None, stream: None }
    }

    /// A client of an admin socket.
    pub(crate) fn of_socket(path: &Path) -> Client {
        Client { socket: Some(path.to_owned()), ..Client::new(0) }
    }

    /// The address is one of this network namespace.
    pub(crate) fn inside(mut self, namespace: Option<PathBuf>) -> Client {
        self.namespace = namespace;
        self
    }

    /// Waits no longer than that for an answer.
    pub(crate) fn patient_for(mut self, answer_max: Duration) -> Client {
        self.answer_max = answer_max;
        self
    }

    pub(crate) fn get(&mut self, path: &str) -> io::Result<Answer> {
        self.request("GET", path, &[], b"")
    }

    pub(crate) fn post(&mut self, path: &str, body: &str) -> io::Result<Answer> {
        self.request("POST", path, &[], body.as_bytes())
    }

    pub(crate) fn post_keyed(&mut self, path: &str, body: &str, key: &str) -> io::Result<Answer> {
        self.request("POST", path, &[("idempotency-key", key)], body.as_bytes())
    }

    /// After an error nothing is known of what the server made of the request.
    pub(crate) fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\n", self.address);
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        stream.get_mut().write_all(&bytes)?;
        let answer = read_answer(&mut stream)?;
        let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !closes {
            self.stream = Some(stream);
        }
        Ok(answer)
    }

    fn connect(&self) -> io::Result<BufReader<Box<dyn Stream>>> {
        if let Some(path) = &self.socket {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(self.answer_max))?;
            stream.set_write_timeout(Some(self.answer_max))?;
            return Ok(BufReader::new(Box::new(stream)));
        }
        let connect = || TcpStream::connect_timeout(&self.address, self.answer_max);
        let stream = within(self.namespace.as_deref(), connect)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(self.answer_max))?;
        stream.set_write_timeout(Some(self.answer_max))?;
        Ok(BufReader::new(Box::new(stream)))
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// # Panics
    /// If the body is no JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{}: no JSON ({error}): {}", self.status, self.text()))
    }

    /// The body of an answer that must be 200.
    pub(crate) fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        self.json()
    }

    /// The stable name of the problem in an answer that must be one.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status, "{problem}");
        for member in ["title", "detail"] {
            assert!(problem[member].as_str().is_some_and(|text| !text.is_empty()), "{problem}");
        }
        let name = problem["type"].as_str().unwrap().strip_prefix("urn:tallyd:error:");
        name.unwrap_or_else(|| panic!("{problem}")).to_owned()
    }
}

/// Reads one answer: a status line, headers, and a body by length or in chunks.
pub(crate) fn read_answer(stream: &mut impl BufRead) -> io::Result<Answer> {
    let line = read_line(stream)?;
    let status = line
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.split_once(' '))
        .and_then(|(code, _)| code.parse().ok())
        .ok_or_else(|| invalid(&line))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(stream)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| invalid(&line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut answer = Answer { status, headers, body: Vec::new() };
    match (answer.header("content-length"), answer.header("transfer-encoding")) {
        (Some(length), None) => {
            let length = length.parse().map_err(|_| invalid(length))?;
            answer.body = vec![0; length];
            stream.read_exact(&mut answer.body)?;
        }
        (None, Some("chunked")) => answer.body = read_chunks(stream)?,
        _ => return Err(invalid("neither a length nor chunks")),
    }
    Ok(answer)
}

fn read_chunks(stream: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = read_line(stream)?;
        let length = u64::from_str_radix(&line, 16).map_err(|_| invalid(&line))?;
        let read = stream.by_ref().take(length).read_to_end(&mut body)?;
        if read as u64 != length || !read_line(stream)?.is_empty() {
            return Err(invalid("a broken chunk"));
        }
        if length == 0 {
            return Ok(body);
        }
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    stream.by_ref().take(32 << 10).read_line(&mut line)?;
    if line.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    line.strip_suffix("\r\n").map(str::to_owned).ok_or_else(|| invalid(&line))
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP answer: {what:?}"))
}
