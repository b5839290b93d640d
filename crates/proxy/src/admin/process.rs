//! Commands about the process itself, most of which have little to say here.

use super::{AdminState, pretty, text};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use meltemi_plan::bootstrap::RuntimeLayer;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const PAGE: u64 = 4096;

/// What the system counts; the allocator is not asked.
pub async fn memory() -> Response {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = pages.split_whitespace().map(|pages| pages.parse::<u64>().unwrap_or(0) * PAGE);
    let (size, resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    pretty(&json!({
        "allocated": resident.saturating_sub(shared).to_string(),
        "heap_size": resident.to_string(),
        "pageheap_unmapped": size.saturating_sub(resident).to_string(),
        "pageheap_free": "0",
        "total_thread_cache": "0",
        "total_physical_bytes": resident.to_string(),
    }))
}

pub async fn hot_restart_version() -> Response {
    text("disabled")
}

pub async fn contention() -> Response {
    text("Mutex contention is not traced.\n")
}

/// Clusters and listeners that wait for something.
pub async fn init_dump(State(state): State<Arc<AdminState>>) -> Response {
    let configurator = state.configurator.lock();
    let clusters = configurator.held_clusters().filter(|(_, active)| !active).map(|(held, _)| held.plan.name.clone());
    let listeners = configurator.held_listeners().filter(|(_, active)| !active).map(|(held, _)| held.plan.name.clone());
    let named = |kind: &str, name: Arc<str>| json!({ "name": format!("{kind} {name}") });
    let waiting: Vec<Value> =
        clusters.map(|name| named("cluster", name)).chain(listeners.map(|name| named("listener", name))).collect();
    pretty(&if waiting.is_empty() { json!({}) } else { json!({ "unready_targets_dumps": waiting }) })
}

/// The bootstrap's layers and what each key comes to: the last layer that has it wins.
pub async fn runtime(State(state): State<Arc<AdminState>>) -> Response {
    pretty(&runtime_values(&state.runtime))
}

fn runtime_values(layers: &[RuntimeLayer]) -> Value {
    let mut entries: Map<String, Value> = Map::new();
    for (index, layer) in layers.iter().enumerate() {
        for (key, value) in flattened(&layer.values) {
            let entry = entries.entry(key).or_insert_with(|| json!({ "layer_values": vec![""; layers.len()] }));
            entry["layer_values"][index] = value.clone().into();
            entry["final_value"] = value.into();
        }
    }
    json!({ "layers": layers.iter().map(|layer| &*layer.name).collect::<Vec<_>>(), "entries": entries })
}

/// Nested objects are keys with dots.
fn flattened(value: &Value) -> Vec<(String, String)> {
    let Some(fields) = value.as_object() else { return Vec::new() };
    let mut out = Vec::new();
    for (key, value) in fields {
        match value {
            Value::Object(_) => {
                out.extend(flattened(value).into_iter().map(|(rest, value)| (format!("{key}.{rest}"), value)));
            }
            Value::String(value) => out.push((key.clone(), value.clone())),
            other => out.push((key.clone(), other.to_string())),
        }
    }
    out
}

/// Values are read when configuration is built, so that there is no layer to change.
pub async fn runtime_modify() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, text("No admin layer specified")).into_response()
}

pub async fn no_profiler() -> Response {
    (StatusCode::NOT_IMPLEMENTED, text("There is no profiler in the process; use perf.\n")).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_layer_wins() {
        let layer = |name: &str, values| RuntimeLayer { name: name.into(), values };
        let layers = [layer("a", json!({ "x": { "y": 1 }, "z": true })), layer("b", json!({ "x.y": 2 }))];
        let expected = json!({ "layers": ["a", "b"], "entries": {
            "x.y": { "layer_values": ["1", "2"], "final_value": "2" },
            "z": { "layer_values": ["true", ""], "final_value": "true" },
        } });
        assert_eq!(runtime_values(&layers), expected);
    }
}
