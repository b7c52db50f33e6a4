//! The little of HTTP/1.1 that a client of the daemon's API needs: one request, one connection, JSON.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Longer than the daemon lets a request wait, so that it is the one to say what came of it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// An answer longer than this is not one of ours.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// A status and what came with it.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

pub(crate) fn get(to: SocketAddr, path: &str) -> Result<Answer> {
    exchange(to, format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"))
}

/// The status alone, whatever comes with it.
pub(crate) fn get_status(to: SocketAddr, path: &str) -> Result<u16> {
    let bytes = send(to, &format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n"))?;
    parse_head(&bytes).map(|(status, _)| status).with_context(|| format!("{to} did not answer in HTTP"))
}

/// Posts JSON; `key` is the Idempotency-Key.
pub(crate) fn post(to: SocketAddr, path: &str, key: &str, body: &str) -> Result<Answer> {
    exchange(
        to,
        format!(
            "POST {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Idempotency-Key: {key}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

fn exchange(to: SocketAddr, request: String) -> Result<Answer> {
    let bytes = send(to, &request)?;
    parse(&bytes).with_context(|| format!("{to} did not answer in HTTP with JSON"))
}

fn send(to: SocketAddr, request: &str) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&to, CONNECT_TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    stream.write_all(request.as_bytes())?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let (status, body) = parse_head(bytes)?;
    Some(Answer { status, body: serde_json::from_slice(body).ok()? })
}

/// The status, and the body after the head.
fn parse_head(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, &bytes[end + 4..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_status_and_json() {
        let answer =
            parse(b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\r\n{\"type\":\"x\"}").unwrap();
        assert_eq!((answer.status, &answer.body["type"]), (503, &Value::from("x")));
        for text in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\n{}", "SSH-2.0\r\n\r\n{}"] {
            assert!(parse(text.as_bytes()).is_none(), "{text:?}");
        }
    }
}
