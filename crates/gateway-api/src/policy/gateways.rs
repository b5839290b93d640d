//! Which Gateways have routes to which objects, as policies' statuses name them.

use super::{Gateways, Target, TargetKind};
use crate::catalogue::Catalogue;
use crate::reference::{BACKEND, GATEWAY, GroupKind, SERVICE, SERVICE_ENTRY};
use meltemi_config::gateway_api::{
    BackendRef, FilteredBackend, GrpcRoute, HttpRoute, L4RouteRule, ParentReference, RouteRule, RuledRoute, TcpRoute,
    TlsRoute,
};
use meltemi_config::{Meta, Resource};
use meltemi_model::ObjectKey;

/// By what the routes name, whether it is there and allowed or not.
pub fn of_routes(catalogue: &Catalogue) -> Gateways {
    let mut all = Gateways::new();
    ruled::<HttpRoute>(catalogue, &mut all);
    ruled::<GrpcRoute>(catalogue, &mut all);
    for (meta, spec) in catalogue.all::<TcpRoute>() {
        add(meta, &spec.parent_refs, backends(&spec.rules), &mut all);
    }
    for (meta, spec) in catalogue.all::<TlsRoute>() {
        add(meta, &spec.parent_refs, backends(&spec.rules), &mut all);
    }
    all
}

fn backends(rules: &[L4RouteRule]) -> impl Iterator<Item = BackendRef> {
    rules.iter().flat_map(|rule| &rule.backend_refs).cloned()
}

fn ruled<R: RuledRoute + Resource>(catalogue: &Catalogue, all: &mut Gateways) {
    for (meta, spec) in catalogue.all::<R>() {
        let backends = spec.rules().iter().flat_map(|rule| rule.backend_refs()).map(FilteredBackend::backend);
        add(meta, spec.parent_refs(), backends, all);
    }
}

fn add(meta: &Meta, parents: &[ParentReference], backends: impl Iterator<Item = BackendRef>, all: &mut Gateways) {
    let is_gateway = |own: &&ParentReference| GroupKind::of(own.group.as_ref(), own.kind.as_ref(), GATEWAY) == GATEWAY;
    let key = |own: &ParentReference| ObjectKey {
        namespace: own.namespace.as_ref().unwrap_or(&meta.namespace).clone(),
        name: own.name.clone(),
    };
    let gateways: Vec<ObjectKey> = parents.iter().filter(is_gateway).map(key).collect();
    for to in backends {
        let kind = match GroupKind::of(to.group.as_ref(), to.kind.as_ref(), SERVICE) {
            SERVICE => TargetKind::Service,
            SERVICE_ENTRY => TargetKind::ServiceEntry,
            BACKEND => TargetKind::Backend,
            _ => continue,
        };
        let key = ObjectKey { namespace: to.namespace.unwrap_or_else(|| meta.namespace.clone()), name: to.name };
        all.entry(Target { kind, key }).or_default().extend(gateways.iter().cloned());
    }
}
