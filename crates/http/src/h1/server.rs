//! The side that receives requests.

use std::task::{Context, Poll, ready};

use http::{Method, StatusCode};
use meltemi_net::Stream;

use super::{
    body::Reader,
    encode::{self, ResponseContext, Writer},
    lines::{self, HeadScan},
    parse::{self, Limits},
    rules::Violation,
    wire::Wire,
};
use crate::{Error, Frame, Headers, Protocol, RequestHead, ResponseHead, spelling::Spelling};

/// What may follow a finished exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Another request.
    Request,
    /// Close, after the peer had time to read the response.
    Close,
}

/// A downstream connection: one exchange at a time, pipelined requests wait in the socket.
pub struct Server {
    wire: Wire,
    limits: Limits,
    scan: HeadScan,
    reader: Reader,
    writer: Writer,
    method: Method,
    protocol: Protocol,
    keep_alive: bool,
}

impl Server {
    pub fn new(stream: Stream, limits: Limits) -> Self {
        Self {
            wire: Wire::new(stream),
            limits,
            scan: HeadScan::default(),
            reader: Reader::Done,
            writer: Writer::Done,
            method: Method::GET,
            protocol: Protocol::Http11,
            keep_alive: true,
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.wire.stream
    }

    /// The next request; `None` when the peer closed between requests. After an error the connection can only send a reply and
    /// close.
    pub fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<RequestHead>, Error>> {
        loop {
            lines::skip_empty_lines(&mut self.wire.read);
            if !self.wire.read.is_empty() {
                let end = self.scan.end(&self.wire.read, &self.limits).inspect_err(|_| self.keep_alive = false)?;
                if let Some(end) = end {
                    let head = self.wire.take_head(end);
                    let begun = self.begin(&head);
                    self.scan.reset();
                    return Poll::Ready(begun.map(Some).map_err(Error::from));
                }
            }
            if ready!(self.wire.poll_fill(cx, 0))? == 0 {
                let clean = self.wire.read.is_empty();
                return Poll::Ready(if clean { Ok(None) } else { Err(Error::Truncated) });
            }
        }
    }

    fn begin(&mut self, head: &bytes::Bytes) -> Result<RequestHead, Violation> {
        let parsed = parse::request(head, &self.scan);
        let (mut request, framing) = parsed.inspect_err(|_| {
            self.keep_alive = false;
            self.protocol = if self.limits.http10 { parse::version_of(head) } else { Protocol::Http11 };
        })?;
        self.reader = Reader::new(framing.length);
        self.method = request.method.clone();
        self.protocol = if self.limits.http10 { request.protocol } else { Protocol::Http11 };
        self.keep_alive = framing.keep_alive;
        if self.limits.spelling {
            request.headers.spell(Spelling::of(head));
        }
        Ok(request)
    }

    /// Some bytes of a request have arrived.
    pub fn has_partial_request(&self) -> bool {
        !self.wire.read.is_empty()
    }

    /// Nothing of the request is left to read.
    pub fn request_ended(&self) -> bool {
        self.reader.is_done()
    }

    pub fn request_remaining(&self) -> Option<u64> {
        self.reader.remaining()
    }

    /// The next frame of the request body; `None` at its end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        self.reader.poll_frame(&mut self.wire, cx, &self.limits)
    }

    /// Ready when the peer has gone while its response is being prepared. Reads at most one buffer of a pipelined request.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.wire.read.is_empty() {
            return Poll::Pending;
        }
        match ready!(self.wire.poll_fill(cx, 0)) {
            Ok(0) | Err(_) => Poll::Ready(()),
            Ok(_) => Poll::Pending,
        }
    }

    /// This exchange is the last one.
    pub fn close_after_response(&mut self) {
        self.keep_alive = false;
    }

    pub fn keeps_alive(&self) -> bool {
        self.keep_alive
    }

    /// `100 Continue` or `103 Early Hints`.
    pub fn send_interim(&mut self, status: StatusCode, headers: &Headers) {
        if self.protocol != Protocol::Http10 {
            encode::interim(&mut self.wire, status, headers);
        }
    }

    /// `end`: no body follows.
    pub fn send_head(&mut self, head: &ResponseHead, end: bool) {
        if !self.reader.is_done() {
            // What the client still sends of its request is not waited for.
            self.keep_alive = false;
        }
        let context = ResponseContext { to: &self.method, protocol: self.protocol, keep_alive: self.keep_alive, end };
        let (writer, keep_alive) = encode::response(&mut self.wire, head, &context);
        self.keep_alive = keep_alive;
        self.writer = writer;
        if writer == Writer::Raw && self.protocol != Protocol::Http10 {
            self.reader = Reader::UntilClose;
            self.keep_alive = false;
        }
    }

    pub fn send_frame(&mut self, frame: Frame) {
        if !self.limits.trailers && matches!(frame, Frame::Trailers(_)) {
            return;
        }
        self.writer.frame(&mut self.wire, frame);
    }

    pub fn finish(&mut self) {
        if !self.writer.finish(&mut self.wire) {
            self.keep_alive = false;
        }
    }

    /// Ready while there is room for more frames.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.wire.unsent() > self.limits.buffer_bytes {
            ready!(self.wire.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.wire.poll_flush(cx).map_err(Error::from)
    }

    /// Ends the exchange; the response must have been flushed.
    pub fn end_exchange(&mut self) -> Next {
        if !self.keep_alive || !self.reader.is_done() {
            return Next::Close;
        }
        self.wire.release();
        Next::Request
    }

    /// Sends FIN once everything is written.
    pub fn shutdown(&mut self) {
        self.wire.shutdown_after_flush();
    }

    /// Reads and drops what the peer still sends, so that closing does not reset what it has yet to read. Ready at its FIN.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.wire.read.clear();
            match ready!(self.wire.poll_fill(cx, 0)) {
                Ok(0) | Err(_) => return Poll::Ready(()),
                Ok(_) => {}
            }
        }
    }

    /// Bytes on the wire so far: received, sent.
    pub fn wire_bytes(&self) -> (u64, u64) {
        (self.wire.bytes_read, self.wire.bytes_written)
    }
}
