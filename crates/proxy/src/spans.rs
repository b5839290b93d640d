//! Delivers spans: each tracing provider's exporter gets the provider's cluster as its transport.
//!
//! Runs on the main runtime. Must never be waited for by a worker: what a collector does not take in time is dropped.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use meltemi_filters::Context;
use meltemi_plan::tracing::{OtlpTarget, TracingProvider};
use meltemi_telemetry::export::{Encoding, OTLP_GRPC_PATH, Transport};
use meltemi_upstream::Post;
use tokio::sync::watch;

use crate::World;

/// How often label sets that nobody uses any more are let go.
const SWEEP: Duration = Duration::from_secs(60);

/// Runs exporters as configurations name their providers, for the life of the process.
pub async fn run(context: Arc<Context>, worlds: watch::Receiver<Arc<World>>) {
    let mut sweep = tokio::time::interval(SWEEP);
    let mut exporters = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            (provider, exporter) = context.next_exporter() => {
                exporters.spawn(exporter.run(transport(provider, worlds.clone())));
            }
            _ = sweep.tick() => context.istio.expire(Instant::now()),
        }
    }
}

fn transport(provider: TracingProvider, worlds: watch::Receiver<Arc<World>>) -> Transport {
    let provider = Arc::new(provider);
    Box::new(move |body| {
        let (provider, world) = (provider.clone(), worlds.borrow().clone());
        Box::pin(async move { deliver(&provider, &world, body).await })
    })
}

async fn deliver(provider: &TracingProvider, world: &World, body: Bytes) -> Result<(), String> {
    let (name, headers) = match provider {
        TracingProvider::Zipkin(zipkin) => (&zipkin.cluster, &[][..]),
        TracingProvider::OpenTelemetry(otel) => match &otel.target {
            OtlpTarget::Grpc { cluster, .. } | OtlpTarget::Http { cluster, .. } => (cluster, &otel.headers[..]),
        },
    };
    let cluster = world.clusters.get(name).ok_or_else(|| format!("no cluster {name}"))?;
    let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (&**k, &**v)).collect();
    cluster.post(request(provider, &headers), body).await.map_err(|error| error.to_string())
}

fn request<'a>(provider: &'a TracingProvider, headers: &'a [(&'a str, &'a str)]) -> Post<'a> {
    let named = |authority: &'a Arc<str>, cluster: &'a Arc<str>| {
        if authority.is_empty() { &**cluster } else { &**authority }
    };
    let (authority, path, encoding) = match provider {
        TracingProvider::Zipkin(zipkin) => {
            (named(&zipkin.hostname, &zipkin.cluster), &*zipkin.path, Encoding::ZipkinJson)
        }
        TracingProvider::OpenTelemetry(otel) => match &otel.target {
            OtlpTarget::Grpc { cluster, authority } => (named(authority, cluster), OTLP_GRPC_PATH, Encoding::OtlpGrpc),
            OtlpTarget::Http { cluster, authority, path } => (named(authority, cluster), &**path, Encoding::OtlpHttp),
        },
    };
    let http2 = encoding == Encoding::OtlpGrpc;
    Post { authority, path, content_type: encoding.content_type(), headers, http2 }
}
