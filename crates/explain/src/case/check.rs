//! What a case expects of the resources themselves.

use std::collections::{BTreeMap, BTreeSet};

use meltemi_plan::filter::HttpFilterConfig;
use meltemi_plan::tls::SecretRef;
use meltemi_plan::{FilterChain, Listener};
use serde_json::{Value, json};

use super::Played;
use super::read::{Case, Expected, InboundCluster, text_of};
use crate::sent::{Sent, chains, manager};

/// Everything that the case expects besides its calls.
pub(super) fn resources(case: &Case, sent: &Sent) -> Vec<Played> {
    match &case.expected {
        Expected::Nothing => Vec::new(),
        Expected::VirtualHosts { route, hosts: Some(hosts) } => virtual_hosts(sent, route, hosts),
        // Nothing is asked of it, not even that it is there.
        Expected::VirtualHosts { route, hosts: None } => {
            vec![Played { call: format!("route {route}"), result: Value::Null, problems: Vec::new() }]
        }
        Expected::InboundClusters(clusters) => inbound_clusters(sent, clusters),
        Expected::Assertions(list) => list.iter().map(|assertion| assert(sent, assertion)).collect(),
    }
}

fn virtual_hosts(sent: &Sent, route: &str, expected: &BTreeMap<String, Option<Vec<String>>>) -> Vec<Played> {
    let Some(resource) = sent.route(route) else {
        let problems = vec![format!("there is no route configuration {route}")];
        return vec![Played { call: format!("route {route}"), result: Value::Null, problems }];
    };
    let json = resource.json();
    let hosts = json["virtual_hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
    let of_domain = |(domain, wanted): (&String, &Option<Vec<String>>)| {
        let has = |host: &&Value| host["domains"].as_array().is_some_and(|list| list.contains(&json!(domain)));
        let found = hosts.iter().find(has).map(clusters_of).filter(|clusters| !clusters.is_empty());
        let problems = if found == *wanted {
            Vec::new()
        } else {
            vec![format!("clusters: expected {}, got {}", json!(wanted), json!(found))]
        };
        Played { call: format!("{route} {domain}"), result: json!({"clusters": found}), problems }
    };
    expected.iter().map(of_domain).collect()
}

/// The single clusters of a virtual host's routes, in order of their names.
fn clusters_of(host: &Value) -> Vec<String> {
    let routes = host["routes"].as_array().into_iter().flatten();
    let clusters = routes.filter_map(|route| route["route"]["cluster"].as_str().map(str::to_owned));
    let mut clusters: Vec<String> = clusters.filter(|name| !name.is_empty()).collect();
    clusters.sort();
    clusters
}

fn inbound_clusters(sent: &Sent, expected: &BTreeMap<String, InboundCluster>) -> Vec<Played> {
    let inbound = sent.clusters.iter().filter(|cluster| cluster.name.starts_with("inbound"));
    let found: BTreeMap<&str, InboundCluster> =
        inbound.map(|cluster| (&*cluster.name, inbound_of(&cluster.json()))).collect();
    let names: BTreeSet<&str> = expected.keys().map(String::as_str).chain(found.keys().copied()).collect();
    let compare = |name: &str| {
        let (wanted, found) = (expected.get(name), found.get(name));
        let shown = |cluster: Option<&InboundCluster>| match cluster {
            Some(cluster) => json!({"endpoints": cluster.endpoints, "telemetry_services": cluster.services}),
            None => Value::Null,
        };
        let difference = || format!("cluster: expected {}, got {}", shown(wanted), shown(found));
        let problems = if wanted == found { Vec::new() } else { vec![difference()] };
        Played { call: format!("cluster {name}"), result: shown(found), problems }
    };
    // A cluster that is as expected is told by its call alone.
    names.into_iter().map(compare).filter(|played| !played.passed()).collect()
}

fn inbound_of(cluster: &Value) -> InboundCluster {
    let assignment = cluster.get("load_assignment").map(|assignment| {
        let localities = assignment["endpoints"].as_array().into_iter().flatten();
        let endpoints = localities.flat_map(|locality| locality["lb_endpoints"].as_array().into_iter().flatten());
        endpoints.map(|endpoint| address(&endpoint["endpoint"]["address"])).collect()
    });
    let services = cluster["metadata"]["filter_metadata"]["istio"]["services"].as_array();
    let hosts = services.map(|list| list.iter().map(|service| text_of(&service["host"])).collect());
    InboundCluster { endpoints: assignment, services: hosts }
}

fn address(address: &Value) -> String {
    let socket = &address["socket_address"];
    match address["pipe"]["path"].as_str() {
        Some(path) => path.to_owned(),
        None => format!("{}:{}", text_of(&socket["address"]), socket["port_value"].as_u64().unwrap_or_default()),
    }
}

/// One assertion on a listener, in the words of the file.
fn assert(sent: &Sent, assertion: &Value) -> Played {
    let what = assertion["assert"].as_str().unwrap_or_default();
    let name = assertion["name"].as_str().unwrap_or_default();
    let listener = sent.listener(name);
    let json = listener.map(|listener| listener.json()).unwrap_or_default();
    let at = |key: &str| assertion[key].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or_default();
    let socket = &json["filter_chains"][at("filter_chain_index")]["transport_socket"];
    let secrets = &socket["typed_config"]["common_tls_context"]["tls_certificate_sds_secret_configs"];
    let secret = &secrets[at("secret_index")];
    let is_known = |wanted: bool| if listener.is_some() == wanted { Ok(json!(wanted)) } else { Err(json!(!wanted)) };
    let outcome = match what {
        "listener_exists" => is_known(true),
        "listener_absent" | "listener_not_exists" => is_known(false),
        "filter_chain_has_transport_socket" => flag(socket.is_object(), true),
        "filter_chain_has_no_transport_socket" => flag(!socket.is_object(), true),
        "sds_secret_config" => sds_secret(secret, assertion),
        _ => Err(json!("an assertion that is not known here")),
    };
    let problems = match &outcome {
        Ok(_) => Vec::new(),
        Err(found) => vec![format!("expected {assertion}, got {found}")],
    };
    let result = match outcome {
        Ok(found) | Err(found) => found,
    };
    Played { call: format!("{what} {name}"), result, problems }
}

fn flag(holds: bool, found: bool) -> Result<Value, Value> {
    if holds { Ok(json!(found)) } else { Err(json!(!found)) }
}

fn sds_secret(secret: &Value, assertion: &Value) -> Result<Value, Value> {
    let cluster = secret["sds_config"]["api_config_source"]["grpc_services"][0]["envoy_grpc"]["cluster_name"].as_str();
    let found = json!({"secret_name": secret["name"], "api_config_source_grpc_cluster": cluster});
    let same = |key: &str| assertion.get(key).is_none_or(|wanted| *wanted == found[key]);
    if same("secret_name") && same("api_config_source_grpc_cluster") { Ok(found) } else { Err(found) }
}

/// A named check of a call's filter chain.
pub(super) fn custom(validation: &str, chain: Option<&FilterChain>) -> Option<String> {
    match validation {
        "downstream_tls_simple_file_cert" => {
            let fits = chain.is_some_and(has_simple_file_certificate);
            (!fits).then(|| "expected a server certificate from files".to_owned())
        }
        other => Some(format!("a validation that is not known here: {other}")),
    }
}

fn has_simple_file_certificate(chain: &FilterChain) -> bool {
    let Some(tls) = &chain.tls else { return false };
    let named = match tls.common.certificates.first() {
        Some(SecretRef::Sds { name, .. }) => &**name == "file-cert:httpbin.pem~httpbinkey.pem",
        Some(SecretRef::Inline(_)) | None => false,
    };
    named && !tls.require_client_certificate
}

/// What a proxy would refuse, ours or Envoy.
pub(super) fn invalid(sent: &Sent) -> Vec<String> {
    let mut problems: Vec<String> =
        sent.refusals().into_iter().map(|refusal| format!("our proxy refuses {refusal}")).collect();
    let mut names = BTreeSet::new();
    for listener in &sent.listeners {
        if !names.insert(&listener.name) {
            problems.push(format!("two listeners {}", listener.name));
        }
        problems.extend(listener.plan.iter().flat_map(invalid_listener));
    }
    for routes in sent.routes.iter().filter_map(|resource| resource.plan.as_ref().ok()) {
        let mut names = BTreeSet::new();
        let again = routes.virtual_hosts.iter().filter(|host| !names.insert(&host.name));
        problems.extend(again.map(|host| format!("{}: two virtual hosts {}", routes.name, host.name)));
    }
    problems
}

fn invalid_listener(listener: &Listener) -> Vec<String> {
    let mut problems = Vec::new();
    for chain in chains(listener) {
        if chain.filters.is_empty() {
            problems.push(format!("{}: chain {:?} has no filters", listener.name, chain.name));
        }
        let last = manager(chain).map(|manager| manager.http_filters.last().map(|filter| &filter.config));
        if last.is_some_and(|last| !matches!(last, Some(HttpFilterConfig::Router(_)))) {
            problems.push(format!("{}: the last HTTP filter is not the router", listener.name));
        }
    }
    problems
}
