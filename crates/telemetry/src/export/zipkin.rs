//! Zipkin v2 JSON, as Envoy's Zipkin tracer writes it.

use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::{Span, SpanKind};

pub(super) fn encode(spans: &[Span]) -> Bytes {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    Value::Array(spans).to_string().into()
}

fn span(span: &Span) -> Value {
    let context = &span.context;
    let mut out = Map::new();
    let trace_id = match u64::try_from(context.trace_id) {
        Ok(short) => format!("{short:016x}"),
        Err(_) => context.trace_id_hex(),
    };
    out.insert("traceId".into(), trace_id.into());
    if let Some(parent) = context.parent_id {
        out.insert("parentId".into(), format!("{parent:016x}").into());
    }
    out.insert("id".into(), format!("{:016x}", context.span_id).into());
    out.insert("kind".into(), if span.kind == SpanKind::Server { "SERVER" } else { "CLIENT" }.into());
    out.insert("name".into(), span.name.as_ref().into());
    let start = span.start.duration_since(UNIX_EPOCH).unwrap_or_default();
    out.insert("timestamp".into(), (start.as_micros() as u64).into());
    // Zipkin reads 0 as unknown.
    out.insert("duration".into(), (span.duration.as_micros() as u64).max(1).into());
    out.insert("localEndpoint".into(), endpoint(Some(&span.service), span.local));
    if span.remote.is_some() {
        out.insert("remoteEndpoint".into(), endpoint(None, span.remote));
    }
    let mut tags: Map<String, Value> =
        span.tags.iter().map(|(k, v)| (k.to_string(), Value::String(v.clone()))).collect();
    if span.error {
        tags.entry("error").or_insert_with(|| json!("true"));
    }
    out.insert("tags".into(), tags.into());
    if context.debug {
        out.insert("debug".into(), true.into());
    }
    Value::Object(out)
}

fn endpoint(service: Option<&str>, address: Option<SocketAddr>) -> Value {
    let mut out = Map::new();
    if let Some(service) = service {
        out.insert("serviceName".into(), service.into());
    }
    if let Some(address) = address {
        let family = if address.is_ipv4() { "ipv4" } else { "ipv6" };
        out.insert(family.into(), address.ip().to_string().into());
        out.insert("port".into(), address.port().into());
    }
    out.into()
}
