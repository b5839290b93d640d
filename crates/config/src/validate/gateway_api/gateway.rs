//! GatewayClass and Gateway.

use super::super::Validation;
use super::{at_most, between, group, hostname, is_subdomain, kind, object_name, section_name};
use crate::gateway_api::{
    AllowedRoutes, FrontendTls, GatewayAddress, GatewayClass, KubernetesGateway, Listener, ListenerSet, ListenerTls,
    ObjectReference, SecretReference, TlsMode,
};
use crate::names;
use crate::path::Path;

const MAX_LISTENERS: usize = 64;
const MAX_ADDRESSES: usize = 16;
const MAX_KINDS: usize = 8;
const MAX_CERTIFICATES: usize = 64;
const MAX_AUTHORITIES: usize = 16;

pub(in super::super) fn gateway_class(spec: &GatewayClass, at: &Path<'_>, v: &mut Validation) {
    let (domain, path) = spec.controller_name.split_once('/').unwrap_or((&spec.controller_name, ""));
    let fits = is_subdomain(domain) && !path.is_empty();
    v.require(&at.field("controllerName"), fits, "must be a domain and a path, such as istio.io/gateway-controller");
}

pub(in super::super) fn gateway(spec: &KubernetesGateway, at: &Path<'_>, v: &mut Validation) {
    object_name(&spec.gateway_class_name, &at.field("gatewayClassName"), v);
    listeners(&spec.listeners, at, v);
    addresses(&spec.addresses, &at.field("addresses"), v);
    let Some(tls) = &spec.tls else { return };
    let at = at.field("tls");
    if let Some(reference) = tls.backend.as_ref().and_then(|backend| backend.client_certificate_ref.as_ref()) {
        secret(reference, &at.field("backend").field("clientCertificateRef"), v);
    }
    if let Some(tls) = &tls.frontend {
        let at = at.field("frontend");
        frontend(&tls.default, &at.field("default"), v);
        let ports = at.field("perPort");
        at_most(tls.per_port.len(), MAX_LISTENERS, &ports, v);
        for (i, port) in tls.per_port.iter().enumerate() {
            let at = ports.index(i);
            v.check(&at.field("port"), names::port(port.port));
            let same = tls.per_port[..i].iter().any(|other| other.port == port.port);
            v.require(&at.field("port"), !same, "Port for TLS configuration must be unique within the Gateway");
            frontend(&port.tls, &at.field("tls"), v);
        }
    }
}

pub(in super::super) fn listener_set(spec: &ListenerSet, at: &Path<'_>, v: &mut Validation) {
    let parent = at.field("parentRef");
    object_name(&spec.parent_ref.name, &parent.field("name"), v);
    let nowhere = spec.parent_ref.section_name.is_none() && spec.parent_ref.port.is_none();
    v.require(&parent, nowhere, "a ListenerSet is attached to a whole Gateway: no sectionName, no port");
    listeners(&spec.listeners, at, v);
}

fn listeners(all: &[Listener], at: &Path<'_>, v: &mut Validation) {
    let listeners = at.field("listeners");
    between(all.len(), 1, MAX_LISTENERS, &listeners, v);
    for (i, one) in all.iter().enumerate() {
        let at = listeners.index(i);
        v.check(&at.field("port"), names::port(one.port));
        listener(one, &at, v);
        let before = &all[..i];
        let same = before.iter().any(|other| other.name == one.name);
        v.require(&at.field("name"), !same, "Listener name must be unique within the Gateway");
        let alike = |other: &Listener| {
            (other.port, &other.protocol, &other.hostname) == (one.port, &one.protocol, &one.hostname)
        };
        let message = "Combination of port, protocol and hostname must be unique for each listener";
        v.require(&at, !before.iter().any(alike), message);
    }
}

fn listener(listener: &Listener, at: &Path<'_>, v: &mut Validation) {
    section_name(&listener.name, &at.field("name"), v);
    let protocol = &*listener.protocol;
    v.require(&at.field("protocol"), !protocol.is_empty(), "required");
    v.require(&at.field("tls"), protocol != "TLS" || listener.tls.is_some(), "tls mode must be set for protocol TLS");
    let mode = listener.tls.as_ref().map(|tls| tls.mode);
    let plain = matches!(protocol, "HTTP" | "TCP" | "UDP");
    v.require(
        &at.field("tls"),
        !plain || mode.is_none(),
        "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']",
    );
    if protocol == "HTTPS" {
        let terminates = mode.is_none_or(|mode| mode.unwrap_or_default() == TlsMode::Terminate);
        v.require(&at.field("tls").field("mode"), terminates, "tls mode must be Terminate for protocol HTTPS");
    }
    if let Some(host) = &listener.hostname {
        let at = at.field("hostname");
        let has_hosts = !matches!(protocol, "TCP" | "UDP") || host.is_empty();
        v.require(&at, has_hosts, "hostname must not be specified for protocols ['TCP', 'UDP']");
        hostname(host, true, &at, v);
    }
    if let Some(tls) = &listener.tls {
        listener_tls(tls, &at.field("tls"), v);
    }
    if let Some(allowed) = &listener.allowed_routes {
        allowed_routes(allowed, &at.field("allowedRoutes"), v);
    }
}

fn listener_tls(tls: &ListenerTls, at: &Path<'_>, v: &mut Validation) {
    let certificates = at.field("certificateRefs");
    at_most(tls.certificate_refs.len(), MAX_CERTIFICATES, &certificates, v);
    for (i, reference) in tls.certificate_refs.iter().enumerate() {
        secret(reference, &certificates.index(i), v);
    }
    let terminates = tls.mode.unwrap_or_default() == TlsMode::Terminate;
    v.require(
        at,
        !terminates || !tls.certificate_refs.is_empty() || !tls.options.is_empty(),
        "certificateRefs or options must be specified when mode is Terminate",
    );
}

fn allowed_routes(allowed: &AllowedRoutes, at: &Path<'_>, v: &mut Validation) {
    let kinds = at.field("kinds");
    at_most(allowed.kinds.len(), MAX_KINDS, &kinds, v);
    for (i, entry) in allowed.kinds.iter().enumerate() {
        let at = kinds.index(i);
        if let Some(name) = &entry.group {
            group(name, &at.field("group"), v);
        }
        kind(&entry.kind, &at.field("kind"), v);
    }
}

fn secret(reference: &SecretReference, at: &Path<'_>, v: &mut Validation) {
    if let Some(name) = &reference.group {
        group(name, &at.field("group"), v);
    }
    if let Some(name) = &reference.kind {
        kind(name, &at.field("kind"), v);
    }
    object_name(&reference.name, &at.field("name"), v);
    if let Some(namespace) = &reference.namespace {
        v.check(&at.field("namespace"), names::dns_label(namespace));
    }
}

fn frontend(tls: &FrontendTls, at: &Path<'_>, v: &mut Validation) {
    let Some(validation) = &tls.validation else { return };
    let at = at.field("validation");
    let at = at.field("caCertificateRefs");
    between(validation.ca_certificate_refs.len(), 1, MAX_AUTHORITIES, &at, v);
    for (i, reference) in validation.ca_certificate_refs.iter().enumerate() {
        object(reference, &at.index(i), v);
    }
}

pub(super) fn object(reference: &ObjectReference, at: &Path<'_>, v: &mut Validation) {
    group(&reference.group, &at.field("group"), v);
    kind(&reference.kind, &at.field("kind"), v);
    object_name(&reference.name, &at.field("name"), v);
    if let Some(namespace) = &reference.namespace {
        v.check(&at.field("namespace"), names::dns_label(namespace));
    }
}

fn addresses(addresses: &[GatewayAddress], at: &Path<'_>, v: &mut Validation) {
    at_most(addresses.len(), MAX_ADDRESSES, at, v);
    for (i, address) in addresses.iter().enumerate() {
        let at = at.index(i);
        let value = &*address.value;
        match address.address_type.as_deref().unwrap_or("IPAddress") {
            "Hostname" if !value.is_empty() => hostname(value, true, &at.field("value"), v),
            "IPAddress" if !value.is_empty() => v.check(&at.field("value"), names::ip(value)),
            _ => {}
        }
        let same = |other: &GatewayAddress| other == address && !value.is_empty();
        v.require(&at, !addresses[..i].iter().any(same), "values must be unique");
    }
}
