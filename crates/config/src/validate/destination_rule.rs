//! DestinationRule and the traffic policy settings that other kinds share with it.

use super::Validation;
use super::common::{duration, duration_or_zero, export_to, label_selector, labels};
use super::load_balancer::load_balancer;
use crate::names;
use crate::networking::{
    ClientTlsMode, ClientTlsSettings, ConnectionPoolSettings, DestinationRule, HttpSettings, OutlierDetection,
    TcpKeepalive, TcpSettings, TrafficPolicy, TunnelSettings,
};
use crate::object::Meta;
use crate::path::Path;

pub(super) fn destination_rule(spec: &DestinationRule, meta: &Meta, at: &Path<'_>, v: &mut Validation) {
    v.check(&at.field("host"), names::wildcard_domain(&spec.host));
    if let Some(policy) = &spec.traffic_policy {
        traffic_policy(policy, &meta.namespace, &at.field("trafficPolicy"), v);
    }
    let subsets = at.field("subsets");
    for (i, subset) in spec.subsets.iter().enumerate() {
        let at = subsets.index(i);
        let name = names::dns_label(&subset.name);
        v.check(
            &at.field("name"),
            name.map_err(|error| match &*subset.name {
                "" => "subset name cannot be empty".to_owned(),
                _ => format!("subset name is invalid: {error}"),
            }),
        );
        labels(&subset.labels, &at.field("labels"), v);
        if let Some(policy) = &subset.traffic_policy {
            traffic_policy(policy, &meta.namespace, &at.field("trafficPolicy"), v);
        }
        if spec.subsets[..i].iter().any(|s| s.name == subset.name) {
            v.error(&at.field("name"), format_args!("duplicate subset names: {}", subset.name));
        }
    }
    export_to(&spec.export_to, &meta.namespace, false, at, v);
    if spec.workload_selector.is_some() {
        let own = spec.export_to.len() <= 1 && spec.export_to.iter().all(|e| &**e == "." || *e == meta.namespace);
        v.require(
            &at.field("exportTo"),
            own,
            "a destination rule with workloadSelector cannot be exported to other namespaces",
        );
    }
    label_selector(spec.workload_selector.as_ref(), &at.field("workloadSelector"), v);
}

/// `namespace` is the rule's own.
fn traffic_policy(policy: &TrafficPolicy, namespace: &str, at: &Path<'_>, v: &mut Validation) {
    if *policy == TrafficPolicy::default() {
        v.error(at, "traffic policy must have at least one field");
    }
    if policy.tunnel.is_some() && policy.proxy_protocol.is_some() {
        v.error(at, "tunnel and proxyProtocol must not be set together");
    }
    let outlier = policy.outlier_detection.as_ref();
    if let Some(lb) = &policy.load_balancer {
        load_balancer(lb, outlier, &at.field("loadBalancer"), v);
    }
    if let Some(pool) = &policy.connection_pool {
        connection_pool(pool, &at.field("connectionPool"), v);
    }
    if let Some(outlier) = outlier {
        outlier_detection(outlier, &at.field("outlierDetection"), v);
    }
    if let Some(tls) = &policy.tls {
        client_tls(tls, namespace, &at.field("tls"), v);
    }
    if let Some(tunnel) = &policy.tunnel {
        tunnel_settings(tunnel, &at.field("tunnel"), v);
    }
    if let Some(budget) = &policy.retry_budget {
        let at = at.field("retryBudget");
        if let Some(percent) = budget.percent {
            super::common::percent(percent.value(), &at.field("percent"), v);
        }
        duration_or_zero(budget.budget_interval, &at.field("budgetInterval"), v);
    }
    port_policies(policy, namespace, at, v);
}

fn port_policies(policy: &TrafficPolicy, namespace: &str, at: &Path<'_>, v: &mut Validation) {
    let ports = at.field("portLevelSettings");
    v.require(&ports, policy.port_level_settings.len() <= 4096, "at most 4096 ports");
    for (i, port) in policy.port_level_settings.iter().enumerate() {
        let at = ports.index(i);
        match &port.port {
            Some(selector) if names::port(selector.number).is_err() => {
                v.warn(&at.field("port").field("number"), "no service has such a port: this has no effect");
            }
            Some(_) => {}
            None => v.error(&at, "portTrafficPolicy must have valid port"),
        }
        let settings = [
            port.load_balancer.is_some(),
            port.connection_pool.is_some(),
            port.outlier_detection.is_some(),
            port.tls.is_some(),
        ];
        v.require(&at, settings.contains(&true), "port traffic policy must have at least one field");
        let outlier = port.outlier_detection.as_ref();
        if let Some(lb) = &port.load_balancer {
            load_balancer(lb, outlier, &at.field("loadBalancer"), v);
        }
        if let Some(pool) = &port.connection_pool {
            connection_pool(pool, &at.field("connectionPool"), v);
        }
        if let Some(outlier) = outlier {
            outlier_detection(outlier, &at.field("outlierDetection"), v);
        }
        if let Some(tls) = &port.tls {
            client_tls(tls, namespace, &at.field("tls"), v);
        }
    }
}

/// Of a DestinationRule, a Sidecar, or MeshConfig.
pub(super) fn connection_pool(pool: &ConnectionPoolSettings, at: &Path<'_>, v: &mut Validation) {
    if pool.tcp.is_none() && pool.http.is_none() {
        v.error(at, "connection pool must have at least one field");
    }
    if let Some(tcp) = &pool.tcp {
        tcp_settings(tcp, &at.field("tcp"), v);
    }
    if let Some(http) = &pool.http {
        http_settings(http, &at.field("http"), v);
    }
}

fn tcp_settings(tcp: &TcpSettings, at: &Path<'_>, v: &mut Validation) {
    v.require(&at.field("maxConnections"), tcp.max_connections >= 0, "cannot be negative");
    duration(tcp.connect_timeout, &at.field("connectTimeout"), v);
    duration(tcp.max_connection_duration, &at.field("maxConnectionDuration"), v);
    duration_or_zero(tcp.idle_timeout, &at.field("idleTimeout"), v);
    if let Some(keepalive) = &tcp.tcp_keepalive {
        tcp_keepalive(keepalive, &at.field("tcpKeepalive"), v);
    }
}

pub(super) fn tcp_keepalive(keepalive: &TcpKeepalive, at: &Path<'_>, v: &mut Validation) {
    duration(keepalive.time, &at.field("time"), v);
    duration(keepalive.interval, &at.field("interval"), v);
}

fn http_settings(http: &HttpSettings, at: &Path<'_>, v: &mut Validation) {
    for (field, value) in [
        ("http1MaxPendingRequests", http.http1_max_pending_requests),
        ("http2MaxRequests", http.http2_max_requests),
        ("maxRequestsPerConnection", http.max_requests_per_connection),
        ("maxRetries", http.max_retries),
        ("maxConcurrentStreams", http.max_concurrent_streams),
    ] {
        v.require(&at.field(field), value >= 0, "cannot be negative");
    }
    duration(http.idle_timeout, &at.field("idleTimeout"), v);
    if http.h2_upgrade_policy == crate::networking::H2UpgradePolicy::Upgrade && http.use_client_protocol {
        v.error(at, "use client protocol must not be true when h2UpgradePolicy is UPGRADE");
    }
    if let Some(keepalive) = &http.http2_keep_alive {
        let at = at.field("http2KeepAlive");
        v.require(
            &at,
            keepalive.interval.is_some() && keepalive.timeout.is_some(),
            "interval and timeout must both be set",
        );
        duration(keepalive.interval, &at.field("interval"), v);
        duration(keepalive.timeout, &at.field("timeout"), v);
    }
}

pub(super) fn outlier_detection(outlier: &OutlierDetection, at: &Path<'_>, v: &mut Validation) {
    duration(outlier.interval, &at.field("interval"), v);
    duration(outlier.base_ejection_time, &at.field("baseEjectionTime"), v);
    if outlier.consecutive_errors != 0 {
        v.warn(&at.field("consecutiveErrors"), "deprecated; use consecutiveGatewayErrors or consecutive5xxErrors");
    }
    for (field, value) in
        [("maxEjectionPercent", outlier.max_ejection_percent), ("minHealthPercent", outlier.min_health_percent)]
    {
        v.require(&at.field(field), (0..=100).contains(&value), format_args!("{value} is not in range 0..100"));
    }
    if !outlier.split_external_local_origin_errors && outlier.consecutive_local_origin_failures.unwrap_or(0) > 0 {
        v.error(
            &at.field("consecutiveLocalOriginFailures"),
            "has no effect unless splitExternalLocalOriginErrors is true",
        );
    }
    let codes = at.field("outlierDetectionHttpErrorCodes");
    for (i, code) in outlier.outlier_detection_http_error_codes.iter().enumerate() {
        v.require(&codes.index(i), (100..=599).contains(code), format_args!("{code} is not an HTTP status"));
    }
}

/// Of a DestinationRule, whose namespace is given, or of a service that MeshConfig names.
pub(super) fn client_tls(tls: &ClientTlsSettings, namespace: &str, at: &Path<'_>, v: &mut Validation) {
    v.check(&at.field("credentialName"), own_config_map(&tls.credential_name, namespace));
    let certificate = !tls.client_certificate.is_empty();
    let key = !tls.private_key.is_empty();
    let ca = !tls.ca_certificates.is_empty();
    let names = !tls.subject_alt_names.is_empty();
    let credential = !tls.credential_name.is_empty();
    if tls.insecure_skip_verify == Some(true) {
        let verifies = match tls.mode {
            ClientTlsMode::Simple => credential || ca || names,
            // The secret may hold the client's certificate alone.
            ClientTlsMode::Mutual => ca || names,
            ClientTlsMode::Disable | ClientTlsMode::IstioMutual => false,
        };
        let message =
            "cannot specify CaCertificates or CredentialName or SubjectAltNames when InsecureSkipVerify is set true";
        v.require(at, !verifies, message);
    }
    if matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual) && credential {
        if certificate || key || ca || !tls.ca_crl.is_empty() {
            v.error(at, "cannot specify client certificates or CA certificate or CA CRL If credentialName is set");
        }
        // The secret holds everything.
        return;
    }
    match tls.mode {
        ClientTlsMode::Mutual => {
            v.require(&at.field("clientCertificate"), certificate, "client certificate required for mutual tls");
            v.require(&at.field("privateKey"), key, "private key required for mutual tls");
        }
        ClientTlsMode::IstioMutual => {
            let own = certificate || key || ca || credential || !tls.ca_crl.is_empty();
            if own {
                v.warn(at, "certificates have no effect with ISTIO_MUTUAL: the workload's own are used");
            }
        }
        ClientTlsMode::Simple | ClientTlsMode::Disable => {}
    }
}

/// Roots in a ConfigMap, `configmap://namespace/name`, are those of the rule's own namespace.
fn own_config_map(credential: &str, own: &str) -> Result<(), String> {
    let Some(rest) = credential.strip_prefix("configmap://") else { return Ok(()) };
    let mut parts = rest.split('/');
    match (parts.next(), parts.next()) {
        (Some(namespace), Some(name)) if !namespace.is_empty() && !name.is_empty() && namespace == own => Ok(()),
        (Some(namespace), Some(name)) if !namespace.is_empty() && !name.is_empty() => Err(format!(
            "invalid configmap:// credentialName: namespace must match the configuration namespace {own:?}"
        )),
        _ => Err("invalid configmap:// credentialName: expected namespace and name".into()),
    }
}

fn tunnel_settings(tunnel: &TunnelSettings, at: &Path<'_>, v: &mut Validation) {
    let protocol = matches!(&*tunnel.protocol, "" | "CONNECT" | "POST");
    v.require(&at.field("protocol"), protocol, "tunnel protocol must be CONNECT or POST");
    let host = &tunnel.target_host;
    v.check(&at.field("targetHost"), names::ip(host).or_else(|_| names::fqdn(host)));
    v.check(&at.field("targetPort"), names::port(tunnel.target_port));
}
