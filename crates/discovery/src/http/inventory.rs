//! Debug pages of what the control plane holds, in the shapes of istiod's Go structs: what proxies import and serve, what is cached,
//! which kinds and templates there are.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use meltemi_config::{Kind, Object};
use meltemi_model::{MergedRule, Node, ServiceTarget, SidecarScope, Snapshot};
use serde_json::{Map, Value, json};

use super::debug::{NO_SUCH_PROXY, Parameters};
use super::registry;
use crate::clearance::Clearance;
use crate::{State, webhook};

/// Of a scope without a Sidecar, as istiod has it.
const DEFAULT_SCOPE: &str = "default-sidecar";

/// Why there is no such page.
type Refusal = (StatusCode, &'static str);

/// The proxy of `proxyID`, where the caller may see it.
fn proxy(state: &State, clearance: &Clearance, query: &HashMap<String, String>) -> Result<Arc<Node>, Refusal> {
    let Some(wanted) = query.get("proxyID") else {
        return Err((StatusCode::BAD_REQUEST, "You must provide a proxyID in the query string\n"));
    };
    let clients = state.pusher.clients();
    let is_meant = |node: &&Arc<Node>| (*node.id == **wanted || *node.name == **wanted) && clearance.covers(node);
    let found = clients.iter().filter(|client| client.is_proxy()).map(|client| &client.peer.node).find(is_meant);
    found.cloned().ok_or((StatusCode::NOT_FOUND, NO_SUCH_PROXY))
}

/// Telemetry resources by namespace, the oldest first. They are of the whole mesh: which of them a proxy would follow is not said.
pub(super) async fn telemetryz(Shared(state): Shared<Arc<State>>, Query(query): Parameters) -> Response {
    if query.contains_key("proxyID") {
        let reason = "proxyID: Telemetry resources have no effect on proxies here; without it all are listed\n";
        return (StatusCode::BAD_REQUEST, reason).into_response();
    }
    let set = state.config.load();
    let mut all: Vec<&Object> = set.iter().filter(|object| object.kind() == Kind::Telemetry).collect();
    all.sort_by_key(|object| (object.meta.creation_timestamp, object.meta.name.clone()));
    let mut namespaces: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for object in all {
        let spec = serde_json::to_value(&object.spec).unwrap_or_default();
        let entry = json!({ "name": &*object.meta.name, "namespace": &*object.meta.namespace, "spec": spec });
        namespaces.entry(&object.meta.namespace).or_default().push(entry);
    }
    let root = state.pusher.snapshot().root_namespace().to_owned();
    let telemetries = json!({ "namespace_to_telemetries": namespaces, "root_namespace": root });
    Json(json!({ "telemetries": telemetries })).into_response()
}

/// The templates in force, by name.
pub(super) async fn inject(Shared(state): Shared<Arc<State>>) -> Response {
    match webhook::templates(&state) {
        Ok(templates) => Json(json!(templates)).into_response(),
        Err(problem) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{problem}\n")).into_response(),
    }
}

/// The kinds that are read.
pub(super) async fn resourcesz() -> Json<Value> {
    let kind = |kind: Kind| {
        let info = kind.info();
        let version = info.versions.first().copied().unwrap_or_default();
        json!({ "group": info.group, "version": version, "kind": info.name })
    };
    Json(Kind::all().filter(|kind| kind.is_istio()).map(kind).collect())
}

/// Gateways between networks. There are none: `meshNetworks` is checked and no more.
pub(super) async fn networkz() -> Json<Value> {
    Json(json!([]))
}

pub(super) async fn pushcontext(state: Shared<Arc<State>>) -> Json<Value> {
    let policies = super::debug::authorization_policies(&state.pusher.snapshot());
    Json(json!({ "AuthorizationPolicies": policies, "NetworkGateways": [], "UnresolvedGateways": [] }))
}

/// Services that proxies serve, by proxy.
pub(super) async fn instancesz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let (snapshot, cluster) = (state.pusher.snapshot(), &state.options.cluster_id);
    let target = |target: &ServiceTarget| {
        let port = json!({ "ServicePort": registry::port(&target.port), "TargetPort": target.target_port });
        json!({ "Service": registry::service(&target.service, cluster), "Port": port })
    };
    let clients = state.pusher.clients();
    let nodes = clients.iter().filter(|client| client.is_proxy()).map(|client| &client.peer.node);
    let entry = |node: &Arc<Node>| {
        (node.name.to_string(), snapshot.service_targets(node).iter().map(target).collect::<Value>())
    };
    Json(Value::Object(nodes.map(entry).collect()))
}

/// What the proxy of `proxyID` imports, and how it calls it.
pub(super) async fn sidecarz(
    state: Shared<Arc<State>>,
    clearance: Extension<Clearance>,
    Query(query): Parameters,
) -> Response {
    let node = match proxy(&state, &clearance, &query) {
        Ok(node) => node,
        Err(refusal) => return refusal.into_response(),
    };
    let snapshot = state.pusher.snapshot();
    let scope = snapshot.scope(&node);
    Json(scope_value(&snapshot, &node, (&scope, &state.options.cluster_id))).into_response()
}

fn scope_value(snapshot: &Snapshot, node: &Node, (scope, cluster): (&SidecarScope, &str)) -> Value {
    let service = |service: &_| registry::service(service, cluster);
    let by_hostname = scope.services.iter().map(|own| (own.hostname.to_string(), service(own)));
    let rules = scope.services.iter().filter_map(|own| {
        let rule = snapshot.destination_rule(node, own)?;
        Some((own.hostname.to_string(), json!([rule_value(&rule)])))
    });
    let named = scope.sidecar.as_ref();
    json!({
        "version": snapshot.version.to_string(),
        "name": named.map_or(DEFAULT_SCOPE, |sidecar| &sidecar.name),
        "namespace": &*scope.namespace,
        "outboundTrafficPolicy": outbound_policy(snapshot, scope),
        "services": scope.services.iter().map(|own| service(own)).collect::<Vec<_>>(),
        "egressListenerServices": scope.egress.iter()
            .map(|listener| listener.services.iter().map(|own| service(own)).collect::<Vec<_>>())
            .collect::<Vec<_>>(),
        "servicesByHostname": by_hostname.collect::<Map<_, _>>(),
        "sidecar": scope.spec(),
        "destinationRules": rules.collect::<Map<_, _>>(),
    })
}

/// The Sidecar's own, else the mesh's.
fn outbound_policy(snapshot: &Snapshot, scope: &SidecarScope) -> Value {
    let own = scope.spec().and_then(|spec| spec.outbound_traffic_policy.as_ref());
    own.map_or_else(|| json!(snapshot.mesh.outbound_traffic_policy), |own| json!(own))
}

fn rule_value(rule: &MergedRule) -> Value {
    let from = rule.from.iter().map(|key| json!({ "Namespace": &*key.namespace, "Name": &*key.name }));
    json!({
        "exportTo": registry::visibility(&rule.visibility),
        "rule": { "Spec": rule.spec() },
        "from": from.collect::<Vec<_>>(),
    })
}

/// Names of the resources that are remembered, by type; their bytes with `sizes`, and with `clear` none from then on.
pub(super) async fn cachez(Shared(state): Shared<Arc<State>>, Query(query): Parameters) -> Response {
    let is_wanted = |name: &str| query.get(name).is_some_and(|value| !value.is_empty());
    if is_wanted("clear") {
        state.cache.clear();
        return "Cache cleared\n".into_response();
    }
    let held = state.cache.held().into_iter().filter(|(_, resources)| !resources.is_empty());
    if !is_wanted("sizes") {
        let names = held.map(|(type_url, resources)| {
            let mut names: Vec<String> = resources.iter().map(|resource| resource.name.to_string()).collect();
            names.sort();
            (type_url, names)
        });
        return Json(names.collect::<BTreeMap<_, _>>()).into_response();
    }
    let bytes = held.map(|(type_url, all)| (type_url, all.iter().map(|one| one.body.value.len()).sum::<usize>()));
    let mut sizes: BTreeMap<&str, usize> = bytes.collect();
    sizes.insert("total", sizes.values().sum());
    Json(sizes.into_iter().map(|(name, size)| (name, byte_count(size))).collect::<BTreeMap<_, _>>()).into_response()
}

/// As istiod writes a number of bytes: `900B`, `1.5kB`.
fn byte_count(bytes: usize) -> String {
    const UNITS: [char; 6] = ['k', 'M', 'G', 'T', 'P', 'E'];
    if bytes < 1000 {
        return format!("{bytes}B");
    }
    let exponent = usize::try_from(bytes.ilog10() / 3).unwrap_or_default().min(UNITS.len());
    let tenth = UNITS[1..exponent].iter().fold(100, |tenth: usize, _| tenth.saturating_mul(1000));
    let tenths = bytes.saturating_add(tenth / 2) / tenth;
    format!("{}.{}{}B", tenths / 10, tenths % 10, UNITS[exponent - 1])
}
