//! Sidecar.

use std::collections::BTreeSet;

use super::destination_rule::connection_pool;
use super::gateway::server_tls_settings;
use super::virtual_service::destination;
use super::{Validation, common};
use crate::names;
use crate::networking::{
    CaptureMode, IstioEgressListener, IstioIngressListener, OutboundTrafficPolicyMode, Port, ServerTlsMode,
    ServerTlsSettings, Sidecar,
};
use crate::object::Meta;
use crate::path::Path;

pub(super) fn sidecar(spec: &Sidecar, meta: &Meta, at: &Path<'_>, v: &mut Validation) {
    common::workload_selector(spec.workload_selector.as_ref(), at, v);
    let nothing = spec.ingress.is_empty()
        && spec.egress.is_empty()
        && spec.inbound_connection_pool.is_none()
        && spec.outbound_traffic_policy.is_none();
    v.require(at, !nothing, "sidecar: empty configuration provided");
    if let Some(pool) = &spec.inbound_connection_pool {
        connection_pool(pool, &at.field("inboundConnectionPool"), v);
    }
    let mut seen = BTreeSet::new();
    let listeners = at.field("ingress");
    for (i, listener) in spec.ingress.iter().enumerate() {
        ingress(listener, &mut seen, &listeners.index(i), v);
    }
    all_egress(spec, &meta.namespace, at, v);
    if let Some(policy) = &spec.outbound_traffic_policy
        && let Some(proxy) = &policy.egress_proxy
    {
        let at = at.field("outboundTrafficPolicy");
        let at = &at.field("egressProxy");
        let any = policy.mode == OutboundTrafficPolicyMode::AllowAny;
        v.require(at, any, "sidecar: egress_proxy must be set only with ALLOW_ANY outbound_traffic_policy mode");
        destination(proxy, at, v);
        v.require(at, proxy.port.is_some(), "sidecar: egress_proxy port must be non-nil");
    }
}

fn ingress(listener: &IstioIngressListener, seen: &mut BTreeSet<u32>, at: &Path<'_>, v: &mut Validation) {
    let Some(port) = &listener.port else {
        v.error(at, "sidecar: port is required for ingress listeners");
        return;
    };
    listener_port(port, false, &at.field("port"), v);
    v.require(
        at,
        seen.insert(port.number),
        format_args!("sidecar: ports on IP bound listeners must be unique: {} is there twice", port.number),
    );
    if !listener.bind.is_empty() {
        v.check(&at.field("bind"), names::ip(&listener.bind));
    }
    if listener.capture_mode == CaptureMode::None && listener.bind.is_empty() {
        v.warn(&at.field("captureMode"), "NONE without bind: the listener is on the workload's address");
    }
    v.check(&at.field("defaultEndpoint"), default_endpoint(&listener.default_endpoint));
    if let Some(pool) = &listener.connection_pool {
        connection_pool(pool, &at.field("connectionPool"), v);
        if pool.http.is_some() && !names::is_plain_http(&port.protocol) {
            v.warn(&at.field("connectionPool"), "the protocol of the port is not HTTP: only the tcp settings apply");
        }
    }
    if let Some(tls) = &listener.tls {
        ingress_tls(tls, port, &at.field("tls"), v);
    }
}

fn ingress_tls(tls: &ServerTlsSettings, port: &Port, at: &Path<'_>, v: &mut Validation) {
    let named = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    v.require(at, !tls.https_redirect, "sidecar: httpsRedirect is not supported");
    v.require(at, !named, "sidecar: credentialName is not currently supported");
    v.require(at, tls.subject_alt_names.is_empty(), "sidecar: subjectAltNames is not supported in ingress tls");
    v.require(at, tls.tls_certificates.is_empty(), "sidecar: tls_certificates is not currently supported");
    let refused = matches!(tls.mode, ServerTlsMode::IstioMutual | ServerTlsMode::AutoPassthrough);
    v.require(at, !refused, format_args!("cannot set mode to {} in sidecar ingress tls", tls.mode));
    let secure = matches!(names::protocol(&port.protocol), Some("HTTPS" | "TLS"));
    v.require(at, secure, "server cannot have TLS settings for non HTTPS/TLS ports");
    server_tls_settings(tls, at, v);
}

fn default_endpoint(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    if text.starts_with("unix://") {
        return names::unix_address(text);
    }
    let (host, number) = text.rsplit_once(':').ok_or("defaultEndpoint must be of the form 127.0.0.1:<port>")?;
    if !matches!(host, "" | "127.0.0.1" | "0.0.0.0" | "[::1]" | "[::]") {
        return Err("defaultEndpoint must be 127.0.0.1, [::1], 0.0.0.0, [::] or a unix socket".into());
    }
    let number: u16 = number.parse().map_err(|_| format!("defaultEndpoint: {number:?} is not a port"))?;
    names::port(number)
}

fn all_egress(spec: &Sidecar, namespace: &str, at: &Path<'_>, v: &mut Validation) {
    let listeners = at.field("egress");
    let (mut ports, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    let mut catch_all = false;
    for (i, listener) in spec.egress.iter().enumerate() {
        let at = listeners.index(i);
        match &listener.port {
            None => {
                let last = i + 1 == spec.egress.len();
                v.require(
                    &at,
                    last && !catch_all,
                    "sidecar: the egress listener with empty port should be the last listener in the list",
                );
                catch_all = true;
            }
            Some(port) => {
                let unix = listener.bind.starts_with("unix://");
                listener_port(port, unix, &at.field("port"), v);
                let fresh = if unix { sockets.insert(&listener.bind) } else { ports.insert(port.number) };
                v.require(&at, fresh, "sidecar: ports on IP bound listeners must be unique, and unix domain socket values for listeners must be unique");
            }
        }
        egress(listener, namespace, &at, v);
    }
}

fn egress(listener: &IstioEgressListener, namespace: &str, at: &Path<'_>, v: &mut Validation) {
    if listener.bind.starts_with("unix://") {
        v.check(&at.field("bind"), names::unix_address(&listener.bind));
        let asked = !matches!(listener.capture_mode, CaptureMode::Default | CaptureMode::None);
        let captured = asked && listener.port.is_some();
        v.require(
            &at.field("captureMode"),
            !captured,
            "sidecar: captureMode must be DEFAULT/NONE for unix domain socket listeners",
        );
    } else if !listener.bind.is_empty() {
        v.check(&at.field("bind"), names::ip(&listener.bind));
    }
    let hosts = at.field("hosts");
    v.require(&hosts, !listener.hosts.is_empty(), "sidecar: egress listener must contain at least one host");
    let everything = listener.hosts.iter().any(|h| &**h == "*/*");
    for (i, host) in listener.hosts.iter().enumerate() {
        let at = hosts.index(i);
        v.check(&at, egress_host(host));
        if listener.hosts[..i].iter().any(|other| is_twice(other, host, namespace)) {
            v.warn(&at, format_args!("duplicated egress host: {host}"));
        }
        if everything && !matches!(host.split_once('/'), Some((owner, _)) if owner == "*" || owner.starts_with('~')) {
            v.warn(&at, "has no effect: */* selects every host");
        }
    }
}

/// True if one of two hosts of a listener is the other, or all of the namespace that the other is in. `own` is the
/// Sidecar's namespace.
fn is_twice(one: &str, other: &str, own: &str) -> bool {
    let (Some((one, first)), Some((other, second))) = (one.split_once('/'), other.split_once('/')) else {
        return false;
    };
    let owner = |named: &str| if named == "." { own.to_owned() } else { named.to_owned() };
    owner(one) == owner(other) && !one.starts_with('~') && (first == second || first == "*" || second == "*")
}

/// `namespace/host`: namespace a name, `*` or `.`, each also after `~`, or `~`; host a domain name, a wildcard domain or `*`.
fn egress_host(host: &str) -> Result<(), String> {
    let (namespace, dns) =
        host.split_once('/').ok_or_else(|| format!("host must be of form namespace/dnsName, not {host:?}"))?;
    if namespace.is_empty() || dns.is_empty() {
        return Err(format!("{host:?}: config namespace and dnsName in host entry cannot be empty"));
    }
    // `~` alone, or before the namespace of what is not imported.
    let owner = namespace.strip_prefix('~').unwrap_or(namespace);
    if !matches!(owner, "" | "*" | ".") {
        names::dns_label(owner)?;
    }
    names::listener_host(dns)
}

fn listener_port(port: &Port, unix: bool, at: &Path<'_>, v: &mut Validation) {
    if unix {
        v.require(&at.field("number"), port.number == 0, "port number must be 0 for a unix socket");
    } else {
        v.check(&at.field("number"), names::port(port.number));
    }
    if !port.protocol.is_empty() {
        v.check(&at.field("protocol"), names::known_protocol(&port.protocol));
    }
    if !port.name.is_empty() {
        v.check(&at.field("name"), names::dns_label(&port.name));
    }
    if port.target_port != 0 {
        v.error(&at.field("targetPort"), "targetPort has no impact on Sidecars");
    }
}
