//! Frames over a connection: a stream in each direction.

use bytes::Bytes;
use quinn::{Connection, ConnectionError, ReadError, RecvStream, SendStream, WriteError};

use super::frames::FRAME_BYTES_MAX;
use super::proof::{EXPORTER_BYTES, EXPORTER_LABEL};
use crate::transport::frame::{Decoder, Encoder};

/// Why no frame came or went.
#[derive(Debug)]
pub(super) enum WireError {
    /// The connection ended.
    Lost(ConnectionError),
    /// What came is no frame, or the other end stopped in the middle.
    Malformed,
}

/// The other end's stream.
#[derive(Debug)]
pub(super) struct Frames {
    stream: RecvStream,
    decoder: Decoder,
    rest: Bytes,
}

impl Frames {
    pub(super) async fn accept(connection: &Connection) -> Result<Frames, WireError> {
        let stream = connection.accept_uni().await.map_err(WireError::Lost)?;
        Ok(Frames { stream, decoder: Decoder::new(FRAME_BYTES_MAX), rest: Bytes::new() })
    }

    pub(super) async fn next(&mut self) -> Result<Bytes, WireError> {
        loop {
            match self.decoder.next(&mut self.rest) {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(_) => return Err(WireError::Malformed),
            }
            self.rest = match self.stream.read_chunk(FRAME_BYTES_MAX, true).await {
                Ok(Some(chunk)) => chunk.bytes,
                Err(ReadError::ConnectionLost(error)) => return Err(WireError::Lost(error)),
                Ok(None) | Err(_) => return Err(WireError::Malformed),
            };
        }
    }
}

pub(super) async fn open(connection: &Connection) -> Result<SendStream, WireError> {
    connection.open_uni().await.map_err(WireError::Lost)
}

pub(super) async fn send(stream: &mut SendStream, frame: Vec<u8>) -> Result<(), WireError> {
    let mut encoder = Encoder::default();
    match stream.write_all_chunks(encoder.encode(&[frame.into()])).await {
        Ok(()) => Ok(()),
        Err(WriteError::ConnectionLost(error)) => Err(WireError::Lost(error)),
        Err(_) => Err(WireError::Malformed),
    }
}

/// What both ends of this connection see, and nobody else.
pub(super) fn exporter(connection: &Connection) -> [u8; EXPORTER_BYTES] {
    let mut exporter = [0; EXPORTER_BYTES];
    connection
        .export_keying_material(&mut exporter, EXPORTER_LABEL, b"")
        .expect("TLS 1.3 exports 32 bytes once the handshake is done");
    exporter
}
