//! What the push machinery counts, under istiod's metric names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meltemi_telemetry::metrics::{Kind, Labels, Scope};
use meltemi_telemetry::{Counter, Gauge, Group, Registry, Spec};
use meltemi_xds::types;
use parking_lot::Mutex;

/// Istiod's buckets of times, in thousandths of a second.
const SNAPSHOT_SECONDS: &[u64] = &[10, 100, 500, 1_000, 3_000, 5_000, 10_000, 20_000, 30_000];
const PUSH_SECONDS: &[u64] = &[10, 100, 1_000, 3_000, 5_000, 10_000, 20_000, 30_000];
const CONVERGENCE_SECONDS: &[u64] = &[100, 500, 1_000, 3_000, 5_000, 10_000, 20_000, 30_000];
/// Istiod's buckets of sizes, in thousandths of a byte.
const BYTES: &[u64] = &[1_000, 10_000_000, 1_000_000_000, 4_000_000_000, 10_000_000_000, 40_000_000_000];
const TYPES: [&str; 7] = ["cds", "eds", "lds", "rds", "sds", "nds", "other"];
/// Versions of proxies come from proxies: more, and longer ones, count as one.
const MAX_VERSIONS: usize = 50;
const MAX_VERSION_BYTES: usize = 64;

/// Places in a type's group.
const PUSHES: usize = 0;
const REJECTS: usize = 1;
const STALE_NONCES: usize = 2;
const PUSH_TIME: usize = 3;
const CONFIG_SIZE: usize = 4;

/// Counters of one process's pusher.
#[derive(Clone, Debug)]
pub struct Stats {
    connections: Arc<Connections>,
    convergence: Times,
    queue: Times,
    send: Times,
    debounce: Times,
    snapshot: Times,
    /// In the order of [`TYPES`].
    types: Vec<(Group, Times)>,
    /// Of whole pushes, whatever their types.
    pub full_pushes: Counter,
}

impl Stats {
    pub fn new(registry: &Registry) -> Self {
        let typed = |kind: &&'static str| {
            let scope = Scope { labels: Labels::new([("type", *kind)]), ..Scope::default() };
            let group = registry.group(
                scope,
                vec![
                    Spec::counter("pilot_xds_pushes"),
                    Spec::counter("pilot_total_xds_rejects"),
                    Spec::counter("pilot_xds_expired_nonce"),
                    histogram("pilot_xds_push_time", PUSH_SECONDS),
                    histogram("pilot_xds_config_size_bytes", BYTES),
                ],
            );
            let times = Times::new(group.clone(), PUSH_TIME);
            (group, times)
        };
        let single = |name, bounds| Times::new(registry.group(Scope::default(), vec![histogram(name, bounds)]), 0);
        Self {
            connections: Arc::new(Connections { registry: registry.clone(), versions: Mutex::default() }),
            convergence: single("pilot_proxy_convergence_time", CONVERGENCE_SECONDS),
            queue: single("pilot_proxy_queue_time", CONVERGENCE_SECONDS),
            send: single("pilot_xds_send_time", PUSH_SECONDS),
            debounce: single("pilot_debounce_time", CONVERGENCE_SECONDS),
            snapshot: single("pilot_pushcontext_init_seconds", SNAPSHOT_SECONDS),
            types: TYPES.iter().map(typed).collect(),
            full_pushes: registry.counter("pilot_xds_proxy_pushes", Labels::default()),
        }
    }

    /// Connected proxies.
    pub fn connected(&self) -> u64 {
        self.connections.versions.lock().values().map(Gauge::value).sum()
    }

    /// A proxy of this version has connected; the caller counts it down when it leaves.
    pub(crate) fn connection(&self, version: &str) -> Gauge {
        let gauge = self.connections.of(version);
        gauge.inc();
        gauge
    }

    pub(crate) fn pushed(&self, type_url: &str, bytes: usize) {
        let (group, _) = &self.types[place(type_url)];
        group.add(PUSHES, 1);
        group.record(CONFIG_SIZE, (bytes as u64).saturating_mul(1_000));
    }

    pub(crate) fn rejected(&self, type_url: &str) {
        self.types[place(type_url)].0.add(REJECTS, 1);
    }

    pub(crate) fn stale(&self, type_url: &str) {
        self.types[place(type_url)].0.add(STALE_NONCES, 1);
    }

    /// Generating one type.
    pub(crate) fn push_took(&self, type_url: &str, elapsed: Duration) {
        self.types[place(type_url)].1.record(elapsed);
    }

    /// Waiting until the transport takes a response.
    pub(crate) fn send_took(&self, elapsed: Duration) {
        self.send.record(elapsed);
    }

    /// From the first change of a batch until no more was waited for.
    pub fn debounced(&self, elapsed: Duration) {
        self.debounce.record(elapsed);
    }

    /// Making the snapshot that follows a batch of changes.
    pub fn initialised(&self, elapsed: Duration) {
        self.snapshot.record(elapsed);
    }

    /// From the change until it was sent.
    pub(crate) fn converged(&self, elapsed: Duration) {
        self.full_pushes.inc();
        self.convergence.record(elapsed);
    }

    /// Waiting for the proxy to answer an earlier push.
    pub(crate) fn queued(&self, elapsed: Duration) {
        self.queue.record(elapsed);
    }

    /// Responses sent of a type by its short name.
    pub fn pushes(&self, short_name: &str) -> u64 {
        TYPES.iter().position(|known| *known == short_name).map_or(0, |place| self.types[place].0.value(PUSHES))
    }

    /// Responses rejected, of all types.
    pub fn rejects(&self) -> u64 {
        self.types.iter().map(|(group, _)| group.value(REJECTS)).sum()
    }
}

/// Connected proxies by version.
#[derive(Debug)]
struct Connections {
    registry: Registry,
    versions: Mutex<BTreeMap<Box<str>, Gauge>>,
}

impl Connections {
    fn of(&self, version: &str) -> Gauge {
        let mut versions = self.versions.lock();
        let is_known = versions.contains_key(version);
        let version = match version {
            "" => "unknown",
            known if is_known => known,
            new if versions.len() < MAX_VERSIONS && new.len() <= MAX_VERSION_BYTES => new,
            _ => "other",
        };
        let new = || self.registry.gauge("pilot_xds", Labels::new([("version", version)]));
        versions.entry(version.into()).or_insert_with(new).clone()
    }
}

/// A histogram of times whose sum is exact to the microsecond it was told: cells hold thousandths of a second, and what
/// is less than one is carried on to the next value.
#[derive(Clone, Debug)]
struct Times {
    group: Group,
    index: usize,
    rest_micros: Arc<AtomicU64>,
}

impl Times {
    fn new(group: Group, index: usize) -> Self {
        Self { group, index, rest_micros: Arc::default() }
    }

    fn record(&self, elapsed: Duration) {
        let micros = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        let micros = micros.saturating_add(self.rest_micros.swap(0, Ordering::Relaxed));
        self.rest_micros.fetch_add(micros % 1_000, Ordering::Relaxed);
        self.group.record(self.index, micros / 1_000);
    }
}

fn histogram(name: &'static str, bounds: &'static [u64]) -> Spec {
    Spec { name: Cow::Borrowed(name), kind: Kind::Histogram(bounds), tag: None }
}

fn place(type_url: &str) -> usize {
    let short = types::short_name(type_url);
    TYPES.iter().position(|known| *known == short).unwrap_or(TYPES.len() - 1)
}

#[cfg(test)]
mod tests;
