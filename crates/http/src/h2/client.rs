//! The side that sends requests.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{SendStream, client};
use meltemi_net::Stream;

use super::{Options, RESET_STREAMS, convert, sender};
use crate::{Error, Frame, RequestHead, ResetReason, ResponseHead, pool::ConnectionFacts};

/// A shared upstream connection. Cloned into each stream; the task that drives it belongs to the pool.
pub struct ClientConnection {
    send: RefCell<client::SendRequest<Bytes>>,
    facts: Rc<ConnectionFacts>,
    active: Rc<Cell<usize>>,
    buffer_bytes: usize,
}

/// Opens an HTTP/2 session. The returned driver must be polled to its end, which is the connection's.
pub async fn handshake(
    stream: Stream,
    options: &Options,
    facts: Rc<ConnectionFacts>,
) -> Result<(ClientConnection, Driver), Error> {
    let (send, driver) = client::Builder::new()
        .enable_push(false)
        .initial_window_size(options.initial_stream_window)
        .initial_connection_window_size(options.initial_connection_window)
        .max_header_list_size(options.max_header_bytes)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .initial_max_send_streams(options.max_concurrent_streams as usize)
        .max_send_buffer_size(options.buffer_bytes)
        .handshake(stream)
        .await?;
    let connection = ClientConnection {
        send: RefCell::new(send),
        facts,
        active: Rc::new(Cell::new(0)),
        buffer_bytes: options.buffer_bytes,
    };
    Ok((connection, Driver(driver)))
}

/// Moves the bytes of all streams of one connection.
pub struct Driver(client::Connection<Stream, Bytes>);

impl Driver {
    /// Ready when the connection is over, however it ended.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(|_| ())
    }
}

impl ClientConnection {
    /// Streams open now.
    pub fn active(&self) -> usize {
        self.active.get()
    }

    /// Streams that the peer allows at once.
    pub fn max_streams(&self) -> usize {
        self.send.borrow().current_max_send_streams()
    }

    /// The peer has neither closed nor said GOAWAY.
    pub fn is_open(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        !matches!(self.send.borrow_mut().poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    /// A stream on this connection; nothing is sent yet.
    pub fn stream(&self) -> ClientStream {
        self.active.set(self.active.get() + 1);
        ClientStream {
            connection: self.send.borrow().clone(),
            pending: None,
            state: State::Idle,
            send: None,
            sender: sender::Sender::default(),
            ended: false,
            active: Rc::clone(&self.active),
            facts: Rc::clone(&self.facts),
            buffer_bytes: self.buffer_bytes,
        }
    }
}

enum State {
    Idle,
    Waiting(client::ResponseFuture),
    Body(h2::RecvStream),
}

/// One upstream stream.
pub struct ClientStream {
    connection: client::SendRequest<Bytes>,
    /// A request waiting for the connection to have room.
    pending: Option<(http::Request<()>, bool)>,
    state: State,
    send: Option<SendStream<Bytes>>,
    sender: sender::Sender,
    ended: bool,
    active: Rc<Cell<usize>>,
    facts: Rc<ConnectionFacts>,
    buffer_bytes: usize,
}

impl ClientStream {
    pub fn facts(&self) -> &Rc<ConnectionFacts> {
        &self.facts
    }

    pub fn send_head(&mut self, head: &RequestHead, end: bool) -> Result<(), Error> {
        self.pending = Some((convert::request(head)?, end));
        Ok(())
    }

    pub fn send_frame(&mut self, frame: Frame) {
        self.sender.push(frame);
    }

    pub fn finish(&mut self) {
        self.sender.finish();
    }

    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.sender.queued() > self.buffer_bytes {
            ready!(self.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.pending.is_some() {
            ready!(self.connection.poll_ready(cx))?;
            if let Some((request, end)) = self.pending.take() {
                let (response, send) = self.connection.send_request(request, end)?;
                self.state = State::Waiting(response);
                self.send = Some(send);
                if end {
                    self.sender.finished_with_head();
                }
            }
        }
        match &mut self.send {
            Some(send) => self.sender.poll_flush(send, cx),
            None => Poll::Ready(Ok(())),
        }
    }

    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        let State::Waiting(future) = &mut self.state else {
            return match self.state {
                // Woken by `poll_flush`, which sends the request.
                State::Idle => Poll::Pending,
                State::Waiting(_) | State::Body(_) => Poll::Ready(Err(Error::Reset(ResetReason::Local))),
            };
        };
        if let Poll::Ready(Some(interim)) = future.poll_informational(cx) {
            return Poll::Ready(Ok(convert::response_head(interim?.into_parts().0)));
        }
        let response = ready!(Pin::new(future).poll(cx))?;
        let (parts, body) = response.into_parts();
        self.ended = body.is_end_stream();
        self.state = State::Body(body);
        Poll::Ready(Ok(convert::response_head(parts)))
    }

    pub fn response_ended(&self) -> bool {
        self.ended
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        match &mut self.state {
            State::Body(body) => sender::poll_frame(body, cx, &mut self.ended),
            State::Idle | State::Waiting(_) => Poll::Ready(Err(Error::Reset(ResetReason::Local))),
        }
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        self.active.set(self.active.get() - 1);
        // Dropping `SendStream` and `RecvStream` of an unfinished stream resets it with CANCEL.
        if let Some(send) = &mut self.send
            && !(self.sender.is_finished() && self.ended)
        {
            send.send_reset(h2::Reason::CANCEL);
        }
    }
}
