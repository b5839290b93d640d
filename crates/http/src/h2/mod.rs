//! HTTP/2 on the `h2` crate, adapted to the polled exchange of [`crate::stream`].
//!
//! Owns conversion of heads, flow control towards the other side of the proxy and the limits against floods. The connection is
//! driven by one local task; a stream costs no task here.

mod client;
mod convert;
mod sender;
mod server;

use std::time::Duration;

pub use client::{ClientConnection, ClientStream, Driver, handshake};
pub use server::{Accepted, ServerConnection, ServerStream};

/// Envoy's `Http2ProtocolOptions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub max_concurrent_streams: u32,
    pub initial_stream_window: u32,
    pub initial_connection_window: u32,
    pub max_header_bytes: u32,
    /// Bytes queued for sending on one stream before the other side is no longer read.
    pub buffer_bytes: usize,
    pub allow_connect: bool,
    /// Keepalive pings; `None` sends none.
    pub keepalive_interval: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 1024,
            initial_stream_window: 256 * 1024,
            initial_connection_window: 1024 * 1024,
            max_header_bytes: 60 * 1024,
            buffer_bytes: 256 * 1024,
            allow_connect: false,
            keepalive_interval: None,
        }
    }
}

/// Streams that the peer may reset before we saw them, and streams we remember after resetting: the bound on "rapid reset".
const RESET_STREAMS: usize = 50;
