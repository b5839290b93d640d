//! OTLP trace encoding.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut as _, Bytes, BytesMut};
use meltemi_proto::opentelemetry::proto::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use meltemi_proto::otlp;

use super::{Span, SpanKind};

const STATUS_ERROR: i32 = 2;

/// One `ResourceSpans` per service.
pub(super) fn encode(spans: &[Span], resource: &[(String, String)]) -> Bytes {
    let mut by_service: BTreeMap<&str, Vec<otlp::Span>> = BTreeMap::new();
    for span in spans {
        by_service.entry(&span.service).or_default().push(message(span));
    }
    let resource_spans = by_service
        .into_iter()
        .map(|(service, spans)| {
            let mut attributes = vec![attribute("service.name", service)];
            attributes.extend(resource.iter().map(|(k, v)| attribute(k, v)));
            otlp::ResourceSpans {
                resource: Some(otlp::Resource { attributes, dropped_attributes_count: 0 }),
                scope_spans: vec![otlp::ScopeSpans {
                    scope: Some(InstrumentationScope { name: "meltemi".to_owned(), ..Default::default() }),
                    spans,
                }],
            }
        })
        .collect();
    meltemi_proto::encode(&otlp::ExportTraceServiceRequest { resource_spans })
}

/// gRPC's length-prefixed message, uncompressed.
pub(super) fn grpc_frame(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

fn message(span: &Span) -> otlp::Span {
    let start = unix_nanos(span.start);
    let id = |id: u64| Bytes::copy_from_slice(&id.to_be_bytes());
    otlp::Span {
        trace_id: Bytes::copy_from_slice(&span.context.trace_id.to_be_bytes()),
        span_id: id(span.context.span_id),
        trace_state: span.context.state.clone().unwrap_or_default(),
        parent_span_id: span.context.parent_id.map(id).unwrap_or_default(),
        name: span.name.to_string(),
        kind: match span.kind {
            SpanKind::Server => 2,
            SpanKind::Client => 3,
        },
        start_time_unix_nano: start,
        end_time_unix_nano: start.saturating_add(span.duration.as_nanos() as u64),
        attributes: span.tags.iter().map(|(k, v)| attribute(k, v)).collect(),
        status: span.error.then(|| otlp::Status { message: String::new(), code: STATUS_ERROR }),
        flags: u32::from(span.context.is_sampled()),
    }
}

fn unix_nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(any_value::Value::StringValue(value.to_owned())) }),
        ..Default::default()
    }
}
