//! The ProxyConfig kind, and the ProxyConfig of MeshConfig and of a pod's annotation.

use super::common::{duration, duration_or_zero};
use super::destination_rule::{client_tls, tcp_keepalive};
use super::{Validation, common};
use crate::mesh::{ConnectionSettings, PrivateKeyProvider, ProxyConfig, ProxyTracing, RemoteService};
use crate::names;
use crate::networking::ProxyConfigResource;
use crate::path::Path;

/// Asked for addresses of services without one, long ago.
const AUTO_ALLOCATE: &str = "ISTIO_META_DNS_AUTO_ALLOCATE";

/// The kind.
pub(super) fn resource(spec: &ProxyConfigResource, at: &Path<'_>, v: &mut Validation) {
    common::label_selector(spec.selector.as_ref(), &at.field("selector"), v);
    if let Some(concurrency) = spec.concurrency {
        v.require(&at.field("concurrency"), concurrency >= 0, "concurrency must be greater than or equal to 0");
    }
    let variables = at.field("environmentVariables");
    for (name, value) in &spec.environment_variables {
        v.require(&variables.field(name), value.len() <= 2048, "a value has at most 2048 characters");
    }
}

/// Validates a ProxyConfig that stands by itself.
pub fn proxy_config(config: &ProxyConfig) -> Validation {
    let mut v = Validation::default();
    proxy(config, &Path::root(""), &mut v);
    v
}

pub(super) fn proxy(c: &ProxyConfig, at: &Path<'_>, v: &mut Validation) {
    v.require(&at.field("configPath"), !c.config_path.is_empty(), "config path must be set");
    v.require(&at.field("binaryPath"), !c.binary_path.is_empty(), "binary path must be set");
    let cluster = c.service_cluster.as_deref();
    if c.tracing_service_name.is_none() {
        v.require(
            &at.field("serviceCluster"),
            cluster.is_some_and(|s| !s.is_empty()),
            "service cluster or tracing service name must be specified",
        );
    }
    duration(Some(c.drain_duration), &at.field("drainDuration"), v);
    v.require(&at.field("drainDuration"), c.drain_duration.subsec_nanos() == 0, "drain duration must be whole seconds");
    duration_or_zero(Some(c.termination_drain_duration), &at.field("terminationDrainDuration"), v);
    v.check(&at.field("discoveryAddress"), names::host_port(&c.discovery_address));
    for (field, address) in [
        ("statsdUdpAddress", &c.statsd_udp_address),
        ("zipkinAddress", &c.zipkin_address),
        ("envoyMetricsServiceAddress", &c.envoy_metrics_service_address),
    ] {
        if !address.is_empty() {
            v.check(&at.field(field), names::host_port(address));
        }
    }
    if c.proxy_metadata.contains_key(AUTO_ALLOCATE) {
        let metadata = at.field("proxyMetadata");
        let instead =
            "services get addresses of their own; `networking.istio.io/enable-autoallocate-ip: \"false\"` opts out";
        v.warn(&metadata.field(AUTO_ALLOCATE), format_args!("'{AUTO_ALLOCATE}' is deprecated: {instead}"));
    }
    v.check(&at.field("proxyAdminPort"), names::port(c.proxy_admin_port));
    v.check(&at.field("statusPort"), names::port(c.status_port));
    if let Some(concurrency) = c.concurrency {
        v.require(&at.field("concurrency"), concurrency >= 0, "concurrency must be greater than or equal to 0");
    }
    if let Some(tracing) = &c.tracing {
        tracer(tracing, &at.field("tracing"), v);
    }
    for (field, service) in
        [("envoyAccessLogService", &c.envoy_access_log_service), ("envoyMetricsService", &c.envoy_metrics_service)]
    {
        if let Some(service) = service {
            remote_service(service, &at.field(field), v);
        }
    }
    if let Some(provider) = &c.private_key_provider {
        private_key_provider(provider, &at.field("privateKeyProvider"), v);
    }
    if let Some(probe) = &c.readiness_probe {
        super::service_entry::readiness_probe(probe, &at.field("readinessProbe"), v);
    }
    duration(c.file_flush_interval, &at.field("fileFlushInterval"), v);
    if let Some(settings) = &c.connection_settings {
        connection_settings(settings, &at.field("connectionSettings"), v);
    }
}

fn tracer(tracing: &ProxyTracing, at: &Path<'_>, v: &mut Validation) {
    let set = [
        tracing.zipkin.is_some(),
        tracing.lightstep.is_some(),
        tracing.datadog.is_some(),
        tracing.stackdriver.is_some(),
        tracing.open_census_agent.is_some(),
    ];
    let alone = set.iter().filter(|one| **one).count() <= 1;
    v.require(at, alone, "only one of zipkin, lightstep, datadog, stackdriver and openCensusAgent can be set");
    if let Some(lightstep) = &tracing.lightstep {
        let at = at.field("lightstep");
        v.check(&at.field("address"), names::host_port(&lightstep.address));
        v.require(&at.field("accessToken"), !lightstep.access_token.is_empty(), "access token must be set");
    }
    for (field, backend) in [("zipkin", &tracing.zipkin), ("datadog", &tracing.datadog)] {
        if let Some(backend) = backend {
            // `$(HOST_IP)` is replaced when the proxy starts.
            let address = backend.address.replace("$(HOST_IP)", "0.0.0.0");
            v.check(&at.field(field).field("address"), names::host_port(&address));
        }
    }
    common::percent(tracing.sampling.value(), &at.field("sampling"), v);
    let tags = at.field("customTags");
    for (name, tag) in &tracing.custom_tags {
        let at = tags.field(name);
        let set = [tag.literal.is_some(), tag.environment.is_some(), tag.header.is_some()];
        match set.iter().filter(|s| **s).count() {
            0 => v.warn(&at, "has no value: set one of literal, environment and header"),
            1 => {}
            _ => v.error(&at, "only one of literal, environment and header can be set"),
        }
    }
    if let Some(tls) = &tracing.tls_settings {
        client_tls(tls, "", &at.field("tlsSettings"), v);
    }
}

fn remote_service(service: &RemoteService, at: &Path<'_>, v: &mut Validation) {
    v.check(&at.field("address"), names::host_port(&service.address));
    if let Some(tls) = &service.tls_settings {
        client_tls(tls, "", &at.field("tlsSettings"), v);
    }
    if let Some(keepalive) = &service.tcp_keepalive {
        tcp_keepalive(keepalive, &at.field("tcpKeepalive"), v);
    }
}

fn private_key_provider(provider: &PrivateKeyProvider, at: &Path<'_>, v: &mut Validation) {
    let chosen = [("cryptomb", &provider.cryptomb), ("qat", &provider.qat)];
    v.require(
        at,
        chosen.iter().filter(|(_, p)| p.is_some()).count() == 1,
        "exactly one of cryptomb and qat must be set",
    );
    for (field, settings) in chosen {
        let Some(settings) = settings else { continue };
        let at = at.field(field);
        let set = settings.poll_delay.is_some_and(|d| !d.is_zero());
        v.require(&at.field("pollDelay"), set, "pollDelay is required and cannot be zero");
    }
}

fn connection_settings(s: &ConnectionSettings, at: &Path<'_>, v: &mut Validation) {
    for (field, value) in [
        ("httpIdleTimeout", s.http_idle_timeout),
        ("httpMaxConnectionDuration", s.http_max_connection_duration),
        ("httpDrainTimeout", s.http_drain_timeout),
        ("httpRequestTimeout", s.http_request_timeout),
        ("httpRequestHeadersTimeout", s.http_request_headers_timeout),
        ("httpStreamIdleTimeout", s.http_stream_idle_timeout),
        ("httpMaxStreamDuration", s.http_max_stream_duration),
    ] {
        duration_or_zero(value, &at.field(field), v);
    }
    for (field, value) in [
        ("listenerPerConnectionBufferLimitBytes", s.listener_per_connection_buffer_limit_bytes),
        ("clusterPerConnectionBufferLimitBytes", s.cluster_per_connection_buffer_limit_bytes),
        ("httpMaxConcurrentStreams", s.http_max_concurrent_streams),
        ("listenerConnectionLimit", s.listener_connection_limit),
        ("globalDownstreamConnectionLimit", s.global_downstream_connection_limit),
    ] {
        v.require(&at.field(field), value.is_none_or(|n| n > 0), "must be greater than 0");
    }
    for (field, value) in [
        ("http2InitialStreamWindowSize", s.http2_initial_stream_window_size),
        ("http2InitialConnectionWindowSize", s.http2_initial_connection_window_size),
    ] {
        v.require(&at.field(field), value.is_none_or(|n| n >= 65535), "must be at least 65535");
    }
}
