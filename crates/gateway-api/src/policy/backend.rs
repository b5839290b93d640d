//! XBackend: its TLS, and what its status says.

use super::tls::settings;
use super::{Applied, Conditions, Context, Effect, Source, Target, TargetKind};
use crate::class::{GATEWAY_CONTROLLER, MESH_CONTROLLER};
use crate::reference::{BACKEND, GATEWAY};
use crate::status::{BackendStatus, RouteParentStatus, Status};
use meltemi_config::gateway_api::{BackendTlsValidation, ParentReference, XBackend, XBackendTlsMode};
use meltemi_config::networking::ClientTlsSettings;
use meltemi_config::{Key, Kind, Meta, Str};
use meltemi_model::ObjectKey;

/// What the backend's TLS does, and its status.
pub fn resource(
    context: &Context<'_>,
    (meta, spec): (&Meta, &XBackend),
    applied: &mut Vec<Applied>,
) -> Option<(Key, Status)> {
    let target = Target {
        kind: TargetKind::Backend,
        key: ObjectKey { namespace: meta.namespace.clone(), name: meta.name.clone() },
    };
    let mut conditions = Conditions::new(true);
    match external(spec) {
        None => {
            conditions.refuse("Invalid", format!("unsupported backend type: {}", spec.backend_type));
        }
        Some(host) => applied.extend(tls(context, meta, (spec, host), &mut conditions).map(|settings| Applied {
            source: Source::of(BACKEND.kind, meta),
            target: target.clone(),
            host: host.clone(),
            effect: Effect::Tls { port: Some(spec.port.port), settings },
        })),
    }
    let parent = |reference, controller_name| RouteParentStatus {
        conditions: conditions.finish(meta.generation),
        controller_name,
        parent_ref: reference,
    };
    let named = |kind: crate::reference::GroupKind<'_>, namespace: Option<Str>, name: &Str| ParentReference {
        group: Some(kind.group.into()),
        kind: Some(kind.kind.into()),
        namespace,
        name: name.clone(),
        ..ParentReference::default()
    };
    let mut parents = vec![parent(named(BACKEND, None, &meta.name), MESH_CONTROLLER)];
    for gateway in context.gateways.get(&target).into_iter().flatten() {
        let reference = named(GATEWAY, Some(gateway.namespace.clone()), &gateway.name);
        parents.push(parent(reference, GATEWAY_CONTROLLER));
    }
    let key = Key { kind: Kind::XBackend, namespace: meta.namespace.clone(), name: meta.name.clone() };
    Some((key, Status::Backend(BackendStatus { parents })))
}

/// The host that a backend of the one known type stands for.
pub fn external(spec: &XBackend) -> Option<&Str> {
    let known = &*spec.backend_type == "ExternalHostname";
    spec.external_hostname.as_ref().map(|own| &own.hostname).filter(|_| known)
}

fn tls(
    context: &Context<'_>,
    meta: &Meta,
    (spec, host): (&XBackend, &Str),
    conditions: &mut Conditions,
) -> Option<ClientTlsSettings> {
    let own = spec.tls.as_ref()?;
    match own.mode {
        XBackendTlsMode::None => None,
        XBackendTlsMode::ClientAndServer => {
            let message = "unsupported ClientAndServer TLS mode: Istio does not support client certificates on backend";
            conditions.refuse("Invalid", message.into());
            None
        }
        XBackendTlsMode::ServerOnly => {
            let mut validation = BackendTlsValidation::clone(&own.validation);
            if validation.hostname.is_empty() {
                validation.hostname = host.clone();
            }
            Some(settings(context, meta, &validation, conditions))
        }
    }
}
