//! Access loggers: sink, format, filter.

use crate::common::Fraction;
use crate::format::{Format, JsonFormat};
use crate::header::HeaderMatcher;
use crate::rbac::MetadataMatcher;
use std::path::Path;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub struct AccessLog {
    pub name: Arc<str>,
    pub filter: Option<AccessLogFilter>,
    pub sink: AccessLogSink,
    pub format: AccessLogFormat,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum AccessLogSink {
    File(Arc<Path>),
    Stdout,
    Stderr,
}

/// Every line ends as the format says: a text format brings its own newline, JSON gets one.
#[derive(Debug, Clone, PartialEq)]
pub enum AccessLogFormat {
    Text { format: Format, omit_empty: bool },
    Json { format: JsonFormat, omit_empty: bool, sorted: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Comparison {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
}

impl Comparison {
    pub fn holds(self, left: u64, right: u64) -> bool {
        match self {
            Self::Equal => left == right,
            Self::NotEqual => left != right,
            Self::AtLeast => left >= right,
            Self::AtMost => left <= right,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum AccessLogFilter {
    StatusCode {
        op: Comparison,
        value: u32,
    },
    /// Milliseconds.
    Duration {
        op: Comparison,
        value: u32,
    },
    NotHealthCheck,
    Traceable,
    Fraction {
        fraction: Fraction,
        independent_random: bool,
    },
    And(Vec<AccessLogFilter>),
    Or(Vec<AccessLogFilter>),
    Header(HeaderMatcher),
    /// Any flag at all if empty. Envoy's short names (`UH`, `NR`).
    ResponseFlags(Vec<Arc<str>>),
    GrpcStatus {
        statuses: Vec<u32>,
        exclude: bool,
    },
    Metadata {
        matcher: MetadataMatcher,
        if_missing: bool,
    },
    /// `AccessLogType` names such as `DownstreamEnd`.
    LogType {
        types: Vec<Arc<str>>,
        exclude: bool,
    },
}
