//! What the push machinery counts, under istiod's metric names.

use std::borrow::Cow;
use std::time::Duration;

use meltemi_telemetry::metrics::{Kind, Labels, Scope};
use meltemi_telemetry::{Counter, Gauge, Group, Registry, Spec};
use meltemi_xds::types;

/// Istiod's buckets of times, in thousandths of a second.
const PUSH_SECONDS: &[u64] = &[10, 100, 1_000, 3_000, 5_000, 10_000, 20_000, 30_000];
const CONVERGENCE_SECONDS: &[u64] = &[100, 500, 1_000, 3_000, 5_000, 10_000, 20_000, 30_000];
/// Istiod's buckets of sizes, in thousandths of a byte.
const BYTES: &[u64] = &[1_000, 10_000_000, 1_000_000_000, 4_000_000_000, 10_000_000_000, 40_000_000_000];
const TYPES: [&str; 7] = ["cds", "eds", "lds", "rds", "sds", "nds", "other"];

/// Places in a type's group.
const PUSHES: usize = 0;
const REJECTS: usize = 1;
const STALE_NONCES: usize = 2;
const PUSH_TIME: usize = 3;
const CONFIG_SIZE: usize = 4;

/// Counters of one process's pusher.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Connected proxies.
    pub connections: Gauge,
    convergence: Group,
    queue: Group,
    /// In the order of [`TYPES`].
    types: Vec<Group>,
    /// Of whole pushes, whatever their types.
    pub full_pushes: Counter,
}

impl Stats {
    pub fn new(registry: &Registry) -> Self {
        let typed = |kind: &&'static str| {
            let scope = Scope { labels: Labels::new([("type", *kind)]), ..Scope::default() };
            registry.group(
                scope,
                vec![
                    Spec::counter("pilot_xds_pushes"),
                    Spec::counter("pilot_total_xds_rejects"),
                    Spec::counter("pilot_xds_expired_nonce"),
                    histogram("pilot_xds_push_time", PUSH_SECONDS),
                    histogram("pilot_xds_config_size_bytes", BYTES),
                ],
            )
        };
        let single = |name, bounds| registry.group(Scope::default(), vec![histogram(name, bounds)]);
        Self {
            connections: registry.gauge("pilot_xds", Labels::default()),
            convergence: single("pilot_proxy_convergence_time", CONVERGENCE_SECONDS),
            queue: single("pilot_proxy_queue_time", CONVERGENCE_SECONDS),
            types: TYPES.iter().map(typed).collect(),
            full_pushes: registry.counter("pilot_xds_proxy_pushes", Labels::default()),
        }
    }

    pub(crate) fn pushed(&self, type_url: &str, bytes: usize) {
        let group = &self.types[place(type_url)];
        group.add(PUSHES, 1);
        group.record(CONFIG_SIZE, (bytes as u64).saturating_mul(1_000));
    }

    pub(crate) fn rejected(&self, type_url: &str) {
        self.types[place(type_url)].add(REJECTS, 1);
    }

    pub(crate) fn stale(&self, type_url: &str) {
        self.types[place(type_url)].add(STALE_NONCES, 1);
    }

    /// Generating and sending one type.
    pub(crate) fn push_took(&self, type_url: &str, elapsed: Duration) {
        self.types[place(type_url)].record(PUSH_TIME, thousandths(elapsed));
    }

    /// From the change until it was sent.
    pub(crate) fn converged(&self, elapsed: Duration) {
        self.full_pushes.inc();
        self.convergence.record(0, thousandths(elapsed));
    }

    /// Waiting for the proxy to answer an earlier push.
    pub(crate) fn queued(&self, elapsed: Duration) {
        self.queue.record(0, thousandths(elapsed));
    }

    /// Responses sent of a type by its short name.
    pub fn pushes(&self, short_name: &str) -> u64 {
        TYPES.iter().position(|known| *known == short_name).map_or(0, |place| self.types[place].value(PUSHES))
    }

    /// Responses rejected, of all types.
    pub fn rejects(&self) -> u64 {
        self.types.iter().map(|group| group.value(REJECTS)).sum()
    }
}

fn histogram(name: &'static str, bounds: &'static [u64]) -> Spec {
    Spec { name: Cow::Borrowed(name), kind: Kind::Histogram(bounds), tag: None }
}

fn place(type_url: &str) -> usize {
    let short = types::short_name(type_url);
    TYPES.iter().position(|known| *known == short).unwrap_or(TYPES.len() - 1)
}

fn thousandths(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
