//! Rules and matches of a VirtualService that no request reaches, because an earlier one takes everything they ask for.
//!
//! Pairwise over the matches of one VirtualService, up to `MAX_MATCHES`; larger ones are not looked at.

use std::collections::BTreeMap;

use super::Validation;
use crate::networking::{
    HttpMatchRequest, L4MatchAttributes, StringMatch, StringMatchType, TlsMatchAttributes, VirtualService,
};
use crate::path::Path;
use crate::wire::Str;

const MAX_MATCHES: usize = 1000;

/// A match that may take all that another one asks for.
trait Covers {
    fn covers(&self, later: &Self) -> bool;
}

pub(super) fn unused(spec: &VirtualService, at: &Path<'_>, v: &mut Validation) {
    let http: Vec<_> = spec.http.iter().map(|r| &r.matches[..]).collect();
    rules(&http, &at.field("http"), v);
    let tls: Vec<_> = spec.tls.iter().map(|r| &r.matches[..]).collect();
    rules(&tls, &at.field("tls"), v);
    let tcp: Vec<_> = spec.tcp.iter().map(|r| &r.matches[..]).collect();
    rules(&tcp, &at.field("tcp"), v);
}

fn rules<M: Covers>(rules: &[&[M]], at: &Path<'_>, v: &mut Validation) {
    if rules.iter().map(|r| r.len()).sum::<usize>() > MAX_MATCHES {
        return;
    }
    let mut earlier: Vec<&M> = Vec::new();
    let mut catch_all = None;
    for (i, matches) in rules.iter().enumerate() {
        let at = at.index(i);
        if let Some(first) = catch_all {
            v.warn(
                &at,
                format_args!("this rule is not used: rule {first} before it has no match and takes everything"),
            );
            continue;
        }
        let field = at.field("match");
        let mut taken = 0;
        for (j, m) in matches.iter().enumerate() {
            if earlier.iter().any(|e| e.covers(m)) {
                taken += 1;
                v.warn(&field.index(j), "this match is not used: an earlier one takes the same traffic");
            }
            earlier.push(m);
        }
        if matches.is_empty() {
            catch_all = Some(i);
        } else if taken == matches.len() {
            v.warn(&at, "this rule is not used: earlier ones take all its matches");
        }
    }
}

impl Covers for HttpMatchRequest {
    fn covers(&self, later: &Self) -> bool {
        let same_or_open = |a: &Option<StringMatch>, b: &Option<StringMatch>| a.is_none() || a == b;
        uri(&self.uri, &later.uri)
            && self.ignore_uri_case == later.ignore_uri_case
            && same_or_open(&self.scheme, &later.scheme)
            && same_or_open(&self.method, &later.method)
            && same_or_open(&self.authority, &later.authority)
            && within(&self.headers, &later.headers)
            && within(&self.without_headers, &later.without_headers)
            && within(&self.query_params, &later.query_params)
            && source(&self.source_labels, &later.source_labels, (&self.source_namespace, &later.source_namespace))
            && place((self.port, later.port), &self.gateways, &later.gateways)
    }
}

/// A prefix takes longer prefixes; anything else only itself.
fn uri(earlier: &Option<StringMatch>, later: &Option<StringMatch>) -> bool {
    match (earlier.as_ref().map(StringMatch::kind), later.as_ref().map(StringMatch::kind)) {
        (Some(StringMatchType::Prefix(short)), Some(StringMatchType::Prefix(long))) => long.starts_with(&**short),
        (earlier, later) => earlier == later,
    }
}

impl Covers for TlsMatchAttributes {
    fn covers(&self, later: &Self) -> bool {
        later.sni_hosts.iter().all(|h| self.sni_hosts.contains(h))
            && (self.destination_subnets.is_empty() || self.destination_subnets == later.destination_subnets)
            && source(&self.source_labels, &later.source_labels, (&self.source_namespace, &later.source_namespace))
            && place((self.port, later.port), &self.gateways, &later.gateways)
    }
}

impl Covers for L4MatchAttributes {
    fn covers(&self, later: &Self) -> bool {
        (self.destination_subnets.is_empty() || self.destination_subnets == later.destination_subnets)
            && source(&self.source_labels, &later.source_labels, (&self.source_namespace, &later.source_namespace))
            && place((self.port, later.port), &self.gateways, &later.gateways)
    }
}

/// True if the later one asks for all that the earlier one asks for.
fn within<T: PartialEq>(earlier: &BTreeMap<Str, T>, later: &BTreeMap<Str, T>) -> bool {
    earlier.iter().all(|(key, value)| later.get(key) == Some(value))
}

fn source(earlier: &BTreeMap<Str, Str>, later: &BTreeMap<Str, Str>, namespaces: (&Str, &Str)) -> bool {
    within(earlier, later) && (namespaces.0.is_empty() || namespaces.0 == namespaces.1)
}

fn place(ports: (u32, u32), earlier: &[Str], later: &[Str]) -> bool {
    let port = ports.0 == 0 || ports.0 == ports.1;
    let gateways = earlier.is_empty() || !later.is_empty() && later.iter().all(|g| earlier.contains(g));
    port && gateways
}
