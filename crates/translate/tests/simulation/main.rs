//! Istio's own traffic expectations, played against the configuration that we generate.
//!
//! The cases are data beside the workspace (`../shared/peer/simulation`); where they are absent the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

mod case;
mod envoy;
mod mesh;

use std::collections::{BTreeMap, BTreeSet};

use case::{Case, Expected, InboundCluster};
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::core::v3::{address, socket_address};
use meltemi_proto::envoy::config::endpoint::v3::{LbEndpoint, lb_endpoint};
use meltemi_proto::envoy::config::listener::v3::{FilterChain, Listener};
use meltemi_proto::envoy::config::route::v3::{RouteConfiguration, VirtualHost, route, route_action};
use meltemi_translate::simulation::{Outcome, Proxy, downstream_tls, http_connection_manager};
use mesh::Generated;

/// Cases that do not pass yet, each with the reason. What starts to pass must leave the list.
const NOT_YET: &[(&str, &str)] = &[("TestSidecarRoutes/httproute/", "HTTPRoute is not read yet")];

/// What a dialect without Istio's filters changes must not change where traffic goes.
const DIALECTS: [&str; 2] = ["istio-proxy", "envoy"];

#[test]
fn istio_s_simulation_cases_hold() {
    let Some(cases) = case::all() else {
        println!("skipped: ../shared/peer/simulation is not there");
        return;
    };
    assert!(cases.len() > 50, "only {} cases found", cases.len());
    let mut failures = Vec::new();
    let mut passed = 0;
    for case in &cases {
        let problems: Vec<String> = DIALECTS.iter().flat_map(|dialect| run(case, dialect)).collect();
        let excused = NOT_YET.iter().find(|(prefix, _)| case.name.starts_with(prefix));
        match (problems.is_empty(), excused) {
            (true, None) => passed += 1,
            (false, Some(_)) | (true, Some(_)) => {}
            (false, None) => failures.push(format!("{} ({})\n  {}", case.name, case.file, problems.join("\n  "))),
        }
    }
    println!("{passed} of {} cases pass", cases.len());
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}

fn run(case: &Case, dialect: &str) -> Vec<String> {
    let generated = match mesh::generate(case, dialect) {
        Ok(generated) => generated,
        Err(problem) => return vec![format!("[{dialect}] {problem}")],
    };
    let mut problems = Vec::new();
    problems.extend(invalid(&generated));
    problems.extend(refused_by_our_proxy(&generated));
    if dialect == "envoy" {
        problems.extend(envoy::refusal(&generated, &case.file));
    }
    match &case.expected {
        Expected::Calls => {}
        Expected::VirtualHosts { route, hosts } => problems.extend(virtual_hosts(&generated, route, hosts.as_ref())),
        Expected::InboundClusters(names) => problems.extend(inbound_clusters(&generated, names)),
        Expected::ExternalSecret { listener, secret, cluster } => {
            problems.extend(external_secret(&generated, listener, secret, cluster));
        }
    }
    let proxy = Proxy { listeners: &generated.listeners, routes: &generated.routes };
    for call in &case.calls {
        let outcome = proxy.play(&call.call);
        let chain = proxy.filter_chain(&call.call).ok();
        for problem in call.compare(&outcome, chain) {
            problems.push(format!("{}: {problem}; got {}", call.name, describe(&outcome)));
        }
    }
    problems.into_iter().map(|problem| format!("[{dialect}] {problem}")).collect()
}

fn describe(outcome: &Outcome) -> String {
    let failure = outcome.failure.map_or("ok".to_owned(), |failure| failure.to_string());
    format!(
        "{failure}, listener {:?}, chain {:?}, rds {:?}, vhost {:?}, route {:?}, cluster {:?}",
        outcome.listener,
        outcome.filter_chain,
        outcome.route_config,
        outcome.virtual_host,
        outcome.route,
        outcome.cluster
    )
}

fn virtual_hosts(
    generated: &Generated,
    name: &str,
    expected: Option<&BTreeMap<String, Option<Vec<String>>>>,
) -> Vec<String> {
    let Some(expected) = expected else { return Vec::new() };
    let Some(config) = generated.routes.iter().find(|route| route.name == name) else {
        return vec![format!("no route configuration {name}")];
    };
    let mut problems = Vec::new();
    for (domain, clusters) in expected {
        let found = config.virtual_hosts.iter().find(|host| host.domains.contains(domain)).map(clusters_of);
        let found = found.filter(|clusters| !clusters.is_empty());
        if found != *clusters {
            problems.push(format!("{domain}: expected {clusters:?}, got {found:?}"));
        }
    }
    problems
}

fn clusters_of(host: &VirtualHost) -> Vec<String> {
    let mut clusters: Vec<String> = host
        .routes
        .iter()
        .filter_map(|route| match &route.action {
            Some(route::Action::Route(action)) => match &action.cluster_specifier {
                Some(route_action::ClusterSpecifier::Cluster(name)) => Some(name.clone()),
                _ => None,
            },
            _ => None,
        })
        .collect();
    clusters.sort();
    clusters
}

fn inbound_clusters(generated: &Generated, expected: &BTreeMap<String, InboundCluster>) -> Vec<String> {
    let inbound = generated.clusters.iter().filter(|cluster| cluster.name.starts_with("inbound"));
    let found: BTreeMap<String, InboundCluster> =
        inbound.map(|cluster| (cluster.name.clone(), inbound_of(cluster))).collect();
    if found == *expected {
        return Vec::new();
    }
    vec![format!("expected inbound clusters {expected:?}, got {found:?}")]
}

fn inbound_of(cluster: &Cluster) -> InboundCluster {
    let endpoints = cluster.load_assignment.as_ref().map(|assignment| {
        let endpoints = assignment.endpoints.iter().flat_map(|locality| &locality.lb_endpoints);
        endpoints.filter_map(address_of).collect()
    });
    InboundCluster { endpoints, services: services_of(cluster) }
}

fn address_of(endpoint: &LbEndpoint) -> Option<String> {
    let Some(lb_endpoint::HostIdentifier::Endpoint(endpoint)) = &endpoint.host_identifier else { return None };
    match endpoint.address.as_ref()?.address.as_ref()? {
        address::Address::Pipe(pipe) => Some(pipe.path.clone()),
        address::Address::SocketAddress(socket) => match socket.port_specifier {
            Some(socket_address::PortSpecifier::PortValue(port)) => Some(format!("{}:{port}", socket.address)),
            _ => None,
        },
        _ => None,
    }
}

/// Hosts of the services that telemetry reports for the cluster.
fn services_of(cluster: &Cluster) -> Option<Vec<String>> {
    use meltemi_proto::prost_types::value::Kind;
    let istio = cluster.metadata.as_ref()?.filter_metadata.get("istio")?;
    let Some(Kind::ListValue(services)) = &istio.fields.get("services")?.kind else { return None };
    let host = |value: &meltemi_proto::prost_types::Value| match &value.kind {
        Some(Kind::StructValue(service)) => match &service.fields.get("host")?.kind {
            Some(Kind::StringValue(host)) => Some(host.clone()),
            _ => None,
        },
        _ => None,
    };
    Some(services.values.iter().filter_map(host).collect())
}

fn external_secret(generated: &Generated, listener: &str, secret: &str, cluster: &str) -> Vec<String> {
    let chain = generated.listeners.iter().find(|own| own.name == listener).and_then(|own| own.filter_chains.first());
    let tls = chain.and_then(downstream_tls).and_then(|tls| tls.common_tls_context);
    let Some(found) = tls.and_then(|common| common.tls_certificate_sds_secret_configs.into_iter().next()) else {
        return vec![format!("{listener} has no secret")];
    };
    let text = format!("{:?}", found.sds_config);
    if found.name == secret && text.contains(cluster) {
        return Vec::new();
    }
    vec![format!("expected secret {secret} from {cluster}, got {} from {text}", found.name)]
}

/// Our own proxy takes every resource whole.
fn refused_by_our_proxy(generated: &Generated) -> Vec<String> {
    let listeners =
        generated.listeners.iter().filter_map(|l| Some(format!("{}: {}", l.name, meltemi_plan::listener(l).err()?)));
    let routes = generated
        .routes
        .iter()
        .filter_map(|r| Some(format!("{}: {}", r.name, meltemi_plan::route_configuration(r).err()?)));
    let clusters =
        generated.clusters.iter().filter_map(|c| Some(format!("{}: {}", c.name, meltemi_plan::cluster(c).err()?)));
    listeners.chain(routes).chain(clusters).map(|refusal| format!("plan refuses {refusal}")).collect()
}

/// What Envoy would refuse.
fn invalid(generated: &Generated) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    for listener in &generated.listeners {
        if !names.insert(&listener.name) {
            problems.push(format!("two listeners {}", listener.name));
        }
        problems.extend(invalid_listener(listener));
    }
    problems.extend(generated.routes.iter().flat_map(invalid_routes));
    problems
}

fn invalid_listener(listener: &Listener) -> Vec<String> {
    let mut problems = Vec::new();
    let mut matches = BTreeSet::new();
    for chain in &listener.filter_chains {
        let key = format!("{:?}", chain.filter_chain_match.clone().unwrap_or_default());
        if !matches.insert(key) {
            problems.push(format!("{}: two filter chains with one match", listener.name));
        }
        problems.extend(invalid_chain(&listener.name, chain));
    }
    if listener.filter_chains.is_empty() {
        problems.push(format!("{}: no filter chains", listener.name));
    }
    problems
}

fn invalid_chain(listener: &str, chain: &FilterChain) -> Vec<String> {
    let mut problems = Vec::new();
    if chain.filters.is_empty() {
        problems.push(format!("{listener}: chain {:?} has no filters", chain.name));
    }
    if let Some(manager) = http_connection_manager(chain)
        && manager.http_filters.last().is_none_or(|filter| filter.name != "envoy.filters.http.router")
    {
        problems.push(format!("{listener}: the last HTTP filter is not the router"));
    }
    problems
}

fn invalid_routes(config: &RouteConfiguration) -> Vec<String> {
    let mut problems = Vec::new();
    let mut names = BTreeSet::new();
    let mut domains = BTreeSet::new();
    for host in &config.virtual_hosts {
        if !names.insert(&host.name) {
            problems.push(format!("{}: two virtual hosts {}", config.name, host.name));
        }
        for domain in &host.domains {
            if !domains.insert(domain.to_lowercase()) {
                problems.push(format!("{}: domain {domain} twice", config.name));
            }
        }
        if host.domains.is_empty() {
            problems.push(format!("{}: virtual host {} has no domains", config.name, host.name));
        }
    }
    problems
}
