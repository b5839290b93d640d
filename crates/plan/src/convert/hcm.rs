//! The HTTP connection manager.

use super::access_log::{access_logs, body_format, filter};
use super::common::{
    KIB, cidrs, config_source, duration_or, enumeration, inline_data, list, non_empty, optional_duration, required,
    resolve, timeout_or, unknown_type, unpack,
};
use super::filter::http_filters;
use super::header::header_adds;
use super::tracing::tracing;
use crate::common::ConfigSource;
use crate::error::{At, PlanError, Result, refuse};
use crate::hcm::{
    ClientCertDetails, Codec, EscapedSlashes, ForwardClientCert, Hcm, HeaderCase, Http1Options, Http2Keepalive,
    Http2Options, InternalAddresses, LocalReplyConfig, RequestId, ResponseMapper, RouteSource, ServerHeader, StripPort,
    UnderscoreAction, Upgrade,
};
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3 as proto;
use meltemi_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;
use proto::http_connection_manager as part;
use std::sync::Arc;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);
const STREAM_IDLE: Duration = Duration::from_secs(300);
const MAX_HEADERS_KB: u32 = 60;
const MAX_HEADERS_COUNT: u32 = 100;

pub(crate) fn hcm(value: &proto::HttpConnectionManager) -> Result<Hcm> {
    if value.stat_prefix.is_empty() {
        return refuse("stat_prefix: is required");
    }
    // The walk for unsupported fields takes a wrapper of false for unset.
    if value.add_proxy_protocol_connection_state == Some(false) {
        return refuse("add_proxy_protocol_connection_state: PROXY protocol's addresses always count");
    }
    let common = value.common_http_protocol_options.unwrap_or_default();
    let times = Times::of(value, &common)?;
    let (http_filters, on_demand) = http_filters(&value.http_filters, "http_filters")?;
    Ok(Hcm {
        stat_prefix: value.stat_prefix.as_str().into(),
        codec: codec(value.codec_type).at("codec_type")?,
        route: route_source(value)?,
        http_filters,
        on_demand,
        access_logs: access_logs(&value.access_log, "access_log")?,
        tracing: value.tracing.as_ref().map(tracing).transpose().at("tracing")?,
        http1: http1_options(value.http_protocol_options.as_ref()).at("http_protocol_options")?,
        http2: http2_options(value.http2_protocol_options.as_ref()).at("http2_protocol_options")?,
        http3_connect: value.http3_protocol_options.as_ref().is_some_and(|options| options.allow_extended_connect),
        idle_timeout: times.idle,
        max_connection_duration: times.max_connection,
        max_stream_duration: times.max_stream,
        stream_idle_timeout: times.stream_idle,
        request_headers_timeout: times.request_headers,
        drain_timeout: times.drain,
        delayed_close_timeout: times.delayed_close,
        max_request_headers_bytes: max_headers(value.max_request_headers_kb)?,
        max_headers_count: common.max_headers_count.unwrap_or(MAX_HEADERS_COUNT),
        max_requests_per_connection: common.max_requests_per_connection.unwrap_or(0),
        headers_with_underscores: underscores(common.headers_with_underscores_action)
            .at("common_http_protocol_options.headers_with_underscores_action")?,
        server_name: field_value(&value.server_name).at("server_name")?.unwrap_or_else(|| "envoy".into()),
        server_header: server_header(value.server_header_transformation).at("server_header_transformation")?,
        scheme_overwrite: scheme(value),
        via: field_value(&value.via).at("via")?,
        use_remote_address: value.use_remote_address.unwrap_or(false),
        xff_trusted_hops: value.xff_num_trusted_hops,
        skip_xff_append: value.skip_xff_append,
        internal_addresses: internal_addresses(value).at("internal_address_config")?,
        append_x_forwarded_port: value.append_x_forwarded_port,
        forward_client_cert: forward_client_cert(value.forward_client_cert_details)
            .at("forward_client_cert_details")?,
        client_cert_details: client_cert_details(value.set_current_client_cert_details.as_ref()),
        generate_request_id: value.generate_request_id.unwrap_or(true),
        preserve_external_request_id: value.preserve_external_request_id,
        always_set_request_id_in_response: value.always_set_request_id_in_response,
        request_id: request_id(value).at("request_id_extension")?,
        normalize_path: value.normalize_path.unwrap_or(false),
        merge_slashes: value.merge_slashes,
        escaped_slashes: escaped_slashes(value.path_with_escaped_slashes_action)
            .at("path_with_escaped_slashes_action")?,
        strip_port: strip_port(value)?,
        strip_trailing_host_dot: value.strip_trailing_host_dot,
        proxy_100_continue: value.proxy_100_continue,
        stream_error_on_invalid: value.stream_error_on_invalid_http_message.unwrap_or(false),
        upgrades: upgrades(&value.upgrade_configs)?,
        local_reply: local_reply(value.local_reply_config.as_ref()).at("local_reply_config")?,
    })
}

struct Times {
    idle: Option<Duration>,
    max_connection: Option<Duration>,
    max_stream: Option<Duration>,
    stream_idle: Option<Duration>,
    request_headers: Option<Duration>,
    drain: Duration,
    delayed_close: Option<Duration>,
}

impl Times {
    fn of(value: &proto::HttpConnectionManager, common: &core::HttpProtocolOptions) -> Result<Self> {
        let within = "common_http_protocol_options";
        Ok(Self {
            idle: timeout_or(common.idle_timeout.as_ref(), Some(HOUR)).at("idle_timeout").at(within)?,
            max_connection: timeout_or(common.max_connection_duration.as_ref(), None)
                .at("max_connection_duration")
                .at(within)?,
            max_stream: timeout_or(common.max_stream_duration.as_ref(), None).at("max_stream_duration").at(within)?,
            stream_idle: timeout_or(value.stream_idle_timeout.as_ref(), Some(STREAM_IDLE)).at("stream_idle_timeout")?,
            request_headers: timeout_or(value.request_headers_timeout.as_ref(), None).at("request_headers_timeout")?,
            drain: duration_or(value.drain_timeout.as_ref(), Duration::from_secs(5)).at("drain_timeout")?,
            delayed_close: timeout_or(value.delayed_close_timeout.as_ref(), Some(Duration::from_secs(1)))
                .at("delayed_close_timeout")?,
        })
    }
}

fn max_headers(kb: Option<u32>) -> Result<u32> {
    match kb.unwrap_or(MAX_HEADERS_KB) {
        kb @ 1..=8192 => Ok(kb * KIB),
        _ => refuse("max_request_headers_kb: must be between 1 and 8192"),
    }
}

fn codec(value: i32) -> Result<Codec> {
    match enumeration::<part::CodecType>(value)? {
        part::CodecType::Auto => Ok(Codec::Auto),
        part::CodecType::Http1 => Ok(Codec::Http1),
        part::CodecType::Http2 => Ok(Codec::Http2),
        part::CodecType::Http3 => Ok(Codec::Http3),
    }
}

fn route_source(value: &proto::HttpConnectionManager) -> Result<RouteSource> {
    use part::RouteSpecifier;
    match required(&value.route_specifier, "route_specifier")? {
        RouteSpecifier::RouteConfig(config) => {
            Ok(RouteSource::Inline(Arc::new(super::route::unchecked(config).at("route_config")?)))
        }
        RouteSpecifier::Rds(rds) => {
            let source =
                required(&rds.config_source, "config_source").and_then(config_source).at("rds.config_source")?;
            if source != ConfigSource::Ads {
                return refuse("rds.config_source: only ADS is supported");
            }
            if rds.route_config_name.is_empty() {
                return refuse("rds.route_config_name: is required");
            }
            Ok(RouteSource::Rds(rds.route_config_name.as_str().into()))
        }
        RouteSpecifier::ScopedRoutes(_) => refuse("scoped_routes: is not supported"),
    }
}

pub(crate) fn underscores(value: i32) -> Result<UnderscoreAction> {
    use core::http_protocol_options::HeadersWithUnderscoresAction as Action;
    Ok(match enumeration::<Action>(value)? {
        Action::Allow => UnderscoreAction::Allow,
        Action::RejectRequest => UnderscoreAction::Reject,
        Action::DropHeader => UnderscoreAction::Drop,
    })
}

fn server_header(value: i32) -> Result<ServerHeader> {
    use part::ServerHeaderTransformation as Kind;
    Ok(match enumeration::<Kind>(value)? {
        Kind::Overwrite => ServerHeader::Overwrite,
        Kind::AppendIfAbsent => ServerHeader::AppendIfAbsent,
        Kind::PassThrough => ServerHeader::PassThrough,
    })
}

fn scheme(value: &proto::HttpConnectionManager) -> Option<Arc<str>> {
    use core::scheme_header_transformation::Transformation;
    let transformation = value.scheme_header_transformation.as_ref()?;
    transformation.transformation.as_ref().map(|Transformation::SchemeToOverwrite(scheme)| scheme.as_str().into())
}

fn internal_addresses(value: &proto::HttpConnectionManager) -> Result<InternalAddresses> {
    let Some(config) = &value.internal_address_config else {
        return Ok(InternalAddresses::default());
    };
    Ok(InternalAddresses {
        unix_sockets: config.unix_sockets,
        ranges: cidrs(&config.cidr_ranges, "cidr_ranges")?.into_iter().collect(),
    })
}

fn forward_client_cert(value: i32) -> Result<ForwardClientCert> {
    use part::ForwardClientCertDetails as Kind;
    Ok(match enumeration::<Kind>(value)? {
        Kind::Sanitize => ForwardClientCert::Sanitize,
        Kind::ForwardOnly => ForwardClientCert::ForwardOnly,
        Kind::AppendForward => ForwardClientCert::AppendForward,
        Kind::SanitizeSet => ForwardClientCert::SanitizeSet,
        Kind::AlwaysForwardOnly => ForwardClientCert::AlwaysForwardOnly,
    })
}

fn client_cert_details(value: Option<&part::SetCurrentClientCertDetails>) -> ClientCertDetails {
    value.map_or_else(ClientCertDetails::default, |set| ClientCertDetails {
        subject: set.subject.unwrap_or(false),
        cert: set.cert,
        chain: set.chain,
        dns: set.dns,
        uri: set.uri,
    })
}

fn request_id(value: &proto::HttpConnectionManager) -> Result<RequestId> {
    let default = RequestId { pack_trace_reason: true };
    let Some(extension) = &value.request_id_extension else { return Ok(default) };
    let any = required(&extension.typed_config, "typed_config").and_then(resolve)?;
    if !any.is::<UuidRequestIdConfig>() {
        return unknown_type(&any).at("typed_config");
    }
    let config: UuidRequestIdConfig = unpack(&any)?;
    Ok(RequestId { pack_trace_reason: config.pack_trace_reason.unwrap_or(true) })
}

fn escaped_slashes(value: i32) -> Result<EscapedSlashes> {
    use part::PathWithEscapedSlashesAction as Kind;
    Ok(match enumeration::<Kind>(value)? {
        Kind::ImplementationSpecificDefault | Kind::KeepUnchanged => EscapedSlashes::Keep,
        Kind::RejectRequest => EscapedSlashes::Reject,
        Kind::UnescapeAndRedirect => EscapedSlashes::UnescapeAndRedirect,
        Kind::UnescapeAndForward => EscapedSlashes::UnescapeAndForward,
    })
}

fn strip_port(value: &proto::HttpConnectionManager) -> Result<StripPort> {
    match (value.strip_matching_host_port, value.strip_port_mode.as_ref()) {
        (true, Some(part::StripPortMode::StripAnyHostPort(true))) => {
            refuse("strip_any_host_port: only one of it and strip_matching_host_port may be set")
        }
        (true, _) => Ok(StripPort::Matching),
        (false, Some(part::StripPortMode::StripAnyHostPort(true))) => Ok(StripPort::Any),
        (false, _) => Ok(StripPort::No),
    }
}

/// What goes into a header as it is.
fn field_value(text: &str) -> Result<Option<Arc<str>>> {
    if text.contains(['\0', '\r', '\n']) {
        return refuse("must not hold a line end or NUL");
    }
    Ok(non_empty(text))
}

fn upgrades(values: &[part::UpgradeConfig]) -> Result<Vec<Upgrade>> {
    let upgrades = list(values, "upgrade_configs", upgrade)?;
    for (index, one) in upgrades.iter().enumerate() {
        if upgrades[..index].iter().any(|earlier| earlier.kind == one.kind) {
            let twice = PlanError::new(format!("{} is there twice", one.kind)).under("upgrade_type");
            return Err(twice).at_index("upgrade_configs", index);
        }
    }
    Ok(upgrades)
}

fn upgrade(value: &part::UpgradeConfig) -> Result<Upgrade> {
    if value.upgrade_type.is_empty() {
        return refuse("upgrade_type: is required");
    }
    Ok(Upgrade { kind: value.upgrade_type.to_ascii_lowercase().into(), enabled: value.enabled.unwrap_or(true) })
}

fn local_reply(value: Option<&proto::LocalReplyConfig>) -> Result<LocalReplyConfig> {
    let Some(value) = value else { return Ok(LocalReplyConfig::default()) };
    Ok(LocalReplyConfig {
        mappers: list(&value.mappers, "mappers", |mapper| {
            Ok(ResponseMapper {
                filter: filter(required(&mapper.filter, "filter")?).at("filter")?,
                status: match mapper.status_code {
                    None => None,
                    Some(code @ 200..600) => Some(code as u16),
                    Some(_) => return refuse("status_code: must be between 200 and 599"),
                },
                body: mapper.body.as_ref().map(inline_data).transpose().at("body")?,
                body_format: mapper
                    .body_format_override
                    .as_ref()
                    .map(body_format)
                    .transpose()
                    .at("body_format_override")?,
                headers: header_adds(&mapper.headers_to_add, "headers_to_add")?,
            })
        })?,
        body_format: value.body_format.as_ref().map(body_format).transpose().at("body_format")?,
    })
}

pub(crate) fn http1_options(value: Option<&core::Http1ProtocolOptions>) -> Result<Http1Options> {
    let value = value.cloned().unwrap_or_default();
    // The walk for unsupported fields takes a wrapper of false for unset.
    if value.allow_absolute_url == Some(false) {
        return refuse("allow_absolute_url: absolute URLs are always allowed");
    }
    Ok(Http1Options {
        allow_absolute_url: true,
        accept_http_10: value.accept_http_10,
        default_host_for_http_10: value.default_host_for_http_10.as_str().into(),
        enable_trailers: value.enable_trailers,
        header_case: value.header_key_format.as_ref().map(header_case).transpose()?.unwrap_or(HeaderCase::Lower),
        stream_error_on_invalid: value.override_stream_error_on_invalid_http_message,
        send_fully_qualified_url: value.send_fully_qualified_url,
        allow_custom_methods: value.allow_custom_methods,
    })
}

fn header_case(value: &core::http1_protocol_options::HeaderKeyFormat) -> Result<HeaderCase> {
    use core::http1_protocol_options::header_key_format::HeaderFormat;
    use meltemi_proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
    match required(&value.header_format, "header_key_format")? {
        HeaderFormat::ProperCaseWords(_) => refuse("header_key_format.proper_case_words: is not supported"),
        HeaderFormat::StatefulFormatter(formatter) => {
            let path = "header_key_format.stateful_formatter.typed_config";
            let any = resolve(required(&formatter.typed_config, path)?).at(path)?;
            if any.is::<PreserveCaseFormatterConfig>() { Ok(HeaderCase::Preserve) } else { unknown_type(&any).at(path) }
        }
    }
}

pub(crate) fn http2_options(value: Option<&core::Http2ProtocolOptions>) -> Result<Http2Options> {
    const MAX_WINDOW: u32 = (1 << 31) - 1;
    let value = value.cloned().unwrap_or_default();
    let window = |set: Option<u32>, default: u32, field: &str| match set.unwrap_or(default) {
        size @ 65_535..=MAX_WINDOW => Ok(size),
        _ => Err(PlanError::new("must be between 65535 and 2147483647").under(field)),
    };
    let max_concurrent_streams = match value.max_concurrent_streams {
        Some(0) => return refuse("max_concurrent_streams: must be greater than zero"),
        Some(streams) if streams > MAX_WINDOW => return refuse("max_concurrent_streams: must be at most 2147483647"),
        Some(streams) => streams,
        // Envoy's default since 1.37.
        None => 1024,
    };
    Ok(Http2Options {
        hpack_table_size: value.hpack_table_size.unwrap_or(4096),
        max_concurrent_streams,
        initial_stream_window: window(value.initial_stream_window_size, 16 << 20, "initial_stream_window_size")?,
        initial_connection_window: window(
            value.initial_connection_window_size,
            24 << 20,
            "initial_connection_window_size",
        )?,
        allow_connect: value.allow_connect,
        max_outbound_frames: value.max_outbound_frames.unwrap_or(10_000),
        max_outbound_control_frames: value.max_outbound_control_frames.unwrap_or(1000),
        stream_error_on_invalid: value.override_stream_error_on_invalid_http_message,
        keepalive: value.connection_keepalive.as_ref().map(http2_keepalive).transpose().at("connection_keepalive")?,
    })
}

fn http2_keepalive(value: &core::KeepaliveSettings) -> Result<Http2Keepalive> {
    let timeout = super::common::duration(required(&value.timeout, "timeout")?).at("timeout")?;
    optional_duration(value.connection_idle_interval.as_ref()).at("connection_idle_interval")?;
    Ok(Http2Keepalive { interval: optional_duration(value.interval.as_ref()).at("interval")?, timeout })
}
