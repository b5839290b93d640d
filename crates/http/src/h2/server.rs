//! The side that receives requests.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server};
use http::StatusCode;
use meltemi_net::Stream;

use super::{Options, RESET_STREAMS, convert, sender};
use crate::{Error, Frame, Headers, RequestHead, ResponseHead};

/// A downstream connection. Only polling [`ServerConnection::poll_accept`] moves its streams' bytes.
pub struct ServerConnection {
    connection: server::Connection<Stream, Bytes>,
    buffer_bytes: usize,
}

/// A request that arrived.
pub struct Accepted {
    pub head: RequestHead,
    pub stream: ServerStream,
}

impl ServerConnection {
    pub async fn handshake(stream: Stream, options: &Options) -> Result<Self, Error> {
        let mut builder = server::Builder::new();
        builder
            .max_concurrent_streams(options.max_concurrent_streams)
            .initial_window_size(options.initial_stream_window)
            .initial_connection_window_size(options.initial_connection_window)
            .max_header_list_size(options.max_header_bytes)
            .max_concurrent_reset_streams(RESET_STREAMS)
            .max_pending_accept_reset_streams(RESET_STREAMS)
            .max_send_buffer_size(options.buffer_bytes);
        if options.allow_connect {
            builder.enable_connect_protocol();
        }
        let connection = builder.handshake(stream).await?;
        Ok(Self { connection, buffer_bytes: options.buffer_bytes })
    }

    /// The next request; `None` once the connection is over.
    pub fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Accepted>, Error>> {
        let Some(accepted) = ready!(self.connection.poll_accept(cx)) else { return Poll::Ready(Ok(None)) };
        let (request, respond) = accepted?;
        let (parts, body) = request.into_parts();
        let ended = body.is_end_stream();
        let stream = ServerStream {
            body,
            ended,
            respond,
            send: None,
            sender: sender::Sender::default(),
            error: None,
            buffer_bytes: self.buffer_bytes,
        };
        Poll::Ready(Ok(Some(Accepted { head: convert::request_head(parts), stream })))
    }

    /// Says GOAWAY: streams in progress end in peace, new ones are refused, then the connection closes.
    pub fn drain(&mut self) {
        self.connection.graceful_shutdown();
    }

    /// Closes at once.
    pub fn abort(&mut self, reason: Reason) {
        self.connection.abrupt_shutdown(reason);
    }
}

/// One downstream stream.
pub struct ServerStream {
    body: RecvStream,
    ended: bool,
    respond: server::SendResponse<Bytes>,
    send: Option<SendStream<Bytes>>,
    sender: sender::Sender,
    /// A failure to send, reported by the next poll.
    error: Option<h2::Error>,
    buffer_bytes: usize,
}

impl ServerStream {
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        sender::poll_frame(&mut self.body, cx, &mut self.ended)
    }

    pub fn request_ended(&self) -> bool {
        self.ended
    }

    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.send {
            Some(send) => send.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        };
        reset.map(|_| ())
    }

    pub fn send_interim(&mut self, status: StatusCode, headers: &Headers) {
        let mut head = ResponseHead::new(status);
        head.headers = headers.clone();
        if let Err(error) = self.respond.send_informational(convert::response(&head)) {
            self.error.get_or_insert(error);
        }
    }

    pub fn send_head(&mut self, head: &ResponseHead, end: bool) {
        let mut response = convert::response(head);
        // A tunnel is opened by 200 here (RFC 8441), whatever version the upstream spoke.
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            *response.status_mut() = StatusCode::OK;
            response.headers_mut().remove(http::header::UPGRADE);
        }
        match self.respond.send_response(response, end) {
            Ok(send) => self.send = Some(send),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
        if end {
            self.sender.finished_with_head();
        }
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
        if let Some(error) = self.error.take() {
            return Poll::Ready(Err(error.into()));
        }
        match &mut self.send {
            Some(send) => self.sender.poll_flush(send, cx),
            None => Poll::Ready(Ok(())),
        }
    }

    pub fn abort(&mut self) {
        if self.sender.is_finished() {
            return;
        }
        match &mut self.send {
            Some(send) => send.send_reset(Reason::INTERNAL_ERROR),
            None => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}
