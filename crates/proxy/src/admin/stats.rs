//! `/stats` and `/reset_counters`.

use super::{AdminState, Parameters, pretty, refused, text};
use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use meltemi_telemetry::metrics::{Buckets, Filter, KindName};
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn stats(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    answer(&state, &parameters, parameters.get("format").map(String::as_str)).unwrap_or_else(refused)
}

pub async fn prometheus(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    answer(&state, &parameters, Some("prometheus")).unwrap_or_else(refused)
}

pub async fn reset_counters(State(state): State<Arc<AdminState>>) -> Response {
    state.registry.reset_counters();
    text("OK\n")
}

/// Err: why the question is wrong.
fn answer(state: &AdminState, parameters: &BTreeMap<String, String>, format: Option<&str>) -> Result<Response, String> {
    let pattern = super::pattern(parameters, "filter")?;
    let inverted = parameters.contains_key("invert_filter");
    let matches = |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(name) != inverted);
    let name: Option<&dyn Fn(&str) -> bool> = if pattern.is_some() { Some(&matches) } else { None };
    let filter = Filter { used_only: parameters.contains_key("usedonly"), name, kind: kind(parameters)? };
    let buckets = buckets(parameters)?;
    Ok(match format {
        Some("json") => pretty(&state.registry.json(&filter)),
        Some("prometheus") => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, state.registry.prometheus(&filter)).into_response()
        }
        None | Some("text" | "") => text(state.registry.text_with(&filter, buckets)),
        Some(_) => return Err("usage: /stats?format=(json|prometheus|text)\n".to_owned()),
    })
}

fn kind(parameters: &BTreeMap<String, String>) -> Result<Option<KindName>, String> {
    Ok(match parameters.get("type").map(String::as_str) {
        None | Some("" | "All") => None,
        Some("Counters") => Some(KindName::Counters),
        Some("Gauges") => Some(KindName::Gauges),
        Some("Histograms") => Some(KindName::Histograms),
        Some("TextReadouts") => Some(KindName::TextReadouts),
        Some(_) => return Err("usage: /stats?type=(All|Counters|Gauges|Histograms|TextReadouts)\n".to_owned()),
    })
}

fn buckets(parameters: &BTreeMap<String, String>) -> Result<Buckets, String> {
    Ok(match parameters.get("histogram_buckets").map(String::as_str) {
        None | Some("" | "summary" | "none") => Buckets::Summary,
        Some("cumulative") => Buckets::Cumulative,
        Some("disjoint") => Buckets::Disjoint,
        Some(_) => return Err("usage: /stats?histogram_buckets=(cumulative|disjoint|summary)\n".to_owned()),
    })
}
