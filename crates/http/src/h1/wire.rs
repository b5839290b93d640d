//! The bytes of one connection: what was read and not consumed, what was written and not sent.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use meltemi_net::{Stream, buffers};
use tokio::io::AsyncWrite;

/// Data up to this size is copied behind the head, so that most messages are one contiguous write; copying 4 KiB costs about
/// as much as one more element in a vectored write.
const COPY: usize = 4 * 1024;
/// Slices given to one vectored write.
const SLICES: usize = 32;

pub(super) struct Wire {
    pub stream: Stream,
    pub read: BytesMut,
    queue: VecDeque<Bytes>,
    /// What follows the queue.
    tail: BytesMut,
    /// How much of `tail` is sent already.
    tail_sent: usize,
    queued: usize,
    needs_flush: bool,
    shutdown: Shutdown,
    /// All bytes ever, for statistics.
    pub bytes_read: u64,
    pub bytes_written: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Shutdown {
    No,
    AfterFlush,
    Done,
}

impl Wire {
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            read: BytesMut::new(),
            queue: VecDeque::new(),
            tail: BytesMut::new(),
            tail_sent: 0,
            queued: 0,
            needs_flush: false,
            shutdown: Shutdown::No,
            bytes_read: 0,
            bytes_written: 0,
        }
    }

    /// Reads once. `want` is what is still expected: large bodies are read in large pieces.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<io::Result<usize>> {
        let size = if want > 2 * buffers::SMALL && self.read.is_empty() { buffers::LARGE } else { buffers::SMALL };
        let n = ready!(buffers::poll_fill(&mut self.stream, cx, &mut self.read, size))?;
        self.bytes_read += n as u64;
        Poll::Ready(Ok(n))
    }

    /// Takes the first `len` bytes out of what was read. A copy: a head outlives the exchange's bodies, and its slices would keep
    /// the whole buffer from being used again until then.
    pub fn take_head(&mut self, len: usize) -> Bytes {
        let head = buffers::copy(&self.read[..len]);
        self.read.advance(len);
        if self.read.is_empty() {
            buffers::give(std::mem::take(&mut self.read));
        }
        head
    }

    /// Where heads and small data are encoded.
    pub fn tail(&mut self) -> &mut BytesMut {
        if self.tail.capacity() == 0 {
            self.tail = buffers::take();
        }
        &mut self.tail
    }

    pub fn push(&mut self, data: Bytes) {
        if data.len() <= COPY {
            self.tail().extend_from_slice(&data);
            return;
        }
        if self.tail.len() > self.tail_sent {
            self.tail.advance(self.tail_sent);
            let tail = std::mem::take(&mut self.tail).freeze();
            self.queued += tail.len();
            self.queue.push_back(tail);
            self.tail_sent = 0;
        }
        self.queued += data.len();
        self.queue.push_back(data);
    }

    pub fn unsent(&self) -> usize {
        self.queued + self.tail.len() - self.tail_sent
    }

    pub fn shutdown_after_flush(&mut self) {
        if self.shutdown == Shutdown::No {
            self.shutdown = Shutdown::AfterFlush;
        }
    }

    /// Sends everything. Ready once nothing is left here or in the TLS layer.
    #[inline]
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Three of five times there is nothing to do.
        if self.unsent() == 0 && !self.needs_flush && self.shutdown != Shutdown::AfterFlush {
            return Poll::Ready(Ok(()));
        }
        self.poll_send(cx)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.unsent() > 0 {
            let n = if self.queue.is_empty() {
                ready!(Pin::new(&mut self.stream).poll_write(cx, &self.tail[self.tail_sent..]))?
            } else {
                ready!(self.poll_write_queue(cx))?
            };
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent(n);
            self.needs_flush = true;
        }
        if self.needs_flush {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.needs_flush = false;
        }
        if self.shutdown == Shutdown::AfterFlush {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shutdown = Shutdown::Done;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_queue(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if !self.stream.is_write_vectored() {
            return Pin::new(&mut self.stream).poll_write(cx, &self.queue[0]);
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        let mut n = 0;
        for data in self.queue.iter().take(SLICES - 1) {
            slices[n] = IoSlice::new(data);
            n += 1;
        }
        if n == self.queue.len() && self.tail.len() > self.tail_sent {
            slices[n] = IoSlice::new(&self.tail[self.tail_sent..]);
            n += 1;
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, &slices[..n])
    }

    fn sent(&mut self, mut n: usize) {
        self.bytes_written += n as u64;
        while n > 0 {
            let Some(first) = self.queue.front_mut() else { break };
            let part = n.min(first.len());
            first.advance(part);
            self.queued -= part;
            n -= part;
            if first.is_empty() {
                self.queue.pop_front();
            }
        }
        self.tail_sent += n;
        if self.tail_sent == self.tail.len() {
            self.tail.clear();
            self.tail_sent = 0;
        }
    }

    /// Lets go of all buffers that hold nothing; called between messages.
    pub fn release(&mut self) {
        if self.read.is_empty() {
            buffers::give(std::mem::take(&mut self.read));
        }
        if self.unsent() == 0 {
            buffers::give(std::mem::take(&mut self.tail));
        }
    }
}
