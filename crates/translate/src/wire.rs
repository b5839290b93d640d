//! Small conversions into protobuf's own types.

use std::net::IpAddr;
use std::time::Duration;

use meltemi_proto::envoy::config::core::v3::{
    Address, AggregatedConfigSource, ApiVersion, CidrRange, ConfigSource, DataSource, Metadata, Pipe, SocketAddress,
    address, config_source, data_source, socket_address,
};
use meltemi_proto::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use meltemi_proto::prost_types;

use crate::listener::Origin;

pub fn duration(value: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(value.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(value.subsec_nanos()).unwrap_or_default(),
    }
}

/// What comes on the stream that the configuration came on. Nothing waits for it unless it says so.
pub fn ads() -> ConfigSource {
    ConfigSource {
        initial_fetch_timeout: Some(duration(Duration::ZERO)),
        resource_api_version: ApiVersion::V3 as i32,
        config_source_specifier: Some(config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
        ..ConfigSource::default()
    }
}

/// A socket address, or with a leading slash or `unix:` a path.
pub fn socket_address(host: &str, port: u32) -> Address {
    if let Some(path) = host.strip_prefix("unix://").or_else(|| host.starts_with(['/', '@']).then_some(host)) {
        let pipe = Pipe { path: path.into(), mode: 0 };
        return Address { address: Some(address::Address::Pipe(pipe)) };
    }
    let socket = SocketAddress {
        address: host.into(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(port)),
        ..SocketAddress::default()
    };
    Address { address: Some(address::Address::SocketAddress(socket)) }
}

/// The same for UDP.
pub fn udp_address(host: &str, port: u32) -> Address {
    let mut address = socket_address(host, port);
    if let Some(address::Address::SocketAddress(socket)) = &mut address.address {
        socket.protocol = socket_address::Protocol::Udp as i32;
    }
    address
}

/// An address, or an address and prefix length; `None` for anything else.
pub fn cidr(text: &str) -> Option<CidrRange> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let parsed: IpAddr = address.parse().ok()?;
    let full = if parsed.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(full);
    (length <= full).then(|| CidrRange { address_prefix: parsed.to_string(), prefix_len: Some(length) })
}

pub fn inline_string(text: impl Into<String>) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::InlineString(text.into())), ..DataSource::default() }
}

pub fn exact(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(string_matcher::MatchPattern::Exact(text.into())), ignore_case: false }
}

pub fn prefix(text: &str) -> StringMatcher {
    StringMatcher { match_pattern: Some(string_matcher::MatchPattern::Prefix(text.into())), ignore_case: false }
}

pub fn regex(text: &str) -> RegexMatcher {
    RegexMatcher { regex: text.into(), engine_type: None }
}

pub fn string_value(text: &str) -> prost_types::Value {
    prost_types::Value { kind: Some(prost_types::value::Kind::StringValue(text.into())) }
}

/// Istio's `istio: {config: <path>}`, which tells where a resource comes from.
pub fn origin_metadata(origin: &Origin) -> Metadata {
    let fields = [("config".to_owned(), string_value(&origin.0))].into_iter().collect();
    let filter_metadata = [("istio".to_owned(), prost_types::Struct { fields })].into_iter().collect();
    Metadata { filter_metadata, ..Metadata::default() }
}
