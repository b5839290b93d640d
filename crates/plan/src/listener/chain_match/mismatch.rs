//! Why a filter chain does not take a connection: for people, never on a connection's path.

use super::{ChainCriteria, ConnectionFacts};

/// A criterion of a filter chain that a connection does not meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainMismatch {
    DestinationPort,
    DestinationPrefix,
    ServerName,
    TransportProtocol,
    ApplicationProtocol,
    DirectSource,
    SourceType,
    Source,
    SourcePort,
}

impl ChainCriteria {
    /// The first criterion that is not met, in the order of the sieve. `None`: all are, and a chain that asks for more was
    /// preferred, or this one was chosen.
    pub fn mismatch(&self, facts: &ConnectionFacts<'_>) -> Option<ChainMismatch> {
        let within = |prefixes: &[ipnet::IpNet], address: Option<std::net::SocketAddr>| {
            prefixes.is_empty() || address.is_some_and(|at| prefixes.iter().any(|prefix| prefix.contains(&at.ip())))
        };
        let port = self.destination_port;
        let named =
            self.server_names.is_empty() || self.server_names.iter().any(|name| is_name(name, facts.server_name));
        let transport = &*self.transport_protocol;
        let protocols = &self.application_protocols;
        let spoken = facts.application_protocols.iter().any(|own| protocols.iter().any(|wanted| **wanted == **own));
        let local = match self.source_type {
            super::SourceType::Any => true,
            super::SourceType::SameIpOrLoopback => super::is_local(facts),
            super::SourceType::External => !super::is_local(facts),
        };
        let ports = &self.source_ports;
        let checks = [
            (port.is_none() || port == facts.destination.map(|at| at.port()), ChainMismatch::DestinationPort),
            (within(&self.prefixes, facts.destination), ChainMismatch::DestinationPrefix),
            (named, ChainMismatch::ServerName),
            (transport.is_empty() || transport == facts.transport_protocol, ChainMismatch::TransportProtocol),
            (protocols.is_empty() || spoken, ChainMismatch::ApplicationProtocol),
            (within(&self.direct_source_prefixes, facts.direct_source), ChainMismatch::DirectSource),
            (local, ChainMismatch::SourceType),
            (within(&self.source_prefixes, facts.source), ChainMismatch::Source),
            (ports.is_empty() || facts.source.is_some_and(|at| ports.contains(&at.port())), ChainMismatch::SourcePort),
        ];
        checks.into_iter().find(|(met, _)| !met).map(|(_, mismatch)| mismatch)
    }
}

/// `*.b.c` takes `a.b.c` and what lies below it.
fn is_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
        None => pattern == name,
    }
}
