//! HTTP options of a cluster: the typed extension, or the deprecated fields beside it.

use super::cluster::idle_timeout;
use super::common::{KIB, resolve, timeout_or, unpack};
use super::hcm::{http1_options, http2_options};
use super::header::header_name;
use super::retry::retry_policy;
use super::route_action::hash_policies;
use crate::cluster::{UpstreamHttp, UpstreamProtocol};
use crate::error::{At, Result, refuse};
use meltemi_proto::envoy::config::cluster::v3 as proto;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::extensions::filters::http::upstream_codec::v3::UpstreamCodec;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3 as hcm;
use meltemi_proto::envoy::extensions::upstreams::http::v3 as http;
use std::sync::Arc;

const EXTENSION: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const MAX_HEADERS_KB: u32 = 60;
const MAX_HEADERS_COUNT: u32 = 100;

/// Both sources in one shape.
#[derive(Default)]
struct Options {
    protocol: Option<UpstreamProtocol>,
    common: core::HttpProtocolOptions,
    upstream: core::UpstreamHttpProtocolOptions,
    http1: Option<core::Http1ProtocolOptions>,
    http2: Option<core::Http2ProtocolOptions>,
}

pub(crate) fn upstream_http(value: &proto::Cluster) -> Result<UpstreamHttp> {
    let path = format!("typed_extension_protocol_options[{EXTENSION:?}]");
    let mut retry = None;
    let mut hash_policy = Vec::new();
    let options = match value.typed_extension_protocol_options.get(EXTENSION) {
        Some(any) => {
            let any = resolve(any).at(&path)?;
            let config: http::HttpProtocolOptions = unpack(&any).at(&path)?;
            check_filters(&config.http_filters).at(&path)?;
            retry = config.retry_policy.as_ref().map(retry_policy).transpose().at("retry_policy").at(&path)?;
            hash_policy = hash_policies(&config.hash_policy).at(&path)?;
            typed(config).at(&path)?
        }
        None => legacy(value)?,
    };
    let auto_sni_header = match options.upstream.override_auto_sni_header.as_str() {
        "" => None,
        ":authority" => None,
        name => Some(header_name(name).at("override_auto_sni_header").at(&path)?),
    };
    let common = &options.common;
    Ok(UpstreamHttp {
        protocol: options.protocol.unwrap_or(UpstreamProtocol::Http1),
        http1: http1_options(options.http1.as_ref()).at("http_protocol_options")?,
        http2: http2_options(options.http2.as_ref()).at("http2_protocol_options")?,
        idle_timeout: idle_timeout(common)?,
        max_connection_duration: timeout_or(common.max_connection_duration.as_ref(), None)
            .at("max_connection_duration")?,
        max_stream_duration: timeout_or(common.max_stream_duration.as_ref(), None).at("max_stream_duration")?,
        max_requests_per_connection: common
            .max_requests_per_connection
            .or(value.max_requests_per_connection)
            .unwrap_or(0),
        max_headers_count: common.max_headers_count.unwrap_or(MAX_HEADERS_COUNT),
        max_response_headers_bytes: common.max_response_headers_kb.unwrap_or(MAX_HEADERS_KB).min(8192) * KIB,
        auto_sni: options.upstream.auto_sni,
        auto_sni_header,
        auto_san_validation: options.upstream.auto_san_validation,
        filters: Vec::new(),
        retry_policy: retry.map(Arc::new),
        hash_policy,
    })
}

fn typed(config: http::HttpProtocolOptions) -> Result<Options> {
    use http::http_protocol_options::UpstreamProtocolOptions as Kind;
    use http::http_protocol_options::explicit_http_config::ProtocolConfig;
    let mut options = Options {
        common: config.common_http_protocol_options.unwrap_or_default(),
        upstream: config.upstream_http_protocol_options.unwrap_or_default(),
        ..Options::default()
    };
    match config.upstream_protocol_options {
        Some(Kind::ExplicitHttpConfig(explicit)) => match explicit.protocol_config {
            Some(ProtocolConfig::HttpProtocolOptions(http1)) => {
                options.protocol = Some(UpstreamProtocol::Http1);
                options.http1 = Some(http1);
            }
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => {
                options.protocol = Some(UpstreamProtocol::Http2);
                options.http2 = Some(http2);
            }
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return refuse("explicit_http_config.http3_protocol_options: is not supported");
            }
            None => return refuse("explicit_http_config: a protocol is required"),
        },
        Some(Kind::UseDownstreamProtocolConfig(both)) => {
            options.protocol = Some(UpstreamProtocol::Downstream);
            options.http1 = both.http_protocol_options;
            options.http2 = both.http2_protocol_options;
        }
        Some(Kind::AutoConfig(both)) => {
            options.protocol = Some(UpstreamProtocol::Auto);
            options.http1 = both.http_protocol_options;
            options.http2 = both.http2_protocol_options;
        }
        None => return refuse("upstream_protocol_options: is required"),
    }
    Ok(options)
}

fn legacy(value: &proto::Cluster) -> Result<Options> {
    use proto::cluster::ClusterProtocolSelection;
    let downstream = value.protocol_selection == ClusterProtocolSelection::UseDownstreamProtocol as i32;
    let protocol = match (downstream, value.http2_protocol_options.is_some()) {
        (true, _) => UpstreamProtocol::Downstream,
        (false, true) => UpstreamProtocol::Http2,
        (false, false) => UpstreamProtocol::Http1,
    };
    Ok(Options {
        protocol: Some(protocol),
        common: value.common_http_protocol_options.unwrap_or_default(),
        upstream: value.upstream_http_protocol_options.clone().unwrap_or_default(),
        http1: value.http_protocol_options.clone(),
        http2: value.http2_protocol_options.clone(),
    })
}

/// Only the codec filter, which is implied here.
fn check_filters(values: &[hcm::HttpFilter]) -> Result<()> {
    for (index, value) in values.iter().enumerate() {
        match &value.config_type {
            Some(hcm::http_filter::ConfigType::TypedConfig(any)) if any.is::<UpstreamCodec>() => {}
            _ => return refuse("upstream HTTP filters are not supported").at_index("http_filters", index),
        }
    }
    Ok(())
}
