//! The listener and its connections: HTTP/1.1, bounded in number, size and time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::ApiConfig;
use super::connections::{Activity, Connections, Ongoing, Place};
use super::socket::Socket;

/// The longest head of a request, in bytes; the buffer of a connection grows up to it.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// The most header lines of a request.
const HEADERS_MAX: usize = 64;

/// How many connections the kernel keeps until they are accepted: a flood beyond it waits for a second.
const BACKLOG: u32 = 4096;

/// How long requests that are being answered may take when the box stops.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// A client that has its answer and holds its connection open is not waited for longer than this when the box stops.
const STOP_IDLE: Duration = Duration::from_millis(100);

/// How often idle connections are looked for.
const IDLE_LOOK: Duration = Duration::from_secs(1);

/// How long acknowledgements of what was sent may be missing before a client counts as gone.
const CLIENT_GONE: Duration = Duration::from_secs(30);

/// Why the API is not served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address is taken, not this machine's, or not allowed.
    #[error("api.listen = \"{listen}\": {source}{hint}")]
    Bind {
        /// Where it was to listen.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
        /// What to do.
        hint: &'static str,
    },
}

/// Who answers the requests of a listener.
pub trait Answers: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send;

    /// Counts a connection that found no place.
    fn turned_away(&self);
}

/// Binds the listener.
///
/// # Errors
/// Names the address, what the system said and what to do.
pub async fn bind(listen: SocketAddr) -> Result<TcpListener, ApiError> {
    let socket = if listen.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let listening = socket.and_then(|socket| {
        // A restarted box takes its port again, though connections of its past linger.
        socket.set_reuseaddr(true)?;
        if listen.is_ipv6() {
            // Both IP versions on [::], whatever the system's default is, as far as it allows that.
            let _ = socket2::SockRef::from(&socket).set_only_v6(false);
        }
        socket.bind(listen)?;
        socket.listen(BACKLOG)
    });
    listening.map_err(|source| {
        let hint = match source.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; another program (perhaps another tallyd) listens there: stop it, or set api.listen or \
                 TALLYD_API_LISTEN to another port"
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "; this machine does not have this address: set api.listen to one that it has"
            }
            std::io::ErrorKind::PermissionDenied => {
                "; this user may not use ports below 1024: set api.listen to another port"
            }
            _ => "",
        };
        ApiError::Bind { listen, source, hint }
    })
}

/// Returns when the sender says stop, or is gone.
async fn stop_asked(stop: &mut watch::Receiver<bool>) {
    // The guard that this yields must not live across the other branches' awaits.
    let _ = stop.wait_for(|stop| *stop).await.map(|_| ());
}

/// Serves until `stop` becomes true (or its sender is gone), then lets the requests that are being
/// answered end.
pub async fn serve<A: Answers>(
    listener: TcpListener,
    api: A,
    config: &ApiConfig,
    stop: watch::Receiver<bool>,
) {
    let connections = Connections::new(bounded_by_descriptors(config.connections_max));
    let mut tasks = JoinSet::new();
    let mut look = interval(IDLE_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained: Option<Instant> = None;
    let mut stopped = stop.clone();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => start(&connections, &mut tasks, stream, &api, &stop),
                Err(error) => {
                    if complained.is_none_or(|at| at.elapsed() > Duration::from_secs(10)) {
                        tracing::warn!(%error, "api: cannot accept a connection");
                        complained = Some(Instant::now());
                    }
                    // Out of descriptors, mostly: waiting alone would not help.
                    connections.close_longest_idle();
                    sleep(Duration::from_millis(20)).await;
                }
            },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
            _ = look.tick() => connections.close_idle(config.idle_max),
            () = stop_asked(&mut stopped) => break,
        }
    }
    drop(listener);
    let mut look = interval(STOP_IDLE / 2);
    let all_ended = async {
        loop {
            tokio::select! {
                ended = tasks.join_next() => if ended.is_none() { return },
                _ = look.tick() => connections.close_idle(STOP_IDLE),
            }
        }
    };
    if timeout(STOP_WAIT, all_ended).await.is_err() {
        tracing::info!(connections = connections.len(), "api: closed open connections at the stop");
    }
    tasks.shutdown().await;
}

/// Half of the descriptors at most: the log, peers and other ways in need some too.
fn bounded_by_descriptors(asked: usize) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let half = limit.map_or(usize::MAX, |limit| usize::try_from(limit / 2).unwrap_or(usize::MAX));
    asked.min(half.max(16))
}

fn start<A: Answers>(
    connections: &Arc<Connections>,
    tasks: &mut JoinSet<()>,
    stream: TcpStream,
    api: &A,
    stop: &watch::Receiver<bool>,
) {
    let Some(place) = connections.admit() else {
        api.turned_away();
        refuse(&stream);
        return;
    };
    // Answers are small and whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    // Where the system has no such option, its own, longer times hold.
    let _ = socket2::SockRef::from(&stream).set_tcp_user_timeout(Some(CLIENT_GONE));
    let activity = place.activity.clone();
    let task = tasks.spawn(serve_connection(stream, place, api.clone(), stop.clone()));
    activity.served_by(task);
}

/// Answers that all connections are busy, without a task, and with what the socket accepts at once.
fn refuse(stream: &TcpStream) {
    let body = r#"{"type":"urn:tallyd:error:not-committed","title":"Not committed","status":503,"detail":"this box has api.connections_max connections already; retry, or try another box"}"#;
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\nretry-after: 1\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    // A client that gets nothing sees a closed connection, which says much the same.
    let _ = stream.try_write(answer.as_bytes());
}

async fn serve_connection<A: Answers>(
    stream: TcpStream,
    place: Place,
    api: A,
    mut stop: watch::Receiver<bool>,
) {
    let activity = place.activity.clone();
    let service = service_fn(move |request| answer(api.clone(), activity.clone(), request));
    let connection = http1::Builder::new()
        // Connections that do nothing, be it in the middle of a head, are closed by their activity.
        .header_read_timeout(None)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .half_close(false)
        // Answers are small: one buffer costs less than a list of them.
        .writev(false)
        .serve_connection(TokioIo::new(Socket::new(stream)), service);
    tokio::pin!(connection);
    // An error here is the client's: a broken connection, or no HTTP, which hyper has answered.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
    drop(place);
}

async fn answer<A: Answers>(
    api: A,
    activity: Arc<Activity>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let busy = activity.begin();
    let response = api.answer(request).await;
    if response.body().size_hint().exact().is_some() {
        return Ok(response);
    }
    Ok(response.map(|body| Body::new(Ongoing { body, _busy: busy })))
}
