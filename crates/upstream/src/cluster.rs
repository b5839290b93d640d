//! A cluster at run time: its members, how one is chosen, its limits and its metrics.
//!
//! Shared by all workers. `pick`, `report` and the breakers are called per request and take no lock unless a host's health
//! changes. Updates and tasks run on the main runtime.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use meltemi_net::proxy_protocol;
use meltemi_plan::anomaly::Sample;
use meltemi_plan::cluster::OutlierDetection;
use meltemi_plan::{ClusterKind, LoadAssignment};
use meltemi_telemetry::Registry;
use meltemi_tls::ClientTls;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::adapt;
use crate::balance::{LbState, OverrideHost, PickContext, PickError};
use crate::breakers::Breakers;
use crate::dns_cache::{self, DnsCache};
use crate::endpoint::{Endpoint, Fault};
use crate::latency::PeakEwma;
use crate::members::{self, HostGroup, Lifecycle};
use crate::original_dst::OriginalDst;
use crate::outlier::{Detector, Outcome};
use crate::set::{EndpointSet, LocalityMembers, Policy, Shape};
use crate::stats::{AnomalyStats, ClusterStats, Names, OutlierStats};
use crate::subset::Subsets;
use crate::tasks::Tasks;
use crate::zone::{Local, Origin, Zone, ZoneStats};

/// How bytes reach an endpoint.
#[derive(Clone, Debug)]
pub enum Transport {
    Plain,
    Tls(Arc<ClientTls>),
}

impl Transport {
    pub fn tls(&self) -> Option<&ClientTls> {
        match self {
            Self::Plain => None,
            Self::Tls(tls) => Some(tls),
        }
    }
}

/// Named clusters of one world; immutable.
#[derive(Clone, Debug, Default)]
pub struct ClusterSet(HashMap<Arc<str>, Arc<Cluster>>);

impl ClusterSet {
    pub fn get(&self, name: &str) -> Option<&Arc<Cluster>> {
        self.0.get(name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Cluster>> {
        self.0.values()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Arc<Cluster>> for ClusterSet {
    fn from_iter<I: IntoIterator<Item = Arc<Cluster>>>(clusters: I) -> Self {
        Self(clusters.into_iter().map(|c| (c.plan.name.clone(), c)).collect())
    }
}

#[derive(Debug)]
struct Members {
    list: Vec<LocalityMembers>,
    shape: Shape,
}

#[derive(Debug)]
pub struct Cluster {
    pub plan: Arc<meltemi_plan::Cluster>,
    pub stats: ClusterStats,
    pub breakers: Arc<Breakers>,
    /// The default first; others are chosen by endpoint metadata.
    pub transports: Vec<Transport>,
    pub(crate) registry: Registry,
    policy: Policy,
    lifecycle: Lifecycle,
    set: ArcSwap<EndpointSet>,
    /// Only where the plan has subsets.
    subsets: ArcSwapOption<Subsets>,
    members: Mutex<Members>,
    outlier: Option<Detector>,
    /// The balancer or anomaly detection wants to know how long answers take.
    times_answers: bool,
    anomalies: Option<AnomalyStats>,
    original_dst: Option<Arc<OriginalDst>>,
    dns_cache: Option<Arc<DnsCache>>,
    /// True once hosts are known (and, with active checks, have answered).
    warm: AtomicBool,
    /// Told when `warm` becomes true, once the cluster has started.
    announce: OnceLock<Arc<Notify>>,
    /// Told of every change of members, where active checks follow them.
    pub(crate) changed: Option<Arc<Notify>>,
    /// What it has to do with zone aware routing, once the cluster has started.
    zone: OnceLock<ZoneRole>,
    pub(crate) tasks: Tasks,
}

/// A cluster's part in zone aware routing.
#[derive(Debug)]
enum ZoneRole {
    /// The proxy is part of it: the others are told what it is like.
    Origin(Local),
    /// Its localities are chosen by what the origin is like.
    Follower(tokio::sync::watch::Receiver<Arc<Origin>>, ZoneStats),
}

impl Cluster {
    /// A cluster in its first or next version. With `previous` of the same name, hosts keep their identity and health, and
    /// metrics go on. `transports` are those of the plan in its order, the default first.
    pub fn new(
        plan: Arc<meltemi_plan::Cluster>,
        transports: Vec<Transport>,
        registry: &Registry,
        previous: Option<&Self>,
    ) -> Arc<Self> {
        let names = Names::new(&plan.stat_name);
        let previous_stats = previous.filter(|p| p.plan.stat_name == plan.stat_name);
        let stats = previous_stats.map_or_else(|| ClusterStats::new(registry, &names), |p| p.stats.clone());
        let breakers = match previous_stats {
            Some(p) => Breakers::next(&p.breakers, &plan.breakers),
            None => Breakers::new(plan.breakers.clone(), stats.membership.clone()),
        };
        let anomalies = anomaly_stats(&plan, (registry, &names), previous_stats);
        let outlier = detector(&plan, (registry, &names), previous_stats);
        let shape = adapt::shape(&plan);
        let original_dst = matches!(plan.kind, ClusterKind::OriginalDst(_) | ClusterKind::DynamicForward(_))
            .then(|| previous.and_then(|p| p.original_dst.clone()).unwrap_or_default());
        let dns_cache = match &plan.kind {
            ClusterKind::DynamicForward(settings) => Some(dns_cache::shared(settings, registry)),
            _ => None,
        };
        let cluster = Self {
            times_answers: anomalies.is_some() || matches!(shape.policy, Policy::PeakEwma(_)),
            anomalies,
            lifecycle: adapt::lifecycle(&plan),
            policy: shape.policy,
            set: ArcSwap::default(),
            subsets: ArcSwapOption::empty(),
            members: Mutex::new(Members { list: Vec::new(), shape }),
            warm: AtomicBool::new(original_dst.is_some()),
            announce: OnceLock::new(),
            changed: (!plan.health_checks.is_empty()).then(Arc::default),
            zone: OnceLock::new(),
            tasks: Tasks::default(),
            registry: registry.clone(),
            plan,
            stats,
            breakers,
            transports,
            outlier,
            original_dst,
            dns_cache,
        };
        cluster.set_first_members(previous);
        Arc::new(cluster)
    }

    /// Those of the version before, then those that the plan itself names.
    fn set_first_members(&self, previous: Option<&Self>) {
        if let Some(previous) = previous {
            self.inherit(previous);
        }
        if self.plan.kind == ClusterKind::Static {
            match self.plan.load_assignment.clone() {
                Some(assignment) => self.assign(&assignment),
                // Nothing will ever come: Istio's black hole is such a cluster.
                None => self.set_warm(),
            }
        }
    }

    /// Takes over members as they are, until an update of our own says otherwise.
    fn inherit(&self, previous: &Self) {
        let old = previous.members.lock().list.clone();
        if old.is_empty() {
            return;
        }
        let groups: Vec<HostGroup> = old.iter().map(|l| adapt::as_group(&self.plan, l)).collect();
        let list = members::update(&old, &groups, self.lifecycle).members;
        if let Some(detector) = &self.outlier {
            list.iter().flat_map(|l| &l.hosts).for_each(|h| detector.adopt(h));
        }
        self.members.lock().list = list;
        self.rebuild();
        self.warm.store(previous.is_warm(), Ordering::Release);
    }

    /// An EDS update, or the hosts of a static cluster.
    pub fn assign(&self, assignment: &LoadAssignment) {
        self.stats.membership.update_success().inc();
        if assignment.localities.iter().all(|l| l.endpoints.is_empty()) {
            self.stats.membership.update_empty().inc();
        }
        self.set_members(assignment, &adapt::groups(&self.plan, assignment));
    }

    /// Replaces the members by `groups`, which are `assignment`'s with names resolved.
    pub fn set_members(&self, assignment: &LoadAssignment, groups: &[HostGroup]) {
        let (added, removed) = {
            let mut members = self.members.lock();
            let update = members::update(&members.list, groups, self.lifecycle);
            members.list = update.members;
            members.shape.overprovisioning = assignment.overprovisioning_factor;
            members.shape.weighted_priority_health = assignment.weighted_priority_health;
            (update.added, update.removed)
        };
        if let Some(detector) = &self.outlier {
            removed.iter().for_each(|h| detector.forget(h));
        }
        self.stats.membership.membership_change().add((added + removed.len()) as u64);
        self.rebuild();
        self.tell_of_change();
        if !self.lifecycle.checked || groups.iter().all(|g| g.hosts.is_empty()) {
            self.set_warm();
        }
    }

    fn tell_of_change(&self) {
        if let Some(changed) = &self.changed {
            changed.notify_one();
        }
    }

    /// Makes the set that requests see from the members and their health as they are now.
    pub fn rebuild(&self) {
        let members = self.members.lock();
        let zone = self.zone(&members.list);
        let set = Arc::new(EndpointSet::zoned(&members.list, &members.shape, zone.as_ref()));
        let stats = &self.stats.membership;
        stats.membership_total().set(set.len() as u64);
        stats.membership_healthy().set(set.healthy as u64);
        stats.membership_degraded().set(set.degraded as u64);
        stats.membership_excluded().set(set.excluded as u64);
        stats.max_host_weight().set(set.hosts().map(|h| u64::from(h.weight)).max().unwrap_or(0));
        // Under the members' lock, so that the last change is the one that stays.
        self.set.store(set);
        if let Some(config) = &self.plan.subsets {
            self.subsets.store(Some(Arc::new(Subsets::new(config, &members.list, &members.shape, zone.as_ref()))));
        }
    }

    /// What localities are routed by. The origin tells the others of itself instead.
    fn zone(&self, members: &[LocalityMembers]) -> Option<Zone> {
        match self.zone.get()? {
            ZoneRole::Origin(local) => {
                let now = Origin::new(local.locality.clone(), members);
                local.origin.send_if_modified(|origin| {
                    let differs = **origin != now;
                    if differs {
                        *origin = Arc::new(now);
                    }
                    differs
                });
                None
            }
            ZoneRole::Follower(origin, stats) => Some(Zone {
                settings: self.plan.lb.locality.zone_aware(),
                origin: origin.borrow().clone(),
                stats: stats.clone(),
            }),
        }
    }

    /// Takes the cluster's part in zone aware routing; a receiver of the origin's changes for one that follows it.
    pub(crate) fn take_part(&self, local: &Local) -> Option<tokio::sync::watch::Receiver<Arc<Origin>>> {
        let follows = (*local.cluster != *self.plan.name).then(|| local.origin.subscribe());
        let role = || match &follows {
            None => ZoneRole::Origin(local.clone()),
            Some(origin) => {
                let scope = Names::new(&self.plan.stat_name).part("", "envoy_cluster_");
                ZoneRole::Follower(origin.clone(), ZoneStats::new(&self.registry, scope))
            }
        };
        self.zone.get_or_init(role);
        self.rebuild();
        follows
    }

    pub fn set(&self) -> Arc<EndpointSet> {
        self.set.load_full()
    }

    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// The host for a request.
    pub fn pick(&self, context: &PickContext<'_>, state: &mut LbState) -> Result<Arc<Endpoint>, PickError> {
        if let Some(hosts) = &self.original_dst {
            return match self.original_destination(context) {
                Some(address) => Ok(hosts.host(address)),
                None => {
                    self.stats.traffic.original_dst_host_invalid().inc();
                    Err(PickError::NoDestination)
                }
            };
        }
        let set = self.set.load();
        if let Some(wanted) = context.override_host {
            if let Some(host) = self.overriding(&set, wanted) {
                return Ok(host);
            }
            if wanted.strict {
                return Err(PickError::NoHealthyHost);
            }
        }
        let picked = match &*self.subsets.load() {
            None => state.pick(&set, self.policy, context),
            Some(subsets) => {
                let subset = subsets.choose(context.metadata, &set);
                state.pick(&subset, self.policy, context)
            }
        };
        if set.loads.panic.iter().any(|p| *p) && !set.is_empty() {
            self.stats.traffic.lb_healthy_panic().inc();
        }
        if picked.is_err() {
            self.stats.traffic.upstream_cx_none_healthy().inc();
        }
        picked
    }

    /// The member that a client's session has, in whatever subset, if its state is among those that serve such clients.
    fn overriding(&self, set: &EndpointSet, wanted: OverrideHost<'_>) -> Option<Arc<Endpoint>> {
        let host = set.find(wanted.address?)?;
        let (allowed, state) = (self.plan.lb.override_host_status, &host.state);
        let allowed = match () {
            () if state.has(Fault::ActiveCheck) || state.has(Fault::Outlier) => allowed.unhealthy,
            () if state.has(Fault::Draining) => allowed.draining,
            () if state.has(Fault::Eds) => allowed.unhealthy,
            () if state.has(Fault::EdsDegraded) || state.has(Fault::CheckDegraded) => allowed.degraded,
            () => allowed.healthy,
        };
        allowed.then(|| host.clone())
    }

    fn original_destination(&self, context: &PickContext<'_>) -> Option<SocketAddr> {
        let mut address = context.original_dst?;
        if let ClusterKind::OriginalDst(settings) = &self.plan.kind
            && let Some(port) = settings.port_override
        {
            address.set_port(port);
        }
        Some(address)
    }

    /// The names of a dynamic forward proxy: the address of the one that a request names is to be its `original_dst`.
    pub fn dns_cache(&self) -> Option<&Arc<DnsCache>> {
        self.dns_cache.as_ref()
    }

    /// Tells the outlier detector, and the host's own counters, what became of a request or connection.
    pub fn report(&self, host: &Endpoint, outcome: Outcome) {
        host.state.stats.count(outcome);
        if self.times_answers {
            self.observe(host, outcome);
        }
        let Some(detector) = &self.outlier else { return };
        if detector.report(host, outcome, self.set.load().len(), Instant::now()) {
            tracing::debug!(cluster = %self.plan.name, host = %host.address, "outlier ejected");
            self.rebuild();
        }
    }

    fn observe(&self, host: &Endpoint, outcome: Outcome) {
        if let Some(settings) = self.peak_ewma()
            && outcome.is_failure()
        {
            host.state.latency.failed(settings, Instant::now());
        }
        if self.plan.anomalies.is_some() {
            host.state.record().ended(outcome.is_failure());
        }
    }

    /// Whether [`Self::answered`] is to be told of answers.
    pub fn times_answers(&self) -> bool {
        self.times_answers
    }

    /// Takes in when a request went to a host that has begun to answer now.
    pub fn answered(&self, host: &Endpoint, since: Instant, now: Instant) {
        let time = now.saturating_duration_since(since);
        if let Some(settings) = self.peak_ewma() {
            host.state.latency.observe(settings, time, now);
        }
        if self.plan.anomalies.is_some() {
            host.state.record().answered(time);
        }
    }

    /// The metrics of anomaly detection, where the cluster is watched.
    pub fn anomaly_stats(&self) -> Option<&AnomalyStats> {
        self.anomalies.as_ref()
    }

    /// Takes the requests of each host since the last call, for the statistics of anomaly detection.
    pub fn take_samples(&self) -> Vec<(Arc<Endpoint>, Sample)> {
        let hosts = self.hosts().into_iter();
        hosts.map(|host| (host.state.record().take(), host)).map(|(sample, host)| (host, sample)).collect()
    }

    /// Ejects a host that is unlike its peers, if the limits of outlier detection allow; whether it did.
    pub fn eject_anomalous(&self, host: &Endpoint) -> bool {
        let ejected =
            self.outlier.as_ref().is_some_and(|detector| detector.eject(host, self.set.load().len(), Instant::now()));
        if ejected {
            self.rebuild();
        }
        ejected
    }

    /// The settings of the peak-EWMA balancer, where that is the cluster's.
    fn peak_ewma(&self) -> Option<PeakEwma> {
        match self.policy {
            Policy::PeakEwma(settings) => Some(settings),
            _ => None,
        }
    }

    /// The transport of an endpoint.
    pub fn transport(&self, endpoint: &Endpoint) -> &Transport {
        self.transports.get(usize::from(endpoint.transport)).or(self.transports.first()).unwrap_or(&Transport::Plain)
    }

    /// The PROXY protocol header that connections to an endpoint begin with.
    pub fn proxy_protocol(&self, endpoint: &Endpoint) -> Option<proxy_protocol::Version> {
        use meltemi_plan::cluster::{ProxyProtocolVersion, TransportSocket};
        // Numbered as `transports` are.
        let chosen = usize::from(endpoint.transport).checked_sub(1).and_then(|at| self.plan.transport_matches.get(at));
        match chosen.map_or(&self.plan.transport, |chosen| &chosen.transport) {
            TransportSocket::ProxyProtocol { version: ProxyProtocolVersion::V1, .. } => {
                Some(proxy_protocol::Version::V1)
            }
            TransportSocket::ProxyProtocol { version: ProxyProtocolVersion::V2, .. } => {
                Some(proxy_protocol::Version::V2)
            }
            TransportSocket::Plain | TransportSocket::Tls(_) => None,
        }
    }

    /// Every host, original-destination ones too.
    pub fn hosts(&self) -> Vec<Arc<Endpoint>> {
        match &self.original_dst {
            Some(hosts) => hosts.hosts(),
            None => self.members.lock().list.iter().flat_map(|l| l.hosts.clone()).collect(),
        }
    }

    pub fn is_warm(&self) -> bool {
        self.warm.load(Ordering::Acquire)
    }

    /// Says whom to tell when hosts are known, and checked if they are to be.
    pub(crate) fn announce_to(&self, listener: Arc<Notify>) {
        self.announce.get_or_init(|| listener);
    }

    /// Declares the cluster usable as it is, as when an initial fetch timed out.
    pub fn set_warm(&self) {
        if !self.warm.swap(true, Ordering::AcqRel) {
            self.announce.get().inspect(|listener| listener.notify_one());
        }
    }

    pub fn detector(&self) -> Option<&Detector> {
        self.outlier.as_ref()
    }

    pub(crate) fn sweep_outliers(&self) {
        if let Some(detector) = &self.outlier
            && detector.sweep(&self.hosts(), Instant::now())
        {
            self.rebuild();
        }
    }

    pub(crate) fn sweep_original_dst(&self) {
        if let Some(hosts) = &self.original_dst {
            hosts.sweep();
        }
    }

    /// The answer of an active check. Rebuilds when it changes the host's health.
    pub(crate) fn checked(&self, host: &Endpoint, healthy: bool, degraded: bool) {
        let state = &host.state;
        let first = !state.checked.swap(true, std::sync::atomic::Ordering::Relaxed);
        let mut changed = state.set(Fault::PendingCheck, false);
        changed |= state.set(Fault::ActiveCheck, !healthy);
        changed |= state.set(Fault::CheckDegraded, healthy && degraded);
        if healthy {
            if let Some(detector) = self.outlier.as_ref().filter(|d| d.config.successful_health_check_uneject_host) {
                changed |= detector.uneject(host);
            }
        } else if state.has(Fault::Removed) {
            self.drop_removed(host);
        }
        if changed {
            self.rebuild();
        }
        if first && self.hosts().iter().all(|h| h.state.checked.load(std::sync::atomic::Ordering::Relaxed)) {
            self.set_warm();
        }
    }

    fn drop_removed(&self, host: &Endpoint) {
        for locality in self.members.lock().list.iter_mut() {
            locality.hosts.retain(|h| h.id != host.id);
        }
        if let Some(detector) = &self.outlier {
            detector.forget(host);
        }
        self.stats.membership.membership_change().inc();
        self.tell_of_change();
    }
}

/// Those of the version before go on.
fn anomaly_stats(
    plan: &meltemi_plan::Cluster,
    (registry, names): (&Registry, &Names),
    previous: Option<&Cluster>,
) -> Option<AnomalyStats> {
    plan.anomalies.as_ref()?;
    let before = previous.and_then(|p| p.anomalies.clone());
    let scope = || names.part("anomaly_detection.", "envoy_cluster_anomaly_detection_");
    Some(before.unwrap_or_else(|| AnomalyStats::new(registry, scope())))
}

/// Where the plan asks for outlier detection, or for anomalous hosts to be ejected, which its limits hold for, too.
fn detector(
    plan: &meltemi_plan::Cluster,
    (registry, names): (&Registry, &Names),
    previous: Option<&Cluster>,
) -> Option<Detector> {
    let ejects = plan.anomalies.as_ref().is_some_and(|asked| asked.eject);
    let limits = plan.outlier.clone().or_else(|| ejects.then(|| Arc::new(OutlierDetection::limits_alone())))?;
    let before = previous.and_then(|p| p.outlier.as_ref()).map(|d| d.stats.clone());
    let scope = || names.part("outlier_detection.", "envoy_cluster_outlier_detection_");
    Some(Detector::new(limits, before.unwrap_or_else(|| OutlierStats::new(registry, scope()))))
}
