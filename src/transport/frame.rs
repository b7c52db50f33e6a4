//! Frames in a stream: a length of four bytes (little-endian), then so many bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes of the length.
pub const HEAD_BYTES: usize = 4;

/// Shorter frames are copied together before they are handed to QUIC; longer ones are handed over as
/// they are.
const COPY_BYTES_MAX: usize = 4096;

/// How much memory a frame that is announced gets before its bytes are there.
const RESERVE_BYTES_MAX: usize = 64 * 1024;

/// Takes frames out of the bytes of one stream.
#[derive(Debug)]
pub struct Decoder {
    frame_bytes_max: usize,
    head: [u8; HEAD_BYTES],
    head_len: usize,
    /// The frame that has begun: what is there of it, and its length.
    partial: Option<(BytesMut, usize)>,
}

/// A peer announced a frame longer than its lane carries.
#[derive(Debug, PartialEq, Eq)]
pub struct Oversized(pub(super) usize);

impl Decoder {
    pub fn new(frame_bytes_max: usize) -> Decoder {
        Decoder { frame_bytes_max, head: [0; HEAD_BYTES], head_len: 0, partial: None }
    }

    /// The next frame, in memory of its own; `None` when `input` is used up.
    ///
    /// # Errors
    /// [`Oversized`] for a frame beyond its bound.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<Bytes>, Oversized> {
        if self.partial.is_none() {
            let Some(length) = self.length(input)? else { return Ok(None) };
            if input.len() >= length {
                // Copied, so that a frame that is kept does not keep the packets it came in.
                let frame = Bytes::copy_from_slice(&input[..length]);
                input.advance(length);
                return Ok(Some(frame));
            }
            self.partial = Some((BytesMut::with_capacity(length.min(RESERVE_BYTES_MAX)), length));
        }
        let Some((mut body, length)) = self.partial.take() else { return Ok(None) };
        let part = input.len().min(length - body.len());
        body.extend_from_slice(&input[..part]);
        input.advance(part);
        if body.len() == length {
            return Ok(Some(body.freeze()));
        }
        self.partial = Some((body, length));
        Ok(None)
    }

    fn length(&mut self, input: &mut Bytes) -> Result<Option<usize>, Oversized> {
        let part = input.len().min(HEAD_BYTES - self.head_len);
        self.head[self.head_len..self.head_len + part].copy_from_slice(&input[..part]);
        input.advance(part);
        self.head_len += part;
        if self.head_len < HEAD_BYTES {
            return Ok(None);
        }
        self.head_len = 0;
        let length = u32::from_le_bytes(self.head) as usize;
        if length > self.frame_bytes_max { Err(Oversized(length)) } else { Ok(Some(length)) }
    }
}

/// Makes few chunks of many frames, so that one call hands them all to QUIC.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Kept, so that its memory is used again once QUIC has let go of it.
    buffer: BytesMut,
    chunks: Vec<Bytes>,
}

impl Encoder {
    /// The chunks of these frames, in order. The frames are within their lane's bound.
    pub fn encode(&mut self, frames: &[Bytes]) -> &mut [Bytes] {
        self.chunks.clear();
        let copied: usize = frames.iter().map(|frame| HEAD_BYTES + copied_bytes(frame)).sum();
        self.buffer.reserve(copied);
        for frame in frames {
            self.buffer.put_u32_le(frame.len() as u32);
            if copied_bytes(frame) == frame.len() {
                self.buffer.extend_from_slice(frame);
            } else {
                self.chunks.push(self.buffer.split().freeze());
                self.chunks.push(frame.clone());
            }
        }
        if !self.buffer.is_empty() {
            self.chunks.push(self.buffer.split().freeze());
        }
        &mut self.chunks
    }
}

fn copied_bytes(frame: &Bytes) -> usize {
    if frame.len() <= COPY_BYTES_MAX { frame.len() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(decoder: &mut Decoder, mut input: Bytes) -> Result<Vec<Bytes>, Oversized> {
        let mut frames = Vec::new();
        while let Some(frame) = decoder.next(&mut input)? {
            frames.push(frame);
        }
        assert!(input.is_empty(), "the decoder stopped before the input's end");
        Ok(frames)
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_stream_is_cut(
            lengths in proptest::collection::vec(prop_oneof![0usize..20, 4090usize..4100, Just(70_000)], 0..12),
            cuts in proptest::collection::vec(1usize..5000, 1..40),
        ) {
            let frames: Vec<Bytes> =
                lengths.iter().enumerate().map(|(i, len)| Bytes::from(vec![i as u8; *len])).collect();
            let mut encoder = Encoder::default();
            let stream: Bytes = encoder.encode(&frames).concat().into();
            let mut decoder = Decoder::new(70_000);
            let (mut out, mut rest, mut cut) = (Vec::new(), stream, cuts.iter().cycle());
            while !rest.is_empty() {
                let part = rest.split_to(rest.len().min(*cut.next().unwrap()));
                out.extend(decode(&mut decoder, part).unwrap());
            }
            prop_assert_eq!(out, frames);
        }
    }

    #[test]
    fn an_oversized_length_is_refused_before_its_bytes_come() {
        let mut decoder = Decoder::new(100);
        assert_eq!(decode(&mut decoder, Bytes::from_static(&[101, 0, 0, 0])), Err(Oversized(101)));
        let mut decoder = Decoder::new(100);
        assert_eq!(decode(&mut decoder, Bytes::from_static(&[255; 4])), Err(Oversized(u32::MAX as usize)));
    }

    #[test]
    fn an_announced_frame_gets_little_memory_before_its_bytes_come() {
        let mut decoder = Decoder::new(4 << 20);
        assert_eq!(decode(&mut decoder, Bytes::from_static(&[0, 0, 64, 0, 1])), Ok(vec![]));
        assert!(decoder.partial.unwrap().0.capacity() <= RESERVE_BYTES_MAX);
    }

    #[test]
    fn many_small_frames_are_one_chunk() {
        let frames = vec![Bytes::from_static(&[7; 200]); 50];
        assert_eq!(Encoder::default().encode(&frames).len(), 1);
    }
}
