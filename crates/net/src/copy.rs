//! Relaying bytes between two streams.
//!
//! Half close is passed on; the whole ends when both directions have, on an error, or when nothing moved for the idle time.
//! Buffers are held only while they have bytes in them.

use std::{
    cell::Cell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::{io::AsyncWrite, time::Instant};

use crate::{Stream, buffers, timer::Deadline};

/// Bytes relayed so far; may be read while the relay runs.
#[derive(Debug, Default)]
pub struct Copied {
    pub a_to_b: Cell<u64>,
    pub b_to_a: Cell<u64>,
}

/// Why a relay ended.
#[derive(Debug)]
pub enum CopyEnd {
    /// Both sides closed in order.
    Finished,
    Idle,
    /// Reading from or writing to `a` failed.
    A(io::Error),
    B(io::Error),
}

enum Side {
    Reader(io::Error),
    Writer(io::Error),
}

#[derive(Default)]
struct Direction {
    buffer: BytesMut,
    read_done: bool,
    needs_flush: bool,
    done: bool,
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
        count: &Cell<u64>,
    ) -> Poll<Result<(), Side>> {
        loop {
            while !self.buffer.is_empty() {
                let n = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer)).map_err(Side::Writer)?;
                if n == 0 {
                    return Poll::Ready(Err(Side::Writer(io::ErrorKind::WriteZero.into())));
                }
                self.buffer.advance(n);
                self.needs_flush = true;
                count.set(count.get() + n as u64);
            }
            if self.read_done {
                ready!(Pin::new(&mut *to).poll_shutdown(cx)).map_err(Side::Writer)?;
                self.done = true;
                buffers::give(std::mem::take(&mut self.buffer));
                return Poll::Ready(Ok(()));
            }
            self.buffer.clear();
            match buffers::poll_fill(from, cx, &mut self.buffer, buffers::SMALL) {
                Poll::Ready(Ok(n)) => self.read_done = n == 0,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Side::Reader(error))),
                Poll::Pending => {
                    if self.needs_flush {
                        ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Side::Writer)?;
                        self.needs_flush = false;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

/// Relays until the end. `idle` of `None` never times out.
pub async fn copy_bidirectional(a: &mut Stream, b: &mut Stream, idle: Option<Duration>, copied: &Copied) -> CopyEnd {
    let (mut up, mut down) = (Direction::default(), Direction::default());
    let mut deadline = Deadline::new();
    deadline.set_after(Instant::now(), idle);
    let mut seen = 0;
    let end = poll_fn(|cx| {
        if !up.done
            && let Poll::Ready(Err(side)) = up.poll(cx, a, b, &copied.a_to_b)
        {
            return Poll::Ready(match side {
                Side::Reader(error) => CopyEnd::A(error),
                Side::Writer(error) => CopyEnd::B(error),
            });
        }
        if !down.done
            && let Poll::Ready(Err(side)) = down.poll(cx, b, a, &copied.b_to_a)
        {
            return Poll::Ready(match side {
                Side::Reader(error) => CopyEnd::B(error),
                Side::Writer(error) => CopyEnd::A(error),
            });
        }
        if up.done && down.done {
            return Poll::Ready(CopyEnd::Finished);
        }
        if idle.is_some() {
            let total = copied.a_to_b.get() + copied.b_to_a.get();
            if total != seen {
                seen = total;
                deadline.set_after(Instant::now(), idle);
            }
            ready!(deadline.poll(cx));
            return Poll::Ready(CopyEnd::Idle);
        }
        Poll::Pending
    })
    .await;
    buffers::give(up.buffer);
    buffers::give(down.buffer);
    end
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn half_close_passes_through_and_bytes_are_counted() {
        let ((mut client, mut a), (mut b, mut server)) = (Stream::pair(1000), Stream::pair(7));
        let copied = Copied::default();
        let relay = async { copy_bidirectional(&mut a, &mut b, None, &copied).await };
        let talk = async {
            client.write_all(b"request that is longer than the pipe").await.unwrap();
            client.shutdown().await.unwrap();
            let mut reply = String::new();
            client.read_to_string(&mut reply).await.unwrap();
            reply
        };
        let serve = async {
            let mut request = String::new();
            server.read_to_string(&mut request).await.unwrap();
            server.write_all(b"late reply").await.unwrap();
            server.shutdown().await.unwrap();
            request
        };
        let (end, reply, request) = tokio::join!(relay, talk, serve);
        assert!(matches!(end, CopyEnd::Finished));
        assert_eq!((request.as_str(), reply.as_str()), ("request that is longer than the pipe", "late reply"));
        assert_eq!((copied.a_to_b.get(), copied.b_to_a.get()), (36, 10));
    }

    #[tokio::test]
    async fn traffic_postpones_the_idle_timeout() {
        let ((mut client, mut a), (mut b, _server)) = (Stream::pair(100), Stream::pair(100));
        let copied = Copied::default();
        let start = Instant::now();
        let idle = Some(Duration::from_millis(100));
        let relay = copy_bidirectional(&mut a, &mut b, idle, &copied);
        let talk = async {
            tokio::time::sleep(Duration::from_millis(60)).await;
            client.write_all(b"x").await.unwrap();
        };
        let (end, ()) = tokio::join!(relay, talk);
        assert!(matches!(end, CopyEnd::Idle));
        assert!(start.elapsed() >= Duration::from_millis(160));
    }
}
