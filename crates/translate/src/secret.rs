//! Secrets (SDS) that discovery itself serves: the credentials of gateway servers, and of rules that originate TLS.
//!
//! Owns who may have which: a proxy gets a credential only if a Gateway that it serves, or a DestinationRule meant for it,
//! names it, and only from its own namespace (or, for a Gateway of the Gateway API, from one that grants it). The roots
//! that a policy for a backend names are for everybody. Whether the proxy is who it says is for the transport to prove; serve
//! these on authenticated streams only. Keys are never logged.

use crate::generator::Generator;
use meltemi_config::kube::Secret as KubeSecret;
use meltemi_config::networking::{ClientTlsSettings, DestinationRule, ServerTlsSettings};
use meltemi_model::labels::selects;
use meltemi_model::{ConfigRef, Node, NodeKind, ObjectKey, Snapshot, semantics};
use meltemi_proto::envoy::config::core::v3::{DataSource, data_source};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use meltemi_proto::{Any, pack_secret};
use std::collections::BTreeSet;
use std::sync::Arc;

const KUBERNETES: &str = "kubernetes://";
const KUBERNETES_GATEWAY: &str = "kubernetes-gateway://";
const CONFIG_MAP: &str = "configmap://";
const ROOT_SUFFIX: &str = "-cacert";

pub struct Secrets;

/// What of a credential a name asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Certificate,
    Root,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct SecretInput {
    name: Arc<str>,
    part: Part,
    secret: ConfigRef<KubeSecret>,
}

impl Generator for Secrets {
    type Input = SecretInput;

    /// Secrets are asked for by name; nobody subscribes to all.
    fn names(_snapshot: &Snapshot, _node: &Node) -> Vec<Arc<str>> {
        Vec::new()
    }

    fn inputs(snapshot: &Snapshot, node: &Node, name: &str) -> Option<SecretInput> {
        input(snapshot, node, &allowed(snapshot, node), name)
    }

    fn select(snapshot: &Snapshot, node: &Node, names: &[Arc<str>]) -> Vec<(Arc<str>, SecretInput)> {
        let allowed = allowed(snapshot, node);
        names.iter().filter_map(|name| Some((name.clone(), input(snapshot, node, &allowed, name)?))).collect()
    }

    fn build(input: &SecretInput) -> Any {
        let kind = match input.part {
            Part::Certificate => certificate(&input.secret.spec).map(secret::Type::TlsCertificate),
            Part::Root => root(&input.secret.spec).map(secret::Type::ValidationContext),
        };
        pack_secret(&Secret { name: input.name.to_string(), r#type: kind })
    }
}

/// Where a resource name points: the object, and whether its own part for roots is asked for.
fn parse(name: &str, namespace: &str) -> Option<(ObjectKey, Part)> {
    if let Some((owner, object)) = name.strip_prefix(CONFIG_MAP).and_then(|rest| rest.split_once('/')) {
        let object = object.strip_suffix(ROOT_SUFFIX)?;
        return Some((ObjectKey::new(owner, semantics::config_map_secret(object)), Part::Root));
    }
    let rest = name.strip_prefix(KUBERNETES).or_else(|| name.strip_prefix(KUBERNETES_GATEWAY))?;
    let (owner, object) = rest.split_once('/').unwrap_or((namespace, rest));
    match object.strip_suffix(ROOT_SUFFIX) {
        Some(object) => Some((ObjectKey::new(owner, object), Part::Root)),
        None => Some((ObjectKey::new(owner, object), Part::Certificate)),
    }
}

fn input(snapshot: &Snapshot, node: &Node, allowed: &BTreeSet<ObjectKey>, name: &str) -> Option<SecretInput> {
    let (key, part) = parse(name, &node.namespace)?;
    if !allowed.contains(&key) {
        return None;
    }
    let own = snapshot.secrets.get(&key);
    let secret = match part {
        Part::Certificate => own.filter(|secret| certificate(&secret.spec).is_some()),
        Part::Root => {
            // A Secret of the very name comes before the root inside the server's own.
            let named = ObjectKey::new(key.namespace.clone(), format!("{}{ROOT_SUFFIX}", key.name));
            snapshot.secrets.get(&named).or(own).filter(|secret| root(&secret.spec).is_some())
        }
    };
    Some(SecretInput { name: name.into(), part, secret: secret?.clone() })
}

/// The credentials that the node's own configuration names.
fn allowed(snapshot: &Snapshot, node: &Node) -> BTreeSet<ObjectKey> {
    let mut names: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut granted: BTreeSet<Arc<str>> = BTreeSet::new();
    if node.kind != NodeKind::Sidecar {
        for gateway in snapshot.gateways_for(node) {
            let own = match semantics::gateway_services(&gateway) {
                // What a Gateway of the Gateway API names was granted to it when it was converted, for proxies of its namespace.
                Some((_, namespace)) if semantics::is_made(&gateway) => {
                    if *namespace != *node.namespace {
                        continue;
                    }
                    &mut granted
                }
                _ => &mut names,
            };
            let settings = gateway.spec.servers.iter().filter_map(|server| server.tls.as_ref());
            settings.for_each(|tls| of_server(tls, own));
        }
    }
    // Roots for backends are no secret, and whoever calls a backend checks by them.
    for rule in snapshot.destination_rules.iter().filter(|rule| semantics::is_made(rule)) {
        let roots = settings(&rule.spec).filter(|tls| tls.credential_name.starts_with(CONFIG_MAP));
        granted.extend(roots.map(|tls| format!("{}{ROOT_SUFFIX}", tls.credential_name).into()));
    }
    for rule in snapshot.destination_rules.iter().filter(|rule| *rule.namespace == *node.namespace) {
        if is_for(&rule.spec, node) {
            names.extend(settings(&rule.spec).map(|tls| tls.credential_name.clone()));
        }
    }
    let key = |name: &Arc<str>| {
        let whole = if name.contains("://") { name.to_string() } else { format!("{KUBERNETES}{name}") };
        parse(&whole, &node.namespace).filter(|_| !name.is_empty()).map(|(key, _)| key)
    };
    let own = names.iter().filter_map(key).filter(|key| *key.namespace == *node.namespace);
    own.chain(granted.iter().filter_map(key)).collect()
}

fn of_server(tls: &ServerTlsSettings, names: &mut BTreeSet<Arc<str>>) {
    names.insert(tls.credential_name.clone());
    names.insert(tls.ca_cert_credential_name.clone());
    names.extend(tls.credential_names.iter().cloned());
}

/// A rule hands its credential to gateways, and to sidecars only if it selects them.
fn is_for(rule: &DestinationRule, node: &Node) -> bool {
    match &rule.workload_selector {
        None => node.kind != NodeKind::Sidecar,
        Some(selector) => selects(selector.match_labels.iter().map(|(key, value)| (&**key, &**value)), &node.labels),
    }
}

fn settings(rule: &DestinationRule) -> impl Iterator<Item = &ClientTlsSettings> {
    let policies =
        rule.traffic_policy.iter().chain(rule.subsets.iter().filter_map(|subset| subset.traffic_policy.as_ref()));
    policies.flat_map(|policy| {
        policy.tls.iter().chain(policy.port_level_settings.iter().filter_map(|port| port.tls.as_ref()))
    })
}

fn bytes(secret: &KubeSecret, keys: &[&str]) -> Option<DataSource> {
    let value = keys.iter().find_map(|key| secret.value(key)).filter(|value| !value.is_empty())?;
    let inline = data_source::Specifier::InlineBytes(bytes::Bytes::copy_from_slice(value));
    Some(DataSource { specifier: Some(inline), ..DataSource::default() })
}

fn certificate(secret: &KubeSecret) -> Option<TlsCertificate> {
    Some(TlsCertificate {
        certificate_chain: Some(bytes(secret, &["tls.crt", "cert"])?),
        private_key: Some(bytes(secret, &["tls.key", "key"])?),
        ocsp_staple: bytes(secret, &["tls.ocsp-staple"]),
        ..TlsCertificate::default()
    })
}

fn root(secret: &KubeSecret) -> Option<CertificateValidationContext> {
    Some(CertificateValidationContext {
        trusted_ca: Some(bytes(secret, &["cacert", "ca.crt"])?),
        crl: bytes(secret, &["ca.crl", "crl"]),
        ..CertificateValidationContext::default()
    })
}

#[cfg(test)]
mod tests;
