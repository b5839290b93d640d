//! Read buffers shared by all connections of one thread.
//!
//! A connection takes a buffer when bytes are about to arrive and gives it back once it is idle, so that memory follows the
//! number of busy connections. Taking and giving back cost a thread-local push or pop; nothing is locked.

use std::{
    cell::RefCell,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};

use crate::Stream;

/// Holds one request head, and most small bodies with it.
pub const SMALL: usize = 8 * 1024;
/// For bodies: one `recv` of this size costs a third less per byte than four of a quarter (perf.md, "64 KiB response bodies").
pub const LARGE: usize = 64 * 1024;
/// Buffers of [`SMALL`] kept for reuse by a thread: 512 KiB at most.
const KEPT: usize = 64;

/// Storage for copies that outlive a buffer, a piece for many of them. It lives until the last of them is gone.
const PIECE: usize = 2 * 1024;

thread_local! {
    static COPIES: RefCell<BytesMut> = RefCell::default();
    static SPARE: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer with room for at least [`SMALL`] bytes.
pub fn take() -> BytesMut {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_else(|| BytesMut::with_capacity(SMALL))
}

/// Gives a buffer back. It is kept only if no part of it is still referenced and it is of the common size.
#[inline]
pub fn give(buffer: BytesMut) {
    if buffer.capacity() > 0 {
        keep(buffer);
    }
}

fn keep(mut buffer: BytesMut) {
    buffer.clear();
    if !buffer.try_reclaim(SMALL) || buffer.capacity() > 2 * SMALL {
        return;
    }
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    });
}

/// A copy of `data` in storage shared with other copies, where an allocation of its own would cost more than the copying.
pub fn copy(data: &[u8]) -> Bytes {
    if data.len() > PIECE / 4 {
        return Bytes::copy_from_slice(data);
    }
    COPIES.with_borrow_mut(|piece| {
        if piece.capacity() < data.len() {
            // The same storage again if no copy in it is left.
            piece.reserve(PIECE);
        }
        piece.extend_from_slice(data);
        piece.split().freeze()
    })
}

/// Reads once into the tail of `buffer`, making room for `want` bytes first; an empty buffer is given back if nothing came.
/// Returns the number of bytes read, 0 at the end of the stream.
pub fn poll_fill(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    buffer: &mut BytesMut,
    want: usize,
) -> Poll<std::io::Result<usize>> {
    // Most often there is nothing yet: taking a buffer to find that out would take 300 instructions.
    if buffer.is_empty() && stream.poll_readable(cx).is_pending() {
        give(std::mem::take(buffer));
        return Poll::Pending;
    }
    if buffer.is_empty() && buffer.capacity() < SMALL.min(want) {
        give(std::mem::take(buffer));
        *buffer = if want > SMALL { BytesMut::with_capacity(want) } else { take() };
    } else if buffer.capacity() - buffer.len() < want.min(SMALL / 4) {
        buffer.reserve(want);
    }
    let result = poll_read_tail(stream, cx, buffer);
    if buffer.is_empty() && !matches!(result, Poll::Ready(Ok(n)) if n > 0) {
        give(std::mem::take(buffer));
    }
    result
}

#[allow(unsafe_code)]
fn poll_read_tail(stream: &mut Stream, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<std::io::Result<usize>> {
    let mut spare = ReadBuf::uninit(buffer.spare_capacity_mut());
    match Pin::new(stream).poll_read(cx, &mut spare) {
        Poll::Ready(Ok(())) => {}
        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
        Poll::Pending => return Poll::Pending,
    }
    let n = spare.filled().len();
    // SAFETY: `ReadBuf` upholds that the first `n` bytes of the spare capacity are initialised.
    unsafe { buffer.advance_mut(n) };
    Poll::Ready(Ok(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_in_use_is_not_reused() {
        let mut buffer = take();
        buffer.extend_from_slice(b"hello");
        let slice = buffer.split_to(5).freeze();
        give(buffer);
        let mut other = take();
        other.extend_from_slice(b"world");
        assert_eq!(&slice[..], b"hello");
    }

    #[test]
    fn copies_stay_as_they_are_while_others_are_made() {
        let texts: Vec<Vec<u8>> = (0..200).map(|n| vec![n as u8; n * 7]).collect();
        let copies: Vec<Bytes> = texts.iter().map(|text| copy(text)).collect();
        assert!(texts.iter().zip(&copies).all(|(text, copy)| text == copy));
    }

    #[test]
    fn an_idle_read_holds_no_buffer() {
        let (mut a, _b) = Stream::pair(16);
        let mut buffer = BytesMut::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(poll_fill(&mut a, &mut cx, &mut buffer, SMALL).is_pending());
        assert_eq!(buffer.capacity(), 0);
    }
}
