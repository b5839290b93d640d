//! From the mesh as values ([`Snapshot`], [`Node`]) to xDS resources.
//!
//! Owns what every listener, route, cluster, endpoint set, secret and name table of a proxy looks like, in Istio's shape and
//! in one of three [`Dialect`]s. Pure: no I/O, no clock, nothing remembered but the [`Cache`], which is keyed by everything a
//! resource depends on. Never sees Kubernetes.

use std::sync::Arc;

use batch::{Batches, Facets, LabelUse, Question};
use meltemi_model::{Node, Resolution, ServiceKey, Snapshot};

mod affected;
pub mod ambient;
mod authentication;
pub mod authorization;
mod batch;
mod cluster;
mod compliance;
mod dialect;
mod dynamic_dns;
mod endpoint;
mod gateway;
mod generator;
mod listener;
pub mod names;
mod nds;
mod profile;
mod rate_limit;
mod route;
mod secret;
mod security;
#[cfg(test)]
mod testing;
mod view;
mod wire;

pub use affected::{Affected, affected};
pub use authentication::FILTER as TOKENS;
pub use cluster::Clusters;
pub use dialect::Dialect;
pub use endpoint::Assignments;
pub use generator::{Built, Generator, Resource};
pub use listener::Listeners;
pub use nds::NameTables;
pub use route::resilience::RETRIES;
pub use route::{RouteConfigurations, VirtualHosts};
pub use secret::Secrets;

/// The type URLs that [`generate`] knows.
pub mod type_urls {
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    pub const NAME_TABLE: &str = "type.googleapis.com/istio.networking.nds.v1.NameTable";
}

/// How many built resources of each kind are remembered unless told otherwise.
pub const DEFAULT_CACHE_CAPACITY: usize = 60_000;
/// Bytes of their bodies: of resources of one service each, and of those that grow with the mesh, of which every change makes
/// new ones.
const SMALL: usize = 128 << 20;
const LARGE: usize = 32 << 20;

/// Built resources of every kind, shared by all nodes.
pub struct Cache {
    clusters: Built<<Clusters as Generator>::Input>,
    endpoints: Built<<Assignments as Generator>::Input>,
    listeners: Built<<Listeners as Generator>::Input>,
    name_tables: Built<<NameTables as Generator>::Input>,
    secrets: Built<<Secrets as Generator>::Input>,
    routes: Built<<RouteConfigurations as Generator>::Input>,
    virtual_hosts: Built<<VirtualHosts as Generator>::Input>,
    batches: Batches,
}

impl Cache {
    /// Remembers up to `capacity` resources of each kind.
    pub fn new(capacity: usize) -> Self {
        Self {
            clusters: Built::new(capacity, SMALL),
            endpoints: Built::new(capacity, SMALL),
            listeners: Built::new(capacity, SMALL),
            name_tables: Built::new(capacity, LARGE),
            secrets: Built::new(capacity, LARGE),
            routes: Built::new(capacity, LARGE),
            virtual_hosts: Built::new(capacity, LARGE),
            batches: Batches::default(),
        }
    }

    /// The resources held, by type URL.
    pub fn held(&self) -> [(&'static str, Vec<Resource>); 7] {
        [
            (type_urls::CLUSTER, self.clusters.held()),
            (type_urls::ENDPOINT, self.endpoints.held()),
            (type_urls::LISTENER, self.listeners.held()),
            (type_urls::NAME_TABLE, self.name_tables.held()),
            (type_urls::SECRET, self.secrets.held()),
            (type_urls::ROUTE, self.routes.held()),
            (type_urls::VIRTUAL_HOST, self.virtual_hosts.held()),
        ]
    }

    /// Forgets them all; what is needed is built again.
    pub fn clear(&self) {
        self.clusters.clear();
        self.endpoints.clear();
        self.listeners.clear();
        self.name_tables.clear();
        self.secrets.clear();
        self.routes.clear();
        self.virtual_hosts.clear();
        self.batches.clear();
    }
}

impl Default for Cache {
    fn default() -> Self {
        Self::new(DEFAULT_CACHE_CAPACITY)
    }
}

/// The resources of one type for one node: all of a wildcard subscription (`None`), or the named ones that exist.
pub fn generate(
    snapshot: &Snapshot,
    node: &Node,
    type_url: &str,
    names: Option<&[Arc<str>]>,
    cache: &Cache,
) -> Vec<Resource> {
    match type_url {
        type_urls::CLUSTER => run::<Clusters>(snapshot, node, names, &cache.clusters),
        type_urls::ENDPOINT => run::<Assignments>(snapshot, node, names, &cache.endpoints),
        type_urls::SECRET => run::<Secrets>(snapshot, node, names, &cache.secrets),
        type_urls::NAME_TABLE => run::<NameTables>(snapshot, node, names, &cache.name_tables),
        type_urls::LISTENER => listeners(snapshot, node, names, cache),
        type_urls::ROUTE => routes(snapshot, node, names, cache),
        type_urls::VIRTUAL_HOST => virtual_hosts(snapshot, node, names.unwrap_or_default(), cache),
        _ => Vec::new(),
    }
}

fn listeners(snapshot: &Snapshot, node: &Node, names: Option<&[Arc<str>]>, cache: &Cache) -> Vec<Resource> {
    let selected = cache.batches.selected_labels(snapshot);
    let facets = match names {
        None if !is_chain_of_its_own(snapshot, node) => Facets::of(node, LabelUse::All, &selected),
        _ => None,
    };
    let Some(facets) = facets else { return run::<Listeners>(snapshot, node, names, &cache.listeners) };
    let question = Question { type_url: type_urls::LISTENER, names: None, facets };
    let outbound = cache
        .batches
        .get_or_make(snapshot, question, |node| run::<listener::Outbound>(snapshot, node, None, &cache.listeners));
    // A headless service's listener for the workload itself is not the workload's: it would call itself through the proxy.
    let own: Vec<String> = node.ip_addresses.iter().map(|address| format!("{address}_")).collect();
    let foreign = outbound.iter().filter(|resource| !own.iter().any(|own| resource.name.starts_with(own)));
    let inbound = run::<listener::Inbound>(snapshot, node, None, &cache.listeners);
    foreign.cloned().chain(inbound).collect()
}

/// Whether others have the node as one of the chains of a listener, which it has, too, but for that chain.
fn is_chain_of_its_own(snapshot: &Snapshot, node: &Node) -> bool {
    let is_headless = |key: &ServiceKey| {
        snapshot.services.get(key).is_some_and(|service| service.resolution == Resolution::Passthrough)
    };
    let served = || node.ip_addresses.iter().flat_map(|address| snapshot.services_at(address));
    snapshot.options.headless_filter_chains && served().any(|key| is_headless(&key))
}

fn routes(snapshot: &Snapshot, node: &Node, names: Option<&[Arc<str>]>, cache: &Cache) -> Vec<Resource> {
    let selected = cache.batches.selected_labels(snapshot);
    let Some(facets) = Facets::of(node, LabelUse::Selectors, &selected) else {
        return run::<RouteConfigurations>(snapshot, node, names, &cache.routes);
    };
    let question = Question { type_url: type_urls::ROUTE, names: names.map(<[_]>::to_vec), facets };
    let make = |node: &Node| run::<RouteConfigurations>(snapshot, node, names, &cache.routes);
    cache.batches.get_or_make(snapshot, question, make).to_vec()
}

/// One by one, so that all proxies that ask for a host share what is found.
fn virtual_hosts(snapshot: &Snapshot, node: &Node, names: &[Arc<str>], cache: &Cache) -> Vec<Resource> {
    let selected = cache.batches.selected_labels(snapshot);
    let Some(facets) = Facets::of(node, LabelUse::Selectors, &selected) else { return Vec::new() };
    let one = |name: &Arc<str>| {
        let names = Some(vec![name.clone()]);
        let question = Question { type_url: type_urls::VIRTUAL_HOST, names, facets: facets.clone() };
        let make =
            |node: &Node| run::<VirtualHosts>(snapshot, node, Some(std::slice::from_ref(name)), &cache.virtual_hosts);
        cache.batches.get_or_make(snapshot, question, make).to_vec()
    };
    names.iter().flat_map(one).collect()
}

fn run<G: Generator>(
    snapshot: &Snapshot,
    node: &Node,
    names: Option<&[Arc<str>]>,
    built: &Built<G::Input>,
) -> Vec<Resource> {
    let inputs = match names {
        None => G::all(snapshot, node),
        Some(names) => G::select(snapshot, node, names),
    };
    inputs.into_iter().map(|(name, input)| built.get_or_build(name, input, G::build)).collect()
}
