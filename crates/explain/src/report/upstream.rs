//! The clusters that may get a request, and their endpoints.

use meltemi_plan::cluster::{LbPolicy, LocalityLb, TransportSocket, UpstreamProtocol};
use meltemi_plan::route::{ClusterSpec, WeightedName};
use meltemi_plan::tcp_proxy::TcpCluster;
use meltemi_plan::tls::{SecretRef, Validation};
use meltemi_plan::{Cluster, ClusterKind, EndpointHealth, LoadAssignment, Metadata, UpstreamTls};
use meltemi_translate::names::Cluster as Name;

use super::{Candidate, Question, Upstream, words};
use crate::request::Request;
use crate::walk::Outcome;

/// More endpoints of one cluster are not of use to a person; JSON has them all.
pub(super) fn all(question: &Question<'_>, request: &Request, outcome: &Outcome<'_>) -> Vec<Upstream> {
    let shares = shares(outcome);
    let total: f64 = shares.iter().map(|(_, weight)| f64::from(*weight)).sum();
    let keeps_token = crate::policy::keeps_token(outcome, request);
    let one = |(name, weight): &(String, u32)| {
        let share = if total > 0.0 { f64::from(*weight) * 100.0 / total } else { 0.0 };
        Upstream { share, ..upstream(question, request, name, keeps_token) }
    };
    shares.iter().map(one).collect()
}

/// The clusters by name, with their weights.
fn shares(outcome: &Outcome<'_>) -> Vec<(String, u32)> {
    if outcome.failure.is_some() {
        return Vec::new();
    }
    if let Some(forward) = outcome.forward() {
        return match &forward.cluster {
            ClusterSpec::Named(name) => vec![(name.to_string(), 1)],
            ClusterSpec::Header(key) => vec![(format!("(what header {key} names)"), 1)],
            ClusterSpec::Weighted(weighted) => {
                let name = |name: &WeightedName| match name {
                    WeightedName::Named(name) => name.to_string(),
                    WeightedName::Header(key) => format!("(what header {key} names)"),
                };
                weighted.clusters.iter().map(|own| (name(&own.cluster), own.weight)).collect()
            }
        };
    }
    match outcome.tcp.map(|tcp| &tcp.cluster) {
        Some(TcpCluster::Single(name)) => vec![(name.to_string(), 1)],
        Some(TcpCluster::Weighted { clusters, .. }) => {
            clusters.iter().map(|own| (own.name.to_string(), own.weight)).collect()
        }
        None => Vec::new(),
    }
}

fn upstream(question: &Question<'_>, request: &Request, name: &str, keeps_token: bool) -> Upstream {
    let mut upstream = Upstream { cluster: name.to_owned(), ..Upstream::default() };
    let Some(resource) = question.sent.cluster(name) else {
        upstream.problem = Some(missing(question, name));
        return upstream;
    };
    let cluster = match &resource.plan {
        Ok(cluster) => cluster,
        Err(error) => {
            upstream.problem = Some(format!("the proxy refuses the cluster: {error}"));
            return upstream;
        }
    };
    upstream.places.extend(question.origins.of_cluster(cluster));
    if let Name::Outbound { host, .. } = Name::parse(name)
        && upstream.places.is_empty()
    {
        upstream.places.extend(question.origins.of_host(host));
    }
    upstream.facts = facts(question, cluster);
    upstream.endpoints = candidates(question, cluster, request);
    super::arrival::ask(question, request, keeps_token, &mut upstream.endpoints);
    if !request.inbound {
        let policies = super::arrival::named(question, &upstream.endpoints);
        upstream.facts.extend(policies.map(|policies| ("policies", policies)));
    }
    upstream.problem = problem(name, cluster, &upstream.endpoints);
    upstream
}

/// A route to a cluster that is not there: most often a subset that no DestinationRule has.
fn missing(question: &Question<'_>, name: &str) -> String {
    let Name::Outbound { port, subset, host } = Name::parse(name) else {
        return "there is no such cluster".to_owned();
    };
    let others = question.sent.clusters.iter().filter_map(|cluster| match Name::parse(&cluster.name) {
        Name::Outbound { host: own, port: at, subset } if own == host => Some((at, subset)),
        _ => None,
    });
    let others: Vec<(u32, &str)> = others.collect();
    if others.is_empty() {
        return format!("this proxy knows no service {host}");
    }
    if others.iter().all(|(own, _)| *own != port) {
        return format!("{host} has no port {port}");
    }
    let subsets = others.iter().filter(|(own, subset)| *own == port && !subset.is_empty());
    let subsets: Vec<&str> = subsets.map(|(_, subset)| *subset).collect();
    match subsets.as_slice() {
        [] => format!("no DestinationRule of {host} has a subset {subset}"),
        some => format!("no DestinationRule of {host} has a subset {subset}; there are {}", some.join(", ")),
    }
}

fn facts(question: &Question<'_>, cluster: &Cluster) -> Vec<(&'static str, String)> {
    let kind = match &cluster.kind {
        ClusterKind::Static => "fixed endpoints",
        ClusterKind::StrictDns => "endpoints by DNS, all answers",
        ClusterKind::LogicalDns => "endpoints by DNS, one answer",
        ClusterKind::Eds => "endpoints from the control plane",
        ClusterKind::OriginalDst(_) => "the original destination",
        ClusterKind::DynamicForward(_) => "the host that the request names, by DNS",
    };
    let mut facts = vec![("discovery", kind.to_owned()), ("load balancer", balancer(cluster))];
    facts.extend(transports(question, cluster).into_iter().map(|transport| ("TLS", security(transport))));
    let protocol = match cluster.http.protocol {
        UpstreamProtocol::Http1 => "HTTP/1.1",
        UpstreamProtocol::Http2 => "HTTP/2",
        UpstreamProtocol::Downstream => "as the client's",
        UpstreamProtocol::Auto => "by ALPN",
    };
    facts.push(("HTTP version", protocol.to_owned()));
    facts.push(("connect timeout", words::duration(cluster.connect_timeout)));
    if let Some(outlier) = &cluster.outlier {
        facts.push((
            "outlier detection",
            format!(
                "ejected after {} consecutive 5xx, for {}, {}% of endpoints at most",
                outlier.consecutive_5xx,
                words::duration(outlier.base_ejection_time),
                outlier.max_ejection_percent
            ),
        ));
    }
    let limits = &cluster.breakers.default;
    let set = [
        (limits.max_connections, "connections"),
        (limits.max_pending_requests, "waiting requests"),
        (limits.max_requests, "requests"),
    ];
    let set: Vec<String> =
        set.iter().filter(|(limit, _)| *limit < u32::MAX).map(|(limit, what)| format!("{limit} {what}")).collect();
    if !set.is_empty() {
        facts.push(("at most", set.join(", ")));
    }
    facts
}

/// What is spoken to the endpoints that there are; without any, whatever may be.
fn transports<'a>(question: &Question<'a>, cluster: &'a Cluster) -> Vec<&'a TransportSocket> {
    let assignment = question.sent.assignment(cluster);
    let endpoints = assignment.iter().flat_map(|assignment| &assignment.localities);
    let endpoints = endpoints.flat_map(|locality| &locality.endpoints);
    let mut used: Vec<u16> = endpoints.map(|endpoint| cluster.transport_index(endpoint.metadata.as_deref())).collect();
    used.sort_unstable();
    used.dedup();
    let of = |index: &u16| match usize::from(*index).checked_sub(1) {
        Some(index) => cluster.transport_matches.get(index).map(|matched| &matched.transport),
        None => Some(&cluster.transport),
    };
    if used.is_empty() {
        let all = cluster.transport_matches.iter().map(|matched| &matched.transport);
        return std::iter::once(&cluster.transport).chain(all).collect();
    }
    used.iter().filter_map(of).collect()
}

fn balancer(cluster: &Cluster) -> String {
    let policy = match &cluster.lb_policy {
        LbPolicy::RoundRobin { .. } => "ROUND_ROBIN",
        LbPolicy::LeastRequest { .. } => "LEAST_REQUEST",
        LbPolicy::Random => "RANDOM",
        LbPolicy::PeakEwma { .. } => "PEAK_EWMA",
        LbPolicy::RingHash { .. } => "RING_HASH",
        LbPolicy::Maglev { .. } => "MAGLEV",
        LbPolicy::ClusterProvided => "none: the one destination",
    };
    let locality = match &cluster.lb.locality {
        LocalityLb::None => return policy.to_owned(),
        LocalityLb::Weighted => "by locality weights",
        LocalityLb::ZoneAware(_) => "zone aware",
    };
    let panic = words::percent(cluster.lb.healthy_panic_threshold);
    format!("{policy}, {locality}; health is ignored when under {panic} are healthy")
}

/// `mutual TLS (the workload's own certificate), SNI …, for spiffe://…`.
fn security(transport: &TransportSocket) -> String {
    match transport {
        TransportSocket::Plain => "plaintext".to_owned(),
        TransportSocket::ProxyProtocol { inner, .. } => format!("{} after a PROXY protocol header", security(inner)),
        TransportSocket::Tls(tls) => secured(tls),
    }
}

fn secured(tls: &UpstreamTls) -> String {
    let mut text = match tls.common.certificates.first() {
        None => "TLS".to_owned(),
        Some(SecretRef::Sds { name, .. }) if &**name == "default" => "mutual TLS (the workload's identity)".to_owned(),
        Some(SecretRef::Sds { name, .. }) => format!("mutual TLS (certificate {name})"),
        Some(SecretRef::Inline(_)) => "mutual TLS (a certificate from files)".to_owned(),
    };
    if !tls.sni.is_empty() {
        text = format!("{text}, SNI {}", tls.sni);
    }
    let context = match &tls.common.validation {
        Validation::None => return format!("{text}, the server is not verified"),
        Validation::Static(context) => Some(context),
        Validation::Combined { default, .. } => Some(default),
        Validation::Sds { .. } => None,
    };
    let names: Vec<String> =
        context.iter().flat_map(|context| &context.sans).map(|san| words::string(&san.matcher)).collect();
    if names.is_empty() { text } else { format!("{text}, to {}", names.join(" or ")) }
}

fn candidates(question: &Question<'_>, cluster: &Cluster, request: &Request) -> Vec<Candidate> {
    if let ClusterKind::OriginalDst(original) = &cluster.kind {
        let port = original.port_override.unwrap_or(request.destination.port());
        let address = std::net::SocketAddr::new(request.ip(), port).to_string();
        let security = short(transport_of(cluster, None));
        return vec![Candidate { address, weight: 1, health: "unknown", security, ..Candidate::default() }];
    }
    question.sent.assignment(cluster).map(|assignment| of_assignment(cluster, assignment)).unwrap_or_default()
}

fn of_assignment(cluster: &Cluster, assignment: &LoadAssignment) -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for locality in &assignment.localities {
        let own = &locality.locality;
        let parts: Vec<&str> = [&own.region, &own.zone, &own.sub_zone]
            .into_iter()
            .map(|part| &**part)
            .filter(|part| !part.is_empty())
            .collect();
        for endpoint in &locality.endpoints {
            candidates.push(Candidate {
                address: endpoint.address.to_string(),
                workload: workload(endpoint.metadata.as_deref()),
                locality: parts.join("/"),
                priority: locality.priority,
                weight: endpoint.weight,
                health: match endpoint.health {
                    EndpointHealth::Healthy | EndpointHealth::Unknown => "healthy",
                    EndpointHealth::Unhealthy => "unhealthy",
                    EndpointHealth::Draining => "draining",
                    EndpointHealth::Timeout => "timeout",
                    EndpointHealth::Degraded => "degraded",
                },
                security: short(transport_of(cluster, endpoint.metadata.as_deref())),
                problem: None,
                policies: Vec::new(),
            });
        }
    }
    candidates.sort_by_key(|candidate| candidate.priority);
    candidates
}

/// `catalog-v1.shop` of `catalog-v1;shop;catalog;v1;Kubernetes`.
fn workload(metadata: Option<&Metadata>) -> String {
    let text = metadata.and_then(|metadata| metadata.value("istio", &["workload"])?.as_str()).unwrap_or_default();
    let mut parts = text.split(';');
    match (parts.next(), parts.next()) {
        (Some(name), Some(namespace)) if !name.is_empty() => format!("{name}.{namespace}"),
        _ => String::new(),
    }
}

fn transport_of<'a>(cluster: &'a Cluster, endpoint: Option<&Metadata>) -> &'a TransportSocket {
    let index = usize::from(cluster.transport_index(endpoint));
    let matched = index.checked_sub(1).and_then(|index| cluster.transport_matches.get(index));
    matched.map_or(&cluster.transport, |matched| &matched.transport)
}

fn short(transport: &TransportSocket) -> String {
    match transport {
        TransportSocket::Plain => "plaintext".to_owned(),
        TransportSocket::ProxyProtocol { inner, .. } => short(inner),
        TransportSocket::Tls(tls) if tls.common.certificates.is_empty() => "TLS".to_owned(),
        TransportSocket::Tls(_) => "mutual TLS".to_owned(),
    }
}

fn problem(name: &str, cluster: &Cluster, endpoints: &[Candidate]) -> Option<String> {
    if name == meltemi_translate::names::BLACK_HOLE_CLUSTER {
        return Some("it leads nowhere by design".to_owned());
    }
    if matches!(cluster.kind, ClusterKind::OriginalDst(_) | ClusterKind::DynamicForward(_)) {
        return None;
    }
    if endpoints.is_empty() {
        return Some("it has no endpoints".to_owned());
    }
    let mut alive = endpoints.iter().filter(|endpoint| endpoint.health == "healthy" || endpoint.health == "degraded");
    let Some(first) = alive.next() else { return Some("none of its endpoints is healthy".to_owned()) };
    let reason = first.problem.as_ref().filter(|_| alive.all(|endpoint| endpoint.problem.is_some()))?;
    Some(format!("its endpoints do not take it: there it is {reason}"))
}
