//! The label values of one stream, and what configuration changes in them.

use std::sync::Arc;

use meltemi_http::RequestHead;
use meltemi_plan::Cluster;
use meltemi_plan::filter::IstioMetricConfig;
use meltemi_telemetry::metrics::Labels;

use super::Reporter;
use crate::info::{StreamInfo, TlsInfo};
use crate::peer::Peer;

const UNKNOWN: &str = "unknown";

/// Labels of one metric: as standard, or changed by a Telemetry resource.
#[derive(Debug)]
pub(super) enum LabelRules {
    Standard,
    Drop,
    Changed { remove: Vec<Arc<str>>, set: Vec<(Arc<str>, Arc<str>)> },
}

impl LabelRules {
    /// Entries without a name are for every metric; a later entry adds to an earlier one.
    pub fn new(config: &[IstioMetricConfig], metric: &str) -> Self {
        let mine = || config.iter().filter(|c| c.name.is_empty() || &*c.name == metric);
        if mine().any(|c| c.drop) {
            return Self::Drop;
        }
        let remove: Vec<_> = mine().flat_map(|c| c.tags_to_remove.clone()).collect();
        let set: Vec<_> = mine().flat_map(|c| c.dimensions.clone()).collect();
        if remove.is_empty() && set.is_empty() { Self::Standard } else { Self::Changed { remove, set } }
    }

    pub fn apply(&self, standard: &[(&'static str, String)]) -> Labels {
        let Self::Changed { remove, set } = self else {
            return Labels::new(standard.iter().map(|(k, v)| (*k, v.as_str())));
        };
        let kept = standard.iter().filter(|(k, _)| !remove.iter().any(|r| &**r == *k)).map(|(k, v)| {
            let value = set.iter().find(|(name, _)| &**name == *k).map_or(v.as_str(), |(_, value)| value);
            (*k, value)
        });
        let new = set.iter().filter(|(name, _)| !standard.iter().any(|(k, _)| *k == &**name));
        Labels::new(kept.chain(new.map(|(k, v)| (&**k, &**v))))
    }
}

pub(super) struct Facts<'a> {
    pub reporter: Reporter,
    pub local: &'a Arc<Peer>,
    pub info: &'a StreamInfo,
    /// For the fall-back to the host header.
    pub request: Option<&'a RequestHead>,
    pub is_http: bool,
}

/// Istio's pass-through and drop clusters stand for themselves.
fn own_name(cluster: &Cluster) -> Option<&str> {
    let name = &*cluster.name;
    matches!(
        name,
        "BlackHoleCluster"
            | "PassthroughCluster"
            | "InboundPassthroughCluster"
            | "InboundPassthroughClusterIpv4"
            | "InboundPassthroughClusterIpv6"
    )
    .then_some(name)
}

/// The service that the control plane says a cluster is of: host, name, namespace.
fn service(cluster: &Cluster) -> Option<(&str, &str, &str)> {
    let services = cluster.metadata.value("istio", &["services"])?.as_array()?;
    let first = services.first()?;
    let text = |key: &str| first.get(key).and_then(|v| v.as_str()).unwrap_or_default();
    Some((text("host"), text("name"), text("namespace")))
}

/// Whether labels of this cluster do not depend on the request's host.
pub(super) fn names_service(cluster: &Cluster) -> bool {
    service(cluster).is_some_and(|(host, ..)| !host.is_empty())
}

/// The standard labels in Istio's order.
pub(super) fn standard(facts: &Facts<'_>) -> Vec<(&'static str, String)> {
    let info = facts.info;
    let from_endpoint = info.upstream.metadata.as_deref().and_then(Peer::from_endpoint).map(Arc::new);
    let upstream = info.upstream.peer.clone().or(from_endpoint);
    let downstream = info.downstream_peer().cloned();
    let local = || Some(facts.local.clone());
    let (source, destination) = match facts.reporter {
        Reporter::Source => (local(), upstream),
        Reporter::Destination => (downstream, local()),
        Reporter::Waypoint => (downstream, upstream),
    };
    let (source_principal, destination_principal) = principals(facts);
    let mut labels = vec![("reporter", reporter(facts.reporter).to_owned())];
    labels.extend(source_labels(source.as_deref(), source_principal));
    labels.extend(destination_labels(facts, destination.as_deref(), destination_principal));
    labels.extend(protocol_labels(facts));
    labels
}

fn reporter(reporter: Reporter) -> &'static str {
    match reporter {
        Reporter::Source => "source",
        Reporter::Destination => "destination",
        Reporter::Waypoint => "waypoint",
    }
}

/// A peer's value, or the default where the peer or the value is unknown.
fn value(peer: Option<&Peer>, field: fn(&Peer) -> &Arc<str>, default: &str) -> String {
    peer.map(|p| &**field(p)).filter(|v| !v.is_empty()).unwrap_or(default).to_owned()
}

fn source_labels(peer: Option<&Peer>, principal: Option<String>) -> Vec<(&'static str, String)> {
    vec![
        ("source_workload", value(peer, |p| &p.workload, UNKNOWN)),
        ("source_canonical_service", value(peer, |p| &p.canonical_service, UNKNOWN)),
        ("source_canonical_revision", value(peer, |p| &p.canonical_revision, "latest")),
        ("source_workload_namespace", value(peer, |p| &p.namespace, UNKNOWN)),
        ("source_principal", principal.unwrap_or_else(|| UNKNOWN.to_owned())),
        ("source_app", value(peer, |p| &p.app, UNKNOWN)),
        ("source_version", value(peer, |p| &p.version, UNKNOWN)),
        ("source_cluster", value(peer, |p| &p.cluster, UNKNOWN)),
    ]
}

fn destination_labels(
    facts: &Facts<'_>,
    peer: Option<&Peer>,
    principal: Option<String>,
) -> Vec<(&'static str, String)> {
    let (host, name, namespace) = destination_service(facts, peer);
    vec![
        ("destination_workload", value(peer, |p| &p.workload, UNKNOWN)),
        ("destination_workload_namespace", value(peer, |p| &p.namespace, UNKNOWN)),
        ("destination_principal", principal.unwrap_or_else(|| UNKNOWN.to_owned())),
        ("destination_app", value(peer, |p| &p.app, UNKNOWN)),
        ("destination_version", value(peer, |p| &p.version, UNKNOWN)),
        ("destination_service", host),
        ("destination_canonical_service", value(peer, |p| &p.canonical_service, UNKNOWN)),
        ("destination_canonical_revision", value(peer, |p| &p.canonical_revision, "latest")),
        ("destination_service_name", name),
        ("destination_service_namespace", namespace),
        ("destination_cluster", value(peer, |p| &p.cluster, UNKNOWN)),
    ]
}

fn destination_service(facts: &Facts<'_>, peer: Option<&Peer>) -> (String, String, String) {
    let cluster = facts.info.upstream.cluster.as_deref();
    let (mut host, mut name, mut namespace) = match cluster.and_then(service) {
        Some((host, name, namespace)) => (host.to_owned(), name.to_owned(), namespace.to_owned()),
        None => Default::default(),
    };
    if host.is_empty() {
        host = facts.request.map(|r| r.authority.as_str().to_owned()).unwrap_or_default();
    }
    if let Some(own) = cluster.and_then(own_name) {
        name = own.to_owned();
    }
    if namespace.is_empty() {
        namespace = value(peer, |p| &p.namespace, UNKNOWN);
    }
    if host.is_empty() {
        host = UNKNOWN.to_owned();
    }
    if name.is_empty() {
        name.clone_from(&host);
    }
    (host, name, namespace)
}

/// Source and destination by the certificates that this proxy saw.
fn principals(facts: &Facts<'_>) -> (Option<String>, Option<String>) {
    let peer = |tls: &TlsInfo| tls.peer.as_ref().and_then(|p| p.uri_sans.first().cloned());
    let own = |tls: &TlsInfo| tls.local_uri_sans.first().cloned();
    let downstream = facts.info.connection.tls.as_ref();
    let upstream = facts.info.upstream.tls.as_ref();
    match facts.reporter {
        Reporter::Source => (upstream.and_then(own), upstream.and_then(peer)),
        Reporter::Destination => (downstream.and_then(peer), downstream.and_then(own)),
        Reporter::Waypoint => (downstream.and_then(peer), upstream.and_then(peer)),
    }
}

fn protocol_labels(facts: &Facts<'_>) -> Vec<(&'static str, String)> {
    let info = facts.info;
    let policy = match facts.reporter {
        Reporter::Source => UNKNOWN,
        Reporter::Destination | Reporter::Waypoint if info.connection.is_mutual_tls() => "mutual_tls",
        Reporter::Destination | Reporter::Waypoint => "none",
    };
    let mut labels = Vec::with_capacity(5);
    let protocol = match (facts.is_http, info.is_grpc) {
        (false, _) => "tcp",
        (true, true) => "grpc",
        (true, false) => "http",
    };
    labels.push(("request_protocol", protocol.to_owned()));
    if facts.is_http {
        labels.push(("response_code", info.response_code.unwrap_or(0).to_string()));
        let status = info.grpc_status.filter(|_| info.is_grpc);
        labels.push(("grpc_response_status", status.map(|s| s.to_string()).unwrap_or_default()));
    }
    labels.push(("response_flags", info.flags.to_string()));
    labels.push(("connection_security_policy", policy.to_owned()));
    labels
}
