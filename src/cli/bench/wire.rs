//! HTTP/1.1 with one request outstanding per connection, as cheap as it can be: requests are bytes
//! made beforehand, answers are read by status line and `content-length` alone.
//!
//! This is a load generator: it shares the processors with what it measures, so a general client's
//! costs would be measured with it. Everything else in this program uses a general client.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// The longest body of an answer.
const BODY_BYTES_MAX: usize = 8 << 20;

/// A box, as a URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BenchTarget {
    /// As the user wrote it.
    pub url: String,
    /// HOST:PORT, for the `Host` field.
    pub authority: String,
    /// Where that is.
    pub address: SocketAddr,
}

/// Why there was no answer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The connection broke, or was never made.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// What came is not the HTTP/1.1 that this reader knows.
    #[error("not a valid answer: {0}")]
    Malformed(&'static str),
}

/// The answer to one request, in the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
}

/// One connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl BenchTarget {
    /// Reads `http://HOST:PORT`, a path of `/` allowed. The error says what is wrong with it.
    ///
    /// # Errors
    /// What is wrong with the URL, in words.
    pub fn parse(url: &str) -> Result<BenchTarget, String> {
        let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?}: not an http:// URL"))?;
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '@', '?']) {
            return Err(format!("{url:?}: must be http://HOST:PORT, without a path or user"));
        }
        let with_port = if authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            authority.to_owned()
        } else {
            format!("{authority}:80")
        };
        let mut addresses = with_port.to_socket_addrs().map_err(|error| format!("{url:?}: {error}"))?;
        let address = addresses.next().ok_or_else(|| format!("{url:?}: the host has no address"))?;
        Ok(BenchTarget { url: url.to_owned(), authority: authority.to_owned(), address })
    }
}

impl Wire {
    /// Connects, without delay of small segments.
    ///
    /// # Errors
    /// The connection cannot be made.
    pub async fn connect(target: &BenchTarget) -> io::Result<Wire> {
        let stream = TcpStream::connect(target.address).await?;
        stream.set_nodelay(true)?;
        Ok(Wire { stream, buffer: Vec::with_capacity(2 << 10) })
    }

    /// Sends a request and reads the answer. After an error, or when this future was dropped
    /// halfway, the connection is of no more use.
    ///
    /// # Errors
    /// The connection broke, or the answer is none.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer<'_>, WireError> {
        self.buffer.clear();
        self.stream.write_all(request).await?;
        let head = loop {
            self.read_more().await?;
            if let Some(head) = Head::parse(&self.buffer)? {
                break head;
            }
            if self.buffer.len() > HEAD_BYTES_MAX {
                return Err(WireError::Malformed("the header is over 16 KiB"));
            }
        };
        let end = head.bytes + head.body_bytes;
        while self.buffer.len() < end {
            self.read_more().await?;
        }
        if self.buffer.len() > end {
            return Err(WireError::Malformed("there are bytes after the answer"));
        }
        Ok(Answer { status: head.status, body: &self.buffer[head.bytes..] })
    }

    async fn read_more(&mut self) -> io::Result<()> {
        // Room beyond what comes: a short read tells the runtime that the socket is empty.
        self.buffer.reserve(2 << 10);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

/// What is needed of an answer's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    /// Its own length, the empty line included.
    bytes: usize,
    body_bytes: usize,
}

impl Head {
    /// `None`: more bytes are needed.
    fn parse(bytes: &[u8]) -> Result<Option<Head>, WireError> {
        let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let mut lines = bytes[..end].split(|&byte| byte == b'\n');
        let status = match lines.next().unwrap_or_default() {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a, b, c, rest @ ..]
                if rest.first().is_none_or(|&byte| byte == b' ' || byte == b'\r') =>
            {
                number(&[*a, *b, *c]).ok_or(WireError::Malformed("no status"))?
            }
            _ => return Err(WireError::Malformed("the status line is not HTTP/1.1")),
        };
        let mut body_bytes = None;
        for line in lines {
            let Some(colon) = line.iter().position(|&byte| byte == b':') else {
                return Err(WireError::Malformed("a header field has no colon"));
            };
            let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"content-length") {
                body_bytes = Some(number(value).ok_or(WireError::Malformed("no length"))?);
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                return Err(WireError::Malformed("the body is chunked"));
            }
        }
        let body_bytes = body_bytes.ok_or(WireError::Malformed("no content-length"))?;
        if body_bytes > BODY_BYTES_MAX {
            return Err(WireError::Malformed("the body is over 8 MiB"));
        }
        let status = u16::try_from(status).map_err(|_| WireError::Malformed("no status"))?;
        Ok(Some(Head { status, bytes: end + 4, body_bytes }))
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 9 {
        return None;
    }
    digits
        .iter()
        .try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_in_whatever_pieces_it_comes() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: a:b\r\ncontent-LENGTH: 12\r\n\r\n{\"total\":12}";
        let head = Head { status: 200, bytes: answer.len() - 12, body_bytes: 12 };
        for cut in 0..head.bytes {
            assert_eq!(Head::parse(&answer[..cut]).unwrap(), None, "{cut}");
        }
        for cut in head.bytes..=answer.len() {
            assert_eq!(Head::parse(&answer[..cut]).unwrap(), Some(head), "{cut}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for (text, message) in [
            ("HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", "status line"),
            ("HTTP/1.1 2x0 OK\r\ncontent-length: 0\r\n\r\n", "no status"),
            ("HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n", "status line"),
            ("HTTP/1.1 200 OK\r\n\r\n", "no content-length"),
            ("HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", "no length"),
            ("HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", "8 MiB"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "chunked"),
            ("HTTP/1.1 200 OK\r\nnonsense\r\n\r\n", "colon"),
        ] {
            let error = Head::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(message), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn a_target_is_a_host_and_a_port() {
        let target = BenchTarget::parse("http://127.0.0.1:7480/").unwrap();
        assert_eq!(target.address, "127.0.0.1:7480".parse().unwrap());
        assert_eq!(target.authority, "127.0.0.1:7480");
        assert_eq!(BenchTarget::parse("http://127.0.0.1").unwrap().address.port(), 80);
        for url in
            ["127.0.0.1:7480", "https://127.0.0.1:1", "http://a:1/x", "http://u@127.0.0.1:1", "http://:x"]
        {
            assert!(BenchTarget::parse(url).is_err(), "{url}");
        }
    }
}
