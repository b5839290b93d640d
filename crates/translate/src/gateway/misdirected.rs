//! Hosts that a TLS server does not answer for because another server of its port does (RFC 9110 section 15.5.20).
//!
//! Owns whose a host is: that of the server which a greeting with that name would have chosen. A client that reuses a connection
//! for another host of its certificate learns by 421 to open one of its own, and so comes to that server's routes and demands.

use std::collections::BTreeSet;

use super::merge::{Bound, Merged, without_namespace};
use meltemi_config::networking::ServerTlsMode;

/// Hosts of other servers that a route configuration names one by one. With more, since each of n servers would name n hosts,
/// it names those that its own wildcards cover and is silent of nobody else's: any other host is taken for another server's.
const NAMED: usize = 256;

/// The hosts of one server, and those of the servers beside it.
#[derive(Debug, Default)]
pub struct Neighbours {
    own: BTreeSet<String>,
    others: BTreeSet<String>,
}

impl Neighbours {
    /// Of the route configuration `name`; nobody where its servers do not choose by the TLS greeting.
    pub fn of(merged: &Merged, name: &str) -> Self {
        let mut found = Self::default();
        for (key, port) in &merged.ports {
            let is_own = |bound: &Bound| bound.route == name && bound.terminates_https();
            if !port.servers.iter().any(is_own) {
                continue;
            }
            let together =
                merged.ports.iter().filter(|(other, _)| other.number == key.number && other.bind == key.bind);
            for bound in together.flat_map(|(_, port)| &port.servers).filter(|bound| chosen_by_host(bound)) {
                let hosts = bound.hosts.iter().map(|host| without_namespace(host).to_lowercase());
                if is_own(bound) { found.own.extend(hosts) } else { found.others.extend(hosts) }
            }
        }
        found.others.retain(|host| !found.own.contains(host));
        found
    }

    /// Whether a greeting with this name (or one below this wildcard) chooses another server.
    pub fn has(&self, host: &str) -> bool {
        let chosen = patterns(host).find(|pattern| self.own.contains(pattern) || self.others.contains(pattern));
        chosen.is_some_and(|pattern| !self.own.contains(&pattern))
    }

    /// The domains that are answered with 421.
    pub fn domains(&self) -> Vec<String> {
        if self.others.len() <= NAMED {
            return self.others.iter().cloned().collect();
        }
        let covered = |host: &&String| patterns(host).any(|pattern| self.own.contains(&pattern));
        let mut domains: Vec<String> = self.others.iter().filter(covered).cloned().collect();
        if !self.own.contains("*") && !domains.iter().any(|domain| domain == "*") {
            domains.push("*".into());
        }
        domains
    }

    /// The server's own hosts, which stay its own where nothing routes them.
    pub fn own(&self) -> impl Iterator<Item = &String> {
        self.own.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.others.is_empty()
    }
}

/// Names of AUTO_PASSTHROUGH are those of clusters, which no request has.
fn chosen_by_host(bound: &Bound) -> bool {
    bound.server().tls.as_ref().is_some_and(|tls| tls.mode != ServerTlsMode::AutoPassthrough)
}

/// The server names that cover a host, the most specific first.
fn patterns(host: &str) -> impl Iterator<Item = String> {
    let below = host.strip_prefix("*.").unwrap_or(host);
    let parents = std::iter::successors(below.split_once('.'), |(_, rest)| rest.split_once('.'));
    let wildcards: Vec<String> = parents.map(|(_, rest)| format!("*.{rest}")).collect();
    std::iter::once(host.to_owned()).chain(wildcards).chain(std::iter::once("*".to_owned()))
}

#[cfg(test)]
mod tests;
