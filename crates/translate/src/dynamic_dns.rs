//! The DNS caches of dynamic forward proxying (`resolution: DYNAMIC_DNS`, `ALLOW_ANY_DYNAMIC_DNS`).
//!
//! Owns that a cluster and the filters which resolve for it say the same of their cache: Envoy tells caches by name and
//! refuses one name with two meanings.

use meltemi_model::{Node, Resolution, Service};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::cluster::DnsLookupFamily;
use meltemi_proto::envoy::config::core::v3::TypedExtensionConfig;
use meltemi_proto::envoy::extensions::common::dynamic_forward_proxy::v3::DnsCacheConfig;
use meltemi_proto::envoy::extensions::network::dns_resolver::cares::v3::CaresDnsResolverConfig;

use crate::dialect::Dialect;
use crate::{names, wire};

/// Istio's `PILOT_ALLOW_ANY_DYNAMIC_DNS_MAX_HOSTS`.
const ALLOW_ANY_MAX_HOSTS: u32 = 1024;
/// Where the agent answers DNS unless `DNS_PROXY_ADDR` says otherwise.
const AGENT: (&str, u32) = ("127.0.0.1", 15053);

/// One cache of a proxy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DnsCache {
    name: String,
    family: i32,
    max_hosts: Option<u32>,
    /// `None`: as the proxy itself resolves names.
    resolver: Option<(String, u32)>,
}

/// The families that a proxy with addresses of these resolves names to.
pub fn lookup_family(v4: bool, v6: bool) -> DnsLookupFamily {
    match (v4, v6) {
        (false, true) => DnsLookupFamily::V6Only,
        (true, true) => DnsLookupFamily::All,
        _ => DnsLookupFamily::V4Only,
    }
}

/// Whether requests to the service go to the host that they name.
pub fn is_dynamic(service: &Service) -> bool {
    service.is_wildcard() && service.resolution == Resolution::DynamicDns
}

impl DnsCache {
    /// That of a service's hosts, for a proxy with addresses of these families.
    pub fn of_service(service: &Service, v4: bool, v6: bool) -> Self {
        let name = format!("{}_dfp_dns_cache", service.hostname);
        Self { name, family: lookup_family(v4, v6) as i32, max_hosts: None, resolver: None }
    }

    /// That of hosts which no service claims. Envoy asks the agent where that answers DNS; our own proxy has no resolver
    /// but the system's.
    pub fn allow_any(node: &Node) -> Self {
        let asks_agent = node.dns_capture() && Dialect::of(node) == Dialect::Envoy;
        Self {
            name: names::ALLOW_ANY_DNS_CACHE.into(),
            family: lookup_family(node.has_ipv4(), node.has_ipv6()) as i32,
            max_hosts: Some(ALLOW_ANY_MAX_HOSTS),
            resolver: asks_agent.then(|| agent(node.text("DNS_PROXY_ADDR").unwrap_or_default())),
        }
    }

    pub fn config(&self) -> DnsCacheConfig {
        DnsCacheConfig {
            name: self.name.clone(),
            dns_lookup_family: self.family,
            max_hosts: self.max_hosts,
            typed_dns_resolver_config: self.resolver.as_ref().map(|(host, port)| TypedExtensionConfig {
                name: "envoy.network.dns_resolver.cares".into(),
                typed_config: Some(Any::pack(&CaresDnsResolverConfig {
                    resolvers: vec![wire::socket_address(host, *port)],
                    ..CaresDnsResolverConfig::default()
                })),
            }),
            ..DnsCacheConfig::default()
        }
    }
}

fn agent(address: &str) -> (String, u32) {
    match names::host_and_port(address) {
        Some(("localhost", port)) => (AGENT.0.to_owned(), port),
        Some((host, port)) => (host.to_owned(), port),
        None => (AGENT.0.to_owned(), AGENT.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_address_is_a_number() {
        for (text, expected) in [
            ("localhost:15053", ("127.0.0.1", 15053)),
            ("10.0.0.1:53", ("10.0.0.1", 53)),
            ("", ("127.0.0.1", 15053)),
            ("nonsense", ("127.0.0.1", 15053)),
        ] {
            assert_eq!(agent(text), (expected.0.to_owned(), expected.1), "{text}");
        }
    }
}
