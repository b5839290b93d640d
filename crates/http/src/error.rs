//! What can go wrong on an HTTP connection, as data.

use std::io;

use crate::h1::Violation;

/// Why a stream ended before its message did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResetReason {
    /// The connection closed under the stream.
    ConnectionClosed,
    /// The peer reset this stream (HTTP/2 RST_STREAM).
    Remote,
    /// The peer refused the stream before it processed anything: safe to retry.
    Refused,
    /// The peer broke the protocol.
    Protocol,
    /// We gave up.
    Local,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The peer closed between messages: the ordinary end.
    #[error("connection closed")]
    Closed,
    /// The peer closed within a message.
    #[error("connection closed within a message")]
    Truncated,
    #[error("{0}")]
    Violation(Violation),
    #[error("stream reset: {0:?}")]
    Reset(ResetReason),
    #[error("i/o: {0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// The stream's end in one word, for retry decisions and response flags.
    pub fn reset_reason(&self) -> ResetReason {
        match self {
            Self::Closed | Self::Truncated | Self::Io(_) => ResetReason::ConnectionClosed,
            Self::Violation(_) => ResetReason::Protocol,
            Self::Reset(reason) => *reason,
        }
    }
}

impl From<Violation> for Error {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}
