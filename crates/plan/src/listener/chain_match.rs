//! Envoy's filter chain sieve, compiled: each level keeps the most specific entry and goes on below it; a miss further
//! down does not come back up to a less specific one.
//!
//! Order: destination port, destination prefix, server name, transport protocol, application protocols, direct source
//! prefix, source type, source prefix, source port.

mod mismatch;

pub use mismatch::ChainMismatch;

use crate::error::{At, Result, refuse};
use ipnet::IpNet;
use meltemi_matchers::CidrMap;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceType {
    Any,
    /// Loopback, or the same address as the destination.
    SameIpOrLoopback,
    External,
}

/// `FilterChainMatch` of one chain; empty lists match everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainCriteria {
    pub destination_port: Option<u16>,
    pub prefixes: Vec<IpNet>,
    pub server_names: Vec<Arc<str>>,
    pub transport_protocol: Arc<str>,
    pub application_protocols: Vec<Arc<str>>,
    pub direct_source_prefixes: Vec<IpNet>,
    pub source_type: SourceType,
    pub source_prefixes: Vec<IpNet>,
    pub source_ports: Vec<u16>,
}

impl Default for ChainCriteria {
    fn default() -> Self {
        Self {
            destination_port: None,
            prefixes: Vec::new(),
            server_names: Vec::new(),
            transport_protocol: "".into(),
            application_protocols: Vec::new(),
            direct_source_prefixes: Vec::new(),
            source_type: SourceType::Any,
            source_prefixes: Vec::new(),
            source_ports: Vec::new(),
        }
    }
}

/// What is known of a connection when its chain is chosen.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionFacts<'a> {
    /// The restored original destination, if there is one. `None` for Unix sockets.
    pub destination: Option<SocketAddr>,
    /// The peer after PROXY protocol.
    pub source: Option<SocketAddr>,
    /// The peer of the socket.
    pub direct_source: Option<SocketAddr>,
    /// SNI, lower case; empty if none.
    pub server_name: &'a str,
    /// `tls`, `raw_buffer`, or empty if nobody looked.
    pub transport_protocol: &'a str,
    /// ALPN offered, or what the HTTP inspector found.
    pub application_protocols: &'a [&'a str],
}

#[derive(Debug, Clone, Default)]
pub struct ChainMatcher {
    by_port: HashMap<u16, Prefixes>,
    any_port: Option<Prefixes>,
}

/// A level that may hold prefixes and an entry for everything else.
#[derive(Debug, Clone)]
struct Trie<T> {
    prefixes: CidrMap<T>,
    any: Option<Box<T>>,
}

impl<T> Default for Trie<T> {
    fn default() -> Self {
        Self { prefixes: CidrMap::default(), any: None }
    }
}

impl<T: Default> Trie<T> {
    fn each(&mut self, prefixes: &[IpNet], mut visit: impl FnMut(&mut T) -> Result<()>) -> Result<()> {
        if prefixes.is_empty() {
            return visit(self.any.get_or_insert_default());
        }
        prefixes.iter().try_for_each(|prefix| visit(self.prefixes.entry(*prefix, T::default)))
    }

    fn find(&self, address: Option<IpAddr>) -> Option<&T> {
        address.and_then(|address| self.prefixes.longest(address)).or(self.any.as_deref())
    }
}

type Prefixes = Trie<ServerNames>;

/// Keys: the name, `.suffix` for `*.suffix`, and empty for any.
type ServerNames = HashMap<Arc<str>, Transports>;
type Transports = HashMap<Arc<str>, Applications>;
type Applications = HashMap<Arc<str>, DirectSources>;
type DirectSources = Trie<SourceTypes>;

#[derive(Debug, Clone, Default)]
struct SourceTypes {
    any: Option<Trie<SourcePorts>>,
    local: Option<Trie<SourcePorts>>,
    external: Option<Trie<SourcePorts>>,
}

/// Port 0 stands for any.
type SourcePorts = HashMap<u16, usize>;

impl ChainMatcher {
    pub fn new<'a>(chains: impl IntoIterator<Item = &'a ChainCriteria>) -> Result<Self> {
        let mut matcher = Self::default();
        for (index, criteria) in chains.into_iter().enumerate() {
            matcher.insert(criteria, index).at_index("filter_chains", index)?;
        }
        Ok(matcher)
    }

    fn insert(&mut self, criteria: &ChainCriteria, index: usize) -> Result<()> {
        let prefixes = match criteria.destination_port {
            Some(port) => self.by_port.entry(port).or_default(),
            None => self.any_port.get_or_insert_default(),
        };
        prefixes.each(&criteria.prefixes, |names| insert_names(names, criteria, index))
    }

    pub fn find(&self, facts: &ConnectionFacts<'_>) -> Option<usize> {
        let address = facts.destination.map(|destination| destination.ip());
        // A port of its own hides the chains of any port, even if nothing below it matches.
        let by_port = facts.destination.and_then(|destination| self.by_port.get(&destination.port()));
        find_names(by_port.or(self.any_port.as_ref())?.find(address)?, facts)
    }
}

fn insert_names(names: &mut ServerNames, criteria: &ChainCriteria, index: usize) -> Result<()> {
    let any = [Arc::<str>::from("")];
    let wanted: &[Arc<str>] = if criteria.server_names.is_empty() { &any } else { &criteria.server_names };
    for name in wanted {
        let key: Arc<str> = match name.strip_prefix('*') {
            Some(suffix) => suffix.into(),
            None => name.clone(),
        };
        let applications = names.entry(key).or_default().entry(criteria.transport_protocol.clone()).or_default();
        let protocols: &[Arc<str>] =
            if criteria.application_protocols.is_empty() { &any } else { &criteria.application_protocols };
        for protocol in protocols {
            applications
                .entry(protocol.clone())
                .or_default()
                .each(&criteria.direct_source_prefixes, |types| insert_sources(types, criteria, index))?;
        }
    }
    Ok(())
}

fn insert_sources(types: &mut SourceTypes, criteria: &ChainCriteria, index: usize) -> Result<()> {
    let sources = match criteria.source_type {
        SourceType::Any => types.any.get_or_insert_default(),
        SourceType::SameIpOrLoopback => types.local.get_or_insert_default(),
        SourceType::External => types.external.get_or_insert_default(),
    };
    sources.each(&criteria.source_prefixes, |ports| {
        let any = [0];
        let wanted: &[u16] = if criteria.source_ports.is_empty() { &any } else { &criteria.source_ports };
        for port in wanted {
            if ports.insert(*port, index).is_some() {
                return refuse("has the same filter_chain_match as another chain");
            }
        }
        Ok(())
    })
}

fn find_names(names: &ServerNames, facts: &ConnectionFacts<'_>) -> Option<usize> {
    let name = facts.server_name;
    if !name.is_empty()
        && let Some(transports) = names.get(name)
    {
        return find_transports(transports, facts);
    }
    // `.b.c` of `a.b.c`, then `.c`: the longest wildcard wins.
    let mut rest = name;
    while let Some(at) = rest.get(1..).and_then(|tail| tail.find('.')) {
        rest = &rest[at + 1..];
        if rest.len() > 1
            && let Some(transports) = names.get(rest)
        {
            return find_transports(transports, facts);
        }
    }
    find_transports(names.get("")?, facts)
}

fn find_transports(transports: &Transports, facts: &ConnectionFacts<'_>) -> Option<usize> {
    let wanted = facts.transport_protocol;
    let applications = transports.get(wanted).or_else(|| transports.get(""))?;
    let found = facts.application_protocols.iter().find_map(|protocol| applications.get(*protocol));
    let direct = found.or_else(|| applications.get(""))?;
    find_sources(direct.find(facts.direct_source.map(|source| source.ip()))?, facts)
}

fn find_sources(types: &SourceTypes, facts: &ConnectionFacts<'_>) -> Option<usize> {
    let of_type = match &facts.source {
        Some(_) if is_local(facts) => types.local.as_ref(),
        Some(_) => types.external.as_ref(),
        None => types.local.as_ref(),
    };
    let ports = of_type.or(types.any.as_ref())?.find(facts.source.map(|source| source.ip()))?;
    facts.source.and_then(|source| ports.get(&source.port())).or_else(|| ports.get(&0)).copied()
}

fn is_local(facts: &ConnectionFacts<'_>) -> bool {
    let Some(source) = facts.source else { return true };
    // Envoy's loopback is one address, not the whole of 127.0.0.0/8.
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    loopback.contains(&source.ip().to_canonical())
        || facts.destination.is_some_and(|destination| destination.ip() == source.ip())
}

#[cfg(test)]
mod tests;
