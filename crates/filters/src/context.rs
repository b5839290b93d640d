//! What filters share in a process: who we are, and the metrics that outlive any configuration.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use meltemi_plan::jwt::RemoteKeys;
use meltemi_plan::tracing::{OtlpTarget, TracingProvider};
use meltemi_telemetry::Registry;
use meltemi_telemetry::export::{self, Encoding, Exporter, Limits, SpanSink};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::access_log::LogWriter;
use crate::chain::FilterChain;
use crate::connection_rate::ConnectionRate;
use crate::http::{JwtStats, KeyFetcher, KeyStore};
use crate::peer::LocalNode;
use crate::stats::IstioMetrics;

/// Made once at start.
#[derive(Debug)]
pub struct Context {
    pub registry: Registry,
    pub node: LocalNode,
    pub istio: IstioMetrics,
    pub logs: Arc<LogWriter>,
    pub(crate) chains: Mutex<Vec<Weak<FilterChain>>>,
    pub(crate) rates: Mutex<Vec<Weak<ConnectionRate>>>,
    exporters: Exporters,
    keys: Keys,
}

/// Span pipelines by tracing provider, and those that nobody runs yet.
#[derive(Debug, Default)]
struct Exporters {
    sinks: Mutex<Vec<(TracingProvider, SpanSink)>>,
    waiting: Mutex<VecDeque<(TracingProvider, Exporter)>>,
    arrived: Notify,
}

/// Keys that issuers serve, and the fetchers of those that nobody runs yet.
#[derive(Default)]
struct Keys {
    stores: Mutex<Vec<Weak<KeyStore>>>,
    waiting: Mutex<VecDeque<KeyFetcher>>,
    arrived: Notify,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys").field("stores", &self.stores.lock().len()).finish_non_exhaustive()
    }
}

/// `OTEL_RESOURCE_ATTRIBUTES`: `key=value` with commas between them. What is no pair is left out.
fn attributes(text: &str) -> Vec<(String, String)> {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let trimmed = pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()));
    trimmed.filter(|(key, _)| !key.is_empty()).collect()
}

impl Context {
    pub fn new(registry: &Registry, node: LocalNode) -> Arc<Self> {
        Arc::new(Self {
            registry: registry.clone(),
            istio: IstioMetrics::new(registry, &node.version),
            logs: LogWriter::start(registry),
            node,
            chains: Mutex::default(),
            rates: Mutex::default(),
            exporters: Exporters::default(),
            keys: Keys::default(),
        })
    }

    /// Where spans for a provider go. The first to ask makes its exporter, for [`Context::next_exporter`] to hand out.
    pub fn span_sink(&self, provider: &TracingProvider) -> SpanSink {
        let mut sinks = self.exporters.sinks.lock();
        if let Some((_, sink)) = sinks.iter().find(|(known, _)| known == provider) {
            return sink.clone();
        }
        let (name, encoding, resource) = match provider {
            TracingProvider::Zipkin(_) => ("zipkin", Encoding::ZipkinJson, Vec::new()),
            TracingProvider::OpenTelemetry(otel) => {
                let encoding = match otel.target {
                    OtlpTarget::Grpc { .. } => Encoding::OtlpGrpc,
                    OtlpTarget::Http { .. } => Encoding::OtlpHttp,
                };
                let pairs = otel.resource_attributes.iter().map(|(k, v)| (k.to_string(), v.to_string()));
                let named = otel.detect_environment.then(|| std::env::var("OTEL_RESOURCE_ATTRIBUTES").ok()).flatten();
                let detected = attributes(named.as_deref().unwrap_or_default());
                ("opentelemetry", encoding, detected.into_iter().chain(pairs).collect())
            }
        };
        let (sink, exporter) = export::pipeline(&self.registry, name, encoding, resource, Limits::default());
        sinks.push((provider.clone(), sink.clone()));
        self.exporters.waiting.lock().push_back((provider.clone(), exporter));
        self.exporters.arrived.notify_one();
        sink
    }

    /// The keys that an issuer serves. The first to ask makes their fetcher, for [`Context::next_key_fetcher`] to hand out.
    pub(crate) fn key_store(&self, plan: &RemoteKeys, stats: &Arc<JwtStats>) -> Arc<KeyStore> {
        let mut stores = self.keys.stores.lock();
        stores.retain(|store| store.strong_count() > 0);
        if let Some(known) = stores.iter().filter_map(Weak::upgrade).find(|store| store.plan() == plan) {
            return known;
        }
        let (store, fetcher) = KeyStore::new(plan.clone(), stats.clone());
        stores.push(Arc::downgrade(&store));
        self.keys.waiting.lock().push_back(fetcher);
        self.keys.arrived.notify_one();
        store
    }

    /// Waits for keys that are to be fetched; run what comes beside the requests.
    pub async fn next_key_fetcher(&self) -> KeyFetcher {
        loop {
            if let Some(next) = self.keys.waiting.lock().pop_front() {
                return next;
            }
            self.keys.arrived.notified().await;
        }
    }

    /// Waits for a provider that was not seen before; run its exporter with a transport to the provider's cluster.
    pub async fn next_exporter(&self) -> (TracingProvider, Exporter) {
        loop {
            if let Some(next) = self.exporters.waiting.lock().pop_front() {
                return next;
            }
            self.exporters.arrived.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::attributes;

    #[test]
    fn attributes_of_the_environment_are_pairs() {
        let found = attributes("deployment.environment=prod, team = web,broken,=x,empty=");
        let found: Vec<_> = found.iter().map(|(key, value)| (&**key, &**value)).collect();
        assert_eq!(found, [("deployment.environment", "prod"), ("team", "web"), ("empty", "")]);
        assert!(attributes("").is_empty());
    }
}
