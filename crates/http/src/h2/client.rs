//! The side that sends requests.

use std::{
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, ready},
};

use meltemi_net::Stream;

use super::{
    Options, Reason,
    frame::MAX_WINDOW,
    io::{Io, Moved},
    state::{Item, Role, Shared},
};
use crate::{Error, Frame, RequestHead, ResetReason, ResponseHead, pool::ConnectionFacts};

/// A shared upstream connection. The task that drives it belongs to the pool.
pub struct ClientConnection {
    shared: Shared,
    facts: Rc<ConnectionFacts>,
    buffer_bytes: usize,
}

/// Opens an HTTP/2 session. The returned driver must be polled to its end, which is the connection's.
pub async fn handshake(
    stream: Stream,
    options: &Options,
    facts: Rc<ConnectionFacts>,
) -> Result<(ClientConnection, Driver), Error> {
    let shared = Shared::new(Role::Client, options);
    let io = Io::new(stream, Role::Client, options.keepalive);
    let mut driver = Driver { io, shared: shared.clone() };
    // Our preface goes out at once; the server's settings are not waited for.
    let over = poll_fn(|cx| Poll::Ready(driver.poll(cx).is_ready())).await;
    if over {
        return Err(Error::Closed);
    }
    Ok((ClientConnection { shared, facts, buffer_bytes: options.buffer_bytes }, driver))
}

/// Moves the bytes of all streams of one connection.
pub struct Driver {
    io: Io,
    shared: Shared,
}

impl Driver {
    /// Ready when the connection is over, however it ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(self.io.poll(cx, &self.shared)) != Moved::Over {}
        Poll::Ready(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.state().fail(ResetReason::ConnectionClosed);
    }
}

impl ClientConnection {
    /// Streams that have a handle.
    pub fn active(&self) -> usize {
        self.shared.state().live()
    }

    /// Why the connection is over for its streams.
    pub fn over(&self) -> Option<ResetReason> {
        self.shared.state().over
    }

    /// Streams that the peer allows at once.
    pub fn max_streams(&self) -> usize {
        self.shared.state().peer.max_streams
    }

    /// The peer has neither closed nor said GOAWAY, and stream ids are left.
    pub fn is_open(&self) -> bool {
        let state = self.shared.state();
        state.over.is_none()
            && !state.going_away
            && !state.retired
            && i64::from(state.next_own) < MAX_WINDOW - 1_000_000
    }

    /// No further stream is to be opened; the connection ends when the last is gone.
    pub fn retire(&self) {
        let mut state = self.shared.state();
        state.retired = true;
        state.wake_driver();
    }

    /// A stream on this connection; nothing is sent yet.
    pub fn stream(&self) -> ClientStream {
        let slot = self.shared.state().occupy(0);
        ClientStream {
            shared: self.shared.clone(),
            slot,
            facts: Rc::clone(&self.facts),
            buffer_bytes: self.buffer_bytes,
        }
    }
}

/// One upstream stream.
pub struct ClientStream {
    shared: Shared,
    slot: u32,
    facts: Rc<ConnectionFacts>,
    buffer_bytes: usize,
}

impl ClientStream {
    pub fn facts(&self) -> &Rc<ConnectionFacts> {
        &self.facts
    }

    pub fn send_head(&mut self, head: &RequestHead, end: bool) {
        self.shared.state().send_request(self.slot, head, end);
    }

    pub fn send_frame(&mut self, frame: Frame) {
        self.shared.state().send_frame(self.slot, frame);
    }

    pub fn finish(&mut self) {
        self.shared.state().streams[self.slot as usize].finish = true;
    }

    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.state().poll_ready(self.slot, self.buffer_bytes, cx)
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.shared.state().poll_flush(self.slot, cx)
    }

    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        let mut state = self.shared.state();
        let stream = &mut state.streams[self.slot as usize];
        match stream.received.pop_front() {
            Some(Item::Head(head)) => Poll::Ready(Ok(head)),
            Some(_) => Poll::Ready(Err(Error::Reset(ResetReason::Local))),
            None => {
                if let Some(error) = state.failure(self.slot) {
                    return Poll::Ready(Err(error));
                }
                state.streams[self.slot as usize].wait(cx.waker());
                Poll::Pending
            }
        }
    }

    pub fn response_ended(&self) -> bool {
        self.shared.state().ended(self.slot)
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        self.shared.state().poll_frame(self.slot, cx)
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        self.shared.state().vacate(self.slot, Reason::CANCEL);
    }
}
