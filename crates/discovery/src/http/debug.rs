//! Debug pages, in istiod's shapes.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use axum::body::{Body, to_bytes};
use axum::extract::{Query, Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use axum::{Extension, Json, Router};
use meltemi_ca::CaCertificate;
use meltemi_config::{Key, Kind, Object, OwnerReference, gateway_api};
use meltemi_gateway_api::Catalogue;
use meltemi_gateway_api::status::Status;
use meltemi_model::Snapshot;
use meltemi_push::{ClientStatus, TypeStatus};
use meltemi_store::ConfigSet;
use meltemi_xds::Variant;
use meltemi_xds::types::{self, CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, NAME_TABLE, ROUTE, SECRET};
use serde_json::{Value, json};

use super::{dump, inventory, registry};
use crate::State;
use crate::clearance::Clearance;

/// What istioctl looks for to tell its user which pages there are.
pub(super) const NO_SUCH_PAGE: &str = "404 page not found\n";
pub(super) const NO_SUCH_PROXY: &str =
    "Proxy not connected to this Pilot instance. It may be connected to another instance.\n";

pub(super) type Parameters = Query<HashMap<String, String>>;

/// The pages: name, what it shows, who makes it.
fn pages() -> [(&'static str, &'static str, MethodRouter<Arc<State>>); 24] {
    [
        ("adsz", "Connections and what they subscribe to", get(adsz)),
        ("authorityz", "The certificate authority and its roots", get(authority)),
        ("authorizationz", "Authorization policies", get(authorizationz)),
        (
            "cachez",
            "Resources that are remembered, by type; sizes=true for their bytes, clear=true to forget them",
            get(inventory::cachez),
        ),
        ("clusterz", "The cluster whose endpoints are read", get(clusterz)),
        ("config_dump", "What the proxy of proxyID would be sent, as Envoy's config dump", get(config_dump)),
        ("configz", "Configuration objects in force; kinds=all for those of Kubernetes too", get(configz)),
        ("connections", "Connections", get(connections)),
        ("ecdsz", "Extensions of the proxy of proxyID", get(ecdsz)),
        ("edsz", "Endpoints of the proxy of proxyID", get(edsz)),
        ("endpointShardz", "Endpoints by service", get(endpoint_shardz)),
        ("endpointz", "Obsolete, use endpointShardz", get(endpoint_shardz)),
        ("inject", "Templates of injection in force", get(inventory::inject)),
        ("instancesz", "Services that each proxy serves", get(inventory::instancesz)),
        ("mesh", "The mesh configuration in force", get(mesh)),
        ("ndsz", "The name table of the proxy of proxyID", get(ndsz)),
        ("networkz", "Gateways between networks", get(inventory::networkz)),
        ("push_status", "The snapshot that proxies are brought to, and who lags", get(push_status)),
        ("pushcontext", "Policies and gateways between networks of the current snapshot", get(inventory::pushcontext)),
        ("registryz", "Services", get(registryz)),
        ("resourcesz", "Kinds that are read", get(inventory::resourcesz)),
        ("sidecarz", "What the proxy of proxyID imports", get(inventory::sidecarz)),
        ("syncz", "What every proxy has been sent and has accepted", get(syncz)),
        ("telemetryz", "Telemetry resources", get(inventory::telemetryz)),
    ]
}

/// All pages, for requests that carry a [`Clearance`].
pub(super) fn router(state: Arc<State>) -> Router {
    let index = Router::new().route("/debug", get(index)).route("/debug/list", get(list));
    let add = |router: Router<Arc<State>>, (name, _, page)| router.route(&format!("/debug/{name}"), page);
    let router = pages().into_iter().fold(index, add);
    let router = router.route("/debug/{*page}", get(|| async { (StatusCode::NOT_FOUND, NO_SUCH_PAGE) }));
    router.layer(axum::middleware::from_fn(pretty)).with_state(state)
}

/// Indents JSON where the query says `pretty`.
async fn pretty(request: Request, next: Next) -> Response {
    let mut parameters = request.uri().query().unwrap_or_default().split('&');
    let wanted = parameters.any(|parameter| parameter == "pretty" || parameter.starts_with("pretty="));
    let response = next.run(request).await;
    if !wanted {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let indented = serde_json::from_slice::<Value>(&bytes).and_then(|value| serde_json::to_vec_pretty(&value));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(indented.map_or(bytes, Into::into)))
}

async fn index() -> Html<String> {
    let row =
        |(name, help, _)| format!("<tr><td><a href=\"/debug/{name}\">/debug/{name}</a></td><td>{help}</td></tr>\n");
    let rows: String = pages().into_iter().map(row).collect();
    Html(format!(
        "<!doctype html>\n<title>Debug pages</title>\n<p>With ?pretty the output is indented.</p>\n<table>\n{rows}</table>\n"
    ))
}

/// The names of pages, as `istioctl x internal-debug --list` prints them.
async fn list() -> Json<Vec<&'static str>> {
    Json(pages().into_iter().map(|(name, ..)| name).collect())
}

/// One entry for each proxy: what was sent and what it accepted, by type.
async fn syncz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let clients = sorted_clients(&state);
    let proxies = clients.iter().filter(|client| client.is_proxy());
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
    let (mut errors, mut resources) = (serde_json::Map::new(), serde_json::Map::new());
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
        resources.insert(type_url.to_string(), resource_status(found));
        if let Some(rejection) = &found.rejection {
            errors.insert(types::short_name(type_url).to_owned(), rejection.as_str().into());
        }
    }
    status["resources"] = Value::Object(resources);
    if !errors.is_empty() {
        status["errors"] = Value::Object(errors);
    }
    status
}

fn resource_status(status: &TypeStatus) -> Value {
    let mut value = json!({ "sent": status.sent_nonce, "acked": status.acked_nonce });
    if let Some(sent) = status.sent_at {
        value["sentTime"] = time(sent);
    }
    if let Some(rejection) = &status.rejection {
        value["lastError"] = rejection.as_str().into();
    }
    value
}

/// Connections and their subscriptions.
async fn adsz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let clients = sorted_clients(&state);
    let entry = |client: &ClientStatus| {
        let watches = client.types.iter().map(|(type_url, status)| {
            let watch = json!({
                "resources": status.resources,
                "nonceSent": status.sent_nonce,
                "nonceAcked": status.acked_nonce,
                "sentTime": status.sent_at.map(time),
                "outstanding": status.outstanding,
                "error": status.rejection,
            });
            (type_url.to_string(), watch)
        });
        let node = &client.peer.node;
        let mut entry = connection(client);
        entry["connectedForSeconds"] = client.connected_for.as_secs().into();
        entry["identity"] = json!(client.peer.identity);
        entry["variant"] = variant(client.peer.variant).into();
        entry["labels"] = json!(node.labels.iter().map(|(key, value)| (&**key, &**value)).collect::<BTreeMap<_, _>>());
        entry["metadata"] = json!(node.metadata);
        entry["watches"] = Value::Object(watches.collect());
        entry
    };
    Json(json!({ "totalClients": clients.len(), "clients": clients.iter().map(entry).collect::<Vec<_>>() }))
}

async fn connections(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    let clients = sorted_clients(&state);
    Json(json!({ "totalClients": clients.len(), "clients": clients.iter().map(connection).collect::<Vec<_>>() }))
}

fn connection(client: &ClientStatus) -> Value {
    json!({
        "connectionId": &*client.peer.node.id,
        "connectedAt": time(SystemTime::now() - client.connected_for),
        "address": client.peer.address,
    })
}

fn variant(variant: Variant) -> &'static str {
    match variant {
        Variant::Delta => "delta",
        Variant::StateOfTheWorld => "sotw",
    }
}

/// What a proxy would be sent now, as Envoy's config dump; with `types` its resources of these types and no more.
async fn config_dump(state: Shared<Arc<State>>, clearance: Extension<Clearance>, Query(query): Parameters) -> Response {
    let types = query.get("types").cloned().unwrap_or_default();
    dump_of(&state, &clearance, &query, &types)
}

async fn edsz(state: Shared<Arc<State>>, clearance: Extension<Clearance>, Query(query): Parameters) -> Response {
    dump_of(&state, &clearance, &query, "eds")
}

async fn ndsz(state: Shared<Arc<State>>, clearance: Extension<Clearance>, Query(query): Parameters) -> Response {
    dump_of(&state, &clearance, &query, "nds")
}

async fn ecdsz(state: Shared<Arc<State>>, clearance: Extension<Clearance>, Query(query): Parameters) -> Response {
    dump_of(&state, &clearance, &query, "ecds")
}

/// `types` are short names with commas between them; none are all of a config dump.
fn dump_of(state: &State, clearance: &Clearance, query: &HashMap<String, String>, types: &str) -> Response {
    let Some(proxy) = query.get("proxyID") else {
        return (StatusCode::BAD_REQUEST, "You must provide a proxyID in the query string\n").into_response();
    };
    let mut wanted = Vec::new();
    for name in types.split(',').filter(|name| !name.is_empty()) {
        let Some(type_url) = type_of(name) else {
            return (StatusCode::BAD_REQUEST, format!("types: {name:?} is not a type of resources\n")).into_response();
        };
        wanted.push(type_url);
    }
    match state.pusher.resources_of(proxy, |node| clearance.covers(node)) {
        Some(resources) if wanted.is_empty() => Json(dump::config_dump(&resources)).into_response(),
        Some(resources) => Json(dump::resources(&resources, &wanted)).into_response(),
        None => (StatusCode::NOT_FOUND, NO_SUCH_PROXY).into_response(),
    }
}

/// The type of a short name, such as `cds`, or of its type URL.
fn type_of(name: &str) -> Option<&'static str> {
    let known = [CLUSTER, LISTENER, ROUTE, ENDPOINT, SECRET, EXTENSION_CONFIG, NAME_TABLE];
    known.into_iter().find(|type_url| *type_url == name || types::short_name(type_url) == name)
}

/// The one cluster whose objects are read, in the form of istiod's list of them.
async fn clusterz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(json!([{"id": state.options.cluster_id, "secretName": "", "syncStatus": "synced"}]))
}

/// Services.
async fn registryz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(registry::services(&state.pusher.snapshot(), &state.options.cluster_id))
}

/// Endpoints by service.
async fn endpoint_shardz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(registry::endpoints(&state.pusher.snapshot(), &state.options.cluster_id))
}

/// Configuration objects in force; with `kinds=all` those of Kubernetes too, with all that they are read for. Secrets are
/// listed without their content, objects of the Gateway API with their status.
async fn configz(Shared(state): Shared<Arc<State>>, Query(query): Parameters) -> Json<Value> {
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
    meltemi_gateway_api::statuses(&catalogue, &state.gateway_settings(set), &*state.pusher.snapshot())
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

async fn authorizationz(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(json!({"authorization_policies": authorization_policies(&state.pusher.snapshot())}))
}

/// AuthorizationPolicies by namespace, the oldest first.
pub(super) fn authorization_policies(snapshot: &Snapshot) -> Value {
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
    json!({"namespace_to_policies": namespaces, "root_namespace": snapshot.root_namespace()})
}

/// The MeshConfig in force.
async fn mesh(Shared(state): Shared<Arc<State>>) -> Json<Value> {
    Json(serde_json::to_value(&*state.pusher.snapshot().mesh).unwrap_or_default())
}

/// The snapshot that proxies are brought to, and who lags.
async fn push_status(Shared(state): Shared<Arc<State>>) -> Json<Value> {
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
async fn authority(Shared(state): Shared<Arc<State>>) -> Json<Value> {
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
