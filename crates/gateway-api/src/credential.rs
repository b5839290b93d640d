//! Certificates that listeners name: whether they may be named, and whether they are there.

use crate::catalogue::Catalogue;
use crate::error::{Problem, joined, reason};
use crate::reference::{CONFIG_MAP, GroupKind, SECRET};
use meltemi_config::gateway_api::{
    FrontendTls, FrontendValidationMode, GatewayTls, ListenerTls, ObjectReference, SecretReference, TlsMode,
};
use meltemi_config::kube::{ConfigMap, Secret};
use meltemi_config::networking::{DestinationRule, Server, ServerTlsMode, ServerTlsSettings};
use meltemi_config::wire::Base64Bytes;
use meltemi_config::{Meta, Str, is_cipher_suite};
use meltemi_model::{Config, ConfigRef, ObjectKey, Shared, semantics};
use std::sync::Arc;

/// An option of a listener's TLS: what is asked of clients.
const TERMINATE_MODE: &str = "gateway.istio.io/tls-terminate-mode";
/// An option of a listener's TLS: suites with commas between them.
const CIPHER_SUITES: &str = "gateway.istio.io/tls-cipher-suites";
const MAX_CERTIFICATES: usize = 2;
const CA_SUFFIX: &str = "-cacert";

/// Who names a certificate: a Gateway, or a ListenerSet.
#[derive(Clone, Copy)]
pub struct Owner<'a> {
    pub catalogue: &'a Catalogue,
    pub kind: GroupKind<'static>,
    pub meta: &'a Meta,
}

/// A listener's TLS as a server's. What cannot be had leaves settings that serve nothing.
pub fn server_tls(
    owner: Owner<'_>,
    tls: &ListenerTls,
    frontend: Option<&FrontendTls>,
    auto_passthrough: bool,
) -> (ServerTlsSettings, Option<Problem>) {
    let mut out = ServerTlsSettings::default();
    let problem = match tls.mode.unwrap_or_default() {
        TlsMode::Terminate => {
            let option = tls.options.get(TERMINATE_MODE).map(|mode| &**mode);
            out.mode = match option {
                Some("MUTUAL") => ServerTlsMode::Mutual,
                Some("OPTIONAL_MUTUAL") => ServerTlsMode::OptionalMutual,
                Some("ISTIO_MUTUAL") => ServerTlsMode::IstioMutual,
                _ => ServerTlsMode::Simple,
            };
            match option {
                Some("ISTIO_MUTUAL") => return (out, None),
                Some("ISTIO_SIMPLE") => {
                    out.credential_name = "builtin://".into();
                    return (out, None);
                }
                _ => certificates(owner, tls, &mut out).or_else(|| authority(owner, frontend, option, &mut out)),
            }
        }
        TlsMode::Passthrough => {
            out.mode = if auto_passthrough { ServerTlsMode::AutoPassthrough } else { ServerTlsMode::Passthrough };
            None
        }
    };
    if let Some(suites) = tls.options.get(CIPHER_SUITES) {
        for suite in suites.split(',').map(str::trim).filter(|suite| is_cipher_suite(suite)) {
            if !out.cipher_suites.iter().any(|own| **own == *suite) {
                out.cipher_suites.push(suite.into());
            }
        }
    }
    (out, problem)
}

/// Names the certificates; a problem only where there is none at all.
fn certificates(owner: Owner<'_>, tls: &ListenerTls, out: &mut ServerTlsSettings) -> Option<Problem> {
    if tls.certificate_refs.len() > MAX_CERTIFICATES {
        return Some(invalid("TLS mode can only support up to 2 server certificates".into()));
    }
    let mut names: Vec<Str> = Vec::new();
    let mut problem = None;
    for reference in &tls.certificate_refs {
        match certificate(owner, reference) {
            Ok(name) => names.push(name),
            Err(wrong) => problem = joined(problem, Some(wrong)),
        }
    }
    match names.len() {
        0 => return problem,
        1 => out.credential_name = names.remove(0),
        _ => out.credential_names = names,
    }
    None
}

fn invalid(message: String) -> Problem {
    Problem::new(reason::INVALID_CERTIFICATE_REF, message)
}

/// Whether it may be named is asked first, so that nothing tells what there is in a namespace that grants nothing.
fn certificate(owner: Owner<'_>, reference: &SecretReference) -> Result<Str, Problem> {
    let own = &*owner.meta.namespace;
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    if namespace != own && !owner.catalogue.is_granted((owner.kind, own), (SECRET, namespace, &reference.name)) {
        let message = format!(
            "certificateRef {}/{namespace} not accessible to a Gateway in namespace {own:?} (missing a ReferenceGrant?)",
            reference.name
        );
        return Err(Problem::new(reason::REF_NOT_PERMITTED, message));
    }
    let wrong = |why: String| invalid(format!("invalid certificate reference {}, {why}", secret_text(reference)));
    pair(owner, reference).map_err(wrong)?;
    Ok(format!("kubernetes-gateway://{namespace}/{}", reference.name).into())
}

/// The Secret, with a certificate and a key in it; else what is wrong with it.
fn pair(owner: Owner<'_>, reference: &SecretReference) -> Result<(), String> {
    if GroupKind::of(reference.group.as_ref(), reference.kind.as_ref(), SECRET) != SECRET {
        return Err("only secret is allowed".into());
    }
    let namespace = reference.namespace.as_deref().unwrap_or(&owner.meta.namespace);
    let Some((_, secret)) = owner.catalogue.get::<Secret>(namespace, &reference.name) else {
        return Err(format!("secret {namespace}/{} not found", reference.name));
    };
    let value = |key: &str| secret.value(key).filter(|value| !value.is_empty());
    let generic = value("cert").zip(value("key"));
    let Some((certificate, key)) = generic.or_else(|| value("tls.crt").zip(value("tls.key"))) else {
        let found = secret.data.keys().chain(secret.string_data.keys()).map(|key| &**key);
        return Err(missing("(cert and key) or (tls.crt and tls.key)", found));
    };
    for (part, bytes, label) in [("certificate", certificate, "CERTIFICATE"), ("key", key, "PRIVATE KEY")] {
        if !has_pem(bytes, label) {
            return Err(format!("the certificate is malformed: tls: failed to find any PEM data in {part} input"));
        }
    }
    Ok(())
}

fn missing<'a>(wanted: &str, found: impl Iterator<Item = &'a str>) -> String {
    let keys: Vec<&str> = found.collect();
    let shown = match keys.len() {
        0..3 => keys.join(", "),
        all => format!("{}, and {} more...", keys[..3].join(", "), all - 3),
    };
    format!("found secret, but didn't have expected keys {wanted}; found: {shown}")
}

fn has_pem(bytes: &[u8], label: &str) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let begins = |line: &str| line.trim_end().ends_with(&format!("{label}-----")) && line.starts_with("-----BEGIN ");
    text.lines().any(begins)
}

/// What clients must show, where the Gateway says so for the listener's port.
fn authority(
    owner: Owner<'_>,
    frontend: Option<&FrontendTls>,
    option: Option<&str>,
    out: &mut ServerTlsSettings,
) -> Option<Problem> {
    let validation = frontend?.validation.as_ref()?;
    let reference = match validation.ca_certificate_refs.as_slice() {
        [] => return None,
        [only] => only,
        _ => return Some(Problem::new(reason::INVALID_CA_REF, "only one caCertificateRef is supported")),
    };
    let name = match authority_name(owner, reference) {
        Ok(name) => name,
        Err(problem) => return Some(problem),
    };
    let lenient = validation.mode == FrontendValidationMode::AllowInsecureFallback;
    out.mode = match option {
        Some("OPTIONAL_MUTUAL") => ServerTlsMode::OptionalMutual,
        Some("MUTUAL") => ServerTlsMode::Mutual,
        _ if lenient => ServerTlsMode::OptionalMutual,
        _ => ServerTlsMode::Mutual,
    };
    out.insecure_skip_verify = Some(lenient && !matches!(option, Some("MUTUAL" | "OPTIONAL_MUTUAL")));
    out.ca_cert_credential_name = name;
    None
}

fn authority_name(owner: Owner<'_>, reference: &ObjectReference) -> Result<Str, Problem> {
    let own = &*owner.meta.namespace;
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let kind = GroupKind { group: &reference.group, kind: &reference.kind };
    let granted_as = if kind == SECRET { SECRET } else { CONFIG_MAP };
    if namespace != own && !owner.catalogue.is_granted((owner.kind, own), (granted_as, namespace, &reference.name)) {
        let message = format!(
            "caCertificateRef {namespace}/{} not accessible to a Gateway in namespace {own:?} (missing a ReferenceGrant?)",
            reference.name
        );
        return Err(Problem::new(reason::REF_NOT_PERMITTED, message));
    }
    let wrong = |of: &'static str, why: String| {
        Problem::new(of, format!("invalid CA certificate reference {}, {why}", object_text(reference)))
    };
    let bad = |why: String| wrong(reason::INVALID_CA_REF, why);
    let (scheme, root) = match kind {
        CONFIG_MAP => ("configmap", config_map_root(owner.catalogue, namespace, &reference.name).map_err(bad)?),
        SECRET => ("kubernetes-gateway", secret_root(owner.catalogue, namespace, &reference.name).map_err(bad)?),
        _ => return Err(wrong(reason::INVALID_CA_KIND, "only secret and configmap are allowed".into())),
    };
    if !has_pem(&root, "CERTIFICATE") {
        return Err(bad("the bundle is malformed".into()));
    }
    Ok(format!("{scheme}://{namespace}/{}{CA_SUFFIX}", reference.name).into())
}

/// The roots in a ConfigMap; else what is wrong with it.
pub fn config_map_root(catalogue: &Catalogue, namespace: &str, name: &str) -> Result<Vec<u8>, String> {
    let Some((_, map)) = catalogue.get::<ConfigMap>(namespace, name) else {
        return Err(format!("configmap {namespace}/{name} not found"));
    };
    let found = ["cacert", "ca.crt"].iter().find_map(|key| map.data.get(*key)).filter(|value| !value.is_empty());
    let keys = map.data.keys().map(|key| &**key);
    found.map(|value| value.as_bytes().to_vec()).ok_or_else(|| missing("cacert or ca.crt", keys))
}

fn secret_root(catalogue: &Catalogue, namespace: &str, name: &str) -> Result<Vec<u8>, String> {
    let Some((_, secret)) = catalogue.get::<Secret>(namespace, name) else {
        return Err(format!("secret {namespace}/{name} not found"));
    };
    let found = ["cacert", "ca.crt"].iter().find_map(|key| secret.value(key)).filter(|value| !value.is_empty());
    let keys = secret.data.keys().chain(secret.string_data.keys()).map(|key| &**key);
    found.map(<[u8]>::to_vec).ok_or_else(|| missing("cacert or ca.crt", keys))
}

/// The roots of a server that are in a ConfigMap, as the Secret that discovery serves them from.
pub fn roots(catalogue: &Catalogue, server: &Server) -> Option<(ObjectKey, ConfigRef<Secret>)> {
    served(catalogue, server.tls.as_ref()?.ca_cert_credential_name.strip_suffix(CA_SUFFIX)?)
}

/// Those of a rule for backends.
pub fn rule_roots(catalogue: &Catalogue, rule: &DestinationRule) -> Vec<(ObjectKey, ConfigRef<Secret>)> {
    let policy = rule.traffic_policy.iter();
    let settings = policy.flat_map(|policy| {
        policy.tls.iter().chain(policy.port_level_settings.iter().filter_map(|port| port.tls.as_ref()))
    });
    settings.filter_map(|tls| served(catalogue, &tls.credential_name)).collect()
}

fn served(catalogue: &Catalogue, credential: &str) -> Option<(ObjectKey, ConfigRef<Secret>)> {
    let (namespace, name) = credential.strip_prefix("configmap://")?.split_once('/')?;
    let root = config_map_root(catalogue, namespace, name).ok()?;
    let data = [(Str::from("ca.crt"), Base64Bytes(root.into()))];
    let config = Config {
        name: semantics::config_map_secret(name).into(),
        namespace: namespace.into(),
        labels: Default::default(),
        annotations: Default::default(),
        creation: None,
        spec: Arc::new(Secret { data: data.into_iter().collect(), ..Secret::default() }),
    };
    Some((config.key(), Shared::new(config)))
}

/// What is wrong with the certificate that a Gateway shows to backends.
pub fn client_certificate(owner: Owner<'_>, tls: Option<&GatewayTls>) -> Option<Problem> {
    let reference = tls?.backend.as_ref()?.client_certificate_ref.as_ref()?;
    if let Err(why) = pair(owner, reference) {
        let message = format!("invalid clientCertificateRef {}, {why}", secret_text(reference));
        return Some(Problem::new(reason::INVALID_CLIENT_CERTIFICATE_REF, message));
    }
    let own = &*owner.meta.namespace;
    let namespace = reference.namespace.as_deref().unwrap_or(own);
    let granted =
        namespace == own || owner.catalogue.is_granted((owner.kind, own), (SECRET, namespace, &reference.name));
    let message = || {
        format!(
            "clientCertificateRef {}/{namespace} not accessible to a Gateway in namespace {own:?} (missing a ReferenceGrant?)",
            reference.name
        )
    };
    (!granted).then(|| Problem::new(reason::REF_NOT_PERMITTED, message()))
}

fn secret_text(reference: &SecretReference) -> String {
    let text = |value: &Option<Str>| value.clone().unwrap_or_default();
    format!(
        "{}/{}/{}.{}",
        text(&reference.group),
        // The CRD's default.
        reference.kind.as_deref().unwrap_or_default(),
        reference.name,
        text(&reference.namespace)
    )
}

fn object_text(reference: &ObjectReference) -> String {
    let namespace = reference.namespace.as_deref().unwrap_or_default();
    format!("{}/{}/{}.{namespace}", reference.group, reference.kind, reference.name)
}
