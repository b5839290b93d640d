//! The HTTP connection manager as Istio sets it up, for each class of listener and dialect.

use std::time::Duration;

use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::{
    Http1ProtocolOptions, Http2ProtocolOptions, Http3ProtocolOptions, HttpProtocolOptions, TypedExtensionConfig,
    http1_protocol_options,
};
use meltemi_proto::envoy::config::route::v3::RateLimit;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::{
    CodecType, ForwardClientCertDetails, PathWithEscapedSlashesAction, RouteSpecifier, ServerHeaderTransformation,
    SetCurrentClientCertDetails, UpgradeConfig,
};
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, Rds, RequestIdExtension,
};
use meltemi_proto::envoy::extensions::http::header_formatters::preserve_case::v3::PreserveCaseFormatterConfig;
use meltemi_proto::envoy::extensions::request_id::uuid::v3::UuidRequestIdConfig;

use super::spec::{Class, Http, RouteSource};
use super::{access_log, filters, tracing};
use crate::profile::{ForwardClientCert, PathNormalization, Profile, ServerHeader};
use crate::route::{inbound_route_configuration, route_configuration};
use crate::wire::{self, duration};

/// `security` are the filters that authenticate and authorize requests.
pub fn build(http: &Http, profile: &Profile, class: Class, security: &[HttpFilter]) -> HttpConnectionManager {
    let mut manager = HttpConnectionManager {
        codec_type: CodecType::Auto as i32,
        stat_prefix: http.stat_prefix.clone(),
        http_filters: http_filters(http, profile, class, security),
        tracing: profile.tracing.as_ref().map(tracing::build),
        http_protocol_options: http1_options(http, profile, class),
        http2_protocol_options: http.http2.then(Http2ProtocolOptions::default),
        common_http_protocol_options: profile.idle_timeout.map(idle_timeout),
        // Long polls and streams live as long as their ends want.
        stream_idle_timeout: Some(duration(Duration::ZERO)),
        access_log: access_log::of_http(profile),
        use_remote_address: Some(http.use_remote_address),
        generate_request_id: (!profile.headers.request_id).then_some(false),
        upgrade_configs: vec![UpgradeConfig { upgrade_type: "websocket".into(), ..UpgradeConfig::default() }],
        append_x_forwarded_port: profile.headers.x_forwarded_port,
        proxy_100_continue: true,
        request_id_extension: Some(RequestIdExtension { typed_config: Some(request_id(profile)) }),
        route_specifier: Some(route_specifier(&http.route)),
        ..HttpConnectionManager::default()
    };
    set_path_normalization(&mut manager, profile.path_normalization);
    set_server_header(&mut manager, profile, class);
    set_client_certificate(&mut manager, profile, class);
    manager
}

/// Says to the filters that limit what to count, where the routes are the manager's own; others say it themselves.
pub fn limit(manager: &mut HttpConnectionManager, rate_limits: &[RateLimit]) {
    if let Some(RouteSpecifier::RouteConfig(routes)) = &mut manager.route_specifier {
        routes.virtual_hosts.iter_mut().for_each(|host| host.rate_limits = rate_limits.to_vec());
    }
}

/// Makes the manager of an HTTPS server that of its counterpart over QUIC.
pub fn serve_http3(manager: &mut HttpConnectionManager) {
    manager.codec_type = CodecType::Http3 as i32;
    manager.http3_protocol_options = Some(Http3ProtocolOptions::default());
}

fn http_filters(http: &Http, profile: &Profile, class: Class, security: &[HttpFilter]) -> Vec<HttpFilter> {
    let istio = profile.dialect.has_istio_filters();
    let mut chain = Vec::with_capacity(8);
    if profile.on_demand && matches!(&http.route, RouteSource::Rds(_)) {
        // Before the filters that read what a route says of them.
        chain.push(filters::on_demand());
    }
    if istio {
        chain.push(filters::http_metadata_exchange(class, profile.headers.metadata_exchange_in_mesh_only));
    }
    chain.extend_from_slice(security);
    if http.grpc_web {
        chain.push(filters::grpc_web());
    }
    chain.push(filters::grpc_stats());
    if istio && !class.is_inbound() {
        chain.push(filters::istio_alpn());
    }
    chain.push(filters::fault());
    chain.push(filters::cors());
    if istio && profile.metrics {
        chain.push(filters::http_stats(class));
    }
    if profile.sessions && !class.is_inbound() {
        chain.push(filters::stateful_session());
    }
    chain.extend(http.resolves.iter().map(filters::dynamic_forward_proxy));
    chain.push(filters::router(profile.headers.debug_headers));
    chain
}

fn http1_options(http: &Http, profile: &Profile, class: Class) -> Option<Http1ProtocolOptions> {
    let options = Http1ProtocolOptions {
        accept_http_10: profile.accept_http10,
        allow_absolute_url: http.explicit_proxy.then_some(true),
        header_key_format: profile.preserve_header_case.then(preserve_case),
        ..Http1ProtocolOptions::default()
    };
    (class == Class::Gateway || options != Http1ProtocolOptions::default()).then_some(options)
}

fn preserve_case() -> http1_protocol_options::HeaderKeyFormat {
    let formatter = TypedExtensionConfig {
        name: "preserve_case".into(),
        typed_config: Some(Any::pack(&PreserveCaseFormatterConfig {
            forward_reason_phrase: false,
            ..PreserveCaseFormatterConfig::default()
        })),
    };
    http1_protocol_options::HeaderKeyFormat {
        header_format: Some(http1_protocol_options::header_key_format::HeaderFormat::StatefulFormatter(formatter)),
    }
}

fn idle_timeout(timeout: Duration) -> HttpProtocolOptions {
    HttpProtocolOptions { idle_timeout: Some(duration(timeout)), ..HttpProtocolOptions::default() }
}

fn request_id(profile: &Profile) -> Any {
    // Whether the request id carries the sampling decision; Istio's default is Envoy's, yes, and it is stated as such.
    let use_for_sampling = profile.tracing.is_some().then_some(true);
    Any::pack(&UuidRequestIdConfig {
        use_request_id_for_trace_sampling: use_for_sampling,
        ..UuidRequestIdConfig::default()
    })
}

fn route_specifier(route: &RouteSource) -> RouteSpecifier {
    match route {
        RouteSource::Rds(name) => RouteSpecifier::Rds(rds(name)),
        RouteSource::Inbound(route) => RouteSpecifier::RouteConfig(inbound_route_configuration(route)),
        RouteSource::Inline(routes) => RouteSpecifier::RouteConfig(route_configuration(routes)),
    }
}

/// A route configuration from discovery. The listener waits for it without limit: serving without routes would refuse
/// requests that the next moment are fine.
pub fn rds(name: &str) -> Rds {
    Rds { config_source: Some(wire::ads()), route_config_name: name.into() }
}

fn set_path_normalization(manager: &mut HttpConnectionManager, normalization: PathNormalization) {
    manager.normalize_path = Some(normalization != PathNormalization::None);
    manager.merge_slashes =
        matches!(normalization, PathNormalization::MergeSlashes | PathNormalization::DecodeAndMergeSlashes);
    manager.path_with_escaped_slashes_action = match normalization {
        PathNormalization::DecodeAndMergeSlashes => PathWithEscapedSlashesAction::UnescapeAndForward,
        _ => PathWithEscapedSlashesAction::KeepUnchanged,
    } as i32;
}

fn set_server_header(manager: &mut HttpConnectionManager, profile: &Profile, class: Class) {
    match &profile.headers.server {
        // Outbound leaves Envoy's own name, which Istio has kept since it once forgot to set it.
        ServerHeader::Default if class == Class::SidecarOutbound => {}
        ServerHeader::Default => manager.server_name = "istio-envoy".into(),
        ServerHeader::Named(name) => manager.server_name = name.to_string(),
        ServerHeader::PassThrough => {
            manager.server_header_transformation = ServerHeaderTransformation::PassThrough as i32;
        }
    }
}

fn set_client_certificate(manager: &mut HttpConnectionManager, profile: &Profile, class: Class) {
    match class {
        Class::SidecarOutbound => {}
        Class::SidecarInbound => {
            let details = profile.headers.current_cert;
            manager.forward_client_cert_details = forward(profile.headers.forwarded_client_cert) as i32;
            manager.set_current_client_cert_details = Some(SetCurrentClientCertDetails {
                subject: Some(details.subject),
                cert: details.cert,
                chain: details.chain,
                dns: details.dns,
                uri: details.uri,
                ..SetCurrentClientCertDetails::default()
            });
        }
        Class::Gateway => {
            let topology = &profile.gateway;
            manager.xff_num_trusted_hops = topology.trusted_proxies;
            manager.forward_client_cert_details = forward(topology.forward_client_cert) as i32;
            let sets = matches!(
                topology.forward_client_cert,
                ForwardClientCert::AppendForward | ForwardClientCert::SanitizeSet
            );
            manager.set_current_client_cert_details = sets.then(|| SetCurrentClientCertDetails {
                subject: Some(true),
                cert: true,
                dns: true,
                uri: true,
                ..SetCurrentClientCertDetails::default()
            });
        }
    }
}

fn forward(details: ForwardClientCert) -> ForwardClientCertDetails {
    match details {
        ForwardClientCert::Sanitize => ForwardClientCertDetails::Sanitize,
        ForwardClientCert::ForwardOnly => ForwardClientCertDetails::ForwardOnly,
        ForwardClientCert::AppendForward => ForwardClientCertDetails::AppendForward,
        ForwardClientCert::SanitizeSet => ForwardClientCertDetails::SanitizeSet,
        ForwardClientCert::AlwaysForwardOnly => ForwardClientCertDetails::AlwaysForwardOnly,
    }
}
