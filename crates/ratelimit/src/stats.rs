//! Metrics, under the names that the reference server has in Prometheus.

use std::time::Duration;

use meltemi_telemetry::metrics::Labels;
use meltemi_telemetry::{Counter, Registry, Series, SeriesSet, Spec};

/// Label sets at once; those of limits that requests bring with them included.
const MAX_SERIES: usize = 10_000;
/// After this time without a request the series of a limit that no configuration names may go.
const IDLE: Duration = Duration::from_secs(3600);

static SPECS: &[Spec] = &[
    Spec::counter("ratelimit_service_rate_limit_total_hits"),
    Spec::counter("ratelimit_service_rate_limit_over_limit"),
    Spec::counter("ratelimit_service_rate_limit_near_limit"),
    Spec::counter("ratelimit_service_rate_limit_within_limit"),
    Spec::counter("ratelimit_service_rate_limit_shadow_mode"),
];

/// What is counted of one limit, in hits.
#[derive(Clone, Debug)]
pub(crate) struct LimitStats(Series);

impl LimitStats {
    pub fn total_hits(&self, hits: u64) {
        self.0.add(0, hits);
    }

    pub fn over_limit(&self, hits: u64) {
        self.0.add(1, hits);
    }

    /// Hits above 80 % of the limit.
    pub fn near_limit(&self, hits: u64) {
        self.0.add(2, hits);
    }

    pub fn within_limit(&self, hits: u64) {
        self.0.add(3, hits);
    }

    /// Hits that would have been refused.
    pub fn shadow_mode(&self, hits: u64) {
        self.0.add(4, hits);
    }
}

/// All metrics of a server.
pub(crate) struct Stats {
    pub registry: Registry,
    pub requests: Counter,
    pub service_errors: Counter,
    pub redis_errors: Counter,
    pub domain_not_found: Counter,
    pub global_shadow_mode: Counter,
    pub config_load_success: Counter,
    pub config_load_error: Counter,
    limits: SeriesSet,
}

impl Stats {
    pub fn new() -> Self {
        let registry = Registry::new();
        let one = |name| registry.counter(name, Labels::default());
        let error = |kind: &str| {
            registry.counter("ratelimit_service_should_rate_limit_error", Labels::new([("err_type", kind)]))
        };
        let method = Labels::new([("grpc_method", "ShouldRateLimit")]);
        Self {
            requests: registry.counter("ratelimit_service_total_requests", method),
            service_errors: error("service_error"),
            redis_errors: error("redis_error"),
            domain_not_found: one("ratelimit_service_rate_limit_domain_not_found"),
            global_shadow_mode: one("ratelimit_service_global_shadow_mode"),
            config_load_success: one("ratelimit_service_config_load_success"),
            config_load_error: one("ratelimit_service_config_load_error"),
            limits: SeriesSet::new(&registry, SPECS, MAX_SERIES, IDLE),
            registry,
        }
    }

    /// Of the limit at these descriptor entries (`key` or `key_value`) of a domain.
    pub fn limit<'a>(&self, domain: &'a str, entries: impl IntoIterator<Item = &'a str>) -> LimitStats {
        let keys = entries.into_iter().enumerate().map(|(i, entry)| (format!("key{}", i + 1), entry.to_owned()));
        let labels = std::iter::once(("domain".to_owned(), domain.to_owned())).chain(keys);
        LimitStats(self.limits.series(&Labels::new(labels)))
    }
}
