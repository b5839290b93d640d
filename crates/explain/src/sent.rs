//! What one proxy is sent, and what our own proxy makes of it.
//!
//! Owns the one place where both halves meet: resources of `translate` (or of a control plane's config dump), converted by
//! `plan` as the proxy converts them. Every answer of this crate is read off these values.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use meltemi_model::{Node, Snapshot};
use meltemi_plan::hcm::RouteSource;
use meltemi_plan::{
    Cluster, ClusterKind, FilterChain, Hcm, Listener, LoadAssignment, NetworkFilter, PlanError, RouteConfiguration,
    TcpProxy,
};
use meltemi_proto::Any;
use meltemi_proto::json::{Secrets, any_to_value};
use meltemi_translate::{Cache, generate, type_urls};
use serde_json::Value;

const ON_DEMAND: &str = "envoy.filters.http.on_demand";

/// One resource: as it is sent, and as our proxy reads it.
#[derive(Debug)]
pub struct Resource<T> {
    pub name: Arc<str>,
    pub body: Arc<Any>,
    /// What is wrong with it otherwise: the proxy would refuse the resource and keep what it had.
    pub plan: Result<T, PlanError>,
}

impl<T> Resource<T> {
    /// As Envoy's config dump has it, without what is secret.
    pub fn json(&self) -> Value {
        any_to_value(&self.body, Secrets::Redacted)
    }
}

/// Everything that one proxy is sent, in the order of the control plane.
#[derive(Debug, Default)]
pub struct Sent {
    pub listeners: Vec<Resource<Listener>>,
    pub routes: Vec<Resource<RouteConfiguration>>,
    pub clusters: Vec<Resource<Cluster>>,
    pub assignments: Vec<Resource<LoadAssignment>>,
}

impl Sent {
    /// What the control plane generates for a node. `more_routes` are route configurations that no listener asks for.
    pub fn generate(snapshot: &Snapshot, node: &Node, cache: &Cache, more_routes: &[&str]) -> Self {
        let of = |type_url: &str, names: Option<&[Arc<str>]>| -> Vec<(Arc<str>, Arc<Any>)> {
            let resources = generate(snapshot, node, type_url, names, cache);
            resources.into_iter().map(|resource| (resource.name, resource.body)).collect()
        };
        let mut sent = Self::default();
        of(type_urls::LISTENER, None).into_iter().for_each(|(name, body)| sent.add_listener(name, body));
        of(type_urls::CLUSTER, None).into_iter().for_each(|(name, body)| sent.add_cluster(name, body));
        of(type_urls::ROUTE, None).into_iter().for_each(|(name, body)| sent.add_route(name, body));
        let wanted = sent.route_names().into_iter().chain(more_routes.iter().map(|name| Arc::from(*name)));
        let missing: Vec<Arc<str>> = wanted.filter(|name| sent.route(name).is_none()).collect();
        of(type_urls::ROUTE, Some(&missing)).into_iter().for_each(|(name, body)| sent.add_route(name, body));
        let names = sent.assignment_names();
        of(type_urls::ENDPOINT, Some(&names)).into_iter().for_each(|(name, body)| sent.add_assignment(name, body));
        sent
    }

    pub fn add_listener(&mut self, name: Arc<str>, body: Arc<Any>) {
        let plan = meltemi_plan::encoded_listener(&body.value);
        self.listeners.push(Resource { name, body, plan });
    }

    pub fn add_route(&mut self, name: Arc<str>, body: Arc<Any>) {
        let plan = meltemi_plan::encoded_route_configuration(&body.value);
        self.routes.push(Resource { name, body, plan });
    }

    pub fn add_cluster(&mut self, name: Arc<str>, body: Arc<Any>) {
        let plan = meltemi_plan::encoded_cluster(&body.value);
        self.clusters.push(Resource { name, body, plan });
    }

    pub fn add_assignment(&mut self, name: Arc<str>, body: Arc<Any>) {
        let plan = meltemi_plan::encoded_load_assignment(&body.value);
        self.assignments.push(Resource { name, body, plan });
    }

    /// The route configurations that listeners subscribe to.
    fn route_names(&self) -> Vec<Arc<str>> {
        let listeners = self.listeners.iter().filter_map(|resource| resource.plan.as_ref().ok());
        let managers = listeners.flat_map(chains).filter_map(|chain| manager(chain));
        let mut names: Vec<Arc<str>> = managers
            .filter_map(|manager| match &manager.route {
                RouteSource::Rds(name) => Some(name.clone()),
                RouteSource::Inline(_) => None,
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    fn assignment_names(&self) -> Vec<Arc<str>> {
        let clusters = self.clusters.iter().filter_map(|resource| resource.plan.as_ref().ok());
        clusters
            .filter(|cluster| cluster.kind == ClusterKind::Eds)
            .map(|cluster| cluster.service_name.clone())
            .collect()
    }

    pub fn route(&self, name: &str) -> Option<&Resource<RouteConfiguration>> {
        self.routes.iter().find(|resource| *resource.name == *name)
    }

    pub fn cluster(&self, name: &str) -> Option<&Resource<Cluster>> {
        self.clusters.iter().find(|resource| *resource.name == *name)
    }

    /// Where a cluster's endpoints are: its own list, or the assignment that it subscribes to.
    pub fn assignment<'a>(&'a self, cluster: &'a Cluster) -> Option<&'a LoadAssignment> {
        let subscribed = || self.assignments.iter().find(|resource| *resource.name == *cluster.service_name);
        cluster.load_assignment.as_deref().or_else(|| subscribed()?.plan.as_ref().ok())
    }

    /// The proxy asks for hosts and clusters when traffic first needs them, so that not all are here.
    pub fn is_on_demand(&self) -> bool {
        let listeners = self.listeners.iter().filter_map(|resource| resource.plan.as_ref().ok());
        let mut managers = listeners.flat_map(chains).filter_map(|chain| manager(chain));
        managers.any(|manager| manager.http_filters.iter().any(|filter| &*filter.name == ON_DEMAND))
    }

    /// Everything that our proxy would refuse, as `listener 0.0.0.0_80: filter_chains[0]: …`.
    pub fn refusals(&self) -> Vec<String> {
        fn of<'a, T>(kind: &'a str, list: &'a [Resource<T>]) -> impl Iterator<Item = String> + 'a {
            list.iter().filter_map(move |resource| {
                Some(format!("{kind} {}: {}", resource.name, resource.plan.as_ref().err()?))
            })
        }
        let listeners = of("listener", &self.listeners).chain(of("route configuration", &self.routes));
        listeners.chain(of("cluster", &self.clusters)).chain(of("load assignment", &self.assignments)).collect()
    }

    /// The resources by name, to be compared with those of another time.
    pub fn bodies(&self) -> Bodies {
        fn of<T>(list: &[Resource<T>]) -> BTreeMap<Arc<str>, Arc<Any>> {
            list.iter().map(|resource| (resource.name.clone(), resource.body.clone())).collect()
        }
        Bodies {
            routes: of(&self.routes),
            listeners: of(&self.listeners),
            clusters: of(&self.clusters),
            assignments: of(&self.assignments),
        }
    }
}

/// Resources by name as they are sent. Nodes that get the same have the same bodies, not equal ones.
#[derive(Debug, Default)]
pub struct Bodies {
    pub routes: BTreeMap<Arc<str>, Arc<Any>>,
    pub listeners: BTreeMap<Arc<str>, Arc<Any>>,
    pub clusters: BTreeMap<Arc<str>, Arc<Any>>,
    pub assignments: BTreeMap<Arc<str>, Arc<Any>>,
}

impl Bodies {
    /// What the control plane generates for a node, without a look at what our proxy makes of it.
    pub fn generate(snapshot: &Snapshot, node: &Node, cache: &Cache) -> Self {
        let of = |type_url: &str| {
            let resources = generate(snapshot, node, type_url, None, cache);
            resources.into_iter().map(|resource| (resource.name, resource.body)).collect()
        };
        Self {
            routes: of(type_urls::ROUTE),
            listeners: of(type_urls::LISTENER),
            clusters: of(type_urls::CLUSTER),
            assignments: of(type_urls::ENDPOINT),
        }
    }
}

/// All filter chains of a listener, the default one last.
pub fn chains(listener: &Listener) -> impl Iterator<Item = &Arc<FilterChain>> {
    listener.chains.iter().chain(&listener.default_chain)
}

/// The HTTP connection manager of a chain, if it has one.
pub fn manager(chain: &FilterChain) -> Option<&Arc<Hcm>> {
    chain.filters.iter().find_map(|filter| match filter {
        NetworkFilter::HttpConnectionManager(manager) => Some(manager),
        _ => None,
    })
}

/// The TCP proxy of a chain, if it has one.
pub fn tcp_proxy(chain: &FilterChain) -> Option<&Arc<TcpProxy>> {
    chain.filters.iter().find_map(|filter| match filter {
        NetworkFilter::TcpProxy(proxy) => Some(proxy),
        _ => None,
    })
}

impl Sent {
    /// The listener that takes what was meant for an address: the one that is bound there, else to every address of the
    /// port. As the proxy's own look-up.
    pub fn listener_at(&self, address: SocketAddr) -> Option<&Resource<Listener>> {
        let bound = |resource: &&Resource<Listener>, fits: &dyn Fn(SocketAddr) -> bool| match &resource.plan {
            // UDP has an address space of its own.
            Ok(plan) => plan.quic.is_none() && plan.address.socket().is_some_and(fits),
            Err(_) => refused_address(resource).is_some_and(fits),
        };
        let exact = self.listeners.iter().find(|resource| bound(resource, &|own| own == address));
        exact.or_else(|| {
            let any = |own: SocketAddr| own.port() == address.port() && own.ip().is_unspecified();
            self.listeners.iter().find(|resource| bound(resource, &any))
        })
    }

    pub fn listener(&self, name: &str) -> Option<&Resource<Listener>> {
        self.listeners.iter().find(|resource| *resource.name == *name)
    }
}

/// Where a listener is bound that has no plan.
fn refused_address(resource: &Resource<Listener>) -> Option<SocketAddr> {
    let socket = &resource.json()["address"]["socket_address"];
    let port = u16::try_from(socket["port_value"].as_u64()?).ok()?;
    Some(SocketAddr::new(socket["address"].as_str()?.parse().ok()?, port))
}
