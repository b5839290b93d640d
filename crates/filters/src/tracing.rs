//! Spans of requests: the sampling decision, context in and out of headers, tags as Envoy names them.
//!
//! Nothing is done for a request that is not sampled but passing its context on.

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use meltemi_http::{HeaderName, HeaderValue, Headers, RequestHead, name};
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

/// The span of one attempt, where the configuration asks for spans of their own (`spawn_upstream_span`).
#[derive(Debug)]
pub struct AttemptSpan {
    context: TraceContext,
    start: SystemTime,
    began: Instant,
}

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
    outbound: bool,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Tracer {
    /// Spans go to the exporter of the provider.
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
        let outbound = direction == Direction::Outbound;
        // With spans of its own for what it sends, a proxy is a hop by itself: it serves, and then is a client.
        let kind = if outbound && !config.spawn_upstream_span { SpanKind::Client } else { SpanKind::Server };
        let config = config.clone();
        Self { config, sink, service, node: context.node.id.clone(), read, written, wide_ids, always, kind, outbound }
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

    /// Opens the span of an attempt that is about to be made, and gives its context to the request.
    pub fn begin_attempt(&self, head: &mut RequestHead, info: &mut StreamInfo) {
        if !self.config.spawn_upstream_span {
            return;
        }
        let Some(context) = info.trace.as_ref().map(TraceContext::child) else { return };
        info.attempt_span = Some(Box::new(AttemptSpan { context, start: SystemTime::now(), began: Instant::now() }));
        self.inject(head, info);
    }

    /// Closes the span of an attempt after which another is made.
    pub fn abandon_attempt(&self, info: &mut StreamInfo) {
        if let Some(attempt) = info.attempt_span.take() {
            self.push_attempt(&attempt, info, None);
        }
    }

    /// `status` is that of the answer that the client got; none where the attempt was given up.
    fn push_attempt(&self, attempt: &AttemptSpan, info: &StreamInfo, status: Option<u16>) {
        let Some(sink) = self.sink.as_ref().filter(|_| attempt.context.is_sampled()) else { return };
        let upstream = &info.upstream;
        let mut tags: Vec<(Cow<'static, str>, String)> = vec![("component".into(), "proxy".to_owned())];
        let mut add = |key: &'static str, value: Option<String>| tags.extend(value.map(|v| (Cow::Borrowed(key), v)));
        add("http.protocol", upstream.protocol.map(|protocol| protocol.as_str().to_owned()));
        let address = upstream.host.as_ref().map(ToString::to_string);
        add("upstream_address", address.clone());
        add("peer.address", address);
        add("upstream_cluster", upstream.cluster.as_ref().map(|cluster| cluster.name.to_string()));
        add("upstream_cluster.name", upstream.cluster.as_ref().map(|cluster| cluster.stat_name.to_string()));
        add("http.status_code", status.map(|status| status.to_string()));
        add("response_flags", Some(info.flags.to_string()));
        let retries = upstream.attempts.saturating_sub(1);
        add("retry.count", (retries > 0).then(|| retries.to_string()));
        let error = status.is_none_or(|status| status >= 500);
        if error {
            tags.push(("error".into(), "true".to_owned()));
        }
        let cluster = upstream.cluster.as_ref().map(|cluster| &*cluster.stat_name).unwrap_or_default();
        let name = match &self.config.upstream_operation {
            Some(format) => format::text(format, &Scope::new(info), Missing::Empty),
            None => format!("router {cluster} egress"),
        };
        sink.push(Span {
            context: attempt.context.clone(),
            kind: SpanKind::Client,
            name: name.into(),
            service: self.service.clone(),
            start: attempt.start,
            duration: attempt.began.elapsed(),
            tags,
            error,
            local: upstream.local.as_ref().and_then(|address| address.socket()),
            remote: upstream.host.as_ref().and_then(|address| address.socket()),
        });
    }

    /// Puts the context on a request that goes upstream: the attempt's, where it has a span of its own.
    pub fn inject(&self, head: &mut RequestHead, info: &StreamInfo) {
        let attempt = info.attempt_span.as_ref().map(|attempt| &attempt.context);
        let Some(trace) = attempt.or(info.trace.as_ref()).filter(|_| !self.config.no_context_propagation) else {
            return;
        };
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
        if let Some(attempt) = &info.attempt_span {
            self.push_attempt(attempt, info, info.response_code);
        }
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

    /// What the other side calls it, else the route's decorator, else the configured format, else Envoy's `ingress` or `egress`.
    fn operation(&self, scope: &Scope<'_>) -> String {
        if let Some(told) = &scope.info.operation {
            return told.to_string();
        }
        let decorated = scope.info.route.as_ref().and_then(|r| r.decorator.as_ref());
        match (decorated, &self.config.operation) {
            (Some(decorator), _) => decorator.operation.to_string(),
            (None, Some(format)) => format::text(format, scope, Missing::Empty),
            (None, None) if self.outbound => "egress".to_owned(),
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

    /// The name of the operation as the client's proxy tells it is the server's span's, and nothing for the application.
    pub fn take_operation(&self, headers: &mut Headers, info: &mut StreamInfo) {
        if self.outbound {
            return;
        }
        let told = headers.get_str(&name::X_ENVOY_DECORATOR_OPERATION);
        info.operation = told.filter(|operation| !operation.is_empty()).map(Box::from);
        headers.remove(&name::X_ENVOY_DECORATOR_OPERATION);
    }

    /// Tells the server's proxy what this side calls the operation, if the route propagates its decorator.
    pub fn tell_operation(&self, headers: &mut Headers, info: &StreamInfo) {
        let told = propagated(info).filter(|_| self.outbound).and_then(|told| HeaderValue::from_str(told).ok());
        if let Some(told) = told {
            headers.insert(name::X_ENVOY_DECORATOR_OPERATION, told);
        }
    }

    /// The other way round: a server's proxy that was told nothing tells, and the client's listens.
    pub fn answer_operation(&self, headers: &mut Headers, info: &mut StreamInfo) {
        if self.outbound {
            let told = headers.get_str(&name::X_ENVOY_DECORATOR_OPERATION);
            if let Some(told) = told.filter(|operation| !operation.is_empty()) {
                info.operation = Some(told.into());
            }
            headers.remove(&name::X_ENVOY_DECORATOR_OPERATION);
        } else if info.operation.is_none()
            && let Some(told) = propagated(info).and_then(|told| HeaderValue::from_str(told).ok())
        {
            headers.insert(name::X_ENVOY_DECORATOR_OPERATION, told);
        }
    }
}

/// The decorator of a forwarded route that is not for this proxy alone.
fn propagated(info: &StreamInfo) -> Option<&Arc<str>> {
    let route = info.route.as_ref()?;
    let decorator = route.decorator.as_ref().filter(|d| d.propagate)?;
    matches!(route.action, RouteAction::Forward(_)).then_some(&decorator.operation)
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
