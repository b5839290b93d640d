//! One exchange, whatever the version: what the connection manager and the router drive.
//!
//! Both sides have the same shape: frames are received one at a time, and queued for sending up to a watermark; nothing waits
//! but `poll_*`. Dropping a stream before its end resets it.

use std::task::{Context, Poll};

use bytes::Bytes;
use http::StatusCode;

#[cfg(feature = "h3")]
use crate::h3;
use crate::{Error, Headers, Protocol, RequestHead, ResponseHead, h1, h2, pool};

/// A piece of a message after its head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Data(Bytes),
    /// The last frame, if it comes at all.
    Trailers(Headers),
}

/// A downstream exchange.
pub enum ServerStream {
    H1(Box<h1::Server>),
    H2(h2::ServerStream),
    #[cfg(feature = "h3")]
    H3(Box<h3::ServerStream>),
}

macro_rules! serve {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Self::H1($stream) => $call,
            Self::H2($stream) => $call,
            #[cfg(feature = "h3")]
            Self::H3($stream) => $call,
        }
    };
}

macro_rules! dispatch {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self {
            Self::H1($stream) => $call,
            Self::H2($stream) => $call,
        }
    };
}

impl ServerStream {
    /// The next frame of the request; `None` at its end.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        serve!(self, s => s.poll_frame(cx))
    }

    /// Nothing of the request is left to read.
    pub fn request_ended(&self) -> bool {
        serve!(self, s => s.request_ended())
    }

    /// Ready when the peer has gone or reset the stream.
    pub fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        serve!(self, s => s.poll_closed(cx))
    }

    pub fn send_interim(&mut self, status: StatusCode, headers: &Headers) {
        serve!(self, s => s.send_interim(status, headers));
    }

    /// Queues the final head. `end`: no body follows.
    pub fn send_head(&mut self, head: &ResponseHead, end: bool) {
        serve!(self, s => s.send_head(head, end));
    }

    pub fn send_frame(&mut self, frame: Frame) {
        serve!(self, s => s.send_frame(frame));
    }

    /// Ends the response; merged with the last frame where that is still queued.
    pub fn finish(&mut self) {
        serve!(self, s => s.finish());
    }

    /// Ready while there is room for more frames.
    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        serve!(self, s => s.poll_ready(cx))
    }

    /// Ready when all that was queued has been handed to the transport.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        serve!(self, s => s.poll_flush(cx))
    }

    /// Ends the exchange as an error that the peer will notice: a reset, or a close in the middle of the message.
    pub fn abort(&mut self) {
        match self {
            Self::H1(s) => s.close_after_response(),
            Self::H2(s) => s.abort(),
            #[cfg(feature = "h3")]
            Self::H3(s) => s.abort(),
        }
    }

    /// This connection should take no further request after this one.
    /// The response head says that the connection ends with it.
    pub fn announces_close(&self) -> bool {
        match self {
            Self::H1(s) => !s.keeps_alive(),
            Self::H2(_) => false,
            #[cfg(feature = "h3")]
            Self::H3(_) => false,
        }
    }

    pub fn close_after_response(&mut self) {
        match self {
            Self::H1(s) => s.close_after_response(),
            Self::H2(_) => {}
            #[cfg(feature = "h3")]
            Self::H3(_) => {}
        }
    }
}

/// An upstream exchange. Dropping it returns a clean HTTP/1 connection to its pool and resets an unfinished HTTP/2 stream.
pub enum ClientStream {
    H1(pool::Lease),
    H2(h2::ClientStream),
}

impl ClientStream {
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::H1(_) => Protocol::Http11,
            Self::H2(_) => Protocol::Http2,
        }
    }

    /// Queues a request. `end`: no body follows.
    pub fn send_head(&mut self, head: &RequestHead, end: bool) {
        dispatch!(self, s => s.send_head(head, end));
    }

    pub fn send_frame(&mut self, frame: Frame) {
        dispatch!(self, s => s.send_frame(frame));
    }

    pub fn finish(&mut self) {
        dispatch!(self, s => s.finish());
    }

    pub fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        dispatch!(self, s => s.poll_ready(cx))
    }

    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        dispatch!(self, s => s.poll_flush(cx))
    }

    /// The next response head, interim ones included.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<ResponseHead, Error>> {
        dispatch!(self, s => s.poll_response(cx))
    }

    /// Bytes that the connection has received and sent so far; `None` for HTTP/2, whose connection is shared.
    pub fn wire_bytes(&self) -> Option<(u64, u64)> {
        match self {
            Self::H1(lease) => Some(lease.wire_bytes()),
            Self::H2(_) => None,
        }
    }

    pub fn response_ended(&self) -> bool {
        dispatch!(self, s => s.response_ended())
    }

    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame>, Error>> {
        dispatch!(self, s => s.poll_frame(cx))
    }

    /// The connection below; `None` for HTTP/2, whose connection is shared.
    pub fn facts(&self) -> &std::rc::Rc<pool::ConnectionFacts> {
        dispatch!(self, s => s.facts())
    }
}
