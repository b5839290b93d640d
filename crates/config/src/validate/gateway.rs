//! Gateway and the server side TLS settings that Sidecar shares with it.

use super::Validation;
use crate::names;
use crate::networking::{Gateway, Port, Server, ServerTlsMode, ServerTlsSettings, TlsProtocol};
use crate::object::Meta;
use crate::path::Path;
use crate::wire::Str;

/// Set on Gateways that were made from Kubernetes' Gateway API: `~` as namespace then means that nothing is attached.
const SEMANTICS: &str = "internal.istio.io/gateway-semantics";

pub(super) fn gateway(spec: &Gateway, meta: &Meta, at: &Path<'_>, v: &mut Validation) {
    v.require(&at.field("servers"), !spec.servers.is_empty(), "gateway must have at least one server");
    let converted = meta.annotations.get(SEMANTICS).is_some_and(|s| &**s == "gateway");
    if !converted {
        // Others name a gateway as namespace/name.
        v.check(&Path::root("metadata").field("name"), names::dns_label(&meta.name));
    }
    let servers = at.field("servers");
    for (i, one) in spec.servers.iter().enumerate() {
        let at = servers.index(i);
        server(one, converted, &at, v);
        let Some(port) = &one.port else { continue };
        let same = |s: &Server| s.port.as_ref().is_some_and(|p| p.name == port.name && !p.name.is_empty());
        if spec.servers[..i].iter().any(same) {
            v.error(
                &at.field("port").field("name"),
                format_args!("port names in servers must be unique: duplicate name {}", port.name),
            );
        }
    }
}

fn server(server: &Server, converted: bool, at: &Path<'_>, v: &mut Validation) {
    v.require(&at.field("hosts"), !server.hosts.is_empty(), "server config must contain at least one host");
    let hosts = at.field("hosts");
    for (i, host) in server.hosts.iter().enumerate() {
        v.check(&hosts.index(i), server_host(host, converted));
    }
    let Some(port) = &server.port else {
        v.error(at, "port is required");
        return;
    };
    let port_at = at.field("port");
    v.check(&port_at, bind(&server.bind, port));
    server_port(port, &server.bind, &port_at, v);
    if port.target_port != 0 {
        v.error(&port_at.field("targetPort"), "targetPort has no impact on Gateways");
    }
    server_tls(server, port, at, v);
}

fn server_tls(server: &Server, port: &Port, at: &Path<'_>, v: &mut Validation) {
    let protocol = names::protocol(&port.protocol);
    let secure = matches!(protocol, Some("HTTPS" | "TLS"));
    let http = names::is_plain_http(&port.protocol);
    let at = at.field("tls");
    let Some(tls) = &server.tls else {
        v.require(&at, !secure, "server must have TLS settings for HTTPS/TLS protocols");
        return;
    };
    server_tls_settings(tls, &at, v);
    if tls.https_redirect && !http {
        v.warn(&at.field("httpsRedirect"), "tls.httpsRedirect should only be used with http servers");
    }
    let passes = matches!(tls.mode, ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough);
    let files = !tls.ca_certificates.is_empty() || !tls.private_key.is_empty() || !tls.server_certificate.is_empty();
    if http && (!passes || files) {
        v.error(&at, "server cannot have TLS settings for plain text HTTP ports");
    } else if !http && !secure && protocol.is_some() {
        v.error(&at, "server cannot have TLS settings for non HTTPS/TLS ports");
    }
}

/// `host`, `namespace/host`, `*/host`, `./host`; the host may be an IP address.
fn server_host(host: &str, converted: bool) -> Result<(), String> {
    let (namespace, dns) = host.split_once('/').unwrap_or(("*", host));
    match namespace {
        "*" | "." => {}
        "~" if converted => {}
        other => names::dns_label(other).map_err(|e| format!("namespace {other:?}: {e}"))?,
    }
    match names::ip(dns) {
        // An IPv6 address has no dot, and counts as a short name.
        Ok(()) if dns.contains('.') => Ok(()),
        _ => names::listener_host(dns),
    }
}

fn bind(address: &str, port: &Port) -> Result<(), String> {
    if address.starts_with("unix://") {
        names::unix_address(address)?;
        return if port.number == 0 { Ok(()) } else { Err("port number must be 0 for unix domain socket".into()) };
    }
    if address.is_empty() { Ok(()) } else { names::ip(address) }
}

fn server_port(port: &Port, bind: &str, at: &Path<'_>, v: &mut Validation) {
    v.check(&at.field("protocol"), names::known_protocol(&port.protocol));
    if !(bind.starts_with("unix://") && port.number == 0) {
        v.check(&at.field("number"), names::port(port.number));
    }
    v.require(&at.field("name"), !port.name.is_empty(), "port name must be set");
}

/// Of a Gateway server or a Sidecar's ingress listener.
pub(super) fn server_tls_settings(tls: &ServerTlsSettings, at: &Path<'_>, v: &mut Validation) {
    let sources = [
        !tls.credential_name.is_empty(),
        !tls.credential_names.is_empty(),
        !tls.server_certificate.is_empty() && !tls.private_key.is_empty(),
        !tls.tls_certificates.is_empty(),
    ];
    if sources.iter().filter(|s| **s).count() > 1 {
        v.error(
            at,
            "only one of credential_name, credential_names, server_certificate/private_key, tls_certificates should be specified",
        );
    }
    versions(tls, at, v);
    cipher_suites(&tls.cipher_suites, &at.field("cipherSuites"), v);
    match tls.mode {
        ServerTlsMode::IstioMutual => workload_certificates(tls, at, v),
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => no_certificates(tls, at, v),
        ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual => terminated(tls, at, v),
    }
}

fn versions(tls: &ServerTlsSettings, at: &Path<'_>, v: &mut Validation) {
    let (min, max) = (tls.min_protocol_version, tls.max_protocol_version);
    if min != TlsProtocol::Auto && max != TlsProtocol::Auto && min > max {
        v.error(at, format_args!("minProtocolVersion {min} is higher than maxProtocolVersion {max}"));
    }
    for (field, version) in [("minProtocolVersion", min), ("maxProtocolVersion", max)] {
        if matches!(version, TlsProtocol::V1_0 | TlsProtocol::V1_1) {
            v.warn(&at.field(field), format_args!("{version} is not supported; TLSV1_2 is used"));
        }
    }
}

fn workload_certificates(tls: &ServerTlsSettings, at: &Path<'_>, v: &mut Validation) {
    let certificate = !tls.server_certificate.is_empty() || !tls.tls_certificates.is_empty();
    v.require(at, !certificate, "ISTIO_MUTUAL TLS cannot have associated server certificate");
    v.require(at, tls.private_key.is_empty(), "ISTIO_MUTUAL TLS cannot have associated private key");
    v.require(at, tls.ca_certificates.is_empty(), "ISTIO_MUTUAL TLS cannot have associated CA bundle");
    let named = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    v.require(at, !named, "ISTIO_MUTUAL TLS cannot have associated credentialName");
}

fn no_certificates(tls: &ServerTlsSettings, at: &Path<'_>, v: &mut Validation) {
    let any = !tls.server_certificate.is_empty()
        || !tls.private_key.is_empty()
        || !tls.ca_certificates.is_empty()
        || !tls.ca_crl.is_empty()
        || !tls.credential_name.is_empty()
        || !tls.credential_names.is_empty()
        || !tls.tls_certificates.is_empty();
    if any {
        v.warn(at, format_args!("{} mode does not use certificates", tls.mode));
    }
    let both = !tls.ca_crl.is_empty() && !tls.credential_name.is_empty();
    v.require(&at.field("caCrl"), !both, "CRL is not supported with credentialName: the secret holds it");
}

fn terminated(tls: &ServerTlsSettings, at: &Path<'_>, v: &mut Validation) {
    let mode = tls.mode;
    let named = !tls.credential_name.is_empty() || !tls.credential_names.is_empty();
    if !named && tls.tls_certificates.is_empty() {
        v.require(at, !tls.server_certificate.is_empty(), format_args!("{mode} TLS requires a server certificate"));
        v.require(at, !tls.private_key.is_empty(), format_args!("{mode} TLS requires a private key"));
    }
    let certificates = at.field("tlsCertificates");
    for (i, certificate) in tls.tls_certificates.iter().enumerate() {
        let at = certificates.index(i);
        v.require(
            &at,
            !certificate.server_certificate.is_empty(),
            format_args!("{mode} TLS requires a server certificate"),
        );
        v.require(&at, !certificate.private_key.is_empty(), format_args!("{mode} TLS requires a private key"));
    }
    if tls.tls_certificates.len() > 2 {
        v.warn(&certificates, format_args!("{mode} TLS can support up to 2 server certificates"));
    }
    if tls.credential_names.len() > 2 {
        v.error(&at.field("credentialNames"), "at most 2 credentials");
    }
    let client_ca = named || !tls.ca_certificates.is_empty();
    if mode != ServerTlsMode::Simple {
        v.require(at, client_ca, format_args!("{mode} TLS requires a client CA bundle"));
    }
    if !tls.ca_crl.is_empty() {
        let at = at.field("caCrl");
        if named {
            v.warn(&at, "not used: the CRL of the secret is, when credentialName is set");
        } else {
            v.require(&at, mode != ServerTlsMode::Simple, "CRL is not supported with SIMPLE TLS");
        }
    }
}

fn cipher_suites(suites: &[Str], at: &Path<'_>, v: &mut Validation) {
    for (i, suite) in suites.iter().enumerate() {
        let at = at.index(i);
        // What begins with an operator is left to the TLS library.
        let whole = suite.starts_with(char::is_alphanumeric) && &**suite != "ALL";
        if whole && !super::mesh::is_cipher_suite(suite) {
            v.warn(&at, format_args!("ignoring invalid cipher suite {suite:?}"));
        } else if suites[..i].contains(suite) {
            v.warn(&at, format_args!("ignoring duplicate cipher suite {suite:?}"));
        }
    }
}
