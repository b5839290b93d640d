//! Debug pages, in istiod's shapes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use axum::Json;
use axum::extract::{Query, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use meltemi_ca::CaCertificate;
use meltemi_config::{Key, Kind, Object, OwnerReference, gateway_api};
use meltemi_gateway_api::status::Status;
use meltemi_gateway_api::{Catalogue, Settings};
use meltemi_push::{ClientStatus, TypeStatus};
use meltemi_store::ConfigSet;
use meltemi_xds::Variant;
use meltemi_xds::types::{self, CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE};
use serde_json::{Value, json};

use super::{dump, registry};
use crate::State;

type Parameters = Query<HashMap<String, String>>;

/// One entry for each proxy: what was sent and what it accepted, by type.
pub(super) async fn syncz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let clients = sorted_clients(&state);
    let proxies = clients.iter().filter(|client| !client.peer.is_agents());
    Json(proxies.map(|client| sync_status(client, &state)).collect())
}

fn sorted_clients(state: &State) -> Vec<ClientStatus> {
    let mut clients = state.pusher.clients();
    clients.sort_by(|a, b| a.peer.node.id.cmp(&b.peer.node.id));
    clients
}

fn sync_status(client: &ClientStatus, state: &State) -> Value {
    let node = &client.peer.node;
    let mut status = json!({
        "cluster_id": node.text("CLUSTER_ID").unwrap_or(&state.options.cluster_id),
        "proxy": &*node.name,
        "proxy_id": &*node.id,
        "proxy_type": node.kind.name(),
        "istio_version": node.text("ISTIO_VERSION").unwrap_or_default(),
        "istiod": format!("{}.{}", state.options.pod_name, state.options.namespace),
    });
    let mut errors = serde_json::Map::new();
    for (name, type_url) in [
        ("cluster", CLUSTER),
        ("listener", LISTENER),
        ("route", ROUTE),
        ("endpoint", ENDPOINT),
        ("extensionconfig", EXTENSION_CONFIG),
    ] {
        let known = TypeStatus::default();
        let found = client.types.get(type_url).unwrap_or(&known);
        status[format!("{name}_sent")] = found.sent_nonce.as_str().into();
        status[format!("{name}_acked")] = found.acked_nonce.as_str().into();
    }
    for (type_url, found) in &client.types {
        if let Some(rejection) = &found.rejection {
            errors.insert(types::short_name(type_url).to_owned(), rejection.as_str().into());
        }
    }
    if !errors.is_empty() {
        status["errors"] = Value::Object(errors);
    }
    status
}

/// Connections and their subscriptions.
pub(super) async fn adsz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let clients = sorted_clients(&state);
    let entries: Vec<Value> = clients
        .iter()
        .map(|client| {
            let watches = client.types.iter().map(|(type_url, status)| {
                let watch = json!({
                    "resources": status.resources,
                    "nonceSent": status.sent_nonce,
                    "nonceAcked": status.acked_nonce,
                    "outstanding": status.outstanding,
                    "error": status.rejection,
                });
                (type_url.to_string(), watch)
            });
            json!({
                "connectionId": &*client.peer.node.id,
                "connectedForSeconds": client.connected_for.as_secs(),
                "address": client.peer.address,
                "identity": client.peer.identity,
                "variant": variant(client.peer.variant),
                "watches": watches.collect::<serde_json::Map<_, _>>(),
            })
        })
        .collect();
    Json(json!({ "totalClients": entries.len(), "clients": entries }))
}

fn variant(variant: Variant) -> &'static str {
    match variant {
        Variant::Delta => "delta",
        Variant::StateOfTheWorld => "sotw",
    }
}

/// What a proxy would be sent now, as Envoy's config dump.
pub(super) async fn config_dump(Shared(state): Shared<Arc<State>>, Query(query): Parameters) -> Response {
    let Some(proxy) = query.get("proxyID") else {
        return (StatusCode::BAD_REQUEST, "You must provide a proxyID in the query string").into_response();
    };
    match state.pusher.resources_of(proxy) {
        Some(resources) => Json(dump::config_dump(&resources)).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            "Proxy not connected to this Pilot instance. It may be connected to another instance.",
        )
            .into_response(),
    }
}

/// Services.
pub(super) async fn registryz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(registry::services(&state.pusher.snapshot(), &state.options.cluster_id))
}

/// Endpoints by service.
pub(super) async fn endpoint_shardz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(registry::endpoints(&state.pusher.snapshot(), &state.options.cluster_id))
}

/// Configuration objects in force; with `kinds=all` those of Kubernetes too, with all that they are read for. Secrets are
/// listed without their content, objects of the Gateway API with their status.
pub(super) async fn configz(Shared(state): Shared<Arc<State>>, Query(query): Parameters) -> Json<Value> {
    let all = query.get("kinds").is_some_and(|kinds| kinds == "all");
    let set = state.config.load();
    let own = [Kind::Secret, Kind::ResiliencePolicy, Kind::RateLimitPolicy, Kind::Ingress];
    let groups = [gateway_api::GROUP, gateway_api::EXPERIMENTAL_GROUP, gateway_api::INFERENCE_GROUP];
    let wanted = |object: &&Object| {
        let kind = object.kind();
        all || kind.is_istio() || groups.contains(&kind.info().group) || own.contains(&kind)
    };
    let statuses = statuses(&state, &set);
    let entry = |object: &Object| {
        let mut value = config_object(object, all);
        if let Some(status) = statuses.get(&object.key()) {
            value["status"] = json!(status);
        }
        value
    };
    Json(set.iter().filter(wanted).map(entry).collect())
}

/// Of what is of the Gateway API, or an Ingress, and ours.
fn statuses(state: &State, set: &ConfigSet) -> BTreeMap<Key, Status> {
    let mut catalogue = Catalogue::default();
    for object in set.iter() {
        catalogue.take(&object.key(), Some(object));
    }
    let snapshot = state.pusher.snapshot();
    let settings = Settings::new(&state.options.domain, &snapshot.mesh);
    meltemi_gateway_api::statuses(&catalogue, &settings, &*snapshot)
}

fn config_object(object: &Object, whole: bool) -> Value {
    let meta = &object.meta;
    let spec = match object.kind() {
        Kind::Secret => Value::Null,
        _ => serde_json::to_value(&object.spec).unwrap_or_default(),
    };
    let mut value = json!({
        "apiVersion": object.kind().api_version(),
        "kind": object.kind().as_str(),
        "metadata": {
            "name": &*meta.name,
            "namespace": &*meta.namespace,
            "resourceVersion": &*meta.resource_version,
            "source": meta.source.as_ref().map(ToString::to_string),
        },
        "spec": spec,
    });
    if whole {
        let owners = meta.owner_references.iter();
        let owner =
            |owner: &OwnerReference| json!({"kind": owner.kind, "name": owner.name, "controller": owner.controller});
        let metadata = &mut value["metadata"];
        metadata["labels"] = json!(meta.labels);
        metadata["annotations"] = json!(meta.annotations);
        metadata["ownerReferences"] = owners.map(owner).collect();
        if let Some(time) = &meta.creation_timestamp {
            metadata["creationTimestamp"] = time.to_string().into();
        }
    }
    value
}

/// AuthorizationPolicies by namespace, the oldest first.
pub(super) async fn authorizationz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let snapshot = state.pusher.snapshot();
    let mut namespaces: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for policy in snapshot.authorization.iter() {
        let entry = json!({
            "name": &*policy.name,
            "namespace": &*policy.namespace,
            "annotations": policy.annotations,
            "spec": serde_json::to_value(&*policy.spec).unwrap_or_default(),
        });
        namespaces.entry(&policy.namespace).or_default().push(entry);
    }
    let policies = json!({"namespace_to_policies": namespaces, "root_namespace": snapshot.root_namespace()});
    Json(json!({"authorization_policies": policies}))
}

/// The MeshConfig in force.
pub(super) async fn mesh(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(serde_json::to_value(&*state.pusher.snapshot().mesh).unwrap_or_default())
}

/// The snapshot that proxies are brought to, and who lags.
pub(super) async fn push_status(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let clients = sorted_clients(&state);
    let lagging = clients.iter().filter(|client| client.types.values().any(|status| status.outstanding));
    let lagging: Vec<&str> = lagging.map(|client| &*client.peer.node.id).collect();
    Json(json!({
        "version": state.pusher.snapshot().version,
        "connected": clients.len(),
        "awaitingAck": lagging,
    }))
}

/// The authority: who signs, which roots are trusted and since when, and where a change of them is.
pub(super) async fn authority(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let status = state.options.authority.status();
    let roots = status.roots.iter().map(|root| {
        let mut value = certificate(&root.certificate);
        value["trustedSince"] = time(root.since);
        value["distributed"] = root.distributed.into();
        value["inFiles"] = root.in_files.into();
        value
    });
    let former = status.former.iter().map(|(signer, until)| {
        let mut value = certificate(signer);
        value["certificatesEnd"] = time(*until);
        value
    });
    Json(json!({
        "trustDomain": state.trust_domain.as_str(),
        "stage": status.stage.name(),
        "signer": certificate(&status.signer),
        "next": status.next.as_ref().map(certificate),
        "roots": roots.collect::<Vec<_>>(),
        "former": former.collect::<Vec<_>>(),
        "refused": status.refused,
    }))
}

fn certificate(certificate: &CaCertificate) -> Value {
    json!({
        "subject": certificate.subject,
        "serialNumber": certificate.serial_hex,
        "notBefore": time(certificate.not_before),
        "notAfter": time(certificate.not_after),
    })
}

fn time(time: SystemTime) -> Value {
    jiff::Timestamp::try_from(time).map_or(Value::Null, |time| format!("{time:.0}").into())
}
