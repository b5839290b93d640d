//! HTTP/3 (RFC 9114) over QUIC, the side that receives requests.
//!
//! Owns HTTP/3's frames, QPACK without a dynamic table, the rules of its streams, and the choice of a TLS configuration by
//! ClientHello; packets, loss and flow control are quinn's. What makes a head is shared with HTTP/2. A connection is driven by one
//! local task and quinn's own; a stream is driven by whoever holds it. Must never let a peer decide how much is kept: what a
//! stream holds is bounded by its windows, by the limit on sections and by the watermark for sending.

mod control;
mod endpoint;
mod frame;
mod qpack;
mod receive;
mod send;
mod server;
mod tls;

use std::time::Duration;

use quinn::VarInt;

pub use endpoint::{Arrival, Endpoint, Established};
pub use receive::{Fault, Frames, Piece};
pub use server::{Pending, Refusal, ServerConnection, ServerStream, request_head};
pub use tls::{Choice, Choose, Handshake};

/// Envoy's `QuicProtocolOptions` of a listener, and what its connection manager says of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub max_concurrent_streams: u32,
    /// Bytes that a client may send on a stream before they are read.
    pub stream_window: u32,
    /// Of all its streams together.
    pub connection_window: u32,
    /// A connection without a packet for so long is over.
    pub idle_timeout: Duration,
    /// Pings a silent client so often; `None`: never.
    pub keepalive_interval: Option<Duration>,
    /// Names and values of one head.
    pub max_header_bytes: u32,
    /// Envoy's `max_headers_count`.
    pub max_fields: u32,
    /// Bytes queued for sending on one stream before the other side is no longer read.
    pub buffer_bytes: usize,
    /// Extended CONNECT (RFC 9220).
    pub allow_connect: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 100,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            idle_timeout: Duration::from_secs(300),
            keepalive_interval: None,
            max_header_bytes: 60 * 1024,
            max_fields: 100,
            buffer_bytes: 256 * 1024,
            allow_connect: false,
        }
    }
}

/// Why a stream or a connection ends (RFC 9114 8.1, RFC 9204 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(u32);

impl Code {
    pub const NO_ERROR: Self = Self(0x100);
    pub const INTERNAL_ERROR: Self = Self(0x102);
    pub const STREAM_CREATION_ERROR: Self = Self(0x103);
    pub const CLOSED_CRITICAL_STREAM: Self = Self(0x104);
    pub const FRAME_UNEXPECTED: Self = Self(0x105);
    pub const FRAME_ERROR: Self = Self(0x106);
    pub const EXCESSIVE_LOAD: Self = Self(0x107);
    pub const ID_ERROR: Self = Self(0x108);
    pub const SETTINGS_ERROR: Self = Self(0x109);
    pub const MISSING_SETTINGS: Self = Self(0x10a);
    pub const REQUEST_REJECTED: Self = Self(0x10b);
    pub const REQUEST_INCOMPLETE: Self = Self(0x10d);
    pub const MESSAGE_ERROR: Self = Self(0x10e);
    pub const QPACK_DECOMPRESSION_FAILED: Self = Self(0x200);
    pub const QPACK_ENCODER_STREAM_ERROR: Self = Self(0x201);
    pub const QPACK_DECODER_STREAM_ERROR: Self = Self(0x202);

    fn wire(self) -> VarInt {
        VarInt::from_u32(self.0)
    }
}

#[cfg(test)]
mod tests;
