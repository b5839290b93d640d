//! Spans from workers to a collector: a bounded queue, batches, and the encoders.
//!
//! Workers push a finished [`Span`] and never wait: when the queue is full the span is dropped and counted. One task per
//! exporter batches and hands encoded bytes to a [`Transport`], which belongs to whoever has sockets.

mod otlp;
#[cfg(test)]
mod tests;
mod zipkin;

use std::borrow::Cow;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::TraceContext;
use crate::metrics::{Registry, Scope, Spec};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    Server,
    Client,
}

/// One finished span.
#[derive(Clone, Debug)]
pub struct Span {
    pub context: TraceContext,
    pub kind: SpanKind,
    /// The operation.
    pub name: Cow<'static, str>,
    /// The service that reports it (`service.name`, Zipkin's local endpoint).
    pub service: Arc<str>,
    pub start: SystemTime,
    pub duration: Duration,
    pub tags: Vec<(Cow<'static, str>, String)>,
    pub error: bool,
    pub local: Option<SocketAddr>,
    pub remote: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// A gRPC-framed `ExportTraceServiceRequest`, to be posted to [`OTLP_GRPC_PATH`].
    OtlpGrpc,
    /// The bare protobuf, for OTLP over HTTP.
    OtlpHttp,
    /// Zipkin v2 JSON for `/api/v2/spans`.
    ZipkinJson,
}

pub const OTLP_GRPC_PATH: &str = meltemi_proto::otlp::EXPORT_METHOD;

impl Encoding {
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "application/grpc",
            Self::OtlpHttp => "application/x-protobuf",
            Self::ZipkinJson => "application/json",
        }
    }

    pub fn encode(self, spans: &[Span], resource: &[(String, String)]) -> Bytes {
        match self {
            Self::OtlpGrpc => otlp::grpc_frame(&otlp::encode(spans, resource)),
            Self::OtlpHttp => otlp::encode(spans, resource),
            Self::ZipkinJson => zipkin::encode(spans),
        }
    }
}

/// Delivers one encoded batch; an error is logged and counted, and the batch is gone.
pub type Transport = Box<dyn Fn(Bytes) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Spans waiting; more are dropped.
    pub queue: usize,
    /// Spans in one batch.
    pub batch: usize,
    /// A smaller batch goes out after this.
    pub delay: Duration,
    /// For one delivery.
    pub timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { queue: 4096, batch: 512, delay: Duration::from_secs(5), timeout: Duration::from_secs(10) }
    }
}

crate::stats! {
    /// What became of spans; named as Envoy's tracers name theirs.
    pub struct ExportStats {
        spans_sent: Spec::counter("spans_sent"),
        spans_dropped: Spec::counter("spans_dropped"),
        reports_sent: Spec::counter("reports_sent"),
        reports_dropped: Spec::counter("reports_dropped"),
    }
}

/// Where workers push spans; cheap to clone.
#[derive(Clone, Debug)]
pub struct SpanSink {
    queue: mpsc::Sender<Span>,
    stats: ExportStats,
}

impl SpanSink {
    /// Never waits.
    pub fn push(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.stats.spans_dropped().inc();
        }
    }
}

impl std::fmt::Debug for Exporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exporter").field("encoding", &self.encoding).finish_non_exhaustive()
    }
}

/// The consuming end; [`Exporter::run`] it on the main runtime.
pub struct Exporter {
    queue: mpsc::Receiver<Span>,
    stats: ExportStats,
    limits: Limits,
    encoding: Encoding,
    resource: Vec<(String, String)>,
}

/// A queue and its exporter. `resource` are OTLP's resource attributes besides `service.name`.
pub fn pipeline(
    registry: &Registry,
    name: &str,
    encoding: Encoding,
    resource: Vec<(String, String)>,
    limits: Limits,
) -> (SpanSink, Exporter) {
    let stats = ExportStats::new(registry, Scope::plain(&format!("tracing.{name}")));
    let (sender, receiver) = mpsc::channel(limits.queue);
    let sink = SpanSink { queue: sender, stats: stats.clone() };
    (sink, Exporter { queue: receiver, stats, limits, encoding, resource })
}

impl Exporter {
    /// Runs until every sink is gone, then delivers what is left.
    pub async fn run(mut self, transport: Transport) {
        let mut batch = Vec::with_capacity(self.limits.batch);
        while self.fill(&mut batch).await {
            self.deliver(&mut batch, &transport).await;
        }
    }

    /// Waits for a first span, then for a full batch or the delay. False when there will be no more.
    async fn fill(&mut self, batch: &mut Vec<Span>) -> bool {
        let Some(first) = self.queue.recv().await else { return false };
        batch.push(first);
        let deadline = tokio::time::Instant::now() + self.limits.delay;
        while batch.len() < self.limits.batch {
            match tokio::time::timeout_at(deadline, self.queue.recv()).await {
                Ok(Some(span)) => batch.push(span),
                Ok(None) | Err(_) => break,
            }
        }
        true
    }

    async fn deliver(&self, batch: &mut Vec<Span>, transport: &Transport) {
        let bytes = self.encoding.encode(batch, &self.resource);
        let outcome = tokio::time::timeout(self.limits.timeout, transport(bytes)).await;
        match outcome.unwrap_or_else(|_| Err("timed out".to_owned())) {
            Ok(()) => {
                self.stats.reports_sent().inc();
                self.stats.spans_sent().add(batch.len() as u64);
            }
            Err(reason) => {
                tracing::debug!(reason, spans = batch.len(), "span batch lost");
                self.stats.reports_dropped().inc();
                self.stats.spans_dropped().add(batch.len() as u64);
            }
        }
        batch.clear();
    }
}
