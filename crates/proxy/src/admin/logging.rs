//! `/logging` and `/reopen_logs`.

use super::{AdminState, Parameters, refused, text};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use meltemi_telemetry::logging::{COMPONENTS, Logging};
use std::collections::BTreeMap;
use std::sync::Arc;

const USAGE: &str = "
usage: /logging?<name>=<level> (change single level)
usage: /logging?paths=name1:level1,name2:level2,... (change multiple levels)
usage: /logging?level=<level> (change all levels)
levels: trace debug info warning error critical off
";

pub async fn levels(State(state): State<Arc<AdminState>>) -> Response {
    match &state.logging {
        Some(logging) => text(listed(logging)),
        None => not_ours(),
    }
}

pub async fn set(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let Some(logging) = &state.logging else { return not_ours() };
    match set_levels(logging, &parameters) {
        Ok(()) => text(listed(logging)),
        Err(reason) => refused(format!("error: {reason}\n{USAGE}{}", listed(logging))),
    }
}

/// Opens the files of the process's log and of access logs anew.
pub async fn reopen(State(state): State<Arc<AdminState>>) -> Response {
    state.reopen_logs();
    text("OK\n")
}

fn not_ours() -> Response {
    (StatusCode::NOT_FOUND, text("logging is not ours\n")).into_response()
}

/// The levels of all components.
fn listed(logging: &Logging) -> String {
    let levels = logging.levels();
    let lines = COMPONENTS.iter().map(|component| format!("  {component}: {}\n", levels.level(component).name()));
    format!("active loggers:\n{}", lines.collect::<String>())
}

/// `?level=L` for all, `?paths=a:L,b:L` for some, `?group=a:L` or `?COMPONENT=L` for one; `?level=` alone changes nothing.
fn set_levels(logging: &Logging, parameters: &BTreeMap<String, String>) -> Result<(), String> {
    let set = |component: Option<&str>, level: &str| {
        let level = level.parse().map_err(|e| format!("{e}"))?;
        logging.set(component, level).map_err(|e| e.to_string())
    };
    for (key, value) in parameters {
        match key.as_str() {
            "level" if value.is_empty() => {}
            "level" => set(None, value)?,
            "paths" | "group" => {
                for pair in value.split(',').filter(|pair| !pair.is_empty()) {
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
