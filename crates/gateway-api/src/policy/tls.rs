//! BackendTLSPolicy.

use super::{Applied, Conditions, Context, Effect, Source, ancestor, find, ignored, is_ignored, missing, reference};
use crate::class::{GATEWAY_CONTROLLER, MESH_CONTROLLER};
use crate::credential::config_map_root;
use crate::reference::{CONFIG_MAP, GATEWAY, GroupKind, SECRET, SERVICE, SERVICE_ENTRY};
use crate::status::{PolicyStatus, Status};
use meltemi_config::gateway_api::{BackendTlsPolicy, BackendTlsValidation, LocalPolicyTarget, ParentReference};
use meltemi_config::networking::{ClientTlsMode, ClientTlsSettings};
use meltemi_config::{Key, Kind, Meta, Str};
use std::collections::BTreeSet;

const KIND: &str = "BackendTLSPolicy";
/// A credential that nobody has: connections that need it fail.
const NO_CREDENTIAL: &str = "invalid://";
const SYSTEM: &str = "System";

/// What the policy does, and its status.
pub fn policy(
    context: &Context<'_>,
    (meta, spec): (&Meta, &BackendTlsPolicy),
    applied: &mut Vec<Applied>,
) -> Option<(Key, Status)> {
    let key = Key { kind: Kind::BackendTlsPolicy, namespace: meta.namespace.clone(), name: meta.name.clone() };
    if is_ignored(meta) {
        return Some((key, ignored(meta, &spec.target_refs, true)));
    }
    let mut conditions = Conditions::new(true);
    let settings = settings(context, meta, &spec.validation, &mut conditions);
    let mut ancestors = Vec::new();
    let mut gateways = BTreeSet::new();
    for wanted in &spec.target_refs {
        match target(context, meta, wanted) {
            Ok((found, port)) => {
                match rival(context, meta, wanted) {
                    Some(other) => {
                        let message = format!("Conflicts with {KIND} {other:?} targeting the same backend");
                        conditions.refuse("Conflicted", message);
                    }
                    None => applied.extend(found.hosts.iter().map(|host| Applied {
                        source: Source::of(KIND, meta),
                        target: found.target.clone(),
                        host: host.clone(),
                        effect: Effect::Tls { port, settings: settings.clone() },
                    })),
                }
                gateways.extend(context.gateways.get(&found.target).into_iter().flatten().cloned());
            }
            Err(why) => conditions.refuse("TargetNotFound", format!("targetRefs invalid: {why}")),
        }
        ancestors.push(ancestor(reference(wanted, true), MESH_CONTROLLER, &conditions, meta.generation));
    }
    for gateway in gateways {
        let reference = ParentReference {
            group: Some(GATEWAY.group.into()),
            kind: Some(GATEWAY.kind.into()),
            name: gateway.name,
            ..ParentReference::default()
        };
        ancestors.push(ancestor(reference, GATEWAY_CONTROLLER, &conditions, meta.generation));
    }
    Some((key, Status::Policy(PolicyStatus { ancestors })))
}

/// A target with the port that its section names.
fn target(
    context: &Context<'_>,
    meta: &Meta,
    wanted: &LocalPolicyTarget,
) -> Result<(super::Found, Option<u32>), String> {
    let found = find(context, &meta.namespace, wanted)?;
    let Some(section) = wanted.section_name.as_ref().filter(|section| !section.is_empty()) else {
        return Ok((found, None));
    };
    match found.ports.iter().find(|(name, _)| name == section) {
        Some((_, number)) => {
            let number = *number;
            Ok((found, Some(number)))
        }
        None => {
            Err(format!("sectionName {section:?} does not exist in {} {}/{}", wanted.kind, meta.namespace, wanted.name))
        }
    }
}

/// An older policy for the very same. Objects without a uid are not told apart, as of files nothing says which is older.
fn rival<'a>(context: &Context<'a>, meta: &Meta, wanted: &LocalPolicyTarget) -> Option<&'a str> {
    let rank = |meta: &Meta| (meta.creation_timestamp, meta.name.clone());
    let mut others = context.catalogue.all::<BackendTlsPolicy>().filter(|(other, spec)| {
        other.namespace == meta.namespace
            && other.uid != meta.uid
            && !is_ignored(other)
            && spec.target_refs.contains(wanted)
            && rank(other) < rank(meta)
    });
    others.next().map(|(other, _)| &*other.name)
}

/// How backends are spoken to. What cannot be had leaves settings by which nobody is.
pub fn settings(
    context: &Context<'_>,
    meta: &Meta,
    validation: &BackendTlsValidation,
    conditions: &mut Conditions,
) -> ClientTlsSettings {
    let mut names = validation.names();
    if names.is_empty() && !validation.hostname.is_empty() {
        // Istio asks for the name and takes a certificate for any.
        names.push(validation.hostname.clone());
    }
    ClientTlsSettings {
        mode: ClientTlsMode::Simple,
        credential_name: credential(context, &meta.namespace, validation, conditions),
        sni: validation.hostname.clone(),
        subject_alt_names: names,
        ..ClientTlsSettings::default()
    }
}

/// Where the roots are; empty: with the system.
fn credential(
    context: &Context<'_>,
    namespace: &str,
    validation: &BackendTlsValidation,
    conditions: &mut Conditions,
) -> Str {
    if let Some(known) = validation.well_known_ca_certificates.as_deref() {
        if known == SYSTEM {
            return "".into();
        }
        conditions.refuse("Invalid", format!("Unknown wellKnownCACertificates: {known}"));
        return NO_CREDENTIAL.into();
    }
    let [first, rest @ ..] = validation.ca_certificate_refs.as_slice() else { return "".into() };
    if !rest.is_empty() {
        conditions.accepted.message.push_str("; warning: only the first caCertificateRefs will be used");
    }
    let why = match (GroupKind { group: &first.group, kind: &first.kind }, context.catalogue) {
        (CONFIG_MAP, catalogue) if catalogue.config_map(namespace, &first.name).is_some() => {
            match config_map_root(catalogue, namespace, &first.name) {
                Ok(_) => return format!("configmap://{namespace}/{}", first.name).into(),
                Err(why) => {
                    conditions.unresolved("InvalidCACertificateRef", format!("Certificate invalid: {why}"));
                    why
                }
            }
        }
        (CONFIG_MAP, _) => {
            let why = missing(namespace, &first.name, &first.kind);
            conditions.unresolved("InvalidCACertificateRef", format!("Certificate reference not found: {why}"));
            why
        }
        (SECRET | SERVICE | SERVICE_ENTRY, _) => {
            let why = format!("unsupported reference kind: {}", first.kind);
            conditions.unresolved("InvalidKind", format!("Certificate reference invalid: {why}"));
            why
        }
        _ => {
            let why = format!("unsupported kind {}", first.kind);
            conditions.unresolved("InvalidKind", format!("Certificate reference not supported: {why}"));
            why
        }
    };
    conditions.refuse("NoValidCACertificate", format!("Certificate reference invalid: {why}"));
    NO_CREDENTIAL.into()
}
