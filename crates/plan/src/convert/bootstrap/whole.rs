//! What only the whole bootstrap tells: names given twice, and clusters that a route names and nobody defines.

use crate::cluster::Cluster;
use crate::error::{At, PlanError, Result, refuse};
use crate::hcm::RouteSource;
use crate::listener::{Listener, NetworkFilter};
use crate::route::{ClusterSpec, MirrorCluster, MirrorPolicy, RouteAction, RouteConfiguration, WeightedName};
use std::collections::HashSet;
use std::sync::Arc;

/// Refuses a second cluster of one name, of which requests would find either.
pub(super) fn check_names(clusters: &[Arc<Cluster>]) -> Result<()> {
    let mut names = HashSet::new();
    for (index, cluster) in clusters.iter().enumerate() {
        if !names.insert(&cluster.name) {
            return refuse(format!("duplicate cluster {:?}", cluster.name)).at_index("clusters", index);
        }
    }
    Ok(())
}

/// Envoy's `validate_clusters`, which is on for a static route configuration unless it says otherwise. What CDS may bring is
/// unknown as well, since static listeners come before it.
pub(super) fn check_routes(listeners: &[Arc<Listener>], clusters: &[Arc<Cluster>]) -> Result<()> {
    let known: HashSet<&str> = clusters.iter().map(|cluster| &*cluster.name).collect();
    for (index, listener) in listeners.iter().enumerate() {
        let filters = listener.chains.iter().chain(&listener.default_chain).flat_map(|chain| &chain.filters);
        for filter in filters {
            let NetworkFilter::HttpConnectionManager(hcm) = filter else { continue };
            let RouteSource::Inline(routes) = &hcm.route else { continue };
            if routes.validate_clusters.unwrap_or(true) {
                check_clusters(routes, &known).at_index("listeners", index)?;
            }
        }
    }
    Ok(())
}

fn check_clusters(routes: &RouteConfiguration, known: &HashSet<&str>) -> Result<()> {
    let unknown = |name: &&Arc<str>| !known.contains(&***name);
    let wrong = |place: &str, name: &Arc<str>| {
        PlanError::new(format!("route configuration {:?}: {place}unknown cluster {name:?}", routes.name))
    };
    if let Some(name) = mirrored(&routes.mirrors).find(unknown) {
        return Err(wrong("", name));
    }
    for host in &routes.virtual_hosts {
        let place = format!("virtual host {:?}: ", host.name);
        if let Some(name) = mirrored(&host.mirrors).find(unknown) {
            return Err(wrong(&place, name));
        }
        for (index, route) in host.routes.iter().enumerate() {
            if let Some(name) = of_action(&route.action).into_iter().find(unknown) {
                return Err(wrong(&format!("{place}route {index}: "), name));
            }
        }
    }
    Ok(())
}

fn of_action(action: &RouteAction) -> Vec<&Arc<str>> {
    let RouteAction::Forward(forward) = action else { return Vec::new() };
    let mut names: Vec<&Arc<str>> = match &forward.cluster {
        ClusterSpec::Named(name) => vec![name],
        ClusterSpec::Header(_) => Vec::new(),
        ClusterSpec::Weighted(weighted) => {
            let named = weighted.clusters.iter().map(|one| &one.cluster);
            named.filter_map(|name| if let WeightedName::Named(name) = name { Some(name) } else { None }).collect()
        }
    };
    names.extend(mirrored(&forward.mirrors));
    names
}

fn mirrored(mirrors: &[Arc<MirrorPolicy>]) -> impl Iterator<Item = &Arc<str>> {
    mirrors.iter().filter_map(|mirror| match &mirror.cluster {
        MirrorCluster::Named(name) => Some(name),
        MirrorCluster::Header(_) => None,
    })
}
