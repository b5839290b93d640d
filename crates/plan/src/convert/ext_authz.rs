//! External authorization.

use super::common::{
    duration, duration_or, grpc_cluster, list, names, positive, required, runtime_fraction, string_matcher,
};
use super::header::header_name;
use super::jwt;
use super::rbac::metadata_matcher;
use crate::common::Fraction;
use crate::error::{At, PlanError, Result, refuse};
use crate::ext_authz::{
    AuthzBody, AuthzBodyOverride, AuthzPerRoute, AuthzService, ExtAuthz, GrpcTarget, HttpAuthz, NetworkExtAuthz,
};
use crate::filter::FilterOverride;
use http::{HeaderName, HeaderValue};
use meltemi_matchers::StringMatcher;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::extensions::filters::http::ext_authz::v3 as proto;
use meltemi_proto::envoy::extensions::filters::network::ext_authz::v3 as network;
use meltemi_proto::envoy::r#type::matcher::v3 as matcher;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's default of a gRPC call.
const GRPC_TIMEOUT: Duration = Duration::from_millis(200);
/// Of a request's body in memory for its authorization.
const MOST_BODY: u32 = 16 * 1024 * 1024;

pub(super) fn ext_authz(value: &proto::ExtAuthz) -> Result<ExtAuthz> {
    use proto::ext_authz::Services;
    version(value.transport_api_version)?;
    let service = match required(&value.services, "grpc_service")? {
        Services::GrpcService(grpc) => AuthzService::Grpc(grpc_target(grpc, GRPC_TIMEOUT).at("grpc_service")?),
        Services::HttpService(http) => AuthzService::Http(http_service(http).at("http_service")?),
    };
    // The older place of the same list.
    let of_service = match &value.services {
        Some(Services::HttpService(http)) => {
            http.authorization_request.as_ref().and_then(|own| own.allowed_headers.as_ref())
        }
        Some(Services::GrpcService(_)) | None => None,
    };
    let allowed = value.allowed_headers.as_ref().or(of_service);
    Ok(ExtAuthz {
        service,
        failure_mode_allow: value.failure_mode_allow,
        failure_mode_allow_header_add: value.failure_mode_allow_header_add,
        body: value.with_request_body.as_ref().map(body).transpose().at("with_request_body")?,
        clear_route_cache: value.clear_route_cache,
        status_on_error: match value.status_on_error.as_ref().map(|status| status.code) {
            None => 403,
            Some(code) => status(code).at("status_on_error")?,
        },
        metadata_namespaces: names(&value.metadata_context_namespaces),
        enabled: value.filter_enabled.as_ref().map_or(Ok(Fraction::ALWAYS), runtime_fraction).at("filter_enabled")?,
        enabled_metadata: value
            .filter_enabled_metadata
            .as_ref()
            .map(metadata_matcher)
            .transpose()
            .at("filter_enabled_metadata")?,
        deny_at_disable: value.deny_at_disable.as_ref().and_then(|flag| flag.default_value).unwrap_or(false),
        include_peer_certificate: value.include_peer_certificate,
        include_tls_session: value.include_tls_session,
        encode_raw_headers: value.encode_raw_headers,
        allowed_headers: allowed.map(patterns).transpose().at("allowed_headers")?,
        disallowed_headers: optional(value.disallowed_headers.as_ref()).at("disallowed_headers")?,
        takes_dynamic_metadata: value.enable_dynamic_metadata_ingestion.unwrap_or(true),
        max_denied_body: match value.max_denied_response_body_bytes {
            0 => None,
            most => Some(most as usize),
        },
        stat_prefix: value.stat_prefix.as_str().into(),
    })
}

pub(super) fn per_route(value: &proto::ExtAuthzPerRoute) -> Result<FilterOverride> {
    use proto::ext_authz_per_route::Override;
    match required(&value.r#override, "override")? {
        Override::Disabled(true) => Ok(FilterOverride::Disabled),
        Override::Disabled(false) => refuse("disabled: must be true"),
        Override::CheckSettings(settings) => {
            check_settings(settings).at("check_settings").map(|own| FilterOverride::ExtAuthz(Arc::new(own)))
        }
    }
}

fn check_settings(value: &proto::CheckSettings) -> Result<AuthzPerRoute> {
    if value.service_override.is_some() {
        return refuse("service_override: is not supported");
    }
    let body = match (&value.with_request_body, value.disable_request_body_buffering) {
        (Some(_), true) => return refuse("with_request_body: cannot be given with disable_request_body_buffering"),
        (None, true) => AuthzBodyOverride::Never,
        (None, false) => AuthzBodyOverride::Inherit,
        (Some(own), false) => AuthzBodyOverride::Own(body(own).at("with_request_body")?),
    };
    Ok(AuthzPerRoute { context_extensions: value.context_extensions.clone(), body })
}

pub(super) fn network(value: &network::ExtAuthz) -> Result<NetworkExtAuthz> {
    version(value.transport_api_version)?;
    if value.stat_prefix.is_empty() {
        return refuse("stat_prefix: is required");
    }
    let service = required(&value.grpc_service, "grpc_service")?;
    let enabled = value.filter_enabled_metadata.as_ref().map(metadata_matcher);
    Ok(NetworkExtAuthz {
        service: grpc_target(service, GRPC_TIMEOUT).at("grpc_service")?,
        failure_mode_allow: value.failure_mode_allow,
        include_peer_certificate: value.include_peer_certificate,
        include_tls_session: value.include_tls_session,
        enabled_metadata: enabled.transpose().at("filter_enabled_metadata")?,
        metadata_namespaces: names(&value.metadata_context_namespaces),
        stat_prefix: value.stat_prefix.as_str().into(),
    })
}

fn version(value: i32) -> Result<()> {
    match core::ApiVersion::try_from(value) {
        Ok(core::ApiVersion::V3 | core::ApiVersion::Auto) => Ok(()),
        _ => refuse("transport_api_version: must be V3"),
    }
}

pub(super) fn grpc_target(value: &core::GrpcService, timeout: Duration) -> Result<GrpcTarget> {
    let (cluster, authority) = grpc_cluster(value)?;
    Ok(GrpcTarget {
        cluster,
        authority,
        timeout: duration_or(value.timeout.as_ref(), timeout).and_then(positive).at("timeout")?,
        metadata: pairs(&value.initial_metadata, "initial_metadata")?,
    })
}

fn pairs(values: &[core::HeaderValue], field: &str) -> Result<Vec<(HeaderName, HeaderValue)>> {
    list(values, field, |header| {
        let text = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        let value = HeaderValue::from_bytes(text).map_err(PlanError::from).at("value")?;
        Ok((header_name(&header.key).at("key")?, value))
    })
}

fn http_service(value: &proto::HttpService) -> Result<HttpAuthz> {
    let uri = required(&value.server_uri, "server_uri")?;
    let core::http_uri::HttpUpstreamType::Cluster(cluster) =
        required(&uri.http_upstream_type, "cluster").at("server_uri")?;
    let timeout = duration(required(&uri.timeout, "timeout").at("server_uri")?).and_then(positive);
    jwt::split(&uri.uri).at("uri").at("server_uri")?;
    for (field, path) in [("path_prefix", &value.path_prefix), ("path_override", &value.path_override)] {
        if !path.is_empty() && !path.starts_with('/') {
            return refuse(format!("{field}: must start with /"));
        }
    }
    if !value.path_prefix.is_empty() && !value.path_override.is_empty() {
        return refuse("path_override: cannot be given with path_prefix");
    }
    let asked = value.authorization_request.as_ref();
    let answer = value.authorization_response.clone().unwrap_or_default();
    Ok(HttpAuthz {
        cluster: cluster.as_str().into(),
        timeout: timeout.at("timeout").at("server_uri")?,
        path_prefix: value.path_prefix.as_str().into(),
        path_override: (!value.path_override.is_empty()).then(|| value.path_override.as_str().into()),
        headers_to_add: asked
            .map_or(Ok(Vec::new()), |asked| pairs(&asked.headers_to_add, "headers_to_add"))
            .at("authorization_request")?,
        upstream_headers: optional(answer.allowed_upstream_headers.as_ref()).at("allowed_upstream_headers")?,
        upstream_headers_to_append: optional(answer.allowed_upstream_headers_to_append.as_ref())
            .at("allowed_upstream_headers_to_append")?,
        client_headers: answer
            .allowed_client_headers
            .as_ref()
            .map(patterns)
            .transpose()
            .at("allowed_client_headers")?
            .filter(|list| !list.is_empty()),
        client_headers_on_success: optional(answer.allowed_client_headers_on_success.as_ref())
            .at("allowed_client_headers_on_success")?,
        metadata_from_headers: optional(answer.dynamic_metadata_from_headers.as_ref())
            .at("dynamic_metadata_from_headers")?,
    })
}

fn patterns(value: &matcher::ListStringMatcher) -> Result<Vec<StringMatcher>> {
    list(&value.patterns, "patterns", string_matcher)
}

fn optional(value: Option<&matcher::ListStringMatcher>) -> Result<Vec<StringMatcher>> {
    value.map_or(Ok(Vec::new()), patterns)
}

fn body(value: &proto::BufferSettings) -> Result<AuthzBody> {
    match value.max_request_bytes {
        0 => refuse("max_request_bytes: must be greater than zero"),
        most if most > MOST_BODY => refuse(format!("max_request_bytes: must not be more than {MOST_BODY}")),
        most => Ok(AuthzBody {
            max_bytes: most as usize,
            allow_partial: value.allow_partial_message,
            pack_as_bytes: value.pack_as_bytes,
        }),
    }
}

fn status(code: i32) -> Result<u16> {
    u16::try_from(code).ok().filter(|code| (200..600).contains(code)).ok_or_else(|| PlanError::new("is not a status"))
}

#[cfg(test)]
mod tests;
