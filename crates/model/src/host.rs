//! Host names as Istio matches them: exact names and names with a leading `*`.
//!
//! Pure functions over text; no allocation but where a short name is completed.

use std::cmp::Ordering;
use std::net::IpAddr;

pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// True when the two patterns have a host in common.
pub fn overlaps(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(suffix), None) => b.len() > suffix.len() && b.ends_with(suffix) || suffix.is_empty(),
        (None, Some(suffix)) => a.len() > suffix.len() && a.ends_with(suffix) || suffix.is_empty(),
        (None, None) => a == b,
    }
}

/// True when every host of `inner` is one of `outer`.
pub fn covers(outer: &str, inner: &str) -> bool {
    match (outer.strip_prefix('*'), inner.strip_prefix('*')) {
        (Some(outer), Some(inner)) => inner.ends_with(outer),
        (Some(suffix), None) => inner.len() >= suffix.len() && inner.ends_with(suffix),
        (None, Some(_)) => false,
        (None, None) => outer == inner,
    }
}

/// Orders patterns with the more specific first: exact before wildcard, longer before shorter, then by text.
pub fn by_specificity(a: &str, b: &str) -> Ordering {
    is_wildcard(a).cmp(&is_wildcard(b)).then(b.len().cmp(&a.len())).then(a.cmp(b))
}

/// The most specific of `patterns` that covers `host`.
pub fn most_specific<'a>(host: &str, patterns: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    patterns.into_iter().filter(|pattern| covers(pattern, host)).min_by(|a, b| by_specificity(a, b))
}

/// Completes a name without dots to `<name>.<namespace>.svc.<domain>`; with an empty domain to `<name>.<namespace>`.
/// `*`, addresses and dotted names stay.
pub fn fqdn(host: &str, namespace: &str, domain: &str) -> String {
    if host.is_empty() || host == "*" || host.contains('.') || host.parse::<IpAddr>().is_ok() {
        return host.to_owned();
    }
    match (namespace.is_empty(), domain.is_empty()) {
        (true, true) => host.to_owned(),
        (true, false) => format!("{host}.svc.{domain}"),
        (false, true) => format!("{host}.{namespace}"),
        (false, false) => format!("{host}.{namespace}.svc.{domain}"),
    }
}
#[cfg(test)]
mod tests;
