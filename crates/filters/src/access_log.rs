//! Access logs: which streams, in what format, to which sink.
//!
//! A line is formatted on the worker into a buffer of its own and appended to the sink's; a writer thread empties sinks in
//! batches. Nothing blocks a worker: a sink that cannot keep up loses lines, and counts them.

#[cfg(test)]
mod tests;
mod writer;

use std::cell::RefCell;
use std::sync::Arc;

use meltemi_plan::{AccessLogFilter, AccessLogFormat};

use crate::flags::ResponseFlags;
use crate::format::{self, Missing, Scope};
use crate::lookup::RequestFields;
use crate::reply::grpc_status_of;

pub use writer::{LogWriter, Sink};

struct Logger {
    filter: Option<AccessLogFilter>,
    format: AccessLogFormat,
    sink: Arc<Sink>,
}

/// The access logs of a listener, connection manager or TCP proxy, built once.
pub struct AccessLogs(Vec<Logger>);

impl std::fmt::Debug for AccessLogs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessLogs({})", self.0.len())
    }
}

impl AccessLogs {
    pub fn new(logs: &[meltemi_plan::AccessLog], writer: &LogWriter) -> Self {
        let logger = |log: &meltemi_plan::AccessLog| Logger {
            filter: log.filter.clone(),
            format: log.format.clone(),
            sink: writer.sink(&log.sink),
        };
        Self(logs.iter().map(logger).collect())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Writes a line to each log whose filter lets the stream through.
    pub fn log(&self, scope: &Scope<'_>) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        for logger in &self.0 {
            if logger.filter.as_ref().is_some_and(|filter| !passes(filter, scope)) {
                continue;
            }
            LINE.with_borrow_mut(|line| {
                line.clear();
                write_line(&logger.format, scope, line);
                logger.sink.append(line);
            });
        }
    }
}

fn write_line(log_format: &AccessLogFormat, scope: &Scope<'_>, line: &mut Vec<u8>) {
    match log_format {
        AccessLogFormat::Text { format, omit_empty } => {
            let missing = if *omit_empty { Missing::Empty } else { Missing::Dash };
            format::write(format, scope, missing, line);
        }
        AccessLogFormat::Json { format, omit_empty, sorted } => {
            if *sorted {
                // Rare enough to go through a value.
                let value = sort(format::to_json(format, scope, *omit_empty));
                line.extend_from_slice(value.to_string().as_bytes());
            } else {
                format::write_json(format, scope, *omit_empty, line);
            }
            line.push(b'\n');
        }
    }
}

fn sort(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(members) => {
            let mut members: Vec<_> = members.into_iter().map(|(k, v)| (k, sort(v))).collect();
            members.sort_by(|a, b| a.0.cmp(&b.0));
            serde_json::Value::Object(members.into_iter().collect())
        }
        other => other,
    }
}

/// Whether a filter lets a stream through; also decides which local reply mapper applies.
pub fn passes(filter: &AccessLogFilter, scope: &Scope<'_>) -> bool {
    let info = scope.info;
    match filter {
        AccessLogFilter::StatusCode { op, value } => {
            op.holds(u64::from(info.response_code.unwrap_or(0)), u64::from(*value))
        }
        AccessLogFilter::Duration { op, value } => op.holds(info.elapsed().as_millis() as u64, u64::from(*value)),
        AccessLogFilter::NotHealthCheck => !info.is_health_check,
        AccessLogFilter::Traceable => info.trace.as_ref().is_some_and(|t| t.is_sampled()),
        AccessLogFilter::Fraction { fraction, independent_random } => fraction.hits(roll(scope, *independent_random)),
        AccessLogFilter::And(all) => all.iter().all(|f| passes(f, scope)),
        AccessLogFilter::Or(any) => any.iter().any(|f| passes(f, scope)),
        AccessLogFilter::Header(matcher) => scope.request.is_some_and(|head| matcher.matches(&RequestFields(head))),
        AccessLogFilter::ResponseFlags(names) if names.is_empty() => !info.flags.is_empty(),
        AccessLogFilter::ResponseFlags(names) => {
            names.iter().filter_map(|n| ResponseFlags::from_short(n)).any(|flag| info.flags.contains(flag))
        }
        AccessLogFilter::GrpcStatus { statuses, exclude } => {
            statuses.contains(&info.grpc_status.unwrap_or_else(|| grpc_of_http(info.response_code))) != *exclude
        }
        AccessLogFilter::Metadata { matcher, if_missing } => match info.found(&matcher.filter, &matcher.path) {
            None => *if_missing,
            value => matcher.value.matches(value) != matcher.invert,
        },
        AccessLogFilter::LogType { types, exclude } => types.iter().any(|t| &**t == scope.log_type.name()) != *exclude,
    }
}

/// The request id decides, so that all proxies on the way log the same requests; without one, or if asked, chance does.
fn roll(scope: &Scope<'_>, independent: bool) -> u64 {
    let id = scope.request.and_then(|head| head.headers.get_str(&meltemi_http::name::X_REQUEST_ID));
    let from_id = id.filter(|_| !independent).and_then(|id| u64::from_str_radix(id.get(..8)?, 16).ok());
    from_id.unwrap_or_else(rand::random)
}

/// How gRPC reads an HTTP status, from its "HTTP to gRPC status code mapping".
pub fn grpc_of_http(status: Option<u16>) -> u32 {
    match status {
        Some(200) => 0,
        other => grpc_status_of(other.unwrap_or(0)),
    }
}
