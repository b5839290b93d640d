//! MeshConfig and MeshNetworks.

use std::time::Duration;

use super::common::{duration, duration_or_zero};
use super::destination_rule::{client_tls, connection_pool, outlier_detection, tcp_keepalive};
use super::http::http_retry;
use super::load_balancer::{locality_lb, zone_aware_lb};
use super::{Validation, common};
use crate::mesh::{
    ExtensionProvider, MeshConfig, MeshNetworks, MeshOutboundTrafficPolicyMode, OpenTelemetryProvider, TlsConfig,
};
use crate::names;
use crate::networking::HttpRetry;
use crate::path::Path;

/// Without those of pre-shared keys, which a mesh has none of.
const CIPHER_SUITES: [&str; 15] = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "ECDHE-RSA-CHACHA20-POLY1305",
    "ECDHE-ECDSA-AES128-SHA",
    "ECDHE-RSA-AES128-SHA",
    "ECDHE-ECDSA-AES256-SHA",
    "ECDHE-RSA-AES256-SHA",
    "AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-SHA",
    "AES256-SHA",
    "DES-CBC3-SHA",
];

/// Whether OpenSSL, in the names of which Envoy takes them, has such a suite.
pub fn is_cipher_suite(name: &str) -> bool {
    CIPHER_SUITES.contains(&name)
}

const MAX_CONNECT_TIMEOUT: Duration = Duration::from_secs(3600);

/// Validates a MeshConfig.
pub fn mesh_config(c: &MeshConfig) -> Validation {
    let mut validation = Validation::default();
    let v = &mut validation;
    let at = &Path::root("");
    for (field, port) in
        [("proxyListenPort", c.proxy_listen_port), ("proxyInboundListenPort", c.proxy_inbound_listen_port)]
    {
        v.check(&at.field(field), names::port(port));
    }
    let timeout = at.field("connectTimeout");
    duration(Some(c.connect_timeout), &timeout, v);
    v.require(&timeout, c.connect_timeout <= MAX_CONNECT_TIMEOUT, "must be at most an hour");
    duration_or_zero(Some(c.protocol_detection_timeout), &at.field("protocolDetectionTimeout"), v);
    duration_or_zero(c.hbone_idle_timeout, &at.field("hboneIdleTimeout"), v);
    duration(Some(c.dns_refresh_rate), &at.field("dnsRefreshRate"), v);
    super::proxy_config::proxy(&c.default_config, &at.field("defaultConfig"), v);
    trust(c, at, v);
    traffic(c, at, v);
    let providers = at.field("extensionProviders");
    for (i, provider) in c.extension_providers.iter().enumerate() {
        let at = providers.index(i);
        extension_provider(provider, &at, v);
        let repeated = c.extension_providers[..i].iter().any(|p| p.name == provider.name);
        v.require(&at.field("name"), !repeated, format_args!("duplicate provider {:?}", provider.name));
    }
    if let Some(tls) = &c.mesh_mtls {
        let at = at.field("meshMTLS");
        v.require(&at, tls.ecdh_curves.is_empty(), "mesh TLS does not support ECDH curves configuration");
        tls_config(tls, &at, v);
    }
    if let Some(tls) = &c.tls_defaults {
        tls_config(tls, &at.field("tlsDefaults"), v);
    }
    validation
}

fn trust(c: &MeshConfig, at: &Path<'_>, v: &mut Validation) {
    v.check(&at.field("trustDomain"), names::trust_domain(&c.trust_domain));
    let aliases = at.field("trustDomainAliases");
    for (i, alias) in c.trust_domain_aliases.iter().enumerate() {
        v.check(&aliases.index(i), names::trust_domain(alias));
    }
    let certificates = at.field("caCertificates");
    for (i, data) in c.ca_certificates.iter().enumerate() {
        let at = certificates.index(i);
        v.require(
            &at,
            data.pem.is_some() != data.spiffe_bundle_url.is_some(),
            "exactly one of pem and spiffeBundleUrl must be set",
        );
    }
    if let Some(ca) = &c.ca {
        let at = at.field("ca");
        v.check(&at.field("address"), names::host_port(&ca.address));
        duration(ca.request_timeout, &at.field("requestTimeout"), v);
        if let Some(tls) = &ca.tls_settings {
            client_tls(tls, "", &at.field("tlsSettings"), v);
        }
    }
}

fn traffic(c: &MeshConfig, at: &Path<'_>, v: &mut Validation) {
    if c.outbound_traffic_policy.mode == MeshOutboundTrafficPolicyMode::VirtualServiceOnly {
        v.error(
            &at.field("outboundTrafficPolicy").field("mode"),
            "VIRTUAL_SERVICE_ONLY was removed from Istio; use REGISTRY_ONLY",
        );
    }
    if let Some(tls) = &c.outbound_traffic_policy.tls {
        let policy = at.field("outboundTrafficPolicy");
        let at = policy.field("tls");
        client_tls(tls, "", &at, v);
        if c.outbound_traffic_policy.mode != MeshOutboundTrafficPolicyMode::AllowAnyDynamicDns {
            v.warn(&at, "has an effect in mode ALLOW_ANY_DYNAMIC_DNS only");
        }
    }
    if let Some(keepalive) = &c.tcp_keepalive {
        tcp_keepalive(keepalive, &at.field("tcpKeepalive"), v);
    }
    if let Some(locality) = &c.locality_lb_setting {
        // Outlier detection is the DestinationRule's: its absence here says nothing.
        locality_lb(locality, Some(&Default::default()), &at.field("localityLbSetting"), v);
    }
    if let Some(zone) = &c.zone_aware_lb_setting {
        zone_aware_lb(zone, Some(&Default::default()), &at.field("zoneAwareLbSetting"), v);
    }
    if let Some(policy) = &c.default_traffic_policy {
        let at = at.field("defaultTrafficPolicy");
        if let Some(pool) = &policy.connection_pool {
            connection_pool(pool, &at.field("connectionPool"), v);
        }
        if let Some(outlier) = &policy.outlier_detection {
            outlier_detection(outlier, &at.field("outlierDetection"), v);
        }
    }
    if let Some(retry) = &c.default_http_retry_policy {
        http_retry(retry, &at.field("defaultHttpRetryPolicy"), v);
    }
    if let Some(retry) = &c.default_inbound_http_retry_policy {
        inbound_retry(retry, &at.field("defaultInboundHttpRetryPolicy"), v);
    }
    let settings = at.field("serviceSettings");
    for (i, service) in c.service_settings.iter().enumerate() {
        let at = settings.index(i);
        let hosts = at.field("hosts");
        for (i, host) in service.hosts.iter().enumerate() {
            v.check(&hosts.index(i), names::wildcard_domain(host));
        }
    }
    for (field, list) in [
        ("defaultServiceExportTo", &c.default_service_export_to),
        ("defaultVirtualServiceExportTo", &c.default_virtual_service_export_to),
        ("defaultDestinationRuleExportTo", &c.default_destination_rule_export_to),
    ] {
        let at = at.field(field);
        for (i, item) in list.iter().enumerate() {
            v.require(
                &at.index(i),
                matches!(&**item, "*" | "." | "~") || names::is_dns_label(item),
                format_args!("{item:?} is not a namespace"),
            );
        }
    }
}

fn inbound_retry(retry: &HttpRetry, at: &Path<'_>, v: &mut Validation) {
    http_retry(retry, at, v);
    let off = retry.attempts == 0 && retry.backoff.is_some();
    v.require(&at.field("backoff"), !off, "backoff configured when attempts are set to 0 (disabled)");
    for (field, set) in [
        ("perTryTimeout", retry.per_try_timeout.is_some()),
        ("retryRemoteLocalities", retry.retry_remote_localities.is_some()),
        ("retryIgnorePreviousHosts", retry.retry_ignore_previous_hosts.is_some()),
    ] {
        if set {
            v.warn(&at.field(field), format_args!("{field} is ignored by the default inbound http retry policy"));
        }
    }
}

fn tls_config(tls: &TlsConfig, at: &Path<'_>, v: &mut Validation) {
    const CURVES: [&str; 8] =
        ["", "P-224", "P-256", "P-384", "P-521", "X25519", "X25519MLKEM768", "X25519Kyber768Draft00"];
    let curves = at.field("ecdhCurves");
    for (i, curve) in tls.ecdh_curves.iter().enumerate() {
        let at = curves.index(i);
        if !CURVES.contains(&&**curve) {
            v.warn(&at, format_args!("detected unrecognized ECDH curves: {curve:?}"));
        } else if tls.ecdh_curves[..i].contains(curve) {
            v.warn(&at, format_args!("detected duplicate ECDH curves: {curve:?}"));
        }
    }
    let suites = at.field("cipherSuites");
    for (i, suite) in tls.cipher_suites.iter().enumerate() {
        if !is_cipher_suite(suite) {
            v.warn(&suites.index(i), format_args!("detected unrecognized cipher suites: {suite:?}"));
        }
    }
}

fn extension_provider(provider: &ExtensionProvider, at: &Path<'_>, v: &mut Validation) {
    v.require(&at.field("name"), !provider.name.is_empty(), "empty extension provider name");
    let services = services(provider);
    let others =
        [provider.stackdriver.is_some(), provider.prometheus.is_some(), provider.envoy_file_access_log.is_some()];
    let count = services.len() + others.iter().filter(|o| **o).count();
    v.require(at, count == 1, "exactly one provider must be set");
    for (field, service, port) in services {
        let at = at.field(field);
        v.check(&at.field("service"), names::provider_service(service));
        v.check(&at.field("port"), names::port(port));
    }
    if let Some(lightstep) = &provider.lightstep {
        let at = at.field("lightstep");
        v.require(&at.field("accessToken"), !lightstep.access_token.is_empty(), "access token is required");
    }
    if let Some(otel) = &provider.opentelemetry {
        opentelemetry(otel, &at.field("opentelemetry"), v);
    }
    external_authorizer(provider, at, v);
    if let Some(log) = provider.envoy_file_access_log.as_ref().and_then(|f| f.log_format.as_ref()) {
        v.require(at, log.text.is_none() || log.labels.is_none(), "only one of text and labels can be set");
    }
}

/// Statuses that Envoy answers with.
const STATUSES: [std::ops::RangeInclusive<u16>; 12] = [
    100..=100,
    200..=208,
    226..=226,
    300..=305,
    307..=308,
    400..=417,
    421..=424,
    426..=426,
    428..=429,
    431..=431,
    500..=508,
    510..=511,
];

fn external_authorizer(provider: &ExtensionProvider, at: &Path<'_>, v: &mut Validation) {
    let (http, grpc) = (&provider.envoy_ext_authz_http, &provider.envoy_ext_authz_grpc);
    let settings = [
        http.as_ref().map(|p| ("envoyExtAuthzHttp", &p.status_on_error, p.timeout)),
        grpc.as_ref().map(|p| ("envoyExtAuthzGrpc", &p.status_on_error, p.timeout)),
    ];
    for (field, status, timeout) in settings.into_iter().flatten() {
        if !names::is_dns_label(&provider.name) {
            v.warn(&at.field("name"), "policies with this provider deny: its name is no DNS label");
        }
        let at = at.field(field);
        duration(timeout, &at.field("timeout"), v);
        let code = status.parse::<u16>();
        let known = status.is_empty() || code.is_ok_and(|code| STATUSES.iter().any(|range| range.contains(&code)));
        v.require(&at.field("statusOnError"), known, format_args!("{status:?} is not an HTTP status"));
    }
    let Some(http) = http else { return };
    let at = at.field("envoyExtAuthzHttp");
    let possible = names::is_path_prefix(&http.path_prefix);
    v.require(&at.field("pathPrefix"), possible, "must begin with a slash, and be the beginning of a URL's path");
    for (field, list) in [
        ("includeRequestHeadersInCheck", &http.include_request_headers_in_check),
        ("includeHeadersInCheck", &http.include_headers_in_check),
        ("headersToUpstreamOnAllow", &http.headers_to_upstream_on_allow),
        ("headersToDownstreamOnDeny", &http.headers_to_downstream_on_deny),
        ("headersToDownstreamOnAllow", &http.headers_to_downstream_on_allow),
    ] {
        let at = at.field(field);
        for (i, header) in list.iter().enumerate() {
            v.require(
                &at.index(i),
                !matches!(&**header, "" | "*"),
                "name a header, or the start or end of one beside *",
            );
        }
    }
}

/// Every provider that is a service: its field, host and port.
fn services(p: &ExtensionProvider) -> Vec<(&'static str, &str, u32)> {
    macro_rules! list {
        ($($field:ident = $name:literal),* $(,)?) => {
            [$( p.$field.as_ref().map(|s| ($name, &*s.service, s.port)), )*].into_iter().flatten().collect()
        };
    }
    list! {
        envoy_ext_authz_http = "envoyExtAuthzHttp",
        envoy_ext_authz_grpc = "envoyExtAuthzGrpc",
        zipkin = "zipkin",
        lightstep = "lightstep",
        datadog = "datadog",
        opencensus = "opencensus",
        skywalking = "skywalking",
        opentelemetry = "opentelemetry",
        envoy_http_als = "envoyHttpAls",
        envoy_tcp_als = "envoyTcpAls",
        envoy_otel_als = "envoyOtelAls",
        sds = "sds",
    }
}

fn opentelemetry(otel: &OpenTelemetryProvider, at: &Path<'_>, v: &mut Validation) {
    v.require(at, otel.http.is_none() || otel.grpc.is_none(), "only one of http and grpc can be set");
    let Some(http) = &otel.http else { return };
    let at = at.field("http");
    v.require(&at.field("path"), http.path.is_empty() || http.path.starts_with('/'), "must begin with a slash");
    common::duration(http.timeout, &at.field("timeout"), v);
}

/// Validates a MeshNetworks.
pub fn mesh_networks(networks: &MeshNetworks) -> Validation {
    let mut validation = Validation::default();
    let v = &mut validation;
    let root = Path::root("");
    let all = root.field("networks");
    for (name, network) in &networks.networks {
        let at = all.field(name);
        let endpoints = at.field("endpoints");
        for (i, endpoint) in network.endpoints.iter().enumerate() {
            let at = endpoints.index(i);
            match (&endpoint.from_cidr, &endpoint.from_registry) {
                (Some(cidr), None) => v.check(&at.field("fromCidr"), names::ip_or_cidr(cidr)),
                (None, Some(registry)) => v.check(
                    &at.field("fromRegistry"),
                    names::dns_label(registry).map_err(|error| format!("invalid registry name: {error}")),
                ),
                _ => v.error(&at, "exactly one of fromCidr and fromRegistry must be set"),
            }
        }
        let gateways = at.field("gateways");
        for (i, gateway) in network.gateways.iter().enumerate() {
            let at = gateways.index(i);
            v.check(&at.field("port"), names::port(gateway.port));
            match (&gateway.registry_service_name, &gateway.address) {
                (Some(service), None) => v.check(&at.field("registryServiceName"), names::fqdn(service)),
                (None, Some(address)) => {
                    v.check(&at.field("address"), names::ip(address).or_else(|_| names::fqdn(address)));
                }
                _ => v.error(&at, "exactly one of registryServiceName and address must be set"),
            }
        }
    }
    validation
}
