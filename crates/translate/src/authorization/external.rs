//! External authorization: MeshConfig's `envoyExtAuthzHttp` and `envoyExtAuthzGrpc` as Envoy's `ext_authz` filters.
//!
//! The RBAC before it leaves the name of the policy that chose the request in the request's metadata; the filter asks only about
//! requests that have one of its provider there.

use std::sync::Arc;
use std::time::Duration;

use meltemi_config::mesh::{ExtAuthzGrpcProvider, ExtAuthzHttpProvider, ExtAuthzRequestBody, MeshConfig};
use meltemi_config::names::{is_dns_label, is_path_prefix};
use meltemi_config::wire::Str;
use meltemi_proto::envoy::config::core::v3::{ApiVersion, GrpcService, HeaderValue, HttpUri, http_uri};
use meltemi_proto::envoy::config::listener::v3::Filter;
use meltemi_proto::envoy::extensions::filters::http::ext_authz::v3::{
    AuthorizationRequest, AuthorizationResponse, BufferSettings, ExtAuthz, HttpService, ext_authz,
};
use meltemi_proto::envoy::extensions::filters::network::ext_authz::v3::ExtAuthz as TcpExtAuthz;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use meltemi_proto::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use meltemi_proto::envoy::r#type::matcher::v3::{ListStringMatcher, MetadataMatcher, StringMatcher};
use meltemi_proto::envoy::r#type::v3::{HttpStatus, StatusCode};

use super::{HTTP_RBAC, TCP_RBAC, TCP_STAT_PREFIX, matcher};
use crate::listener::{grpc_service, http_filter, network_filter};
use crate::{names, wire};

/// Before the metadata in which the RBAC leaves what it found.
pub const SHADOW_PREFIX: &str = "istio_ext_authz_";

/// Starts the names of all policies that choose requests for a provider.
pub const POLICY_PREFIX: &str = "istio-ext-authz";

/// Istio's, where the provider says none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);

/// Starts the names of the policies that choose requests for a provider.
pub fn policy_prefix(provider: &str) -> String {
    format!("{}-", metadata_prefix(provider))
}

fn metadata_prefix(provider: &str) -> String {
    if provider.is_empty() { POLICY_PREFIX.into() } else { format!("{POLICY_PREFIX}-{provider}") }
}

/// A service that can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Authorizer {
    /// `extensionProviders[].name`
    pub name: Str,
    host: Arc<str>,
    pub cluster: Arc<str>,
    status_on_error: Option<i32>,
    settings: Settings,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Settings {
    Http(ExtAuthzHttpProvider),
    Grpc(ExtAuthzGrpcProvider),
}

impl Authorizer {
    /// The provider of this name; `None` where there is none, or no such service, where its settings cannot be, or where the name
    /// could make those of policies ambiguous.
    pub fn resolve(mesh: &MeshConfig, name: &Str, find_service: impl Fn(&str) -> Option<Arc<str>>) -> Option<Self> {
        let provider = mesh.provider(name).filter(|_| is_dns_label(name))?;
        let (service, port, status, settings) = match (&provider.envoy_ext_authz_http, &provider.envoy_ext_authz_grpc) {
            (Some(http), _) => (&http.service, http.port, &http.status_on_error, Settings::Http(http.clone())),
            (None, Some(grpc)) => (&grpc.service, grpc.port, &grpc.status_on_error, Settings::Grpc(grpc.clone())),
            (None, None) => return None,
        };
        let host = find_service(service).filter(|_| is_possible(port, &settings))?;
        let status_on_error = match &**status {
            "" => None,
            code => Some(StatusCode::try_from(code.parse::<i32>().ok()?).ok()? as i32),
        };
        let cluster = names::outbound(port, "", &host).into();
        Some(Self { name: name.clone(), host, cluster, status_on_error, settings })
    }

    pub fn http_filter(&self) -> HttpFilter {
        let common = ExtAuthz {
            transport_api_version: ApiVersion::V3 as i32,
            status_on_error: self.status_on_error.map(|code| HttpStatus { code }),
            filter_enabled_metadata: Some(self.chosen(HTTP_RBAC)),
            ..ExtAuthz::default()
        };
        let config = match &self.settings {
            Settings::Http(http) => ExtAuthz {
                failure_mode_allow: http.fail_open,
                clear_route_cache: http.clear_route_cache,
                with_request_body: http.include_request_body_in_check.as_ref().map(body),
                allowed_headers: headers(checked_headers(http)),
                services: Some(ext_authz::Services::HttpService(self.http_service(http))),
                ..common
            },
            Settings::Grpc(grpc) => ExtAuthz {
                failure_mode_allow: grpc.fail_open,
                clear_route_cache: grpc.clear_route_cache,
                with_request_body: grpc.include_request_body_in_check.as_ref().map(body),
                services: Some(ext_authz::Services::GrpcService(self.grpc_service(grpc))),
                ..common
            },
        };
        http_filter("envoy.filters.http.ext_authz", &config)
    }

    /// `None` where only requests can be asked about.
    pub fn tcp_filter(&self) -> Option<Filter> {
        let Settings::Grpc(grpc) = &self.settings else { return None };
        let config = TcpExtAuthz {
            stat_prefix: TCP_STAT_PREFIX.into(),
            grpc_service: Some(self.grpc_service(grpc)),
            failure_mode_allow: grpc.fail_open,
            transport_api_version: ApiVersion::V3 as i32,
            filter_enabled_metadata: Some(self.chosen(TCP_RBAC)),
            ..TcpExtAuthz::default()
        };
        Some(network_filter("envoy.filters.network.ext_authz", &config))
    }

    /// A policy of this provider chose the request.
    fn chosen(&self, rbac: &str) -> MetadataMatcher {
        let key = format!("{SHADOW_PREFIX}shadow_effective_policy_id");
        matcher::metadata(rbac, &[&key], matcher::value(wire::prefix(&metadata_prefix(&self.name))))
    }

    fn grpc_service(&self, grpc: &ExtAuthzGrpcProvider) -> GrpcService {
        GrpcService {
            timeout: Some(wire::duration(grpc.timeout.unwrap_or(DEFAULT_TIMEOUT))),
            ..grpc_service(&self.cluster, &self.host)
        }
    }

    fn http_service(&self, http: &ExtAuthzHttpProvider) -> HttpService {
        let add = http.include_additional_headers_in_check.iter().map(|(key, value)| HeaderValue {
            key: key.to_string(),
            value: value.to_string(),
            ..HeaderValue::default()
        });
        let headers_to_add: Vec<_> = add.collect();
        let response = AuthorizationResponse {
            allowed_upstream_headers: headers(&http.headers_to_upstream_on_allow),
            allowed_client_headers: headers(&http.headers_to_downstream_on_deny),
            allowed_client_headers_on_success: headers(&http.headers_to_downstream_on_allow),
            ..AuthorizationResponse::default()
        };
        HttpService {
            server_uri: Some(HttpUri {
                // Required, and used for nothing but the host's name.
                uri: format!("http://{}", self.host),
                timeout: Some(wire::duration(http.timeout.unwrap_or(DEFAULT_TIMEOUT))),
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster(self.cluster.to_string())),
            }),
            path_prefix: http.path_prefix.to_string(),
            authorization_request: (!headers_to_add.is_empty())
                .then(|| AuthorizationRequest { headers_to_add, ..AuthorizationRequest::default() }),
            authorization_response: (response != AuthorizationResponse::default()).then_some(response),
            ..HttpService::default()
        }
    }
}

/// What validation of the mesh configuration demands, too; a proxy would refuse all of a listener for it.
fn is_possible(port: u32, settings: &Settings) -> bool {
    let is_port = u16::try_from(port).is_ok_and(|port| port > 0);
    let Settings::Http(http) = settings else { return is_port };
    let lists = [
        &http.include_request_headers_in_check,
        &http.include_headers_in_check,
        &http.headers_to_upstream_on_allow,
        &http.headers_to_downstream_on_deny,
        &http.headers_to_downstream_on_allow,
    ];
    is_port && is_path_prefix(&http.path_prefix) && lists.into_iter().flatten().all(|name| &**name != "*")
}

/// The deprecated list counts where the other is empty.
fn checked_headers(http: &ExtAuthzHttpProvider) -> &[Str] {
    match http.include_request_headers_in_check.as_slice() {
        [] => &http.include_headers_in_check,
        own => own,
    }
}

fn headers(names: &[Str]) -> Option<ListStringMatcher> {
    let pattern = |name: &Str| {
        let pattern = match (name.strip_prefix('*'), name.strip_suffix('*')) {
            (Some(suffix), _) => MatchPattern::Suffix(suffix.into()),
            (None, Some(prefix)) => MatchPattern::Prefix(prefix.into()),
            (None, None) => MatchPattern::Exact(name.to_string()),
        };
        StringMatcher { match_pattern: Some(pattern), ignore_case: true }
    };
    (!names.is_empty()).then(|| ListStringMatcher { patterns: names.iter().map(pattern).collect() })
}

fn body(settings: &ExtAuthzRequestBody) -> BufferSettings {
    BufferSettings {
        max_request_bytes: settings.max_request_bytes,
        allow_partial_message: settings.allow_partial_message,
        pack_as_bytes: settings.pack_as_bytes,
    }
}
