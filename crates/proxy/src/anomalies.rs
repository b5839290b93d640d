//! Anomaly detection: takes what the workers counted once a second, judges it, and tells.
//!
//! Runs on the main runtime, and sleeps while no configuration asks for it. The statistics are [`meltemi_upstream::anomaly`]'s;
//! here is what they are of (the endpoints of watched clusters, watched routes) and what follows: an event in the log, metrics,
//! a condition for the admin port, and the ejection of an endpoint where that is asked for.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use meltemi_plan::anomaly::{Sample, Watch};
use meltemi_plan::hcm::RouteSource;
use meltemi_plan::{NetworkFilter, RouteConfiguration};
use meltemi_telemetry::metrics::Scope;
use meltemi_telemetry::{Registry, Spec, stats};
use meltemi_upstream::anomaly::{Condition, Normal, Reason, Subject};
use meltemi_upstream::{Cluster, Endpoint};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::World;
use crate::configurator::chains;

const TICK: Duration = Duration::from_secs(1);
/// Routes beyond are not watched.
const MAX_ROUTES: usize = 10_000;
/// Events that are logged one by one at a tick.
const MAX_EVENTS: usize = 20;

stats! {
    /// Under `anomaly_detection.`: endpoints have theirs at their cluster.
    pub struct RouteStats {
        anomalous_routes: Spec::gauge("anomalous_routes"),
        unwatched_routes: Spec::gauge("unwatched_routes"),
        began_latency: Spec::counter("began_latency"),
        began_errors: Spec::counter("began_errors"),
    }
}

/// An endpoint of a cluster, or a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entity {
    Endpoint { cluster: Arc<str>, endpoint: String },
    Route(RouteKey),
}

/// Routes without a name are told apart by where they stand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    pub route_configuration: Arc<str>,
    pub virtual_host: Arc<str>,
    pub route: Arc<str>,
}

/// A condition of an entity, and the policy that asked for it.
#[derive(Clone, Debug)]
pub struct Finding {
    pub entity: Entity,
    pub policy: Arc<str>,
    pub condition: Condition,
}

/// What the admin port shows.
#[derive(Debug, Default)]
pub struct Board(Mutex<Vec<Finding>>);

impl Board {
    /// Conditions that are or have been active, of entities that are still there.
    pub fn findings(&self) -> Vec<Finding> {
        self.0.lock().clone()
    }
}

/// Judges for the life of the process.
pub async fn run(registry: Registry, board: Arc<Board>, mut worlds: watch::Receiver<Arc<World>>) {
    let stats = RouteStats::new(&registry, Scope::plain("anomaly_detection"));
    let mut watcher = Watcher { stats, endpoints: HashMap::new(), routes: BTreeMap::new() };
    let mut watched = Watched::of(&worlds.borrow_and_update());
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = worlds.changed() => {
                if changed.is_err() {
                    return;
                }
                watched = Watched::of(&worlds.borrow_and_update());
                watcher.keep(&watched);
            }
            // Where nobody asked, nothing wakes this but a change.
            _ = ticks.tick(), if !watched.is_empty() => tell(&watcher.tick(&watched, SystemTime::now())),
        }
        *board.0.lock() = watcher.findings(&watched);
    }
}

/// What of a world is watched.
#[derive(Default)]
struct Watched {
    clusters: Vec<Arc<Cluster>>,
    routes: BTreeMap<RouteKey, Vec<Arc<Watch>>>,
    /// Routes beyond the limit.
    left_out: usize,
}

impl Watched {
    fn of(world: &World) -> Self {
        let clusters = world.clusters.iter().filter(|cluster| cluster.plan.anomalies.is_some()).cloned().collect();
        let mut found = Self { clusters, ..Self::default() };
        world.routes.values().for_each(|routes| found.add_routes(routes));
        let listeners = world.listeners.values().flat_map(|listener| chains(&listener.plan));
        for filter in listeners.flat_map(|chain| &chain.filters) {
            if let NetworkFilter::HttpConnectionManager(hcm) = filter
                && let RouteSource::Inline(routes) = &hcm.route
            {
                found.add_routes(routes);
            }
        }
        found
    }

    fn add_routes(&mut self, routes: &RouteConfiguration) {
        for host in &routes.virtual_hosts {
            for (place, route) in host.routes.iter().enumerate() {
                let Some(watch) = &route.watch else { continue };
                let name = if route.name.is_empty() { format!("#{place}").into() } else { route.name.clone() };
                let key =
                    RouteKey { route_configuration: routes.name.clone(), virtual_host: host.name.clone(), route: name };
                if self.routes.len() < MAX_ROUTES || self.routes.contains_key(&key) {
                    self.routes.entry(key).or_default().push(watch.clone());
                } else {
                    self.left_out += 1;
                }
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.clusters.is_empty() && self.routes.is_empty()
    }
}

/// What is known of everything that is watched.
struct Watcher {
    stats: RouteStats,
    /// By the endpoint's id.
    endpoints: HashMap<u64, (Entity, Subject)>,
    routes: BTreeMap<RouteKey, Subject>,
}

impl Watcher {
    /// Forgets what is watched no more.
    fn keep(&mut self, watched: &Watched) {
        self.routes.retain(|key, _| watched.routes.contains_key(key));
        let ids = watched.clusters.iter().flat_map(|cluster| cluster.hosts()).map(|host| host.id);
        let ids: std::collections::HashSet<u64> = ids.collect();
        self.endpoints.retain(|id, _| ids.contains(id));
        self.stats.unwatched_routes().set(watched.left_out as u64);
    }

    /// Judges the requests of a second; the conditions that changed.
    fn tick(&mut self, watched: &Watched, now: SystemTime) -> Vec<Finding> {
        let mut changes = Vec::new();
        for cluster in &watched.clusters {
            self.judge_endpoints(cluster, now, &mut changes);
        }
        for (key, watches) in &watched.routes {
            self.judge_route(key, watches, now, &mut changes);
        }
        let anomalous = self.routes.values().filter(|subject| subject.is_anomalous()).count();
        self.stats.anomalous_routes().set(anomalous as u64);
        changes
    }

    fn judge_endpoints(&mut self, cluster: &Cluster, now: SystemTime, changes: &mut Vec<Finding>) {
        let (Some(asked), Some(stats)) = (&cluster.plan.anomalies, cluster.anomaly_stats()) else { return };
        let hosts = cluster.take_samples();
        for (host, sample) in &hosts {
            self.endpoint(cluster, host).1.observe(*sample);
        }
        let windows = hosts.iter().filter_map(|(host, _)| self.endpoints.get(&host.id)?.1.window());
        let normal = Normal::of_peers(windows);
        let mut anomalous = 0;
        for (host, _) in &hosts {
            let Some((entity, subject)) = self.endpoints.get_mut(&host.id) else { continue };
            for condition in subject.judge(normal.as_ref(), asked.sensitivity, now) {
                match (condition.active, condition.reason) {
                    (true, Reason::LatencyAboveNormal) => stats.began_latency().inc(),
                    (true, Reason::ErrorsAboveNormal) => stats.began_errors().inc(),
                    (false, _) => {}
                }
                changes.push(Finding { entity: entity.clone(), policy: asked.policy.clone(), condition });
            }
            anomalous += u64::from(subject.is_anomalous());
            if asked.eject && subject.take_verdict(asked.sensitivity) && cluster.eject_anomalous(host) {
                stats.ejections().inc();
                tracing::warn!(cluster = %cluster.plan.name, endpoint = %host.address, "anomalous endpoint ejected");
            }
        }
        stats.anomalous_endpoints().set(anomalous);
    }

    fn endpoint(&mut self, cluster: &Cluster, host: &Endpoint) -> &mut (Entity, Subject) {
        self.endpoints.entry(host.id).or_insert_with(|| {
            let entity = Entity::Endpoint { cluster: cluster.plan.name.clone(), endpoint: host.address.to_string() };
            (entity, Subject::default())
        })
    }

    fn judge_route(&mut self, key: &RouteKey, watches: &[Arc<Watch>], now: SystemTime, changes: &mut Vec<Finding>) {
        let Some(first) = watches.first() else { return };
        let mut sample = Sample::default();
        watches.iter().for_each(|watch| sample += watch.record.take());
        let subject = self.routes.entry(key.clone()).or_default();
        subject.observe(sample);
        for condition in subject.judge(None, first.detection.sensitivity, now) {
            match (condition.active, condition.reason) {
                (true, Reason::LatencyAboveNormal) => self.stats.began_latency().inc(),
                (true, Reason::ErrorsAboveNormal) => self.stats.began_errors().inc(),
                (false, _) => {}
            }
            let entity = Entity::Route(key.clone());
            changes.push(Finding { entity, policy: first.detection.policy.clone(), condition });
        }
    }

    fn findings(&self, watched: &Watched) -> Vec<Finding> {
        let of_cluster = |cluster: &Arc<Cluster>| {
            let policy = cluster.plan.anomalies.as_ref().map(|asked| asked.policy.clone()).unwrap_or_default();
            cluster.hosts().into_iter().map(move |host| (host.id, policy.clone()))
        };
        let endpoints = watched.clusters.iter().flat_map(of_cluster).filter_map(|(id, policy)| {
            let (entity, subject) = self.endpoints.get(&id)?;
            Some((entity.clone(), policy, subject))
        });
        let routes = watched.routes.iter().filter_map(|(key, watches)| {
            let policy = watches.first()?.detection.policy.clone();
            Some((Entity::Route(key.clone()), policy, self.routes.get(key)?))
        });
        let mut findings: Vec<Finding> = endpoints
            .chain(routes)
            .flat_map(|(entity, policy, subject)| {
                let of = move |condition: &Condition| Finding {
                    entity: entity.clone(),
                    policy: policy.clone(),
                    condition: condition.clone(),
                };
                subject.conditions().map(of).collect::<Vec<_>>()
            })
            .collect();
        findings.sort_by(|a, b| a.entity.cmp(&b.entity));
        findings
    }
}

/// Logs what began and what ended.
fn tell(changes: &[Finding]) {
    for Finding { entity, policy, condition } in changes.iter().take(MAX_EVENTS) {
        let (reason, message, score) = (condition.reason.as_str(), condition.message(), condition.score);
        let (endpoint, cluster, host, route) = match entity {
            Entity::Endpoint { cluster, endpoint } => (endpoint.as_str(), &**cluster, "", ""),
            Entity::Route(key) => ("", "", &*key.virtual_host, &*key.route),
        };
        if condition.active {
            tracing::warn!(reason, message, score, endpoint, cluster, virtual_host = host, route, %policy, "anomaly began");
        } else {
            tracing::info!(reason, message, score, endpoint, cluster, virtual_host = host, route, %policy, "anomaly ended");
        }
    }
    if changes.len() > MAX_EVENTS {
        tracing::warn!(count = changes.len() - MAX_EVENTS, "more anomalies began or ended; see /anomalies");
    }
}
