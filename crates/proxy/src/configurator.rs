//! From accepted resources to the next [`World`].
//!
//! Owns what was accepted, what is still warming and what is in force. Make before break: a cluster of a known name is
//! replaced when the new one has hosts; a route configuration is replaced when no cluster that it names is still warming; a
//! listener is added when its routes and contexts are there; what the former configuration still serves stays for a while
//! ([`grace`]). An update of endpoints touches one cluster and publishes nothing.
//! Runs on the main thread; no request ever waits for it.

#[cfg(test)]
pub(crate) mod tests;

mod grace;
mod listeners;
mod on_demand;
mod references;

use crate::secrets::SecretStore;
use crate::world::{ActiveListener, ChainRuntime, World};
use meltemi_plan::cluster::{ClusterKind, TransportSocket};
use meltemi_plan::common::ConfigSource;
use meltemi_plan::{
    Cluster as ClusterPlan, FilterChain, Listener, LoadAssignment, OnDemandHost, RouteConfiguration,
    encoded_load_assignment,
};
use meltemi_telemetry::Registry;
use meltemi_upstream::{Background, Cluster, ClusterSet, Local, Transport};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use references::clusters_of_routes;

/// What `/config_dump` tells of an accepted resource.
#[derive(Debug, Clone)]
pub struct Source {
    /// Encoded, as it came; empty for what the bootstrap gave.
    pub body: Arc<[u8]>,
    pub version: Arc<str>,
    pub updated: SystemTime,
    /// From the bootstrap, so that no update removes it.
    pub fixed: bool,
}

/// An accepted resource.
#[derive(Debug, Clone)]
pub struct Held<P> {
    pub plan: Arc<P>,
    pub source: Source,
}

/// The endpoints of a service and who takes them.
#[derive(Debug, Default)]
struct Service {
    /// Held encoded only: what they say is in the clusters.
    assignment: Option<Source>,
    /// Names of EDS clusters.
    clusters: BTreeSet<Arc<str>>,
}

#[derive(Debug)]
struct ClusterSlot {
    held: Held<ClusterPlan>,
    active: Option<Arc<Cluster>>,
    /// The next one, until it has hosts.
    warming: Option<Arc<Cluster>>,
}

#[derive(Debug)]
struct RouteSlot {
    held: Held<RouteConfiguration>,
    active: Option<Arc<RouteConfiguration>>,
    /// When the version held came.
    came: Instant,
    /// Some hosts in force are of an earlier version, for a while.
    is_held_back: bool,
    /// Of one whose hosts come on demand: the plan that `active` was made of, and which hosts.
    made_of: Option<(Arc<RouteConfiguration>, u64)>,
}

#[derive(Debug)]
struct ListenerSlot {
    held: Held<Listener>,
    active: Option<Arc<ActiveListener>>,
}

/// A secret that was refused or a context that could not be built.
pub type Problem = String;

pub struct Configurator {
    registry: Registry,
    pub secrets: SecretStore,
    background: Background,
    clusters: BTreeMap<Arc<str>, ClusterSlot>,
    /// Names of clusters with a version that warms.
    warming: BTreeSet<Arc<str>>,
    /// Clusters that the control plane took away, and how long they stay at most.
    leaving: BTreeMap<Arc<str>, Instant>,
    services: BTreeMap<Arc<str>, Service>,
    routes: BTreeMap<Arc<str>, RouteSlot>,
    listeners: BTreeMap<Arc<str>, ListenerSlot>,
    on_demand: on_demand::OnDemand,
    publisher: watch::Sender<Arc<World>>,
    dirty: bool,
    /// The configuration may refer to other names than when [`Self::wanted`] was last asked.
    names_changed: bool,
}

impl Configurator {
    pub fn new(registry: Registry) -> Self {
        Self {
            registry,
            secrets: SecretStore::default(),
            background: Background::default(),
            clusters: BTreeMap::new(),
            warming: BTreeSet::new(),
            leaving: BTreeMap::new(),
            services: BTreeMap::new(),
            routes: BTreeMap::new(),
            listeners: BTreeMap::new(),
            on_demand: on_demand::OnDemand::default(),
            publisher: watch::Sender::new(Arc::default()),
            dirty: false,
            names_changed: false,
        }
    }

    /// For a proxy that is itself part of a cluster (`ClusterManager.local_cluster_name`), before it takes any.
    pub fn with_local(self, local: Option<Local>) -> Self {
        Self { background: Background::with_local(local), ..self }
    }

    /// Says when some cluster has warmed, which [`Self::publish`] then puts in force.
    pub fn warmed(&self) -> Arc<Notify> {
        self.background.warmed()
    }

    pub fn subscribe(&self) -> watch::Receiver<Arc<World>> {
        self.publisher.subscribe()
    }

    pub fn world(&self) -> Arc<World> {
        self.publisher.borrow().clone()
    }

    /// Takes a new or changed cluster. Returns it if its hosts must still come.
    pub fn set_cluster(&mut self, held: Held<ClusterPlan>) -> Result<Option<Arc<Cluster>>, Problem> {
        let name = held.plan.name.clone();
        self.cluster_came(&name);
        let was_leaving = self.leaving.remove(&name).is_some();
        let previous = self.clusters.get(&name);
        if !was_leaving && previous.is_some_and(|slot| slot.held.plan.fingerprint == held.plan.fingerprint) {
            return Ok(None);
        }
        let transports = self.transports(&held.plan)?;
        let slot = self.clusters.remove(&name);
        let previous = slot.as_ref().and_then(|slot| slot.warming.as_ref().or(slot.active.as_ref()));
        let cluster = Cluster::new(held.plan.clone(), transports, &self.registry, previous.map(|p| &**p));
        if let Some(slot) = &slot {
            self.unwatch(&slot.held.plan);
        }
        if held.plan.kind == ClusterKind::Eds {
            let service = self.services.entry(held.plan.service_name.clone()).or_default();
            service.clusters.insert(name.clone());
            // It was accepted, so that it can be read.
            if let Some(plan) = service.assignment.as_ref().and_then(|a| encoded_load_assignment(&a.body).ok()) {
                cluster.assign(&plan);
            }
        }
        cluster.start(&self.background);
        let active = slot.and_then(|slot| slot.active);
        let slot = if cluster.is_warm() {
            ClusterSlot { held, active: Some(cluster.clone()), warming: None }
        } else {
            self.warming.insert(name.clone());
            ClusterSlot { held, active, warming: Some(cluster.clone()) }
        };
        self.clusters.insert(name, slot);
        (self.dirty, self.names_changed) = (true, true);
        Ok((!cluster.is_warm()).then_some(cluster))
    }

    /// A cluster's version goes: its service has one taker less, and nobody waits for it.
    fn unwatch(&mut self, plan: &ClusterPlan) {
        self.warming.remove(&plan.name);
        if let Some(service) = self.services.get_mut(&plan.service_name) {
            service.clusters.remove(&plan.name);
        }
    }

    fn drop_cluster(&mut self, name: &str) {
        if self.clusters.get(name).is_some_and(|slot| !slot.held.source.fixed)
            && let Some(slot) = self.clusters.remove(name)
        {
            self.unwatch(&slot.held.plan);
            (self.dirty, self.names_changed) = (true, true);
        }
    }

    /// Puts warm clusters in force.
    fn promote_warm(&mut self) {
        let clusters = &mut self.clusters;
        self.warming.retain(|name| {
            let Some(slot) = clusters.get_mut(name) else { return false };
            let waits = slot.warming.as_ref().is_some_and(|cluster| !cluster.is_warm());
            if !waits && slot.warming.is_some() {
                slot.active = slot.warming.take();
                self.dirty = true;
            }
            waits
        });
    }

    /// An endpoint update: every cluster of this service takes it at once.
    pub fn set_assignment(&mut self, plan: &LoadAssignment, source: Source) {
        let service = self.services.entry(plan.cluster.clone()).or_default();
        for slot in service.clusters.iter().filter_map(|name| self.clusters.get(name)) {
            slot.active.iter().chain(&slot.warming).for_each(|cluster| cluster.assign(plan));
        }
        service.assignment = Some(source);
    }

    /// The control plane has no endpoints of this name. What a cluster knows stays in force; one that waits for its first waits
    /// no longer.
    pub fn assignment_absent(&mut self, service: &str) {
        let names = self.services.get(service).into_iter().flat_map(|service| &service.clusters);
        names.filter_map(|name| self.clusters.get(name)?.warming.as_ref()).for_each(|cluster| cluster.set_warm());
    }

    pub fn set_routes(&mut self, held: Held<RouteConfiguration>) {
        let name = held.plan.name.clone();
        let (active, made_of) = match self.routes.remove(&name) {
            Some(slot) => (slot.active, slot.made_of),
            None => (None, None),
        };
        self.routes.insert(name, RouteSlot { held, active, came: Instant::now(), is_held_back: false, made_of });
        self.dirty = true;
    }

    pub fn remove_routes(&mut self, name: &str) {
        self.dirty |= self.routes.remove(name).is_some();
    }

    /// Takes a new or changed listener; refused if a context of it cannot be built, or what it needs is not to be had.
    pub fn set_listener(&mut self, held: Held<Listener>) -> Result<(), Problem> {
        let name = held.plan.name.clone();
        let previous = self.listeners.get(&name);
        if previous.is_some_and(|slot| slot.held.plan.fingerprint == held.plan.fingerprint) {
            return Ok(());
        }
        listeners::check_address(&held.plan, self.listeners.values().map(|slot| &*slot.held.plan))?;
        listeners::check_access_logs(&held.plan)?;
        // Built once here so that what cannot work is refused, and again when its secrets change what it demands.
        self.runtime(&held.plan)?;
        let active = self.listeners.remove(&name).and_then(|slot| slot.active);
        self.listeners.insert(name, ListenerSlot { held, active });
        (self.dirty, self.names_changed) = (true, true);
        Ok(())
    }

    pub fn remove_listener(&mut self, name: &str) {
        if self.listeners.get(name).is_some_and(|slot| !slot.held.source.fixed) {
            self.listeners.remove(name);
            (self.dirty, self.names_changed) = (true, true);
        }
    }

    /// Takes a secret; contexts are built anew where it changes what they demand.
    pub fn set_secret(&mut self, secret: &meltemi_plan::tls::Secret) -> Result<(), Problem> {
        let rebuild = self.secrets.install(secret).map_err(|e| format!("{}: {e}", secret.name))?;
        if rebuild {
            self.rebuild_contexts()?;
        }
        Ok(())
    }

    fn rebuild_contexts(&mut self) -> Result<(), Problem> {
        let listeners: Vec<(Arc<str>, Arc<Listener>)> =
            self.listeners.iter().map(|(name, slot)| (name.clone(), slot.held.plan.clone())).collect();
        for (name, plan) in listeners {
            let runtime = Arc::new(self.runtime(&plan)?);
            if let Some(slot) = self.listeners.get_mut(&name)
                && slot.active.is_some()
            {
                slot.active = Some(runtime);
            }
        }
        let clusters: Vec<Held<ClusterPlan>> = self.clusters.values().map(|slot| slot.held.clone()).collect();
        for held in clusters {
            let transports = self.transports(&held.plan)?;
            if let Some(slot) = self.clusters.get_mut(&held.plan.name) {
                for cluster in slot.active.iter_mut().chain(&mut slot.warming) {
                    *cluster = Cluster::new(held.plan.clone(), transports.clone(), &self.registry, Some(&**cluster));
                    cluster.start(&self.background);
                }
            }
        }
        self.dirty = true;
        Ok(())
    }

    /// The names to subscribe to, if they may differ from when this was last asked.
    pub fn newly_wanted(&mut self) -> Option<Wanted> {
        std::mem::take(&mut self.names_changed).then(|| self.wanted())
    }

    /// The names to subscribe to, by the accepted configuration and by what traffic has asked for.
    pub fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        let taken = self.services.iter().filter(|(_, service)| !service.clusters.is_empty());
        wanted.endpoints = taken.map(|(name, _)| name.clone()).collect();
        wanted.hosts = self.on_demand.host_names().cloned().collect();
        wanted.clusters = self.on_demand.cluster_names().cloned().collect();
        for slot in self.clusters.values() {
            let matches = slot.held.plan.transport_matches.iter().map(|m| &m.transport);
            for transport in matches.chain([&slot.held.plan.transport]) {
                if let Some(tls) = upstream_tls(transport) {
                    wanted.add_secrets(&tls.common);
                }
            }
        }
        for slot in self.listeners.values() {
            wanted.routes.extend(references::route_names(&slot.held.plan));
            for tls in chains(&slot.held.plan).filter_map(|chain| chain.tls.as_ref()) {
                wanted.add_secrets(&tls.common);
            }
        }
        wanted
    }

    /// Forgets endpoints and routes that nothing names any more.
    pub fn forget_unwanted(&mut self, wanted: &Wanted) {
        self.services.retain(|name, _| wanted.endpoints.contains(name));
        let before = self.routes.len();
        self.routes.retain(|name, _| wanted.routes.contains(name));
        self.dirty |= before != self.routes.len();
    }

    /// Publishes the next world, if anything of it changed.
    pub fn publish(&mut self) {
        let now = Instant::now();
        self.promote_warm();
        self.advance_hosts(now);
        if !std::mem::take(&mut self.dirty) && !self.is_grace_over(now) {
            return;
        }
        self.advance_routes(now);
        self.advance_on_demand_routes();
        self.release_clusters(now);
        self.advance_listeners();
        let generation = self.publisher.borrow().generation + 1;
        let world = World {
            generation,
            listeners: self.listeners.iter().filter_map(|(n, s)| Some((n.clone(), s.active.clone()?))).collect(),
            routes: self.routes.iter().filter_map(|(n, s)| Some((n.clone(), s.active.clone()?))).collect(),
            clusters: self.clusters.values().filter_map(|slot| slot.active.clone()).collect::<ClusterSet>(),
        };
        tracing::debug!(
            generation,
            listeners = world.listeners.len(),
            clusters = world.clusters.len(),
            "configuration published"
        );
        self.publisher.send_replace(Arc::new(world));
    }

    /// Puts route configurations in force whose clusters are not still warming for the first time.
    fn advance_routes(&mut self, now: Instant) {
        let is_first = |name: &Arc<str>| self.clusters.get(name).is_some_and(|slot| slot.active.is_none());
        let warming: BTreeSet<&Arc<str>> = self.warming.iter().filter(|name| is_first(name)).collect();
        for slot in self.routes.values_mut().filter(|slot| !slot.held.plan.on_demand) {
            let current = slot.active.as_ref().is_some_and(|active| Arc::ptr_eq(active, &slot.held.plan));
            let waits = clusters_of_routes(&slot.held.plan).any(|name| warming.contains(name));
            if waits || current {
                continue;
            }
            let former = slot.active.as_ref().filter(|_| now < slot.came + grace::HOLD);
            let held_back = former.and_then(|former| grace::held_back(&self.clusters, &slot.held.plan, former));
            if held_back.is_some() && !slot.is_held_back {
                let name = &slot.held.plan.name;
                tracing::info!(routes = %name, "hosts that lead to unknown clusters stay as they were for {:?}", grace::HOLD);
            }
            slot.is_held_back = held_back.is_some();
            slot.active = Some(held_back.map_or_else(|| slot.held.plan.clone(), Arc::new));
        }
    }

    /// Puts listeners in force whose subscribed routes are.
    fn advance_listeners(&mut self) {
        let pending: Vec<(Arc<str>, Arc<Listener>)> = self
            .listeners
            .iter()
            .filter(|(_, slot)| {
                let current = slot.active.as_ref().is_some_and(|a| Arc::ptr_eq(&a.plan, &slot.held.plan));
                let ready = |name: &Arc<str>| self.routes.get(name).is_some_and(|route| route.active.is_some());
                !current && references::route_names(&slot.held.plan).all(|name| ready(&name))
            })
            .map(|(name, slot)| (name.clone(), slot.held.plan.clone()))
            .collect();
        for (name, plan) in pending {
            match self.runtime(&plan) {
                Ok(runtime) => {
                    if let Some(slot) = self.listeners.get_mut(&name) {
                        slot.active = Some(Arc::new(runtime));
                    }
                }
                // It could be built when it was accepted; a file it names has gone since.
                Err(problem) => tracing::warn!(listener = %name, problem, "listener not updated"),
            }
        }
    }

    /// Whether everything accepted is in force: the end of initialisation.
    pub fn is_settled(&self) -> bool {
        self.warming.is_empty() && self.listeners.values().all(|slot| slot.active.is_some())
    }

    fn runtime(&mut self, plan: &Arc<Listener>) -> Result<ActiveListener, Problem> {
        let mut build = |chain: &Arc<FilterChain>| {
            let tls = chain.tls.as_ref().map(|tls| self.secrets.server_tls(tls)).transpose();
            let tls = tls.map_err(|e| format!("filter chain {:?}: transport_socket: {e}", chain.name))?;
            Ok::<_, Problem>(ChainRuntime { plan: chain.clone(), tls })
        };
        Ok(ActiveListener {
            chains: plan.chains.iter().map(&mut build).collect::<Result<_, _>>()?,
            default_chain: plan.default_chain.as_ref().map(&mut build).transpose()?,
            plan: plan.clone(),
        })
    }

    fn transports(&mut self, plan: &ClusterPlan) -> Result<Vec<Transport>, Problem> {
        let sockets = std::iter::once(&plan.transport).chain(plan.transport_matches.iter().map(|m| &m.transport));
        let mut transports = Vec::with_capacity(1 + plan.transport_matches.len());
        for socket in sockets {
            transports.push(match upstream_tls(socket) {
                None => Transport::Plain,
                Some(tls) => {
                    let context = self
                        .secrets
                        .client_tls(tls, plan.http.auto_san_validation)
                        .map_err(|e| format!("transport_socket: {e}"))?;
                    Transport::Tls(Arc::new(context))
                }
            });
        }
        Ok(transports)
    }

    pub fn held_clusters(&self) -> impl Iterator<Item = (&Held<ClusterPlan>, bool)> {
        self.clusters.values().map(|slot| (&slot.held, slot.active.is_some()))
    }

    pub fn held_listeners(&self) -> impl Iterator<Item = (&Held<Listener>, bool)> {
        self.listeners.values().map(|slot| (&slot.held, slot.active.is_some()))
    }

    pub fn held_routes(&self) -> impl Iterator<Item = &Held<RouteConfiguration>> {
        self.routes.values().map(|slot| &slot.held)
    }

    pub fn held_hosts(&self) -> impl Iterator<Item = &Held<OnDemandHost>> {
        self.on_demand.held_hosts()
    }

    pub fn held_assignments(&self) -> impl Iterator<Item = (&Arc<str>, &Source)> {
        self.services.iter().filter_map(|(name, service)| Some((name, service.assignment.as_ref()?)))
    }
}

pub(crate) fn chains(plan: &Listener) -> impl Iterator<Item = &Arc<FilterChain>> {
    plan.chains.iter().chain(&plan.default_chain)
}

pub(crate) fn upstream_tls(socket: &TransportSocket) -> Option<&Arc<meltemi_plan::UpstreamTls>> {
    match socket {
        TransportSocket::Plain => None,
        TransportSocket::Tls(tls) => Some(tls),
        TransportSocket::ProxyProtocol { inner, .. } => upstream_tls(inner),
    }
}

/// Names that the accepted configuration refers to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub endpoints: BTreeSet<Arc<str>>,
    pub routes: BTreeSet<Arc<str>>,
    /// Virtual hosts, `<route configuration>/<host>`.
    pub hosts: BTreeSet<Arc<str>>,
    /// Beside those that come unasked.
    pub clusters: BTreeSet<Arc<str>>,
    /// Subscribed to on the ADS stream.
    pub ads_secrets: BTreeSet<Arc<str>>,
    /// Asked of the process's own source.
    pub local_secrets: BTreeSet<Arc<str>>,
}

impl Wanted {
    fn add_secrets(&mut self, common: &meltemi_plan::tls::TlsCommon) {
        for (name, source) in crate::secrets::names(common) {
            match source {
                Some(ConfigSource::Ads) => self.ads_secrets.insert(name.clone()),
                Some(ConfigSource::Grpc { .. } | ConfigSource::Path(_)) => self.local_secrets.insert(name.clone()),
                // A static secret of the bootstrap is there from the start.
                None => false,
            };
        }
    }
}
