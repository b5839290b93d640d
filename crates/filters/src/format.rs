//! Command strings evaluated over a stream: access logs, header values, custom tags, local replies.
//!
//! Formats come compiled from the plan; here each operator appends to a buffer. No operator allocates but those that must
//! format a time or join a list.

mod json;
mod operators;
mod request;
#[cfg(test)]
mod tests;
mod time;
mod tls;

use meltemi_http::{Headers, RequestHead, ResponseHead};
use meltemi_plan::FormatOp;
use meltemi_plan::format::Format;

use crate::info::StreamInfo;

pub use json::{to_json, write_json};
pub(crate) use operators::metadata_of;

/// When a line is written, `%ACCESS_LOG_TYPE%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogType {
    #[default]
    NotSet,
    DownstreamStart,
    DownstreamPeriodic,
    DownstreamEnd,
    DownstreamTunnelSuccessfullyEstablished,
    TcpConnectionStart,
    TcpConnectionEnd,
    TcpPeriodic,
    TcpUpstreamConnected,
    UpstreamEnd,
}

impl LogType {
    /// Envoy's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSet => "NotSet",
            Self::DownstreamStart => "DownstreamStart",
            Self::DownstreamPeriodic => "DownstreamPeriodic",
            Self::DownstreamEnd => "DownstreamEnd",
            Self::DownstreamTunnelSuccessfullyEstablished => "DownstreamTunnelSuccessfullyEstablished",
            Self::TcpConnectionStart => "TcpConnectionStart",
            Self::TcpConnectionEnd => "TcpConnectionEnd",
            Self::TcpPeriodic => "TcpPeriodic",
            Self::TcpUpstreamConnected => "TcpUpstreamConnected",
            Self::UpstreamEnd => "UpstreamEnd",
        }
    }
}

/// What a format may read.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    pub info: &'a StreamInfo,
    pub request: Option<&'a RequestHead>,
    pub response: Option<&'a ResponseHead>,
    pub trailers: Option<&'a Headers>,
    pub local_reply_body: &'a str,
    pub log_type: LogType,
}

impl<'a> Scope<'a> {
    pub fn new(info: &'a StreamInfo) -> Self {
        Self { info, request: None, response: None, trailers: None, local_reply_body: "", log_type: LogType::NotSet }
    }
}

/// What stands for a value that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// `-`, in access logs.
    Dash,
    /// Nothing, in headers and where `omit_empty_values` says so.
    Empty,
}

/// Appends the text of a format.
pub fn write(format: &Format, scope: &Scope<'_>, missing: Missing, out: &mut Vec<u8>) {
    for op in &*format.ops {
        match op {
            FormatOp::Literal(text) => match text.as_bytes() {
                // Most are the space between two values: not worth a call.
                [byte] => out.push(*byte),
                text => out.extend_from_slice(text),
            },
            FormatOp::Command { operator, limit } => {
                let start = out.len();
                if !operators::write(operator, scope, out) {
                    out.truncate(start);
                    if missing == Missing::Dash {
                        out.push(b'-');
                    }
                } else if let Some(limit) = limit {
                    out.truncate(start.saturating_add(*limit).min(out.len()));
                }
            }
        }
    }
}

/// The text of a format; what is not UTF-8 in it is replaced.
pub fn text(format: &Format, scope: &Scope<'_>, missing: Missing) -> String {
    let mut out = Vec::new();
    write(format, scope, missing, &mut out);
    String::from_utf8(out).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())
}

/// gRPC's status codes in both spellings of `%GRPC_STATUS%`.
pub(crate) const GRPC_STATUSES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];
