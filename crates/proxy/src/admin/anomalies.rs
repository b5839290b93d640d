//! `/anomalies`: the conditions of endpoints and routes that anomaly detection watches. Our own; Envoy has none.

use super::{AdminState, config_dump, pretty};
use crate::anomalies::{Entity, Finding};
use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};
use std::sync::Arc;

pub async fn anomalies(State(state): State<Arc<AdminState>>) -> Response {
    let conditions: Vec<Value> = state.anomalies.findings().iter().map(condition).collect();
    pretty(&json!({ "conditions": conditions }))
}

/// In the shape of a Kubernetes condition.
fn condition(Finding { entity, policy, condition }: &Finding) -> Value {
    let entity = match entity {
        Entity::Endpoint { cluster, endpoint } => json!({ "cluster": &**cluster, "endpoint": endpoint }),
        Entity::Route(key) => json!({
            "route_configuration": &*key.route_configuration,
            "virtual_host": &*key.virtual_host,
            "route": &*key.route,
        }),
    };
    json!({
        "entity": entity,
        "policy": &**policy,
        "type": "Anomalous",
        "status": if condition.active { "True" } else { "False" },
        "reason": condition.reason.as_str(),
        "message": condition.message(),
        "last_transition_time": condition.last_transition.map(config_dump::timestamp),
        "score": condition.score,
    })
}
