//! HTTP/2 (RFC 9113) with extended CONNECT (RFC 8441).
//!
//! Owns frames, header compression, flow control, and the limits against floods ([`limits`]). A connection is driven by one local
//! task; a stream costs no task, no lock and, once its connection is warm, hardly an allocation here. Reads are cut into frames in
//! place; what streams write is gathered and leaves in one system call after their tasks have run. Must never hold a buffer for an
//! idle connection, and never let a peer decide how much is kept: every queue is bounded by a window, a count or a budget.

mod client;
mod frame;
pub(crate) mod head;
pub(crate) mod hpack;
mod io;
pub(crate) mod limits;
mod out;
mod recv;
mod send;
mod server;
mod state;

use std::time::Duration;

pub use client::{ClientConnection, ClientStream, Driver, handshake};
pub use frame::Reason;
pub use server::{Accepted, ServerConnection, ServerStream};

/// Envoy's `Http2ProtocolOptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub max_concurrent_streams: u32,
    pub initial_stream_window: u32,
    /// Not less than 65,535.
    pub initial_connection_window: u32,
    /// Names and values of one head.
    pub max_header_bytes: u32,
    /// Envoy's `max_headers_count`.
    pub max_fields: u32,
    /// Bytes queued for sending on one stream before the other side is no longer read.
    pub buffer_bytes: usize,
    pub allow_connect: bool,
    /// Keepalive pings; `None` sends none.
    pub keepalive: Option<Keepalive>,
}

/// Envoy's `KeepaliveSettings`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    pub interval: Duration,
    /// A PING that is not answered for so long ends the connection.
    pub timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window: 256 * 1024,
            initial_connection_window: 1024 * 1024,
            max_header_bytes: 60 * 1024,
            max_fields: 100,
            buffer_bytes: 256 * 1024,
            allow_connect: false,
            keepalive: None,
        }
    }
}

/// Payloads by which we know our own PINGs.
const DRAIN_PING: [u8; 8] = *b"mlt-goaw";
const KEEPALIVE_PING: [u8; 8] = *b"mlt-keep";

#[cfg(test)]
mod tests;
