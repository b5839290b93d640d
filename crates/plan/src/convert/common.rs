//! Conversions of the values that every resource uses.

use crate::common::{
    Address, ConfigSource, DataSource, Fraction, Metadata, SocketOption, SocketOptionValue, SocketState, TcpKeepalive,
    Value,
};
use crate::error::{At, PlanError, Result, refuse};
use ipnet::IpNet;
use meltemi_base::intern::{Table, intern};
use meltemi_matchers::{FullRegex, RegexRewrite, StringMatcher};
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::r#type::matcher::v3 as matcher;
use meltemi_proto::envoy::r#type::v3 as kind;
use meltemi_proto::prost::{Message, Name};
use meltemi_proto::{Any, prost_types};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const KIB: u32 = 1024;

/// `google.protobuf.Duration`, not negative and within protobuf's own range.
pub(crate) fn duration(value: &prost_types::Duration) -> Result<Duration> {
    let nanos = u32::try_from(value.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    match (u64::try_from(value.seconds), nanos) {
        (Ok(seconds), Some(nanos)) if seconds <= 315_576_000_000 => Ok(Duration::new(seconds, nanos)),
        _ => refuse("not a duration of zero or more"),
    }
}

pub(crate) fn optional_duration(value: Option<&prost_types::Duration>) -> Result<Option<Duration>> {
    value.map(duration).transpose()
}

pub(crate) fn duration_or(value: Option<&prost_types::Duration>, default: Duration) -> Result<Duration> {
    Ok(optional_duration(value)?.unwrap_or(default))
}

/// A timeout of which zero means never.
pub(crate) fn timeout_or(value: Option<&prost_types::Duration>, default: Option<Duration>) -> Result<Option<Duration>> {
    Ok(match optional_duration(value)? {
        None => default,
        Some(Duration::ZERO) => None,
        set => set,
    })
}

pub(crate) fn positive(value: Duration) -> Result<Duration> {
    if value.is_zero() { refuse("must be greater than zero") } else { Ok(value) }
}

pub(crate) fn port(value: u32) -> Result<u16> {
    u16::try_from(value).map_err(|_| PlanError::new(format!("{value} is not a port")))
}

pub(crate) fn required<'a, T>(value: &'a Option<T>, field: &str) -> Result<&'a T> {
    value.as_ref().ok_or_else(|| PlanError::new("is required").under(field))
}

pub(crate) fn list<T, U>(items: &[T], field: &str, convert: impl Fn(&T) -> Result<U>) -> Result<Vec<U>> {
    items.iter().enumerate().map(|(index, item)| convert(item).at_index(field, index)).collect()
}

pub(crate) fn names(items: &[String]) -> Vec<Arc<str>> {
    items.iter().map(|item| intern(item)).collect()
}

pub(crate) fn non_empty(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| intern(text))
}

/// An enum value that this API version knows.
pub(crate) fn enumeration<E: TryFrom<i32>>(value: i32) -> Result<E> {
    E::try_from(value).map_err(|_| PlanError::new(format!("{value} is not a known value")))
}

/// The typed configuration of an extension, after `TypedStruct` has been resolved.
pub(crate) fn resolve(any: &Any) -> Result<Any> {
    Ok(meltemi_proto::json::resolve_typed_struct(any)?)
}

pub(crate) fn unpack<M: Message + Name + Default>(any: &Any) -> Result<M> {
    Ok(any.unpack()?)
}

pub(crate) fn unknown_type<T>(any: &Any) -> Result<T> {
    refuse(format!("type {:?} is not supported here", any.type_url.rsplit('/').next().unwrap_or_default()))
}

pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

pub(crate) fn address(value: &core::Address) -> Result<Address> {
    use core::address::Address as Kind;
    match value.address.as_ref() {
        None => refuse("is required"),
        Some(Kind::SocketAddress(socket)) => socket_address(socket).at("socket_address"),
        Some(Kind::Pipe(pipe)) if pipe.path.is_empty() => refuse("pipe.path: is required"),
        Some(Kind::Pipe(pipe)) => Ok(Address::Pipe { path: Arc::from(Path::new(&pipe.path)), mode: pipe.mode }),
        Some(Kind::EnvoyInternalAddress(internal)) => {
            let core::envoy_internal_address::AddressNameSpecifier::ServerListenerName(listener) =
                required(&internal.address_name_specifier, "envoy_internal_address.server_listener_name")?;
            Ok(Address::Internal { listener: listener.as_str().into(), endpoint: internal.endpoint_id.as_str().into() })
        }
    }
}

fn socket_address(value: &core::SocketAddress) -> Result<Address> {
    use core::socket_address::PortSpecifier;
    if value.protocol != core::socket_address::Protocol::Tcp as i32 {
        return refuse("protocol: only TCP is supported");
    }
    let port = match value.port_specifier.as_ref() {
        Some(PortSpecifier::PortValue(number)) => port(*number).at("port_value")?,
        Some(PortSpecifier::NamedPort(_)) => return refuse("named_port: is not supported"),
        None => return refuse("port_value: is required"),
    };
    if value.address.is_empty() {
        return refuse("address: is required");
    }
    Ok(match value.address.parse::<IpAddr>() {
        Ok(ip) => Address::Socket(SocketAddr::new(ip, port)),
        Err(_) => Address::Name { host: value.address.as_str().into(), port },
    })
}

/// An address that must be numeric.
pub(crate) fn numeric(value: &core::SocketAddress) -> Result<SocketAddr> {
    match socket_address(value)? {
        Address::Socket(address) => Ok(address),
        other => refuse(format!("{other} is not an IP address")),
    }
}

pub(crate) fn cidr(value: &core::CidrRange) -> Result<IpNet> {
    let address: IpAddr = value
        .address_prefix
        .parse()
        .map_err(|_| PlanError::new(format!("{:?} is not an IP address", value.address_prefix)))?;
    let length = value.prefix_len.unwrap_or(0);
    let widest = if address.is_ipv4() { 32 } else { 128 };
    let length = u8::try_from(length.min(widest)).unwrap_or(32);
    IpNet::new(address, length)
        .map(|net| net.trunc())
        .map_err(|_| PlanError::new(format!("/{length} is not a prefix length of {address}")))
}

pub(crate) fn cidrs(values: &[core::CidrRange], field: &str) -> Result<Vec<IpNet>> {
    list(values, field, cidr)
}

pub(crate) fn fraction(value: &kind::FractionalPercent) -> Result<Fraction> {
    use kind::fractional_percent::DenominatorType;
    let denominator = match enumeration::<DenominatorType>(value.denominator).at("denominator")? {
        DenominatorType::Hundred => 100,
        DenominatorType::TenThousand => 10_000,
        DenominatorType::Million => 1_000_000,
    };
    Ok(Fraction { numerator: value.numerator.min(denominator), denominator })
}

pub(crate) fn optional_fraction(value: Option<&kind::FractionalPercent>, default: Fraction) -> Result<Fraction> {
    value.map_or(Ok(default), fraction)
}

pub(crate) fn runtime_fraction(value: &core::RuntimeFractionalPercent) -> Result<Fraction> {
    optional_fraction(value.default_value.as_ref(), Fraction::NEVER).at("default_value")
}

pub(crate) fn percent(value: Option<&kind::Percent>, default: f64) -> Result<f64> {
    match value.map(|percent| percent.value) {
        None => Ok(default),
        Some(value) if (0.0..=100.0).contains(&value) => Ok(value),
        Some(value) => refuse(format!("{value} is not a percentage")),
    }
}

pub(crate) fn regex(value: &matcher::RegexMatcher) -> Result<FullRegex> {
    if value.regex.is_empty() {
        return refuse("regex: is required");
    }
    FullRegex::new(&value.regex).at("regex")
}

pub(crate) fn regex_rewrite(value: &matcher::RegexMatchAndSubstitute) -> Result<RegexRewrite> {
    let pattern = required(&value.pattern, "pattern")?;
    Ok(RegexRewrite::new(&pattern.regex, &value.substitution)?)
}

pub(crate) fn string_matcher(value: &matcher::StringMatcher) -> Result<StringMatcher> {
    use matcher::string_matcher::MatchPattern;
    let needed = |text: &str, field: &str| {
        if text.is_empty() { Err(PlanError::new("must not be empty").under(field)) } else { Ok(()) }
    };
    let built = match required(&value.match_pattern, "match_pattern")? {
        MatchPattern::Exact(text) => StringMatcher::exact(text),
        MatchPattern::Prefix(text) => {
            needed(text, "prefix")?;
            StringMatcher::prefix(text)
        }
        MatchPattern::Suffix(text) => {
            needed(text, "suffix")?;
            StringMatcher::suffix(text)
        }
        MatchPattern::Contains(text) => {
            needed(text, "contains")?;
            StringMatcher::contains(text)
        }
        MatchPattern::SafeRegex(pattern) => StringMatcher {
            pattern: meltemi_matchers::StringPattern::Regex(regex(pattern).at("safe_regex")?),
            ignore_case: false,
        },
        MatchPattern::Custom(_) => return refuse("custom: is not supported"),
    };
    Ok(built.ignoring_case(value.ignore_case))
}

pub(crate) fn structure(value: &prost_types::Struct) -> Value {
    Value::Object(value.fields.iter().map(|(key, value)| (key.clone(), json(value))).collect())
}

fn json(value: &prost_types::Value) -> Value {
    use prost_types::value::Kind;
    match value.kind.as_ref() {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(value)) => Value::Bool(*value),
        // A whole number prints without a fraction, as protobuf's JSON does.
        Some(Kind::NumberValue(number)) if number.fract() == 0.0 && number.abs() < 9e15 => Value::from(*number as i64),
        Some(Kind::NumberValue(number)) => Value::from(*number),
        Some(Kind::StringValue(text)) => Value::String(text.clone()),
        Some(Kind::ListValue(list)) => Value::Array(list.values.iter().map(json).collect()),
        Some(Kind::StructValue(fields)) => structure(fields),
    }
}

pub(crate) fn metadata(value: Option<&core::Metadata>) -> Metadata {
    let filters = value
        .into_iter()
        .flat_map(|metadata| &metadata.filter_metadata)
        .map(|(name, fields)| (Arc::from(name.as_str()), structure(fields)))
        .collect();
    Metadata { filters }
}

/// `None` if empty. Equal metadata, as of all endpoints of a workload, is held once.
pub(crate) fn shared_metadata(value: Option<&core::Metadata>) -> Option<Arc<Metadata>> {
    let value = value.filter(|value| !value.filter_metadata.is_empty())?;
    static KNOWN: Table<Metadata> = Table::new();
    let hash = fingerprint(&meltemi_proto::encode(value));
    let metadata = metadata(Some(value));
    Some(KNOWN.find(hash, |known| *known == metadata).unwrap_or_else(|| {
        let metadata = Arc::new(metadata);
        KNOWN.insert(hash, &metadata);
        metadata
    }))
}

/// Wanted endpoint metadata, which lives under `envoy.lb`.
pub(crate) fn lb_match(value: Option<&core::Metadata>) -> Option<Value> {
    value.and_then(|metadata| metadata.filter_metadata.get("envoy.lb")).map(structure)
}

pub(crate) fn data_source(value: &core::DataSource) -> Result<DataSource> {
    use core::data_source::Specifier;
    let directory = value.watched_directory.as_ref().map(|directory| Arc::from(Path::new(&directory.path)));
    Ok(match required(&value.specifier, "specifier")? {
        Specifier::Filename(path) if path.is_empty() => return refuse("filename: must not be empty"),
        Specifier::Filename(path) => {
            DataSource::File { path: Arc::from(Path::new(path)), watched_directory: directory }
        }
        Specifier::InlineBytes(bytes) => DataSource::Inline(bytes.clone()),
        Specifier::InlineString(text) => DataSource::Inline(bytes::Bytes::copy_from_slice(text.as_bytes())),
        Specifier::EnvironmentVariable(name) => DataSource::Environment(name.as_str().into()),
    })
}

/// Bytes that a reply consists of. Whoever answers must not wait for a disk, so that only what stands in the configuration will do.
pub(crate) fn inline_data(value: &core::DataSource) -> Result<bytes::Bytes> {
    match data_source(value)? {
        DataSource::Inline(bytes) => Ok(bytes),
        DataSource::File { .. } => refuse("filename: only inline data is supported"),
        DataSource::Environment(_) => refuse("environment_variable: only inline data is supported"),
    }
}

pub(crate) fn optional_source(value: Option<&core::DataSource>) -> Result<Option<DataSource>> {
    value.map(data_source).transpose()
}

pub(crate) fn config_source(value: &core::ConfigSource) -> Result<ConfigSource> {
    use core::config_source::ConfigSourceSpecifier as Kind;
    match required(&value.config_source_specifier, "config_source_specifier")? {
        Kind::Ads(_) | Kind::Self_(_) => Ok(ConfigSource::Ads),
        Kind::ApiConfigSource(api) => api_source(api).at("api_config_source"),
        Kind::PathConfigSource(path) => Ok(ConfigSource::Path(Arc::from(Path::new(&path.path)))),
        Kind::Path(path) => Ok(ConfigSource::Path(Arc::from(Path::new(path)))),
    }
}

fn api_source(value: &core::ApiConfigSource) -> Result<ConfigSource> {
    use core::api_config_source::ApiType;
    match enumeration::<ApiType>(value.api_type).at("api_type")? {
        ApiType::AggregatedGrpc | ApiType::AggregatedDeltaGrpc => return Ok(ConfigSource::Ads),
        ApiType::Grpc | ApiType::DeltaGrpc => {}
        ApiType::Rest | ApiType::DeprecatedAndUnavailableDoNotUse => return refuse("api_type: only gRPC is supported"),
    }
    let [service] = &value.grpc_services[..] else { return refuse("grpc_services: exactly one is needed") };
    Ok(ConfigSource::Grpc { cluster: grpc_cluster(service).at_index("grpc_services", 0)?.0 })
}

/// The cluster and authority of a `GrpcService`.
pub(crate) fn grpc_cluster(value: &core::GrpcService) -> Result<(Arc<str>, Arc<str>)> {
    use core::grpc_service::TargetSpecifier;
    match required(&value.target_specifier, "envoy_grpc")? {
        TargetSpecifier::EnvoyGrpc(envoy) if envoy.cluster_name.is_empty() => {
            refuse("envoy_grpc.cluster_name: is required")
        }
        TargetSpecifier::EnvoyGrpc(envoy) => Ok((envoy.cluster_name.as_str().into(), envoy.authority.as_str().into())),
        TargetSpecifier::GoogleGrpc(_) => refuse("google_grpc: is not supported, use envoy_grpc"),
    }
}

pub(crate) fn keepalive(value: Option<&core::TcpKeepalive>) -> Option<TcpKeepalive> {
    let seconds = |value: Option<u32>| value.map(|seconds| Duration::from_secs(seconds.into()));
    value.map(|keepalive| TcpKeepalive {
        probes: keepalive.keepalive_probes,
        time: seconds(keepalive.keepalive_time),
        interval: seconds(keepalive.keepalive_interval),
    })
}

pub(crate) fn socket_option(value: &core::SocketOption) -> Result<SocketOption> {
    use core::socket_option::{SocketState as State, Value as Kind};
    let number = |value: i64, field: &str| {
        i32::try_from(value).map_err(|_| PlanError::new(format!("{value} is out of range")).under(field))
    };
    Ok(SocketOption {
        level: number(value.level, "level")?,
        name: number(value.name, "name")?,
        value: match required(&value.value, "int_value")? {
            Kind::IntValue(int) => SocketOptionValue::Int(number(*int, "int_value")?),
            Kind::BufValue(bytes) => SocketOptionValue::Bytes(Arc::from(&bytes[..])),
        },
        state: match enumeration::<State>(value.state).at("state")? {
            State::StatePrebind => SocketState::Prebind,
            State::StateBound => SocketState::Bound,
            State::StateListening => SocketState::Listening,
        },
    })
}
