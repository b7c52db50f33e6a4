//! The listeners and their connections: HTTP/1.1, bounded in number, size and time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::connections::{Activity, Connections, Ongoing, Place};
use super::socket::Socket;
use super::stream::Stream;
use super::tls::Encryption;
use super::via::Via;
use super::{ApiConfig, TlsError};

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

/// The most connections over the admin socket, which has places of its own: a flood from the network must not keep an
/// operator out.
const SOCKET_CONNECTIONS_MAX: usize = 64;

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
    /// The admin socket that the configuration names cannot be had.
    #[error("api.socket = {path:?}: {source}")]
    Socket {
        /// Where it was to be.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The certificate cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Where requests come from.
#[derive(Debug)]
pub struct Listeners {
    /// The configured address.
    pub tcp: TcpListener,
    /// The admin socket, if there is one.
    pub socket: Option<UnixListener>,
}

/// Who answers the requests of a listener.
pub trait Answers: Clone + Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, request: Request<Incoming>, via: Via) -> impl Future<Output = Response<Body>> + Send;

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
    listeners: Listeners,
    api: A,
    config: &ApiConfig,
    stop: watch::Receiver<bool>,
) {
    let connections = Connections::new(bounded_by_descriptors(config.connections_max));
    let of_socket = Connections::new(SOCKET_CONNECTIONS_MAX);
    let Listeners { tcp, socket } = listeners;
    let mut tasks = JoinSet::new();
    let mut look = interval(IDLE_LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut complained: Option<Instant> = None;
    let mut stopped = stop.clone();
    loop {
        tokio::select! {
            accepted = accept(&tcp, socket.as_ref()) => match accepted {
                Ok(Accepted::Tcp(stream, peer)) => {
                    if let Some(place) = admit(&connections, &api, &stream) {
                        let activity = place.activity.clone();
                        let serving = (api.clone(), place, stop.clone());
                        let encryption = config.encryption.clone();
                        activity.served_by(tasks.spawn(serve_tcp(stream, peer, encryption, serving)));
                    }
                }
                Ok(Accepted::Unix(stream)) => {
                    if let Some(place) = of_socket.admit() {
                        let via = Via::Socket { user: stream.peer_cred().ok().map(|peer| peer.uid()) };
                        let activity = place.activity.clone();
                        let serving = (api.clone(), place, stop.clone());
                        activity.served_by(tasks.spawn(serve_connection(Stream::Unix(stream), via, serving)));
                    }
                }
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
            _ = look.tick() => {
                connections.close_idle(config.idle_max);
                of_socket.close_idle(config.idle_max);
            },
            () = stop_asked(&mut stopped) => break,
        }
    }
    drop((tcp, socket));
    let mut look = interval(STOP_IDLE / 2);
    let all_ended = async {
        loop {
            tokio::select! {
                ended = tasks.join_next() => if ended.is_none() { return },
                _ = look.tick() => {
                    connections.close_idle(STOP_IDLE);
                    of_socket.close_idle(STOP_IDLE);
                },
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

/// A new connection.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

async fn accept(tcp: &TcpListener, socket: Option<&UnixListener>) -> std::io::Result<Accepted> {
    let Some(socket) = socket else {
        return tcp.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer));
    };
    tokio::select! {
        accepted = tcp.accept() => accepted.map(|(stream, peer)| Accepted::Tcp(stream, peer)),
        accepted = socket.accept() => accepted.map(|(stream, _)| Accepted::Unix(stream)),
    }
}

/// A place for a connection over TCP; without one it is told so.
fn admit<A: Answers>(connections: &Arc<Connections>, api: &A, stream: &TcpStream) -> Option<Place> {
    let Some(place) = connections.admit() else {
        api.turned_away();
        refuse(stream);
        return None;
    };
    // Answers are small and whole: waiting for more to send would only delay them.
    let _ = stream.set_nodelay(true);
    // Where the system has no such option, its own, longer times hold.
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(CLIENT_GONE));
    Some(place)
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

/// What answers a connection, its place, and what stops it.
type Serving<A> = (A, Place, watch::Receiver<bool>);

async fn serve_tcp<A: Answers>(
    stream: TcpStream,
    peer: SocketAddr,
    encryption: Option<Encryption>,
    serving: Serving<A>,
) {
    let via = Via::tcp(peer.ip(), encryption.is_some());
    let stream = match encryption {
        None => Stream::Tcp(stream),
        Some(encryption) => match encrypted(stream, &encryption).await {
            Some(stream) => stream,
            None => return,
        },
    };
    serve_connection(stream, via, serving).await;
}

/// The connection after its handshake. `None`: it is none of TLS, or the handshake failed, which is the client's matter.
/// A client that says nothing is closed as an idle one.
async fn encrypted(stream: TcpStream, encryption: &Encryption) -> Option<Stream> {
    let mut first = [0];
    if stream.peek(&mut first).await.ok()? == 0 {
        return None;
    }
    // A record of the handshake begins so, and no request does.
    if first[0] != 0x16 {
        refuse_plain(stream).await;
        return None;
    }
    let stream = encryption.acceptor.accept(stream).await.ok()?;
    Some(Stream::Tls(Box::new(stream)))
}

/// Answers plain HTTP where TLS is spoken.
async fn refuse_plain(stream: TcpStream) {
    let body = r#"{"type":"urn:tallyd:error:tls-required","title":"TLS required","status":400,"detail":"this port speaks TLS: use https:// (tallyd: --url https://BOX:7480#sha256=HEX, with the fingerprint that `tallyd status` shows there)"}"#;
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    // Its request is read, or the system would take the answer back.
    let mut socket = Socket::new(Stream::Tcp(stream));
    if socket.write_all(answer.as_bytes()).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

async fn serve_connection<A: Answers>(stream: Stream, via: Via, serving: Serving<A>) {
    let (api, place, mut stop) = serving;
    let activity = place.activity.clone();
    let service = service_fn(move |request| answer(api.clone(), activity.clone(), request, via));
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
    via: Via,
) -> Result<Response<Body>, Infallible> {
    let busy = activity.begin();
    let response = api.answer(request, via).await;
    if response.body().size_hint().exact().is_some() {
        return Ok(response);
    }
    Ok(response.map(|body| Body::new(Ongoing { body, _busy: busy })))
}
