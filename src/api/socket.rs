//! A connection's socket, which continues to read for a moment when it closes: if it were closed with unread bytes, the
//! kernel would reset the connection, and the client might never read the answer that refused them.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::stream::Stream;

/// How long a closing socket continues to read.
const LINGER: Duration = Duration::from_secs(1);

/// How much a closing socket reads: what a client may send before it looks at the answer.
const LINGER_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// The client has closed its side: nothing unread can come.
    Ended,
    Lingering {
        until: Pin<Box<Sleep>>,
        bytes_left: usize,
    },
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Socket {
        Socket { stream, state: State::Open }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        if result.is_err() || (buffer.filled().len() == before && buffer.remaining() > 0) {
            self.state = State::Ended;
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = &mut *self;
        if matches!(socket.state, State::Open) {
            ready!(Pin::new(&mut socket.stream).poll_shutdown(context))?;
            socket.state = State::Lingering { until: Box::pin(sleep(LINGER)), bytes_left: LINGER_BYTES_MAX };
        }
        let mut scratch = [0u8; 4096];
        while let State::Lingering { until, bytes_left } = &mut socket.state {
            if *bytes_left == 0 || until.as_mut().poll(context).is_ready() {
                break;
            }
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut socket.stream).poll_read(context, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {
                    *bytes_left = bytes_left.saturating_sub(buffer.filled().len());
                }
                _ => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}
