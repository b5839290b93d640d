//! What the push machinery counts, under istiod's metric names.

use std::borrow::Cow;
use std::time::Duration;

use meltemi_telemetry::metrics::{Kind, Labels, Scope};
use meltemi_telemetry::{Counter, Gauge, Group, Registry, Spec};
use meltemi_xds::types;

/// Istiod's buckets for convergence and push time, in thousandths of a second.
const SECONDS: &[u64] = &[100, 500, 1_000, 3_000, 5_000, 10_000, 20_000, 30_000];
const TYPES: [&str; 7] = ["cds", "eds", "lds", "rds", "sds", "nds", "other"];

/// Counters of one process's pusher.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Connected proxies.
    pub connections: Gauge,
    pub rejects: Counter,
    pub stale_nonces: Counter,
    pushes: Vec<Counter>,
    push_bytes: Vec<Counter>,
    type_rejects: Vec<Counter>,
    times: Group,
}

impl Stats {
    pub fn new(registry: &Registry) -> Self {
        let typed = |name: &'static str, suffix: &str| -> Vec<Counter> {
            let labels = TYPES.iter().map(|kind| Labels::new([("type", format!("{kind}{suffix}"))]));
            labels.map(|labels| registry.counter(name, labels)).collect()
        };
        let histogram =
            |name: &'static str| Spec { name: Cow::Borrowed(name), kind: Kind::Histogram(SECONDS), tag: None };
        Self {
            connections: registry.gauge("pilot_xds", Labels::default()),
            rejects: registry.counter("pilot_total_xds_rejects", Labels::default()),
            stale_nonces: registry.counter("pilot_xds_expired_nonce", Labels::default()),
            pushes: typed("pilot_xds_pushes", ""),
            push_bytes: typed("pilot_xds_pushed_bytes", ""),
            type_rejects: typed("pilot_xds_rejects", ""),
            times: registry.group(
                Scope::default(),
                vec![
                    histogram("pilot_proxy_convergence_time"),
                    histogram("pilot_xds_push_time"),
                    histogram("pilot_proxy_queue_time"),
                ],
            ),
        }
    }

    pub(crate) fn pushed(&self, type_url: &str, bytes: usize) {
        let place = place(type_url);
        self.pushes[place].inc();
        self.push_bytes[place].add(bytes as u64);
    }

    pub(crate) fn rejected(&self, type_url: &str) {
        self.rejects.inc();
        self.type_rejects[place(type_url)].inc();
    }

    /// From the change until it was sent.
    pub(crate) fn converged(&self, elapsed: Duration) {
        self.times.record(0, thousandths(elapsed));
    }

    /// Generating and sending.
    pub(crate) fn push_took(&self, elapsed: Duration) {
        self.times.record(1, thousandths(elapsed));
    }

    /// Waiting for the proxy to answer an earlier push.
    pub(crate) fn queued(&self, elapsed: Duration) {
        self.times.record(2, thousandths(elapsed));
    }

    /// Pushes sent of a type by its short name, for tests and debugging.
    pub fn pushes(&self, short_name: &str) -> u64 {
        TYPES.iter().position(|known| *known == short_name).map_or(0, |place| self.pushes[place].value())
    }
}

fn place(type_url: &str) -> usize {
    let short = types::short_name(type_url);
    TYPES.iter().position(|known| *known == short).unwrap_or(TYPES.len() - 1)
}

fn thousandths(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
