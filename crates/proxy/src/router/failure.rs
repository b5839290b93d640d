//! Why an attempt failed, and what the client is told.

use std::borrow::Cow;

use http::{HeaderValue, StatusCode};
use meltemi_filters::{LocalReply, ResponseFlags};
use meltemi_http::{HeaderName, ResetReason, pool::ConnectError};
use meltemi_upstream::{Outcome, TrafficStats};

use super::timers::Expired;

/// Why there is no response from a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    NoHealthyHost,
    /// A circuit breaker is open.
    Overflow,
    Connect(ConnectError),
    /// The connection or stream ended before the response head.
    Reset(ResetReason),
    Expired(Expired),
    /// The route wants something that this proxy cannot send.
    Unsupported,
}

/// Envoy's words for a reset, in the body and, with `_`, in the details.
fn reset_text(reason: ResetReason) -> &'static str {
    match reason {
        ResetReason::ConnectionClosed => "connection termination",
        ResetReason::Remote => "remote reset",
        ResetReason::Refused => "remote refused stream reset",
        ResetReason::Protocol => "protocol error",
        ResetReason::Local => "local reset",
    }
}

impl Failure {
    /// What the outlier detector is told.
    pub fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::NoHealthyHost | Self::Overflow | Self::Unsupported => None,
            Self::Connect(ConnectError::Timeout) => Some(Outcome::ConnectTimeout),
            Self::Connect(ConnectError::Transport(_) | ConnectError::Io(_)) => Some(Outcome::ConnectFailed),
            Self::Reset(ResetReason::Local) => None,
            Self::Reset(_) => Some(Outcome::Reset),
            Self::Expired(Expired::Request | Expired::PerTry | Expired::PerTryIdle) => Some(Outcome::Timeout),
            Self::Expired(Expired::StreamIdle | Expired::MaxDuration) => None,
        }
    }

    /// Counts the reply that the client gets, as Envoy counts it among a cluster's responses, and why.
    pub fn count(&self, traffic: &TrafficStats) {
        match self {
            Self::Expired(expired) => {
                expired.count(traffic);
                if !expired.is_of_router() {
                    return;
                }
                traffic.response(StatusCode::GATEWAY_TIMEOUT.as_u16());
            }
            Self::Reset(ResetReason::Protocol) => traffic.response(StatusCode::BAD_GATEWAY.as_u16()),
            Self::Connect(_) => {
                traffic.upstream_rq_pending_failure_eject().inc();
                traffic.response(StatusCode::SERVICE_UNAVAILABLE.as_u16());
            }
            Self::NoHealthyHost | Self::Overflow | Self::Reset(_) | Self::Unsupported => {
                traffic.response(StatusCode::SERVICE_UNAVAILABLE.as_u16());
            }
        }
    }

    pub fn flags(&self) -> ResponseFlags {
        match self {
            Self::NoHealthyHost => ResponseFlags::NO_HEALTHY_UPSTREAM,
            Self::Overflow => ResponseFlags::UPSTREAM_OVERFLOW,
            Self::Connect(_) => ResponseFlags::UPSTREAM_CONNECTION_FAILURE,
            Self::Reset(ResetReason::ConnectionClosed) => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
            Self::Reset(ResetReason::Remote | ResetReason::Refused) => ResponseFlags::UPSTREAM_REMOTE_RESET,
            Self::Reset(ResetReason::Protocol) => ResponseFlags::UPSTREAM_PROTOCOL_ERROR,
            Self::Reset(ResetReason::Local) | Self::Unsupported => ResponseFlags::LOCAL_RESET,
            Self::Expired(Expired::Request | Expired::PerTry | Expired::PerTryIdle) => {
                ResponseFlags::UPSTREAM_REQUEST_TIMEOUT
            }
            Self::Expired(Expired::StreamIdle) => ResponseFlags::STREAM_IDLE_TIMEOUT,
            // Envoy names it in the details alone.
            Self::Expired(Expired::MaxDuration) => ResponseFlags::NONE,
        }
    }

    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub fn transport_failure(&self) -> Option<String> {
        match self {
            Self::Connect(ConnectError::Transport(text)) => Some(text.clone()),
            Self::Connect(ConnectError::Io(text)) => Some(format!("delayed connect error: {text}")),
            Self::Connect(ConnectError::Timeout)
            | Self::NoHealthyHost
            | Self::Overflow
            | Self::Reset(_)
            | Self::Expired(_)
            | Self::Unsupported => None,
        }
    }

    /// The reply when there is no further attempt. `retried`: there was more than one.
    pub fn reply(&self, retried: bool) -> LocalReply {
        let (status, body, details): Words = match self {
            Self::NoHealthyHost => {
                (StatusCode::SERVICE_UNAVAILABLE, "no healthy upstream".into(), "no_healthy_upstream".into())
            }
            Self::Overflow => return overflow(self.flags(), retried),
            Self::Connect(ConnectError::Timeout) => reset("connection timeout", retried),
            Self::Connect(ConnectError::Transport(text)) => connection_failure(text, retried),
            Self::Connect(ConnectError::Io(text)) => {
                connection_failure(&format!("delayed connect error: {text}"), retried)
            }
            Self::Reset(reason) => {
                let (status, body, details) = reset(reset_text(*reason), retried);
                let bad = *reason == ResetReason::Protocol;
                (if bad { StatusCode::BAD_GATEWAY } else { status }, body, details)
            }
            Self::Unsupported => reset("local reset", retried),
            Self::Expired(expired) => expired_reply(*expired),
        };
        LocalReply::new(status, body, details).with_flags(self.flags())
    }
}

fn expired_reply(expired: Expired) -> Words {
    let timeout =
        |details: &'static str| (StatusCode::GATEWAY_TIMEOUT, "upstream request timeout".into(), details.into());
    match expired {
        Expired::Request => timeout("response_timeout"),
        Expired::PerTry => timeout("upstream_per_try_timeout"),
        Expired::PerTryIdle => timeout("upstream_per_try_idle_timeout"),
        Expired::StreamIdle => (StatusCode::GATEWAY_TIMEOUT, "stream timeout".into(), "stream_idle_timeout".into()),
        Expired::MaxDuration => {
            (StatusCode::GATEWAY_TIMEOUT, "downstream duration timeout".into(), "max_duration_timeout".into())
        }
    }
}

type Words = (StatusCode, Cow<'static, str>, Cow<'static, str>);

fn reset(reason: &str, retried: bool) -> Words {
    let which = if retried { "retried and the latest reset reason" } else { "reset reason" };
    let body = format!("upstream connect error or disconnect/reset before headers. {which}: {reason}");
    let details = format!("upstream_reset_before_response_started{{{}}}", reason.replace(' ', "_"));
    (StatusCode::SERVICE_UNAVAILABLE, body.into(), details.into())
}

/// What the kernel or TLS said is for the log, not for the client.
fn connection_failure(transport: &str, retried: bool) -> Words {
    let (status, body, _) = reset("remote connection failure", retried);
    let (_, _, details) = reset(&format!("remote connection failure|{transport}"), retried);
    (status, body, details)
}

fn overflow(flags: ResponseFlags, retried: bool) -> LocalReply {
    let (status, body, details) = reset("overflow", retried);
    let mut reply = LocalReply::new(status, body, details).with_flags(flags);
    reply.headers.append(HeaderName::from_static("x-envoy-overloaded"), HeaderValue::from_static("true"));
    reply
}
