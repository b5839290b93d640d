//! What a filter decides about a stream.

use std::borrow::Cow;

use meltemi_http::{Headers, StatusCode};

use crate::flags::ResponseFlags;

/// Envoy's mapping of an HTTP status to a gRPC one.
pub fn grpc_status_of(status: u16) -> u32 {
    match status {
        400 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// A response made here instead of upstream. The connection manager maps it for gRPC and completes its headers.
#[derive(Clone, Debug)]
pub struct LocalReply {
    pub status: StatusCode,
    pub body: Cow<'static, str>,
    /// Added to what the connection manager sets.
    pub headers: Headers,
    /// `%RESPONSE_CODE_DETAILS%`.
    pub details: Cow<'static, str>,
    pub flags: ResponseFlags,
    /// Known only once the reply has been made: in logs, not in its headers.
    pub late_flags: ResponseFlags,
    /// For gRPC requests where the status is not to be derived from the HTTP one.
    pub grpc_status: Option<u32>,
    /// The route's response header rules apply.
    pub header_rules: bool,
    /// `local_reply_config` applies, and the form that gRPC has for it.
    pub customizable: bool,
    /// The route is chosen anew first, as it is told by the reply's headers and the log.
    pub reroute: bool,
}

impl LocalReply {
    pub fn new(status: StatusCode, body: impl Into<Cow<'static, str>>, details: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            body: body.into(),
            headers: Headers::new(),
            details: details.into(),
            flags: ResponseFlags::NONE,
            late_flags: ResponseFlags::NONE,
            grpc_status: None,
            header_rules: true,
            customizable: true,
            reroute: false,
        }
    }

    pub fn with_flags(mut self, flags: ResponseFlags) -> Self {
        self.flags |= flags;
        self
    }
}

/// Whether a stream goes on to the next stage.
#[derive(Clone, Debug)]
pub enum Flow {
    Continue,
    Reply(Box<LocalReply>),
    /// The route is to be chosen anew; then the filters go on behind the one that said so.
    Reroute,
    /// So many bytes of the body are to be read, or all there are; then the filter that said so is asked again.
    Body(usize),
}

impl From<LocalReply> for Flow {
    fn from(reply: LocalReply) -> Self {
        Self::Reply(Box::new(reply))
    }
}
