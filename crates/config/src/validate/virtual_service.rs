//! VirtualService: hosts, gateways, and its three kinds of routes.

use super::http::{actions, http_match};
use super::{Validation, common, reachability};
use crate::names;
use crate::networking::{
    Destination, HeaderOperations, Headers, HttpRoute, L4MatchAttributes, RouteDestination, StringMatchType, TcpRoute,
    TlsRoute, VirtualService,
};
use crate::object::Meta;
use crate::path::Path;
use crate::wire::Str;

/// Whom the rule is for.
pub(super) struct Scope {
    /// A delegate has no hosts.
    pub delegate: bool,
    /// Bound to gateways and not to the mesh.
    pub only_gateways: bool,
    /// Some TLS route asks for a server name.
    server_names: bool,
}

fn server_names(spec: &VirtualService) -> bool {
    spec.tls.iter().flat_map(|route| &route.matches).any(|m| !m.sni_hosts.is_empty())
}

pub(super) fn virtual_service(spec: &VirtualService, meta: &Meta, at: &Path<'_>, v: &mut Validation) {
    let mesh = spec.gateways.is_empty() || spec.gateways.iter().any(|g| &**g == "mesh");
    let scope = Scope { delegate: spec.hosts.is_empty(), only_gateways: !mesh, server_names: server_names(spec) };
    if scope.delegate {
        v.require(
            &at.field("gateways"),
            spec.gateways.is_empty(),
            "delegate virtual service must have no gateways specified",
        );
        v.require(&at.field("tcp"), spec.tcp.is_empty(), "delegate virtual service must have no tcp route specified");
        v.require(&at.field("tls"), spec.tls.is_empty(), "delegate virtual service must have no tls route specified");
    }
    gateway_names(&spec.gateways, at, v);
    hosts(spec, &scope, at, v);
    if spec.http.is_empty() && spec.tcp.is_empty() && spec.tls.is_empty() {
        v.error(at, "http, tcp or tls must be provided in virtual service");
    }
    let routes = at.field("http");
    for (i, route) in spec.http.iter().enumerate() {
        http_route(route, &scope, &routes.index(i), v);
    }
    reachability::unused(spec, at, v);
    let routes = at.field("tls");
    for (i, route) in spec.tls.iter().enumerate() {
        tls_route(route, spec, &routes.index(i), v);
    }
    let routes = at.field("tcp");
    for (i, route) in spec.tcp.iter().enumerate() {
        tcp_route(route, &routes.index(i), v);
    }
    common::export_to(&spec.export_to, &meta.namespace, false, at, v);
}

fn hosts(spec: &VirtualService, scope: &Scope, at: &Path<'_>, v: &mut Validation) {
    let at = at.field("hosts");
    for (i, host) in spec.hosts.iter().enumerate() {
        let at = at.index(i);
        if !scope.only_gateways && &**host == "*" {
            v.error(&at, "wildcard host * is not allowed for virtual services bound to the mesh gateway");
        }
        let valid = if scope.only_gateways {
            names::gateway_domain(host, scope.server_names)
        } else {
            names::wildcard_domain(host)
        };
        if names::ip(host).is_err() {
            v.check(&at, valid);
        }
        if let Some(other) = spec.hosts[..i].iter().find(|o| names::hosts_overlap(o, host)) {
            v.error(&at, format_args!("duplicate hosts in virtual service: {host:?} overlaps {other:?}"));
        }
    }
}

/// `mesh`, `name`, `namespace/name` or, as long ago, `name.namespace.svc.cluster.local`.
pub(super) fn gateway_names(list: &[Str], at: &Path<'_>, v: &mut Validation) {
    let at = at.field("gateways");
    for (i, gateway) in list.iter().enumerate() {
        let at = at.index(i);
        match gateway.split_once('/') {
            None => {
                v.check(&at, names::fqdn(gateway));
                if gateway.contains('.') {
                    v.warn(&at, "this form of a gateway's name is from long ago; write namespace/name");
                }
            }
            Some((namespace, name)) => {
                v.check(&at, names::dns_label(namespace));
                v.check(&at, names::dns_label(name));
            }
        }
    }
}

fn http_route(route: &HttpRoute, scope: &Scope, at: &Path<'_>, v: &mut Validation) {
    let matches = at.field("match");
    for (i, m) in route.matches.iter().enumerate() {
        http_match(m, scope, &matches.index(i), v);
    }
    match &route.delegate {
        Some(delegate) => {
            let at = at.field("delegate");
            v.require(&at, !scope.delegate, "delegate HTTP route cannot contain delegate");
            if delegate.name.is_empty() {
                v.warn(&at, "without a name the route leads nowhere");
            }
            v.require(&at, route.route.is_empty(), "root HTTP route must not specify route");
            v.require(&at, route.redirect.is_none(), "root HTTP route must not specify redirect");
            v.require(&at, route.direct_response.is_none(), "root HTTP route must not specify direct_response");
        }
        None => destinations_or_answer(route, at, v),
    }
    destinations(route, &at.field("route"), v);
    actions(route, at, v);
    authority_twice(route, at, v);
    prefix_redirect(route, at, v);
}

fn destinations_or_answer(route: &HttpRoute, at: &Path<'_>, v: &mut Validation) {
    let answers = [!route.route.is_empty(), route.redirect.is_some(), route.direct_response.is_some()];
    match answers.iter().filter(|a| **a).count() {
        0 => v.error(at, "HTTP route, redirect or direct_response is required"),
        1 => {}
        _ => v.error(at, "HTTP route can contain only one of route, redirect and directResponse"),
    }
    let answer = match (&route.redirect, &route.direct_response) {
        (Some(_), _) => "redirect",
        (None, Some(_)) => "direct_response",
        (None, None) => return,
    };
    v.require(at, route.fault.is_none(), format_args!("HTTP route cannot contain both fault and {answer}"));
    v.require(at, route.rewrite.is_none(), format_args!("HTTP route rule cannot contain both rewrite and {answer}"));
}

fn destinations(route: &HttpRoute, at: &Path<'_>, v: &mut Validation) {
    for (i, to) in route.route.iter().enumerate() {
        let at = at.index(i);
        destination(&to.destination, &at.field("destination"), v);
        if let Some(headers) = &to.headers {
            header_rules(headers, &at.field("headers"), v);
        }
    }
    weights(route.route.iter().map(|r| r.weight), at, v);
}

fn authority_twice(route: &HttpRoute, at: &Path<'_>, v: &mut Validation) {
    let is_authority = |name: &Str| name.eq_ignore_ascii_case(":authority") || name.eq_ignore_ascii_case("host");
    let rewritten = route.rewrite.iter().map(|rewrite| &rewrite.authority);
    let request = route.headers.iter().flat_map(|headers| &headers.request);
    let written = request.flat_map(|r| r.set.iter().chain(&r.add)).filter(|(name, _)| is_authority(name));
    let values = rewritten.chain(written.map(|(_, value)| value)).filter(|value| !value.is_empty());
    v.require(at, values.count() <= 1, "authority header cannot be set multiple times");
}

fn prefix_redirect(route: &HttpRoute, at: &Path<'_>, v: &mut Validation) {
    if route.redirect.as_ref().is_none_or(|r| r.prefix_rewrite.is_empty()) {
        return;
    }
    let matches = at.field("match");
    for (i, m) in route.matches.iter().enumerate() {
        if m.uri.as_ref().is_some_and(|uri| !matches!(uri.kind(), StringMatchType::Prefix(_))) {
            v.error(
                &matches.index(i).field("uri"),
                "redirect prefix_rewrite requires all URI matches to use prefix match type",
            );
        }
    }
}

/// Where traffic goes.
pub(super) fn destination(to: &Destination, at: &Path<'_>, v: &mut Validation) {
    let host = at.field("host");
    match &*to.host {
        "" => v.error(&host, "destination is required: empty domain name not allowed"),
        "*" => v.error(&host, "invalid destination host \"*\""),
        name => v.check(&host, names::wildcard_domain(name)),
    }
    if !to.subset.is_empty() {
        v.check(&at.field("subset"), names::dns_label(&to.subset));
    }
    if let Some(port) = &to.port {
        v.check(&at.field("port").field("number"), names::port(port.number));
    }
}

fn weights(weights: impl ExactSizeIterator<Item = i32>, at: &Path<'_>, v: &mut Validation) {
    let count = weights.len();
    let mut total = 0i64;
    for (i, weight) in weights.enumerate() {
        v.require(&at.index(i).field("weight"), weight >= 0, format_args!("weight {weight} is negative"));
        total += i64::from(weight);
    }
    v.require(at, count <= 1 || total > 0, "total destination weight = 0");
}

/// Header changes of a route or destination.
pub(super) fn header_rules(headers: &Headers, at: &Path<'_>, v: &mut Validation) {
    for (field, operations) in [("request", &headers.request), ("response", &headers.response)] {
        if let Some(operations) = operations {
            header_operations(operations, field == "request", &at.field(field), v);
        }
    }
}

/// The authority of a request can be changed, under either of its names.
fn header_operations(operations: &HeaderOperations, request: bool, at: &Path<'_>, v: &mut Validation) {
    let is_authority = |name: &str| name == ":authority" || name.eq_ignore_ascii_case("host");
    for (field, map) in [("set", &operations.set), ("add", &operations.add)] {
        let at = at.field(field);
        for (name, value) in map {
            let at = at.field(name);
            if !(request && is_authority(name)) {
                v.check(&at, plain_header(name));
            }
            v.check(&at, names::header_value(value));
        }
    }
    let remove = at.field("remove");
    for (i, name) in operations.remove.iter().enumerate() {
        v.check(&remove.index(i), plain_header(name));
    }
}

fn plain_header(name: &str) -> Result<(), String> {
    if name.eq_ignore_ascii_case("host") {
        return Err("the Host header cannot be removed, and a response has none".into());
    }
    names::header_name(name)
}

fn tls_route(route: &TlsRoute, spec: &VirtualService, at: &Path<'_>, v: &mut Validation) {
    let mesh = spec.gateways.iter().any(|gateway| &**gateway == "mesh");
    v.require(at, !route.matches.is_empty(), "TLS route must have at least one match condition");
    let matches = at.field("match");
    for (i, m) in route.matches.iter().enumerate() {
        let at = matches.index(i);
        let l4 = L4MatchAttributes {
            destination_subnets: m.destination_subnets.clone(),
            port: m.port,
            source_labels: m.source_labels.clone(),
            gateways: m.gateways.clone(),
            source_namespace: m.source_namespace.clone(),
            ..Default::default()
        };
        l4_match(&l4, &at, v);
        v.require(&at, !m.sni_hosts.is_empty(), "TLS match must have at least one SNI host");
        let sni_hosts = at.field("sniHosts");
        for (i, sni) in m.sni_hosts.iter().enumerate() {
            let at = sni_hosts.index(i);
            if names::ip(sni).is_ok() {
                v.warn(&at, "an IP address is no server name: most clients do not send it");
                continue;
            }
            v.check(&at, if mesh { names::wildcard_domain(sni) } else { names::gateway_domain(sni, true) });
            if !spec.hosts.iter().any(|h| names::host_within(sni, h)) {
                v.error(&at, format_args!("SNI host {sni:?} is not a compatible subset of any of the hosts"));
            }
        }
    }
    v.require(at, !route.route.is_empty(), "TLS route is required");
    route_destinations(&route.route, &at.field("route"), v);
}

fn tcp_route(route: &TcpRoute, at: &Path<'_>, v: &mut Validation) {
    let matches = at.field("match");
    for (i, m) in route.matches.iter().enumerate() {
        l4_match(m, &matches.index(i), v);
    }
    v.require(at, !route.route.is_empty(), "TCP route is required");
    route_destinations(&route.route, &at.field("route"), v);
}

fn l4_match(m: &L4MatchAttributes, at: &Path<'_>, v: &mut Validation) {
    let subnets = at.field("destinationSubnets");
    for (i, subnet) in m.destination_subnets.iter().enumerate() {
        v.check(&subnets.index(i), names::ip_or_cidr(subnet));
    }
    if m.port != 0 {
        v.check(&at.field("port"), names::port(m.port));
    }
    if !m.source_subnet.is_empty() {
        v.check(&at.field("sourceSubnet"), names::ip_or_cidr(&m.source_subnet));
    }
    common::labels(&m.source_labels, &at.field("sourceLabels"), v);
    if !m.source_namespace.is_empty() {
        v.check(&at.field("sourceNamespace"), names::dns_label(&m.source_namespace));
    }
    gateway_names(&m.gateways, at, v);
}

fn route_destinations(list: &[RouteDestination], at: &Path<'_>, v: &mut Validation) {
    for (i, to) in list.iter().enumerate() {
        destination(&to.destination, &at.index(i).field("destination"), v);
    }
    weights(list.iter().map(|r| r.weight), at, v);
}
