//! Which filter chain takes a connection: Envoy's sieve, field by field, best match first.

use std::net::IpAddr;

use meltemi_proto::envoy::config::core::v3::CidrRange;
use meltemi_proto::envoy::config::listener::v3::{FilterChain, FilterChainMatch, Listener};

use super::{Arrival, Failure, Security};

/// One field of the match: whether a chain sets it, and how well a set value fits (0 not at all).
struct Sieve<'a> {
    is_set: fn(&FilterChainMatch) -> bool,
    rank: Box<dyn Fn(&FilterChainMatch) -> usize + 'a>,
}

pub(super) fn select<'a>(listener: &'a Listener, arrival: &Arrival<'_>) -> Result<&'a FilterChain, Failure> {
    let mut left: Vec<&FilterChain> = listener.filter_chains.iter().collect();
    for sieve in sieves(arrival) {
        left = keep_best(left, &sieve);
    }
    match left.as_slice() {
        [only] => Ok(only),
        [] => listener.default_filter_chain.as_ref().ok_or(Failure::NoFilterChain),
        _ => Err(Failure::MultipleFilterChains),
    }
}

fn keep_best<'a>(chains: Vec<&'a FilterChain>, sieve: &Sieve<'_>) -> Vec<&'a FilterChain> {
    let is_set = |chain: &FilterChain| chain.filter_chain_match.as_ref().is_some_and(sieve.is_set);
    if !chains.iter().any(|chain| is_set(chain)) {
        return chains;
    }
    let rank = |chain: &FilterChain| match &chain.filter_chain_match {
        Some(fields) if (sieve.is_set)(fields) => (sieve.rank)(fields),
        _ => 0,
    };
    let best = chains.iter().map(|chain| rank(chain)).max().unwrap_or_default();
    if best == 0 {
        return chains.into_iter().filter(|chain| !is_set(chain)).collect();
    }
    chains.into_iter().filter(|chain| rank(chain) == best).collect()
}

fn sieves<'a>(arrival: &'a Arrival<'_>) -> Vec<Sieve<'a>> {
    let call = arrival.call;
    vec![
        Sieve {
            is_set: |m| m.destination_port.is_some(),
            rank: Box::new(|m| usize::from(m.destination_port == Some(u32::from(call.port)))),
        },
        Sieve {
            is_set: |m| !m.prefix_ranges.is_empty(),
            rank: Box::new(|m| m.prefix_ranges.iter().map(|r| prefix_rank(r, call.address)).max().unwrap_or(0)),
        },
        Sieve {
            is_set: |m| !m.server_names.is_empty(),
            rank: Box::new(|m| m.server_names.iter().map(|n| server_name_rank(n, &call.sni)).max().unwrap_or(0)),
        },
        Sieve {
            is_set: |m| !m.transport_protocol.is_empty(),
            rank: Box::new(|m| usize::from(transport_matches(&m.transport_protocol, arrival))),
        },
        Sieve {
            is_set: |m| !m.application_protocols.is_empty(),
            rank: Box::new(|m| usize::from(m.application_protocols.contains(&arrival.alpn))),
        },
    ]
}

/// Length of the prefix if it contains the address. A range of length 0 never wins, as in Istio's model.
fn prefix_rank(range: &CidrRange, address: IpAddr) -> usize {
    let length = u8::try_from(range.prefix_len.unwrap_or(0)).unwrap_or(u8::MAX);
    let Ok(prefix) = range.address_prefix.parse::<IpAddr>() else { return 0 };
    match ipnet::IpNet::new(prefix, length) {
        Ok(net) if net.contains(&address) => usize::from(length),
        _ => 0,
    }
}

fn server_name_rank(pattern: &str, sni: &str) -> usize {
    if pattern == sni {
        return usize::MAX;
    }
    match pattern.strip_prefix('*') {
        Some(suffix) if sni.ends_with(suffix) && !sni.is_empty() => pattern.len(),
        _ => 0,
    }
}

fn transport_matches(transport: &str, arrival: &Arrival<'_>) -> bool {
    match transport {
        "raw_buffer" => !arrival.tls_inspected || arrival.call.security == Security::Plaintext,
        "tls" => arrival.tls_inspected && arrival.call.security != Security::Plaintext,
        _ => false,
    }
}
