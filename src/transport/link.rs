//! Serves one connection: moves frames from the queues into streams, and from streams to the node.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, ReadExactError, RecvStream, SendStream, WriteError};
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinSet;

use super::frame::{Decoder, Encoder};
use super::incarnations::{HELLO_BYTES, Hello};
use super::peer::{Fresh, Link, Peer, Removed};
use super::refusal::{CLOSE_REFUSED, NOT_A_MEMBER};
use super::{Event, Lane, Refusal, TransportShared};

/// How long a replaced connection stays open for data in flight.
const RETIRE_AFTER: Duration = Duration::from_secs(1);

/// How many chunks of a stream are read at once.
const READ_CHUNKS: usize = 32;

/// Opens a lane: its number is the first byte of the stream.
pub(super) async fn open_lane(connection: &Connection, lane: Lane) -> Result<SendStream, ConnectionError> {
    let mut stream = connection.open_uni().await?;
    // Neither can fail otherwise than by the connection's end, which the next use reports.
    let _ = stream.set_priority(Lane::ALL.len() as i32 - lane.index() as i32);
    match stream.write_all(&[lane.index() as u8]).await {
        Err(WriteError::ConnectionLost(error)) => Err(error),
        _ => Ok(stream),
    }
}

/// Opens the control lane and sends this box's hello.
pub(super) async fn open_control(connection: &Connection, own: Hello) -> Result<SendStream, ConnectionError> {
    let mut stream = open_lane(connection, Lane::Control).await?;
    match stream.write_all(&own.to_bytes()).await {
        Err(WriteError::ConnectionLost(error)) => Err(error),
        _ => Ok(stream),
    }
}

/// Accepts the peer's control lane and its hello. `Err(None)`: the stream is not a control lane.
pub(super) async fn accept_control(
    connection: &Connection,
) -> Result<(RecvStream, Hello), Option<ConnectionError>> {
    let mut stream = connection.accept_uni().await.map_err(Some)?;
    let mut head = [0; 1 + HELLO_BYTES];
    match stream.read_exact(&mut head).await {
        Ok(()) => {}
        Err(ReadExactError::ReadError(ReadError::ConnectionLost(error))) => return Err(Some(error)),
        Err(_) => return Err(None),
    }
    if Lane::from_index(head[0]) != Some(Lane::Control) {
        return Err(None);
    }
    let mut hello = [0; HELLO_BYTES];
    hello.copy_from_slice(&head[1..]);
    Ok((stream, Hello::from_bytes(hello)))
}

/// Puts a connection into use, if it is the one to use, and serves it until it ends. Returns when the
/// node has been informed; a separate task continues to serve the connection.
pub(super) async fn start(shared: Arc<TransportShared>, peer: Arc<Peer>, fresh: Fresh) {
    let Fresh { connection, control, first, incarnation, dialled_here, begun } = fresh;
    shared.metrics.connections_made.raise();
    let announcing = peer.announcing.lock().await;
    let Some(added) =
        shared.add_link(&peer, |peer| peer.add(connection.clone(), incarnation, dialled_here, begun))
    else {
        // Its key or address changed, or it was removed, while the handshake went on. It dials again, if it may.
        return connection.close(CLOSE_REFUSED, NOT_A_MEMBER);
    };
    tracing::debug!(
        "connection {} with {} at {} ({}, {})",
        added.link.serial,
        peer.name,
        super::address::display_form(added.link.connection.remote_address()),
        if dialled_here { "dialled" } else { "accepted" },
        if added.in_use { "in use" } else { "spare" },
    );
    // A spare one keeps its control stream open beside: the other side may be waiting to see it.
    let spare = if added.in_use {
        spawn_writers(&shared, &peer, &added.link, Some(control));
        let _ = shared.events.send(Event::Connected(peer.id)).await;
        None
    } else {
        Some(control)
    };
    if let Some(superfluous) = added.superfluous.filter(|_| peer.decides) {
        tokio::spawn(retire(peer.clone(), superfluous.serial));
    }
    drop(announcing);
    tokio::spawn(serve(shared, peer, added.link, first, spare));
}

async fn retire(peer: Arc<Peer>, serial: u64) {
    tokio::time::sleep(RETIRE_AFTER).await;
    peer.retire(serial);
}

async fn serve(
    shared: Arc<TransportShared>,
    peer: Arc<Peer>,
    link: Link,
    first: RecvStream,
    _spare: Option<SendStream>,
) {
    tokio::join!(
        read_streams(&shared, &peer, &link, first),
        read_datagrams(&shared, &peer, &link.connection)
    );
    let ended = link.connection.closed().await;
    shared.metrics.connections_ended.raise();
    let announcing = peer.announcing.lock().await;
    let removed = peer.remove(link.serial);
    tracing::debug!("connection {} with {} ended: {ended} ({removed:?})", link.serial, peer.name);
    match removed {
        Removed::Unused => {}
        Removed::Replaced(next) => {
            spawn_writers(&shared, &peer, &next, None);
            let _ = shared.events.send(Event::Connected(peer.id)).await;
        }
        // A member that moved is another peer by now: its connection is not this one's matter.
        Removed::Disconnected if shared.peer(peer.id).is_some_and(|now| !Arc::ptr_eq(&now, &peer)) => {}
        Removed::Disconnected => {
            let _ = shared.events.send(Event::Disconnected(peer.id)).await;
        }
    }
    drop(announcing);
}

fn spawn_writers(
    shared: &Arc<TransportShared>,
    peer: &Arc<Peer>,
    link: &Link,
    mut control: Option<SendStream>,
) {
    for lane in Lane::ALL {
        let stream = if lane == Lane::Control { control.take() } else { None };
        tokio::spawn(write_lane(shared.clone(), peer.clone(), link.clone(), lane, stream));
    }
}

/// Writes the queue of a lane until the connection ends or is replaced.
async fn write_lane(
    shared: Arc<TransportShared>,
    peer: Arc<Peer>,
    link: Link,
    lane: Lane,
    mut stream: Option<SendStream>,
) {
    let queue = peer.queue(lane);
    let mut encoder = Encoder::default();
    let mut batch = Vec::new();
    loop {
        batch.clear();
        if !poll_fn(|cx| queue.poll_take(cx, link.serial, &mut batch)).await {
            return;
        }
        shared.metrics.frames_sent.add(batch.len() as u64);
        shared.metrics.frame_bytes_sent.add(batch.iter().map(|frame| frame.len() as u64).sum());
        let stream = match &mut stream {
            Some(stream) => stream,
            // Opened at its first frame: most lanes of most boxes are never used.
            closed => match open_lane(&link.connection, lane).await {
                Ok(opened) => closed.insert(opened),
                Err(_) => return,
            },
        };
        if stream.write_all_chunks(encoder.encode(&batch)).await.is_err() {
            // Ended, or stopped by the peer, which it never does: a new connection starts afresh.
            link.connection.close(CLOSE_REFUSED, b"a lane was stopped");
            return;
        }
    }
}

/// Reads all lanes until the connection ends and everything received is delivered to the node.
async fn read_streams(shared: &Arc<TransportShared>, peer: &Arc<Peer>, link: &Link, first: RecvStream) {
    let mut readers = JoinSet::new();
    let connection = &link.connection;
    readers.spawn(read_lane(shared.clone(), peer.clone(), connection.clone(), first, Some(Lane::Control)));
    while let Ok(stream) = connection.accept_uni().await {
        readers.spawn(read_lane(shared.clone(), peer.clone(), connection.clone(), stream, None));
        while readers.try_join_next().is_some() {}
    }
    while readers.join_next().await.is_some() {}
}

/// Reads a lane; if the lane is not known yet, the first byte names it.
async fn read_lane(
    shared: Arc<TransportShared>,
    peer: Arc<Peer>,
    connection: Connection,
    mut stream: RecvStream,
    known: Option<Lane>,
) {
    let refuse = |reason: Refusal| {
        shared.refusals.refuse(reason, connection.remote_address());
        connection.close(CLOSE_REFUSED, reason.as_str().as_bytes());
    };
    let lane = match known {
        Some(lane) => lane,
        None => {
            let mut number = [0];
            if stream.read_exact(&mut number).await.is_err() {
                return;
            }
            let Some(lane) = Lane::from_index(number[0]) else { return refuse(Refusal::UnknownLane) };
            lane
        }
    };
    let mut decoder = Decoder::new(lane.frame_bytes_max());
    let mut chunks = [const { Bytes::new() }; READ_CHUNKS];
    while let Ok(Some(count)) = stream.read_chunks(&mut chunks).await {
        for chunk in &mut chunks[..count] {
            let mut chunk = std::mem::take(chunk);
            loop {
                let frame = match decoder.next(&mut chunk) {
                    Ok(Some(frame)) => frame,
                    Ok(None) => break,
                    Err(_) => return refuse(Refusal::OversizedFrame),
                };
                shared.metrics.frames_received.raise();
                shared.metrics.frame_bytes_received.add(frame.len() as u64);
                let event = Event::Received { from: peer.id, lane: Some(lane), frame };
                // Waiting here leaves the stream unread, and so holds the peer back.
                if shared.events.send(event).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn read_datagrams(shared: &Arc<TransportShared>, peer: &Arc<Peer>, connection: &Connection) {
    while let Ok(datagram) = connection.read_datagram().await {
        if datagram.is_empty() {
            // Asked only whether this process is alive, and QUIC answers that.
            continue;
        }
        shared.metrics.datagrams_received.raise();
        // Copied, so that it does not keep the packets that came with it.
        let frame = Bytes::copy_from_slice(&datagram);
        let event = Event::Received { from: peer.id, lane: None, frame };
        if let Err(TrySendError::Full(_)) = shared.events.try_send(event) {
            shared.metrics.datagrams_dropped.raise();
        }
    }
}
