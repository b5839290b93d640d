//! `/config_dump` in Envoy's shape, with private keys redacted.

mod mask;
mod sections;

use super::{AdminState, Parameters, pretty, refused, text};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use mask::Mask;
use sections::Sections;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

pub async fn config_dump(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let dumped = dump(&state, &parameters);
    meltemi_proto::json::release_descriptors();
    match dumped {
        Ok(configs) => pretty(&json!({ "configs": configs })),
        Err(Refusal::Unknown(resource)) => {
            (StatusCode::NOT_FOUND, text(format!("{resource} not found in config dump"))).into_response()
        }
        Err(Refusal::Wrong(reason)) => refused(reason),
    }
}

enum Refusal {
    /// Nothing of this name is dumped.
    Unknown(String),
    Wrong(String),
}

fn dump(state: &AdminState, parameters: &BTreeMap<String, String>) -> Result<Vec<Value>, Refusal> {
    let name = super::pattern(parameters, "name_regex").map_err(Refusal::Wrong)?;
    let mask = parameters.get("mask").filter(|mask| !mask.is_empty()).map(|mask| Mask::parse(mask));
    let resource = parameters.get("resource").filter(|resource| !resource.is_empty());
    let wants_endpoints = resource.is_some_and(|resource| resource.ends_with("endpoint_configs"));
    let sections =
        Sections { state, name: name.as_ref(), include_eds: parameters.contains_key("include_eds") || wants_endpoints };
    let mut configs = sections.all();
    if let Some(resource) = resource {
        configs = configs.iter().flat_map(|section| elements(section, resource)).collect();
        if configs.is_empty() {
            return Err(Refusal::Unknown(resource.clone()));
        }
    }
    let Some(mask) = mask else { return Ok(configs) };
    let kept: Vec<Value> = configs.iter().filter_map(|config| mask.apply(config)).collect();
    if kept.is_empty() {
        return Err(Refusal::Wrong(format!("FieldMask {mask} could not be successfully applied to any configs.")));
    }
    Ok(kept)
}

/// The entries of one list of a section, each as a message of its own.
fn elements(section: &Value, list: &str) -> Vec<Value> {
    let kind = section["@type"].as_str().unwrap_or_default();
    let entries = match section.get(list) {
        Some(Value::Array(entries)) => entries.clone(),
        Some(message @ Value::Object(_)) => vec![message.clone()],
        _ => Vec::new(),
    };
    let typed = |mut entry: Value| {
        if let Some(name) = sections::element_type(list) {
            entry["@type"] = format!("{kind}.{name}").into();
        }
        entry
    };
    entries.into_iter().map(typed).collect()
}

/// In UTC, with milliseconds unless there are none, as protobuf's timestamps are written.
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let fraction = match since.subsec_millis() {
        0 => String::new(),
        millis => format!(".{millis:03}"),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// The proleptic Gregorian date of a day since 1970-01-01.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// `envoy.config.core.v3.Address` of a plan's address.
pub fn address(address: &meltemi_plan::Address) -> Value {
    match address {
        meltemi_plan::Address::Socket(socket) => {
            json!({ "socket_address": { "address": socket.ip().to_string(), "port_value": socket.port() } })
        }
        meltemi_plan::Address::Name { host, port } => {
            json!({ "socket_address": { "address": &**host, "port_value": port } })
        }
        meltemi_plan::Address::Pipe { path, .. } => json!({ "pipe": { "path": path.display().to_string() } }),
        meltemi_plan::Address::Internal { listener, endpoint } => {
            json!({ "envoy_internal_address": { "server_listener_name": &**listener, "endpoint_id": &**endpoint } })
        }
    }
}

/// The same of an endpoint's address.
pub fn host_address(address: &meltemi_net::Address) -> Value {
    match address {
        meltemi_net::Address::Socket(socket) => {
            json!({ "socket_address": { "address": socket.ip().to_string(), "port_value": socket.port() } })
        }
        meltemi_net::Address::Unix(path) => json!({ "pipe": { "path": path.display().to_string() } }),
        meltemi_net::Address::Unnamed => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn timestamps_are_dates() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_244_399_050, "2026-11-21T06:59:59.050Z"),
        ] {
            assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_millis(millis)), text);
        }
    }
}
