//! TCPRoute and TLSRoute.

use super::super::Validation;
use super::{backend, between, hostname, parents, section_name};
use crate::gateway_api::{L4RouteRule, TcpRoute, TlsRoute};
use crate::path::Path;

const MAX_RULES: usize = 1;
const MAX_BACKENDS: usize = 16;
const MAX_HOSTNAMES: usize = 1024;

pub(in super::super) fn tcp_route(spec: &TcpRoute, at: &Path<'_>, v: &mut Validation) {
    parents(&spec.parent_refs, at, v);
    rules(&spec.rules, at, v);
}

pub(in super::super) fn tls_route(spec: &TlsRoute, at: &Path<'_>, v: &mut Validation) {
    parents(&spec.parent_refs, at, v);
    rules(&spec.rules, at, v);
    let hosts = at.field("hostnames");
    between(spec.hostnames.len(), 1, MAX_HOSTNAMES, &hosts, v);
    for (i, host) in spec.hostnames.iter().enumerate() {
        hostname(host, true, &hosts.index(i), v);
    }
}

fn rules(rules: &[L4RouteRule], at: &Path<'_>, v: &mut Validation) {
    let at = at.field("rules");
    between(rules.len(), 1, MAX_RULES, &at, v);
    for (i, rule) in rules.iter().enumerate() {
        let at = at.index(i);
        if let Some(name) = &rule.name {
            section_name(name, &at.field("name"), v);
        }
        let backends = at.field("backendRefs");
        between(rule.backend_refs.len(), 1, MAX_BACKENDS, &backends, v);
        for (i, one) in rule.backend_refs.iter().enumerate() {
            backend(one, true, &backends.index(i), v);
        }
    }
}
