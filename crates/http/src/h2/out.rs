//! Bytes on their way to the peer.
//!
//! Frames of all streams are encoded one behind the other into pooled buffers and go out in one vectored write; only large data
//! is referred to instead of copied. Nothing is held while there is nothing to send.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use meltemi_net::{Stream, buffers};
use tokio::io::AsyncWrite;

/// Data up to this size is copied behind its frame header: cheaper than two more elements in a vectored write.
const COPY: usize = 4 * 1024;
/// A buffer this full is closed and another begun, so that it never grows out of its pool.
const FULL: usize = buffers::SMALL - 1024;
/// Slices given to one vectored write.
const SLICES: usize = 64;

enum Chunk {
    Pooled(BytesMut),
    Data(Bytes),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Pooled(buffer) => buffer,
            Self::Data(data) => data,
        }
    }
}

#[derive(Default)]
pub(super) struct Out {
    chunks: VecDeque<Chunk>,
    /// What follows them.
    tail: BytesMut,
    /// Bytes in `chunks`.
    queued: usize,
    needs_flush: bool,
}

impl Out {
    pub fn unsent(&self) -> usize {
        self.queued + self.tail.len()
    }

    pub fn is_sent(&self) -> bool {
        self.unsent() == 0 && !self.needs_flush
    }

    /// Where to encode a frame.
    pub fn tail(&mut self) -> &mut BytesMut {
        if self.tail.len() >= FULL {
            self.close_tail();
        }
        if self.tail.capacity() == 0 {
            self.tail = buffers::take();
        }
        &mut self.tail
    }

    /// The payload of the frame whose header was encoded last.
    pub fn data(&mut self, data: Bytes) {
        if data.len() <= COPY {
            self.tail.extend_from_slice(&data);
            return;
        }
        self.close_tail();
        self.queued += data.len();
        self.chunks.push_back(Chunk::Data(data));
    }

    fn close_tail(&mut self) {
        let tail = std::mem::take(&mut self.tail);
        self.queued += tail.len();
        self.chunks.push_back(Chunk::Pooled(tail));
    }

    /// Sends everything. Ready once nothing is left here or in the TLS layer.
    pub fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent() > 0 {
            let n = if self.chunks.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, &self.tail))?
            } else {
                ready!(self.poll_write_chunks(stream, cx))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(n);
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(Pin::new(stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_chunks(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !stream.is_write_vectored() {
            let first = self.chunks.front().map_or(&self.tail[..], Chunk::bytes);
            return Pin::new(stream).poll_write(cx, first);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let mut n = 0;
        for (slice, bytes) in slices.iter_mut().zip(self.chunks.iter().map(Chunk::bytes).chain(tail)) {
            *slice = IoSlice::new(bytes);
            n += 1;
        }
        Pin::new(stream).poll_write_vectored(cx, &slices[..n])
    }

    fn sent(&mut self, mut n: usize) {
        while let Some(first) = self.chunks.front_mut() {
            let part = n.min(first.bytes().len());
            match first {
                Chunk::Pooled(buffer) => buffer.advance(part),
                Chunk::Data(data) => data.advance(part),
            }
            self.queued -= part;
            n -= part;
            if !first.bytes().is_empty() {
                return;
            }
            if let Some(Chunk::Pooled(buffer)) = self.chunks.pop_front() {
                buffers::give(buffer);
            }
        }
        self.tail.advance(n);
        if self.tail.is_empty() {
            buffers::give(std::mem::take(&mut self.tail));
        }
    }
}
