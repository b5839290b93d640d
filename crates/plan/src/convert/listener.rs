//! Listeners, listener filters, filter chains.

use super::access_log::access_logs;
use super::common::{
    KIB, cidrs, enumeration, fingerprint, keepalive, list, metadata, names, port, required, resolve, socket_option,
    timeout_or, unknown_type, unpack,
};
use super::network::{connection_rate_limit, network_filters};
use super::transport::downstream;
use crate::common::Address;
use crate::error::{At, PlanError, Result, refuse};
use crate::listener::{
    ChainCriteria, ChainMatcher, FilterChain, Listener, ListenerFilter, ListenerFilterConfig, ListenerPredicate,
    SourceType, TrafficDirection,
};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::config::listener::v3 as proto;
use meltemi_proto::envoy::extensions::filters::listener as ext;
use std::sync::Arc;
use std::time::Duration;

const BUFFER_LIMIT: u32 = KIB * KIB;
const FILTERS_TIMEOUT: Duration = Duration::from_secs(15);
/// What BoringSSL lets a ClientHello be; Envoy's default for the inspector.
const MAX_CLIENT_HELLO: u32 = 16 * KIB;

pub fn encoded_listener(bytes: &[u8]) -> Result<Listener> {
    // Decoding drops fields that are too new for our types.
    crate::support::check(bytes, "envoy.config.listener.v3.Listener")?;
    listener(&meltemi_proto::decode_listener(bytes)?)
}

pub fn listener(value: &proto::Listener) -> Result<Listener> {
    let bytes = meltemi_proto::encode(value);
    crate::support::check(&bytes, "envoy.config.listener.v3.Listener")?;
    let quic = super::quic::quic(value)?;
    let is_quic = quic.is_some();
    let chains = list(&value.filter_chains, "filter_chains", |chain| filter_chain(chain, is_quic).map(Arc::new))?;
    let default_chain = value.default_filter_chain.as_ref().map(|chain| filter_chain(chain, is_quic));
    let default_chain = default_chain.transpose().at("default_filter_chain")?;
    if chains.is_empty() && default_chain.is_none() {
        return refuse("filter_chains: at least one is needed");
    }
    let address = |value: &core::Address| super::quic::address(value, is_quic).and_then(not_named).at("address");
    let additional_addresses = list(&value.additional_addresses, "additional_addresses", |additional| {
        required(&additional.address, "address").and_then(address)
    })?;
    let address = address(required(&value.address, "address")?)?;
    let name = if value.name.is_empty() { address.to_string() } else { value.name.clone() };
    Ok(Listener {
        stat_prefix: stat_prefix(value, &address),
        name: name.into(),
        address,
        additional_addresses,
        bind_to_port: value.bind_to_port.unwrap_or(true),
        use_original_dst: value.use_original_dst.unwrap_or(false),
        transparent: value.transparent.unwrap_or(false),
        freebind: value.freebind.unwrap_or(false),
        traffic_direction: match enumeration::<core::TrafficDirection>(value.traffic_direction)
            .at("traffic_direction")?
        {
            core::TrafficDirection::Unspecified => TrafficDirection::Unspecified,
            core::TrafficDirection::Inbound => TrafficDirection::Inbound,
            core::TrafficDirection::Outbound => TrafficDirection::Outbound,
        },
        listener_filters: list(&value.listener_filters, "listener_filters", listener_filter)?,
        listener_filters_timeout: timeout_or(value.listener_filters_timeout.as_ref(), Some(FILTERS_TIMEOUT))
            .at("listener_filters_timeout")?,
        continue_on_listener_filters_timeout: value.continue_on_listener_filters_timeout,
        matcher: ChainMatcher::new(chains.iter().map(|chain| &chain.criteria))?,
        chains,
        default_chain: default_chain.map(Arc::new),
        access_logs: access_logs(&value.access_log, "access_log")?,
        buffer_limit: value.per_connection_buffer_limit_bytes.unwrap_or(BUFFER_LIMIT),
        socket_options: list(&value.socket_options, "socket_options", socket_option)?,
        keepalive: keepalive(value.tcp_keepalive.as_ref()),
        backlog: value.tcp_backlog_size,
        reuse_port: value.enable_reuse_port.unwrap_or(true),
        max_accepts_per_event: value.max_connections_to_accept_per_socket_event.filter(|count| *count > 0),
        ignore_global_conn_limit: value.ignore_global_conn_limit,
        quic,
        metadata: metadata(value.metadata.as_ref()),
        fingerprint: fingerprint(&bytes),
    })
}

/// Nobody resolves the name of what is to be bound.
fn not_named(address: Address) -> Result<Address> {
    match address {
        Address::Name { host, .. } => refuse(format!("{host} is not an IP address")),
        bound => Ok(bound),
    }
}

/// What Envoy calls a listener in statistics: its prefix, else its address.
fn stat_prefix(value: &proto::Listener, address: &Address) -> Arc<str> {
    if value.stat_prefix.is_empty() { address.to_string().into() } else { value.stat_prefix.as_str().into() }
}

fn listener_filter(value: &proto::ListenerFilter) -> Result<ListenerFilter> {
    let any = match value.config_type.as_ref() {
        Some(proto::listener_filter::ConfigType::TypedConfig(any)) => resolve(any).at("typed_config")?,
        Some(proto::listener_filter::ConfigType::ConfigDiscovery(_)) => {
            return refuse("config_discovery: is not supported");
        }
        None => return refuse("typed_config: is required"),
    };
    Ok(ListenerFilter {
        name: value.name.as_str().into(),
        disabled: value.filter_disabled.as_ref().map(predicate).transpose().at("filter_disabled")?,
        config: listener_filter_config(&any).at("typed_config")?,
    })
}

fn listener_filter_config(any: &Any) -> Result<ListenerFilterConfig> {
    use ext::proxy_protocol::v3::ProxyProtocol;
    if any.is::<ext::original_dst::v3::OriginalDst>() {
        return Ok(ListenerFilterConfig::OriginalDst);
    }
    if any.is::<ext::tls_inspector::v3::TlsInspector>() {
        let config: ext::tls_inspector::v3::TlsInspector = unpack(any)?;
        return Ok(ListenerFilterConfig::TlsInspector {
            max_client_hello: config.max_client_hello_size.unwrap_or(MAX_CLIENT_HELLO),
            close_on_error: config.close_connection_on_client_hello_parsing_errors,
        });
    }
    if any.is::<ext::http_inspector::v3::HttpInspector>() {
        return Ok(ListenerFilterConfig::HttpInspector);
    }
    if any.is::<ext::local_ratelimit::v3::LocalRateLimit>() {
        let limit: ext::local_ratelimit::v3::LocalRateLimit = unpack(any)?;
        let parts = (&*limit.stat_prefix, limit.token_bucket.as_ref(), limit.runtime_enabled.as_ref());
        return Ok(ListenerFilterConfig::ConnectionRateLimit(Arc::new(connection_rate_limit(parts, "")?)));
    }
    if any.is::<ProxyProtocol>() {
        let config: ProxyProtocol = unpack(any)?;
        // `ProxyProtocolConfig.Version`: V1 = 0, V2 = 1.
        return Ok(ListenerFilterConfig::ProxyProtocol {
            allow_without: config.allow_requests_without_proxy_protocol,
            v1: !config.disallowed_versions.contains(&0),
            v2: !config.disallowed_versions.contains(&1),
        });
    }
    unknown_type(any)
}

fn predicate(value: &proto::ListenerFilterChainMatchPredicate) -> Result<ListenerPredicate> {
    use proto::listener_filter_chain_match_predicate::Rule;
    Ok(match required(&value.rule, "rule")? {
        Rule::OrMatch(set) => ListenerPredicate::Or(list(&set.rules, "rules", predicate).at("or_match")?),
        Rule::AndMatch(set) => ListenerPredicate::And(list(&set.rules, "rules", predicate).at("and_match")?),
        Rule::NotMatch(rule) => ListenerPredicate::Not(Box::new(predicate(rule).at("not_match")?)),
        Rule::AnyMatch(true) => ListenerPredicate::Any,
        Rule::AnyMatch(false) => return refuse("any_match: must be true"),
        Rule::DestinationPortRange(range) => match (u32::try_from(range.start), u32::try_from(range.end)) {
            (Ok(start), Ok(end)) if start < end => ListenerPredicate::DestinationPort { start, end },
            _ => return refuse("destination_port_range: is empty"),
        },
    })
}

fn filter_chain(value: &proto::FilterChain, quic: bool) -> Result<FilterChain> {
    let filters = network_filters(&value.filters)?;
    super::quic::check_filters(&filters, quic)?;
    if quic && value.transport_socket.is_none() {
        return refuse("transport_socket: is required for QUIC");
    }
    let criteria = value.filter_chain_match.as_ref().map_or(Ok(ChainCriteria::default()), criteria);
    Ok(FilterChain {
        name: value.name.as_str().into(),
        criteria: criteria.at("filter_chain_match")?,
        tls: value
            .transport_socket
            .as_ref()
            .map(|socket| downstream(socket, quic))
            .transpose()
            .at("transport_socket")?
            .flatten()
            .map(Arc::new),
        transport_connect_timeout: timeout_or(value.transport_socket_connect_timeout.as_ref(), None)
            .at("transport_socket_connect_timeout")?,
        filters,
        metadata: metadata(value.metadata.as_ref()),
        fingerprint: fingerprint(&meltemi_proto::encode(value)),
    })
}

fn criteria(value: &proto::FilterChainMatch) -> Result<ChainCriteria> {
    use proto::filter_chain_match::ConnectionSourceType;
    Ok(ChainCriteria {
        destination_port: match value.destination_port {
            None | Some(0) => None,
            Some(number) => Some(port(number).at("destination_port")?),
        },
        prefixes: cidrs(&value.prefix_ranges, "prefix_ranges")?,
        server_names: list(&value.server_names, "server_names", |name| server_name(name))?,
        transport_protocol: value.transport_protocol.as_str().into(),
        application_protocols: names(&value.application_protocols),
        direct_source_prefixes: cidrs(&value.direct_source_prefix_ranges, "direct_source_prefix_ranges")?,
        source_type: match enumeration::<ConnectionSourceType>(value.source_type).at("source_type")? {
            ConnectionSourceType::Any => SourceType::Any,
            ConnectionSourceType::SameIpOrLoopback => SourceType::SameIpOrLoopback,
            ConnectionSourceType::External => SourceType::External,
        },
        source_prefixes: cidrs(&value.source_prefix_ranges, "source_prefix_ranges")?,
        source_ports: list(&value.source_ports, "source_ports", |number| match port(*number)? {
            0 => refuse("0 is not a port"),
            port => Ok(port),
        })?,
    })
}

fn server_name(name: &str) -> Result<Arc<str>> {
    let literal = name.strip_prefix("*.").unwrap_or(name);
    if literal.contains('*') || literal.is_empty() {
        return Err(PlanError::new(format!("{name:?}: partial wildcards are not supported in server_names")));
    }
    Ok(name.to_ascii_lowercase().into())
}

#[cfg(test)]
mod tests;
