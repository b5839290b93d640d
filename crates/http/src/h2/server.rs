//! The side that receives requests.

use std::{
    future::poll_fn,
    task::{Context, Poll, ready},
};

use http::StatusCode;
use meltemi_net::Stream;

use super::{
    Options, Reason,
    io::{Io, Moved},
    state::{Role, Shared},
};
use crate::{Error, Frame, Headers, RequestHead, ResetReason, ResponseHead};

/// A downstream connection. Only polling [`ServerConnection::poll_accept`] moves its streams' bytes.
pub struct ServerConnection {
    io: Io,
    shared: Shared,
    buffer_bytes: usize,
}

/// A request that arrived.
pub struct Accepted {
    pub head: RequestHead,
    pub stream: ServerStream,
}

impl ServerConnection {
    /// Sends our settings and waits for the client's.
    pub async fn handshake(stream: Stream, options: &Options) -> Result<Self, Error> {
        let shared = Shared::new(Role::Server, options);
        let io = Io::new(stream, Role::Server, options.keepalive);
        let mut connection = Self { io, shared, buffer_bytes: options.buffer_bytes };
        poll_fn(|cx| connection.poll_settings(cx)).await?;
        Ok(connection)
    }

    fn poll_settings(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        loop {
            let moved = self.io.poll(cx, &self.shared);
            if self.shared.state().settings_seen {
                return Poll::Ready(Ok(()));
            }
            if ready!(moved) == Moved::Over {
                return Poll::Ready(Err(self.end()));
            }
        }
    }

    /// How the connection ended.
    fn end(&self) -> Error {
        match self.shared.state().over {
            None | Some(ResetReason::ConnectionClosed) => Error::Closed,
            Some(reason) => Error::Reset(reason),
        }
    }

    /// The next request; `None` once the connection is over.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Accepted>, Error>> {
        loop {
            let accepted = self.shared.state().accepted.pop_front();
            if let Some((slot, head)) = accepted {
                let stream = ServerStream { shared: self.shared.clone(), slot, buffer_bytes: self.buffer_bytes };
                return Poll::Ready(Ok(Some(Accepted { head, stream })));
            }
            if ready!(self.io.poll(cx, &self.shared)) == Moved::Over {
                return Poll::Ready(match self.end() {
                    Error::Closed => Ok(None),
                    error => Err(error),
                });
            }
        }
    }

    /// What the client did wrong, where that ended the connection.
    pub fn broken(&self) -> Option<Reason> {
        self.shared.state().broken
    }

    /// Streams that have a handle. When the last is dropped, the task that polls this is woken.
    pub fn active(&self) -> usize {
        self.shared.state().live()
    }

    /// Says GOAWAY: streams in progress end in peace, new ones are refused, then the connection closes.
    pub fn drain(&mut self) {
        self.shared.state().drain();
    }

    /// Closes at once.
    pub fn abort(&mut self, reason: Reason) {
        self.shared.state().abort(reason, ResetReason::Local);
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        self.shared.state().fail(ResetReason::ConnectionClosed);
    }
}

/// One downstream stream.
pub struct ServerStream {
    shared: Shared,
    slot: u32,
    buffer_bytes: usize,
}

impl ServerStream {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        self.shared.state().poll_frame(self.slot, cx)
    }

    pub fn request_ended(&self) -> bool {
        self.shared.state().ended(self.slot)
    }

    /// Ready when the client has reset the stream, or the connection is over.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.shared.state();
        if state.failure(self.slot).is_some() {
            return Poll::Ready(());
        }
        state.streams[self.slot as usize].wait(cx.waker());
        Poll::Pending
    }

    pub fn send_interim(&mut self, status: StatusCode, headers: &Headers) {
        self.shared.state().send_response(self.slot, status, headers, false);
    }

    pub fn send_head(&mut self, head: &ResponseHead, end: bool) {
        // A tunnel is opened by 200 here (RFC 8441), whatever version the upstream spoke; the encoder drops `upgrade`.
        let switches = head.status == StatusCode::SWITCHING_PROTOCOLS;
        let status = if switches { StatusCode::OK } else { head.status };
        self.shared.state().send_response(self.slot, status, &head.headers, end);
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

    pub fn abort(&mut self) {
        let mut state = self.shared.state();
        let stream = &state.streams[self.slot as usize];
        if !stream.finished && stream.reset.is_none() && state.over.is_none() {
            state.reset_stream(self.slot, Reason::INTERNAL_ERROR, ResetReason::Local);
        }
    }
}

impl Drop for ServerStream {
    /// A response that ended before its request did tells the peer to stop sending (RFC 9113 8.1).
    fn drop(&mut self) {
        let mut state = self.shared.state();
        let reason = if state.streams[self.slot as usize].finished { Reason::NO_ERROR } else { Reason::INTERNAL_ERROR };
        state.vacate(self.slot, reason);
    }
}
