//! `/stats` and `/logging`.

use super::{AdminState, Parameters, pretty, text};
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use meltemi_telemetry::logging::{COMPONENTS, Logging};
use meltemi_telemetry::metrics::Filter;
use std::collections::BTreeMap;
use std::sync::Arc;

pub async fn stats(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    answer(&state, &parameters, parameters.get("format").map(String::as_str))
}

pub async fn prometheus(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    answer(&state, &parameters, Some("prometheus"))
}

fn answer(state: &AdminState, parameters: &BTreeMap<String, String>, format: Option<&str>) -> Response {
    let pattern = match parameters.get("filter").map(|text| regex::Regex::new(text)).transpose() {
        Ok(pattern) => pattern,
        Err(e) => return (StatusCode::BAD_REQUEST, format!("invalid filter: {e}\n")).into_response(),
    };
    let matches = |name: &str| pattern.as_ref().is_none_or(|pattern| pattern.is_match(name));
    let name: Option<&dyn Fn(&str) -> bool> = if pattern.is_some() { Some(&matches) } else { None };
    let filter = Filter { used_only: parameters.contains_key("usedonly"), name };
    match format {
        Some("json") => pretty(&state.registry.json(&filter)),
        Some("prometheus") => {
            let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
            (kind, state.registry.prometheus(&filter)).into_response()
        }
        _ => text(state.registry.text(&filter)),
    }
}

/// The levels of all components.
pub fn levels(logging: &Logging) -> String {
    let levels = logging.levels();
    let lines = COMPONENTS.iter().map(|component| format!("  {component}: {}\n", levels.level(component).name()));
    format!("active loggers:\n{}", lines.collect::<String>())
}

/// `?level=L` for all, `?paths=a:L,b:L` for some, `?COMPONENT=L` for one.
pub fn set_levels(logging: &Logging, parameters: &BTreeMap<String, String>) -> Result<(), String> {
    let set = |component: Option<&str>, level: &str| {
        let level = level.parse().map_err(|e| format!("{e}"))?;
        logging.set(component, level).map_err(|e| e.to_string())
    };
    for (key, value) in parameters {
        match key.as_str() {
            "level" => set(None, value)?,
            "paths" => {
                for pair in value.split(',') {
                    let (component, level) =
                        pair.split_once(':').ok_or_else(|| format!("{pair:?} is not component:level"))?;
                    set(Some(component), level)?;
                }
            }
            component => set(Some(component), value)?,
        }
    }
    Ok(())
}
