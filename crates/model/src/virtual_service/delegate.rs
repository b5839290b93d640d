//! Delegation: an HTTP route of a root VirtualService replaced by the routes of another one, narrowed to what both match.

use super::resolve;
use crate::config::{ConfigRef, ObjectKey};
use crate::host;
use crate::service::Visibility;
use meltemi_config::networking::{
    Delegate, Destination, HttpMatchRequest, HttpRoute, StringMatch, StringMatchType, VirtualService,
};
use std::collections::BTreeMap;

type Raw = BTreeMap<ObjectKey, ConfigRef<VirtualService>>;

pub(super) fn key_of(delegate: &Delegate, namespace: &str) -> ObjectKey {
    let namespace = if delegate.namespace.is_empty() { namespace } else { &*delegate.namespace };
    ObjectKey::new(namespace, delegate.name.clone())
}

/// `root` with each delegating route replaced. A delegate that is missing, has hosts, or is not exported to the root's
/// namespace contributes no route.
pub(super) fn merge(root: &ConfigRef<VirtualService>, raw: &Raw, domain: &str, default: &Visibility) -> VirtualService {
    let mut out = (*root.spec).clone();
    if out.http.iter().all(|route| route.delegate.is_none()) {
        return out;
    }
    out.http = Vec::new();
    for route in &root.spec.http {
        let Some(delegate) = &route.delegate else {
            out.http.push(route.clone());
            continue;
        };
        let found = raw.get(&key_of(delegate, &root.namespace)).filter(|config| {
            let export_to = config.spec.export_to.iter().map(|entry| &**entry);
            config.spec.hosts.is_empty()
                && Visibility::parse(export_to, &config.namespace, default).includes(&root.namespace)
        });
        if let Some(found) = found {
            // Names in the delegate are relative to its own namespace; only the root's gateways count.
            out.http.extend(found.spec.http.iter().filter_map(|own| {
                let mut own = own.clone();
                qualify(&mut own, &found.namespace, domain);
                merge_route(route, own)
            }));
        }
    }
    out
}

/// Completes short names in a delegate from its own namespace, so that resolving in the root's leaves them.
fn qualify(route: &mut HttpRoute, own: &str, domain: &str) {
    let whole = |to: &mut Destination| to.host = host::fqdn(&to.host, own, domain).into();
    route.route.iter_mut().for_each(|to| whole(&mut to.destination));
    route.mirror.iter_mut().for_each(whole);
    route.mirrors.iter_mut().filter_map(|mirror| mirror.destination.as_mut()).for_each(whole);
    for rule in &mut route.matches {
        rule.gateways.iter_mut().for_each(|name| *name = resolve::gateway_name(name, own).into());
    }
}

/// `own` under the conditions of `root`, and with its settings where `own` has none.
fn merge_route(root: &HttpRoute, mut own: HttpRoute) -> Option<HttpRoute> {
    own.matches = match (root.matches.is_empty(), own.matches.is_empty()) {
        (true, _) => own.matches,
        (false, true) => root.matches.clone(),
        (false, false) => {
            let merged: Vec<_> = root
                .matches
                .iter()
                .flat_map(|outer| own.matches.iter().filter_map(move |inner| merge_match(outer, inner)))
                .collect();
            if merged.is_empty() {
                return None;
            }
            merged
        }
    };
    own.name = match (root.name.is_empty(), own.name.is_empty()) {
        (true, _) => own.name,
        (false, true) => root.name.clone(),
        (false, false) => format!("{}-{}", root.name, own.name).into(),
    };
    macro_rules! inherit {
        ($($field:ident),*) => { $( if own.$field.is_none() { own.$field.clone_from(&root.$field); } )* };
    }
    inherit!(rewrite, timeout, retries, fault, mirror, mirror_percent, mirror_percentage, cors_policy, headers);
    if own.mirrors.is_empty() {
        own.mirrors.clone_from(&root.mirrors);
    }
    Some(own)
}

/// Both conditions as one, or `None` where no request could meet both.
fn merge_match(root: &HttpMatchRequest, own: &HttpMatchRequest) -> Option<HttpMatchRequest> {
    let strings = [
        (&root.uri, &own.uri),
        (&root.scheme, &own.scheme),
        (&root.method, &own.method),
        (&root.authority, &own.authority),
    ];
    let maps = [
        (&root.headers, &own.headers),
        (&root.without_headers, &own.without_headers),
        (&root.query_params, &own.query_params),
    ];
    let conflict = strings.iter().any(|(root, own)| string_conflict(root.as_ref(), own.as_ref()))
        || maps.iter().any(|(root, own)| {
            root.iter().any(|(name, rule)| own.contains_key(name) && string_conflict(Some(rule), own.get(name)))
        })
        || root.ignore_uri_case != own.ignore_uri_case
        || (root.port != 0 && own.port != 0 && root.port != own.port)
        || own.source_labels.iter().any(|(key, value)| root.source_labels.get(key).is_some_and(|other| other != value))
        || (!root.gateways.is_empty() && own.gateways.iter().any(|name| !root.gateways.contains(name)))
        || (!root.source_namespace.is_empty()
            && !own.source_namespace.is_empty()
            && root.source_namespace != own.source_namespace);
    if conflict {
        return None;
    }
    let mut out = own.clone();
    out.name = match (root.name.is_empty(), own.name.is_empty()) {
        (true, _) => own.name.clone(),
        (false, true) => root.name.clone(),
        (false, false) => format!("{}-{}", root.name, own.name).into(),
    };
    macro_rules! inherit {
        ($($field:ident),*) => { $( if out.$field.is_none() { out.$field.clone_from(&root.$field); } )* };
    }
    inherit!(uri, scheme, method, authority);
    for (name, rule) in &root.headers {
        out.headers.entry(name.clone()).or_insert_with(|| rule.clone());
    }
    for (name, rule) in &root.without_headers {
        out.without_headers.entry(name.clone()).or_insert_with(|| rule.clone());
    }
    for (name, rule) in &root.query_params {
        out.query_params.entry(name.clone()).or_insert_with(|| rule.clone());
    }
    for (name, value) in &root.source_labels {
        out.source_labels.entry(name.clone()).or_insert_with(|| value.clone());
    }
    if out.port == 0 {
        out.port = root.port;
    }
    if out.gateways.is_empty() {
        out.gateways.clone_from(&root.gateways);
    }
    if out.source_namespace.is_empty() {
        out.source_namespace.clone_from(&root.source_namespace);
    }
    if out.stat_prefix.is_empty() {
        out.stat_prefix.clone_from(&root.stat_prefix);
    }
    Some(out)
}

/// True unless the delegate's rule is within the root's. A regular expression on either side cannot be decided.
fn string_conflict(root: Option<&StringMatch>, own: Option<&StringMatch>) -> bool {
    let (Some(root), Some(own)) = (root, own) else { return false };
    match (root.kind(), own.kind()) {
        (StringMatchType::Present, _) => false,
        (StringMatchType::Regex(_), _) | (_, StringMatchType::Regex(_)) => true,
        (StringMatchType::Exact(root), StringMatchType::Exact(own)) => root != own,
        (StringMatchType::Exact(_), _) => true,
        (StringMatchType::Prefix(root), StringMatchType::Exact(own) | StringMatchType::Prefix(own)) => {
            !own.starts_with(&**root)
        }
        (StringMatchType::Prefix(_), StringMatchType::Present) => true,
    }
}
