//! The control plane's own metrics, under istiod's names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use meltemi_config::{Key, Kind, Problem, Severity};
use meltemi_model::Snapshot;
use meltemi_store::{ChangeSet, ConfigSet};
use meltemi_telemetry::metrics::Labels;
use meltemi_telemetry::{Counter, Gauge, Registry};
use meltemi_webhook::server::InjectionStats;

use crate::keys::KeyStats;
use crate::registration::RegistrationStats;

/// What set a push off, in istiod's words.
const TRIGGERS: [&str; 4] = ["config", "endpoint", "service", "global"];

#[derive(Clone)]
pub(crate) struct Stats {
    pub registry: Registry,
    pub push: meltemi_push::Stats,
    pub registrations: RegistrationStats,
    pub keys: KeyStats,
    pub injection: InjectionStats,
    pub refused_streams: Counter,
    /// Streams refused because as many as may be were served.
    pub full: Counter,
    services: Gauge,
    virtual_services: Gauge,
    triggers: Vec<Counter>,
    inbound_config: Counter,
    inbound_services: Counter,
    inbound_endpoints: Counter,
    /// Documents taken (true) or refused, by kind.
    validated: Arc<Mutex<BTreeMap<(Kind, bool), Counter>>>,
    _constant: [Gauge; 2],
}

impl Stats {
    pub(crate) fn new() -> Self {
        let registry = Registry::new();
        let inbound = |kind: &str| registry.counter("pilot_inbound_updates", Labels::new([("type", kind)]));
        let info =
            registry.gauge("istio_build", Labels::new([("component", "pilot"), ("tag", env!("CARGO_PKG_VERSION"))]));
        info.set(1);
        let clusters = registry.gauge("istiod_managed_clusters", Labels::new([("cluster_type", "local")]));
        clusters.set(1);
        Self {
            push: meltemi_push::Stats::new(&registry),
            registrations: RegistrationStats::new(&registry),
            keys: KeyStats::new(&registry),
            injection: InjectionStats::new(&registry),
            refused_streams: registry.counter("pilot_xds_cds_refused_connections", Labels::default()),
            full: registry.counter("pilot_xds_full_connections", Labels::default()),
            services: registry.gauge("pilot_services", Labels::default()),
            virtual_services: registry.gauge("pilot_virt_services", Labels::default()),
            triggers: TRIGGERS
                .map(|kind| registry.counter("pilot_push_triggers", Labels::new([("type", kind)])))
                .into(),
            inbound_config: inbound("config"),
            inbound_services: inbound("svc"),
            inbound_endpoints: inbound("eds"),
            validated: Arc::default(),
            _constant: [info, clusters],
            registry,
        }
    }

    /// Sets the gauges that describe a snapshot.
    pub(crate) fn describe(&self, snapshot: &Snapshot, set: &ConfigSet) {
        self.services.set(snapshot.services.len() as u64);
        self.virtual_services.set(set.of_kind(Kind::VirtualService).count() as u64);
    }

    /// Counts what came in.
    pub(crate) fn received(&self, changes: &ChangeSet) {
        for key in changes.keys() {
            match key.kind {
                Kind::EndpointSlice | Kind::Endpoints | Kind::Pod => self.inbound_endpoints.inc(),
                Kind::Service => self.inbound_services.inc(),
                _ => self.inbound_config.inc(),
            }
        }
        self.passed(&changes.upserted);
    }

    /// Counts documents that were taken.
    pub(crate) fn passed<'a>(&self, keys: impl IntoIterator<Item = &'a Key>) {
        keys.into_iter().for_each(|key| self.validated(key.kind, true));
    }

    /// Counts documents that were refused; each once, whatever the number of its problems.
    pub(crate) fn refused<'a>(&self, problems: impl Iterator<Item = &'a Problem>) {
        let errors = problems.filter(|problem| problem.severity == Severity::Error);
        let keys: BTreeSet<&Key> = errors.filter_map(|problem| problem.object.as_ref()).collect();
        keys.into_iter().for_each(|key| self.validated(key.kind, false));
    }

    /// Only of Istio's own kinds, as its webhook is asked about no others.
    fn validated(&self, kind: Kind, passed: bool) {
        if !kind.is_istio() {
            return;
        }
        let name = if passed { "galley_validation_passed" } else { "galley_validation_failed" };
        let info = kind.info();
        let new = || {
            let mut labels = vec![("group", info.group), ("resource", info.plural), ("version", info.versions[0])];
            if !passed {
                labels.push(("reason", "invalid_resource"));
            }
            self.registry.counter(name, Labels::new(labels))
        };
        let mut counters = self.validated.lock().unwrap_or_else(PoisonError::into_inner);
        counters.entry((kind, passed)).or_insert_with(new).inc();
    }

    /// Counts what set a push off.
    pub(crate) fn triggered(&self, change: &meltemi_model::Change) {
        let place = match change {
            change if change.full => 3,
            change if change.is_endpoints_only() => 1,
            change if change.configs.is_empty() && change.selections.is_empty() => 2,
            _ => 0,
        };
        self.triggers[place].inc();
    }
}
