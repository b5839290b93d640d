//! Which names a plan refers to.

use meltemi_plan::hcm::RouteSource;
use meltemi_plan::route::{ClusterSpec, MirrorCluster, RouteAction, WeightedCluster, WeightedName};
use meltemi_plan::{Listener, NetworkFilter, Route, RouteConfiguration, VirtualHost};
use std::sync::Arc;

/// Route configurations that a listener subscribes to.
pub fn route_names(listener: &Listener) -> impl Iterator<Item = Arc<str>> {
    super::chains(listener).flat_map(|chain| &chain.filters).filter_map(|filter| match filter {
        NetworkFilter::HttpConnectionManager(hcm) => match &hcm.route {
            RouteSource::Rds(name) => Some(name.clone()),
            RouteSource::Inline(_) => None,
        },
        _ => None,
    })
}

/// Clusters that a route configuration names.
pub fn clusters_of_routes(routes: &RouteConfiguration) -> impl Iterator<Item = &Arc<str>> {
    routes.virtual_hosts.iter().flat_map(|host| clusters_of_routes_of(host))
}

/// Clusters that a virtual host's requests go to.
pub fn clusters_of_routes_of(host: &VirtualHost) -> impl Iterator<Item = &Arc<str>> {
    host.routes.iter().flat_map(|route| clusters_of_route(route))
}

/// Clusters that a virtual host names, those of its mirrors too.
pub fn clusters_of_host(host: &VirtualHost) -> impl Iterator<Item = &Arc<str>> {
    let of_routes = host.routes.iter().filter_map(|route| route.forward()).flat_map(|forward| &forward.mirrors);
    let mirrors = of_routes.chain(&host.mirrors).filter_map(|policy| match &policy.cluster {
        MirrorCluster::Named(name) => Some(name),
        MirrorCluster::Header(_) => None,
    });
    clusters_of_routes_of(host).chain(mirrors)
}

fn clusters_of_route(route: &Route) -> Vec<&Arc<str>> {
    match &route.action {
        RouteAction::Forward(forward) => match &forward.cluster {
            ClusterSpec::Named(name) => vec![name],
            ClusterSpec::Weighted(weighted) => weighted.clusters.iter().filter_map(weighted_name).collect(),
            ClusterSpec::Header(_) => Vec::new(),
        },
        RouteAction::Redirect(_) | RouteAction::DirectResponse(_) | RouteAction::NonForwarding => Vec::new(),
    }
}

fn weighted_name(cluster: &WeightedCluster) -> Option<&Arc<str>> {
    match &cluster.cluster {
        WeightedName::Named(name) => Some(name),
        WeightedName::Header(_) => None,
    }
}
