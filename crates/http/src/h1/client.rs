//! The side that sends requests.

use std::task::{Context, Poll, Waker, ready};

use http::{Method, StatusCode};
use meltemi_net::Stream;

use super::{
    body::Reader,
    encode::{self, Writer},
    lines::HeadScan,
    parse::{self, Limits},
    rules::Violation,
    wire::Wire,
};
use crate::{Error, Frame, RequestHead, ResponseHead, pool::End, spelling::Spelling};

/// An upstream connection: one exchange at a time.
pub struct Client {
    wire: Wire,
    limits: Limits,
    scan: HeadScan,
    reader: Reader,
    writer: Writer,
    method: Method,
    upgrading: bool,
    keep_alive: bool,
    responded: bool,
    requests: u64,
    /// What the peer did that ends the connection.
    end: Option<End>,
}

impl Client {
    pub fn new(stream: Stream, limits: Limits) -> Self {
        Self {
            wire: Wire::new(stream),
            limits,
            scan: HeadScan::default(),
            reader: Reader::Done,
            writer: Writer::Done,
            method: Method::GET,
            upgrading: false,
            keep_alive: true,
            responded: true,
            requests: 0,
            end: None,
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.wire.stream
    }

    /// Requests sent on this connection so far.
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Queues a request head. `end`: no body follows.
    pub fn send_head(&mut self, head: &RequestHead, end: bool) {
        self.method = head.method.clone();
        self.upgrading = head.upgrade.is_some();
        self.responded = false;
        self.requests += 1;
        self.writer = encode::request(&mut self.wire, head, end);
    }

    pub fn send_frame(&mut self, frame: Frame) {
        if !self.limits.trailers && matches!(frame, Frame::Trailers(_)) {
            return;
        }
        self.writer.frame(&mut self.wire, frame);
    }

    pub fn finish(&mut self) {
        // An upgrade's request side ends only with the tunnel.
        if self.writer == Writer::Raw && !self.responded {
            return;
        }
        if !self.writer.finish(&mut self.wire) {
            self.keep_alive = false;
        }
    }

    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if self.wire.unsent() > self.limits.buffer_bytes {
            ready!(self.wire.poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.wire.poll_flush(cx).map_err(Error::from)
    }

    /// The next response head; interim ones too, which do not end the wait for the final one.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        loop {
            if !self.wire.read.is_empty()
                && let Some(end) = self.scan.end(&self.wire.read, &self.limits)?
            {
                let head = self.wire.take_head(end);
                let begun = self.begin(&head);
                self.scan.reset();
                return Poll::Ready(begun.map_err(Error::from));
            }
            if ready!(self.wire.poll_fill(cx, 0))? == 0 {
                self.keep_alive = false;
                self.end = Some(End::Remote);
                let clean = self.wire.read.is_empty();
                return Poll::Ready(Err(if clean { Error::Closed } else { Error::Truncated }));
            }
        }
    }

    fn begin(&mut self, head: &bytes::Bytes) -> Result<ResponseHead, Violation> {
        let parsed = parse::response(head, &self.scan, &self.method);
        let (mut response, framing) = parsed.inspect_err(|_| self.end = Some(End::Protocol))?;
        if self.limits.spelling {
            response.headers.spell(Spelling::of(head));
        }
        let head = response;
        if head.status == StatusCode::SWITCHING_PROTOCOLS && !self.upgrading {
            return Err(Violation::UpgradeNotAsked);
        }
        if head.status.is_informational() && head.status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(head);
        }
        self.responded = true;
        if !framing.keep_alive {
            self.keep_alive = false;
            self.end = Some(End::CloseAnnounced);
        }
        self.reader = Reader::new(framing.length);
        let tunnel = head.status == StatusCode::SWITCHING_PROTOCOLS
            || (self.method == Method::CONNECT && head.status.is_success());
        if tunnel {
            self.reader = Reader::UntilClose;
            self.writer = Writer::Raw;
            self.keep_alive = false;
        } else if self.writer == Writer::Raw {
            // The upgrade was declined: the request had no body.
            self.writer = Writer::Done;
        }
        Ok(head)
    }

    /// Nothing of the response is left to read.
    pub fn response_ended(&self) -> bool {
        self.responded && self.reader.is_done()
    }

    /// The next frame of the response body; `None` at its end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        self.reader.poll_frame(&mut self.wire, cx, &self.limits)
    }

    /// The exchange is over on both sides and another may follow. Lets go of buffers.
    pub fn recycle(&mut self) -> bool {
        let clean = self.keep_alive
            && self.responded
            && self.reader.is_done()
            && self.writer == Writer::Done
            && self.wire.unsent() == 0
            && self.wire.read.is_empty();
        if clean {
            self.wire.release();
        }
        clean
    }

    /// Why the connection is not to be used again.
    pub fn end(&self) -> End {
        self.end.unwrap_or(End::Local)
    }

    /// An idle connection is usable: the peer neither closed it nor said anything unasked. Costs no system call unless
    /// something arrived.
    pub fn is_idle_and_open(&mut self) -> bool {
        if self.wire.stream.is_quiet() {
            return true;
        }
        let mut cx = Context::from_waker(Waker::noop());
        self.wire.poll_fill(&mut cx, 0).is_pending()
    }

    /// Bytes on the wire so far: received, sent.
    pub fn wire_bytes(&self) -> (u64, u64) {
        (self.wire.bytes_read, self.wire.bytes_written)
    }
}
