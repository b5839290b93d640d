//! The client's end: what a proxy, an agent or a test subscribes to.
//!
//! [`Session`] is the state machine; [`Client`] owns the stream around it, reconnects with backoff and resumes from the
//! versions it holds. A consumer reads [`Event`]s and answers every [`Update`]; what it rejects is not remembered as held, so
//! the next stream asks for it again. At most [`MAX_UNSETTLED`] updates wait for the consumer; then the stream is not read.

mod connect;
mod session;
mod stream;

#[cfg(test)]
mod tests;

pub use connect::{Connect, ConnectError, Target};
pub use session::{Batch, Outcome, Request, Session};
pub use stream::{Client, Event, Events, Options, Reply, Update};

/// Updates handed to the consumer and not answered yet.
pub const MAX_UNSETTLED: usize = 32;
