//! The `hosts` of an egress listener: `namespace/dnsName`, namespace may be `*`, `.` or `~`.

use crate::host;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default)]
struct Patterns {
    exact: BTreeSet<Arc<str>>,
    wildcard: Vec<Arc<str>>,
    excluded: Vec<Arc<str>>,
}

impl Patterns {
    fn covers(&self, hostname: &str) -> bool {
        self.exact.contains(hostname) || self.wildcard.iter().any(|pattern| host::covers(pattern, hostname))
    }

    /// VirtualService hosts match in both directions: importing `a.com` imports a rule for `*.com`.
    fn overlaps(&self, hostname: &str) -> bool {
        self.covers(hostname)
            || self.wildcard.iter().any(|pattern| host::overlaps(pattern, hostname))
            || (host::is_wildcard(hostname) && self.exact.iter().any(|exact| host::overlaps(exact, hostname)))
    }

    fn excludes(&self, hostname: &str) -> bool {
        self.excluded.iter().any(|pattern| host::covers(pattern, hostname))
    }
}

/// Which hosts of which namespaces a listener imports.
#[derive(Debug, Default)]
pub(super) struct Imports(BTreeMap<Arc<str>, Patterns>);

impl Imports {
    pub fn parse<'a>(hosts: impl IntoIterator<Item = &'a str>, namespace: &str) -> Self {
        let mut by_namespace: BTreeMap<Arc<str>, Patterns> = BTreeMap::new();
        for entry in hosts {
            // Validation has refused any other form.
            let Some((owner, name)) = entry.split_once('/') else { continue };
            if owner == "~" && name == "*" {
                continue;
            }
            let (owner, excluded) = match owner.strip_prefix('~') {
                Some("") => ("*", true),
                Some(rest) => (rest, true),
                None => (owner, false),
            };
            let owner = if owner == "." { namespace } else { owner };
            let patterns = by_namespace.entry(owner.into()).or_default();
            if excluded {
                patterns.excluded.push(name.into());
            } else if host::is_wildcard(name) {
                patterns.wildcard.push(name.into());
            } else {
                patterns.exact.insert(name.into());
            }
        }
        Self(by_namespace)
    }

    /// The namespaces that are imported from; `None`: any.
    pub fn owners(&self) -> Option<impl Iterator<Item = &Arc<str>>> {
        (!self.0.contains_key("*")).then(|| self.0.keys())
    }

    fn of<'a>(&'a self, owner: &str) -> impl Iterator<Item = &'a Patterns> + use<'a> {
        [self.0.get(owner), self.0.get("*")].into_iter().flatten()
    }

    pub fn has_service(&self, owner: &str, hostname: &str) -> bool {
        !self.of(owner).any(|patterns| patterns.excludes(hostname))
            && self.of(owner).any(|patterns| patterns.covers(hostname))
    }

    pub fn has_rule(&self, owner: &str, hosts: &[Arc<str>], gateway_semantics: bool) -> bool {
        hosts.iter().any(|hostname| {
            !self.of(owner).any(|patterns| patterns.excludes(hostname))
                && self.of(owner).any(|patterns| {
                    if gateway_semantics { patterns.covers(hostname) } else { patterns.overlaps(hostname) }
                })
        })
    }
}
