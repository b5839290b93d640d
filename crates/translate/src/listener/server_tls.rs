//! TLS of servers that bring their own certificates: Gateway servers and a Sidecar's ingress listeners.

use meltemi_config::networking::{ServerTlsMode, ServerTlsSettings, TlsProtocol};

use super::spec::{Secret, Tls, TlsVersion, Validation};
use super::tls::{ALPN_HTTP, ALPN_TCP_WITH_EXCHANGE};
use crate::names;
use crate::view::View;

const CA_SUFFIX: &str = "-cacert";
const CREDENTIAL_SOCKET_CLUSTER: &str = "sds-external";

/// `tcp` is a server that terminates TLS around something other than HTTP.
pub fn server_tls(settings: &ServerTlsSettings, view: &View<'_>, tcp: bool) -> Tls {
    let mesh = settings.mode == ServerTlsMode::IstioMutual;
    let exchange = tcp && mesh && view.profile.dialect.has_istio_filters();
    let requires = matches!(settings.mode, ServerTlsMode::Mutual | ServerTlsMode::IstioMutual);
    let validates = requires || settings.mode == ServerTlsMode::OptionalMutual;
    let mut tls = Tls {
        alpn: if exchange { ALPN_TCP_WITH_EXCHANGE.to_vec() } else { ALPN_HTTP.to_vec() },
        require_client_certificate: requires,
        certificates: certificates(settings, view),
        validation: validation(settings, view, validates),
        minimum: None,
        maximum: None,
        ciphers: Vec::new(),
        curves: Vec::new(),
        compliance: view.profile.compliance,
    };
    if !mesh {
        let defaults = &view.profile.server_tls;
        tls.minimum = version(settings.min_protocol_version).or(defaults.minimum);
        tls.maximum = version(settings.max_protocol_version);
        tls.ciphers = match settings.cipher_suites.as_slice() {
            [] => defaults.ciphers.clone(),
            own => own.iter().map(ToString::to_string).collect(),
        };
        tls.curves.clone_from(&defaults.curves);
    }
    tls
}

fn version(version: TlsProtocol) -> Option<TlsVersion> {
    match version {
        TlsProtocol::Auto => None,
        TlsProtocol::V1_0 => Some(TlsVersion::V1_0),
        TlsProtocol::V1_1 => Some(TlsVersion::V1_1),
        TlsProtocol::V1_2 => Some(TlsVersion::V1_2),
        TlsProtocol::V1_3 => Some(TlsVersion::V1_3),
    }
}

fn credential_names(settings: &ServerTlsSettings) -> Vec<&str> {
    if !settings.credential_names.is_empty() {
        return settings.credential_names.iter().map(|name| &**name).collect();
    }
    (!settings.credential_name.is_empty()).then_some(&*settings.credential_name).into_iter().collect()
}

fn certificates(settings: &ServerTlsSettings, view: &View<'_>) -> Vec<Secret> {
    if settings.mode == ServerTlsMode::IstioMutual {
        let own = |key| view.node.text(key).unwrap_or_default();
        return vec![from_files(own("TLS_SERVER_CERT_CHAIN"), own("TLS_SERVER_KEY"))];
    }
    let credentials = credential_names(settings);
    if !credentials.is_empty() {
        return credentials.into_iter().map(|name| credential(name, view)).collect();
    }
    if !settings.tls_certificates.is_empty() {
        return settings.tls_certificates.iter().map(|c| from_files(&c.server_certificate, &c.private_key)).collect();
    }
    vec![from_files(&settings.server_certificate, &settings.private_key)]
}

/// Files that the agent reads and watches; without any, the workload's own certificate.
fn from_files(certificate: &str, key: &str) -> Secret {
    if certificate.is_empty() || key.is_empty() {
        return Secret::Agent("default".into());
    }
    Secret::Agent(format!("file-cert:{certificate}~{key}"))
}

/// The SDS resource of a `credentialName`.
fn credential(name: &str, view: &View<'_>) -> Secret {
    if name.starts_with("builtin://") {
        return Secret::Agent(if name.ends_with(CA_SUFFIX) { "ROOTCA" } else { "default" }.into());
    }
    if let Some(resource) = name.strip_prefix("sds://") {
        return external(name, resource, view);
    }
    let typed = ["kubernetes://", "kubernetes-gateway://", "configmap://", "invalid://"];
    if typed.iter().any(|prefix| name.starts_with(prefix)) {
        return Secret::Discovery(name.into());
    }
    Secret::Discovery(format!("kubernetes://{name}"))
}

/// A socket on the gateway's own machine knows the name as it was written; else the mesh's first SDS provider is asked.
fn external(name: &str, resource: &str, view: &View<'_>) -> Secret {
    if view.node.flag("credential") {
        return Secret::External {
            name: name.into(),
            cluster: CREDENTIAL_SOCKET_CLUSTER.into(),
            authority: String::new(),
        };
    }
    let provider = view.snapshot.mesh.extension_providers.iter().find_map(|provider| provider.sds.as_ref());
    let found = provider.and_then(|sds| Some((view.find_service(&sds.service)?, sds.port)));
    match found {
        Some((host, port)) => Secret::External {
            name: resource.into(),
            cluster: names::outbound(port, "", &host),
            authority: host.to_string(),
        },
        None => Secret::Discovery(format!("kubernetes://{resource}")),
    }
}

fn validation(settings: &ServerTlsSettings, view: &View<'_>, validates: bool) -> Option<Validation> {
    let sans = || settings.subject_alt_names.iter().map(ToString::to_string).collect::<Vec<_>>();
    let accept_untrusted = settings.insecure_skip_verify == Some(true);
    let credentials = credential_names(settings);
    if settings.mode == ServerTlsMode::IstioMutual || credentials.is_empty() {
        let own_root = view.node.text("TLS_SERVER_ROOT_CERT").unwrap_or_default();
        let path = if settings.mode == ServerTlsMode::IstioMutual { own_root } else { &*settings.ca_certificates };
        let root = if path.is_empty() { "ROOTCA".into() } else { format!("file-root:{path}") };
        return validates.then(|| Validation {
            root: Some(Secret::Agent(root)),
            sans: sans(),
            crl: (!settings.ca_crl.is_empty()).then(|| settings.ca_crl.to_string()),
            accept_untrusted,
            ..Validation::default()
        });
    }
    let strings = |list: &[std::sync::Arc<str>]| list.iter().map(ToString::to_string).collect();
    if validates {
        let root = match (&*settings.ca_cert_credential_name, credentials.first()) {
            ("", Some(first)) => credential(&format!("{first}{CA_SUFFIX}"), view),
            (name, _) => credential(name, view),
        };
        return Some(Validation {
            root: Some(root),
            sans: sans(),
            spki: strings(&settings.verify_certificate_spki),
            hashes: strings(&settings.verify_certificate_hash),
            accept_untrusted,
            ..Validation::default()
        });
    }
    (!settings.subject_alt_names.is_empty()).then(|| Validation { sans: sans(), ..Validation::default() })
}
