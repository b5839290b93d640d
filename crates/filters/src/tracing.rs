//! Spans of requests: the sampling decision, context in and out of headers, tags as Envoy names them.
//!
//! Nothing is done for a request that is not sampled but passing its context on.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use meltemi_http::{HeaderName, HeaderValue, RequestHead, name};
use meltemi_plan::tracing::{CustomTag, OtlpSampler, TagValue, Tracing, TracingProvider};
use meltemi_plan::{Fraction, HeaderLookup, RouteAction};
use meltemi_telemetry::TraceContext;
use meltemi_telemetry::export::{Span, SpanKind, SpanSink};
use meltemi_telemetry::trace::{Propagation, Sampling, TraceReason};

use crate::context::Context;
use crate::format::{self, Missing, Scope, metadata_of};
use crate::info::{Direction, StreamInfo};
use crate::lookup::RequestFields;

const CLIENT_TRACE_ID: HeaderName = HeaderName::from_static("x-client-trace-id");

/// A connection manager's tracing, built once.
pub struct Tracer {
    config: Arc<Tracing>,
    sink: Option<SpanSink>,
    service: Arc<str>,
    node: Arc<str>,
    read: &'static [Propagation],
    written: &'static [Propagation],
    wide_ids: bool,
    always: bool,
    kind: SpanKind,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Spans go to the exporter of the provider; without one only context is passed on.
    pub fn new(config: &Arc<Tracing>, direction: Direction, context: &Context) -> Self {
        let sink = config.provider.as_ref().map(|provider| context.span_sink(provider));
        use Propagation::{B3Multi, B3Single, W3c};
        let (read, written, wide_ids): (&[Propagation], &[Propagation], bool) = match &config.provider {
            Some(TracingProvider::Zipkin(z)) if z.w3c => {
                (&[B3Single, B3Multi, W3c], &[B3Multi, W3c], z.trace_id_128bit)
            }
            Some(TracingProvider::Zipkin(z)) => (&[B3Single, B3Multi], &[B3Multi], z.trace_id_128bit),
            Some(TracingProvider::OpenTelemetry(_)) | None => (&[W3c], &[W3c], true),
        };
        let (service, always) = match &config.provider {
            Some(TracingProvider::OpenTelemetry(otel)) if !otel.service_name.is_empty() => {
                (otel.service_name.clone(), otel.sampler == OtlpSampler::AlwaysOn)
            }
            _ => (context.node.service_cluster.clone(), false),
        };
        let kind = if direction == Direction::Outbound { SpanKind::Client } else { SpanKind::Server };
        let config = config.clone();
        Self { config, sink, service, node: context.node.id.clone(), read, written, wide_ids, always, kind }
    }

    /// Decides, once the route is known, whether this request is traced; `info.trace` then holds its span.
    pub fn begin(&self, head: &RequestHead, info: &mut StreamInfo) -> TraceReason {
        let parent = TraceContext::extract(self.read, |name| head.headers.get_str(name));
        let reason = self.sampling(info).decide(
            head.headers.contains(&name::X_ENVOY_FORCE_TRACE),
            head.headers.contains(&CLIENT_TRACE_ID),
            rand::random(),
        );
        let ours = self.always || reason != TraceReason::NotTraced;
        info.trace = Some(match parent {
            // A decision made before us stands.
            Some(parent) => {
                let mut child = parent.child();
                child.sampled = Some(parent.sampled.unwrap_or(ours));
                child
            }
            None => {
                let mut root = TraceContext::root(ours);
                if !self.wide_ids {
                    root.trace_id &= u128::from(u64::MAX);
                }
                root
            }
        });
        reason
    }

    /// The connection manager's rates, under those of the route.
    fn sampling(&self, info: &StreamInfo) -> Sampling {
        let route = info.route.as_ref().and_then(|r| r.tracing.as_ref());
        let parts = |percent: f64, own: Option<Fraction>| match own {
            Some(f) => (u64::from(f.numerator) * 10_000 / u64::from(f.denominator.max(1))).min(10_000) as u32,
            None => (percent * 100.0).round().clamp(0.0, 10_000.0) as u32,
        };
        Sampling {
            client: parts(self.config.client_sampling, route.and_then(|r| r.client_sampling)),
            random: parts(self.config.random_sampling, route.and_then(|r| r.random_sampling)),
            overall: parts(self.config.overall_sampling, route.and_then(|r| r.overall_sampling)),
        }
    }

    /// Puts the context on a request that goes upstream.
    pub fn inject(&self, head: &mut RequestHead, info: &StreamInfo) {
        let Some(trace) = info.trace.as_ref().filter(|_| !self.config.no_context_propagation) else { return };
        if self.read.contains(&Propagation::B3Single) {
            // We answer in several headers; the single one would contradict them.
            head.headers.remove(&name::B3);
        }
        trace.inject(self.written, |name, value| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                head.headers.insert(HeaderName::from_static(name), value);
            }
        });
    }

    /// Hands over the span of a finished request, if it is sampled.
    pub fn finish(&self, scope: &Scope<'_>) {
        let info = scope.info;
        let (Some(sink), Some(trace)) = (&self.sink, info.trace.as_ref().filter(|t| t.is_sampled())) else { return };
        let error = info.response_code.is_none_or(|code| code >= 500) || info.grpc_status.is_some_and(|s| s != 0);
        let mut tags = self.standard_tags(scope);
        if error {
            tags.push(("error".into(), "true".to_owned()));
        }
        let route_tags = info.route.as_ref().and_then(|r| r.tracing.as_ref()).map_or(&[][..], |t| &t.custom_tags);
        for tag in self.config.custom_tags.iter().chain(route_tags) {
            if let Some(value) = custom(tag, scope) {
                tags.push((Cow::Owned(tag.tag.to_string()), value));
            }
        }
        sink.push(Span {
            context: trace.clone(),
            kind: self.kind,
            name: self.operation(scope).into(),
            service: self.service.clone(),
            start: info.start_time,
            duration: info.elapsed(),
            tags,
            error,
            local: info.connection.local.socket(),
            remote: info.remote.socket(),
        });
    }

    /// The route's decorator, else the configured format, else Envoy's `ingress` or `egress`.
    fn operation(&self, scope: &Scope<'_>) -> String {
        let decorated = scope.info.route.as_ref().and_then(|r| r.decorator.as_ref());
        match (decorated, &self.config.operation) {
            (Some(decorator), _) => decorator.operation.to_string(),
            (None, Some(format)) => format::text(format, scope, Missing::Empty),
            (None, None) if self.kind == SpanKind::Client => "egress".to_owned(),
            (None, None) => "ingress".to_owned(),
        }
    }

    fn standard_tags(&self, scope: &Scope<'_>) -> Vec<(Cow<'static, str>, String)> {
        let info = scope.info;
        let mut tags: Vec<(Cow<'static, str>, String)> = Vec::with_capacity(20);
        let mut add = |key: &'static str, value: Option<String>| tags.extend(value.map(|v| (Cow::Borrowed(key), v)));
        add("component", Some("proxy".to_owned()));
        add("node_id", Some(self.node.to_string()));
        if let Some(head) = scope.request {
            let header = |key: &HeaderName| head.headers.get_str(key).map(str::to_owned);
            let dash = |value: Option<String>| Some(value.unwrap_or_else(|| "-".to_owned()));
            let path = head.headers.get_str(&name::X_ENVOY_ORIGINAL_PATH).unwrap_or(head.path.as_str());
            let end = floor_char(path, self.config.max_path_tag_length);
            add("guid:x-request-id", header(&name::X_REQUEST_ID));
            add("http.url", Some(format!("{}://{}{}", head.scheme.as_str(), head.authority, &path[..end])));
            add("http.method", Some(head.method.to_string()));
            add("downstream_cluster", dash(header(&name::X_ENVOY_DOWNSTREAM_SERVICE_CLUSTER)));
            add("user_agent", dash(header(&::http::header::USER_AGENT)));
            add("guid:x-client-trace-id", header(&CLIENT_TRACE_ID));
        }
        add("http.protocol", info.protocol.map(|p| p.as_str().to_owned()));
        add("peer.address", info.connection.direct_remote.socket().map(|a| a.ip().to_string()));
        add("request_size", Some(info.bytes_received.to_string()));
        add("response_size", Some(info.bytes_sent.to_string()));
        add("http.status_code", Some(info.response_code.unwrap_or(0).to_string()));
        add("grpc.status_code", info.grpc_status.map(|s| s.to_string()));
        add("response_flags", Some(info.flags.to_string()));
        if let Some(cluster) = &info.upstream.cluster {
            add("upstream_cluster", Some(cluster.name.to_string()));
            add("upstream_cluster.name", Some(cluster.stat_name.to_string()));
        }
        add("upstream_address", info.upstream.host.as_ref().map(ToString::to_string));
        let retries = info.upstream.attempts.saturating_sub(1);
        add("retry.count", (retries > 0).then(|| retries.to_string()));
        if self.config.verbose {
            let since = |at: Option<std::time::Instant>| {
                at.map(|at| at.saturating_duration_since(info.start))
                    .as_ref()
                    .map(Duration::as_micros)
                    .map(|us| us.to_string())
            };
            add("first_upstream_tx_byte_sent_us", since(info.upstream.timing.first_byte_sent));
            add("first_upstream_rx_byte_received_us", since(info.upstream.timing.first_byte_received));
        }
        tags
    }

    /// `x-envoy-decorator-operation` for the request to a forwarded route, if the route propagates its decorator.
    pub fn decorator(info: &StreamInfo) -> Option<&Arc<str>> {
        let route = info.route.as_ref()?;
        let decorator = route.decorator.as_ref().filter(|d| d.propagate)?;
        matches!(route.action, RouteAction::Forward(_)).then_some(&decorator.operation)
    }
}

/// The largest length up to `max` that ends on a character.
fn floor_char(text: &str, max: usize) -> usize {
    (0..=max.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

fn custom(tag: &CustomTag, scope: &Scope<'_>) -> Option<String> {
    let or = |value: Option<String>, default: &str| value.or_else(|| (!default.is_empty()).then(|| default.to_owned()));
    match &tag.value {
        TagValue::Literal(text) => Some(text.to_string()),
        TagValue::Environment { name, default } => or(std::env::var(&**name).ok(), default),
        TagValue::RequestHeader { key, default } => {
            let fields = scope.request.map(RequestFields);
            let value = fields.as_ref().and_then(|f| f.value(key).map(|v| String::from_utf8_lossy(&v).into_owned()));
            or(value, default)
        }
        TagValue::Metadata { of, namespace, path, default } => {
            let value = metadata_of(scope, *of).and_then(|m| m.value(namespace, path)).map(|v| match v.as_str() {
                Some(text) => text.to_owned(),
                None => v.to_string(),
            });
            or(value, default)
        }
        TagValue::Format(format) => Some(format::text(format, scope, Missing::Empty)).filter(|text| !text.is_empty()),
    }
}
