//! `/config_dump` in Envoy's shape, with private keys redacted.

use super::{AdminState, Parameters, pretty};
use crate::configurator::{Configurator, Source};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use meltemi_proto::Any;
use meltemi_proto::json::{Secrets, any_to_value};
use meltemi_xds::types;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;

const PREFIX: &str = "type.googleapis.com/envoy.admin.v3.";

pub async fn config_dump(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let name = match parameters.get("name_regex").map(|text| regex::Regex::new(text)).transpose() {
        Ok(name) => name,
        Err(e) => return (StatusCode::BAD_REQUEST, format!("invalid name_regex: {e}\n")).into_response(),
    };
    let keep = |found: &str| name.as_ref().is_none_or(|pattern| pattern.is_match(found));
    let configurator = state.configurator.lock();
    let mut sections = vec![
        json!({ "@type": format!("{PREFIX}BootstrapConfigDump"), "bootstrap": bare(any_to_value(&state.bootstrap, Secrets::Redacted)) }),
        clusters(&configurator, &keep),
    ];
    if parameters.contains_key("include_eds") {
        sections.push(endpoints(&configurator, &keep));
    }
    sections.extend([listeners(&configurator, &keep), routes(&configurator, &keep), secrets(&configurator, &keep)]);
    drop(configurator);
    meltemi_proto::json::release_descriptors();
    let Some(wanted) = parameters.get("resource") else { return pretty(&json!({ "configs": sections })) };
    let found: Vec<Value> = sections
        .iter()
        .filter_map(|section| section.get(wanted))
        .flat_map(|list| list.as_array().cloned())
        .flatten()
        .collect();
    if found.is_empty() {
        return (StatusCode::NOT_FOUND, format!("{wanted} not found in config dump\n")).into_response();
    }
    pretty(&json!({ "configs": found }))
}

/// A message that is a field of its own kind carries no `@type`.
fn bare(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.remove("@type");
    }
    value
}

/// Seconds with milliseconds, in UTC, as protobuf's timestamps are written.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (days, rest) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
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

fn entry(source: &Source, type_url: &str, field: &str) -> Value {
    let any = Any { type_url: type_url.to_owned(), value: Bytes::copy_from_slice(&source.body) };
    json!({
        "version_info": &*source.version,
        field: any_to_value(&any, Secrets::Redacted),
        "last_updated": timestamp(source.updated),
    })
}

fn clusters(configurator: &Configurator, keep: &dyn Fn(&str) -> bool) -> Value {
    let mut section = json!({ "@type": format!("{PREFIX}ClustersConfigDump") });
    let (mut fixed, mut active, mut warming) = (Vec::new(), Vec::new(), Vec::new());
    for (held, is_active) in configurator.held_clusters().filter(|(held, _)| keep(&held.plan.name)) {
        let value = || entry(&held.source, types::CLUSTER, "cluster");
        match (held.source.fixed, is_active) {
            (true, _) => fixed.push(json!({ "cluster": { "name": &*held.plan.name } })),
            (false, true) => active.push(value()),
            (false, false) => warming.push(value()),
        }
    }
    section["static_clusters"] = json!(fixed);
    section["dynamic_active_clusters"] = json!(active);
    section["dynamic_warming_clusters"] = json!(warming);
    section
}

fn listeners(configurator: &Configurator, keep: &dyn Fn(&str) -> bool) -> Value {
    let (mut fixed, mut dynamic) = (Vec::new(), Vec::new());
    for (held, is_active) in configurator.held_listeners().filter(|(held, _)| keep(&held.plan.name)) {
        if held.source.fixed {
            fixed.push(json!({ "listener": { "name": &*held.plan.name } }));
        } else {
            let state = if is_active { "active_state" } else { "warming_state" };
            dynamic.push(json!({ "name": &*held.plan.name, state: entry(&held.source, types::LISTENER, "listener") }));
        }
    }
    json!({ "@type": format!("{PREFIX}ListenersConfigDump"), "static_listeners": fixed, "dynamic_listeners": dynamic })
}

fn routes(configurator: &Configurator, keep: &dyn Fn(&str) -> bool) -> Value {
    let held = configurator.held_routes().filter(|held| keep(&held.plan.name));
    let dynamic: Vec<Value> = held.map(|held| entry(&held.source, types::ROUTE, "route_config")).collect();
    json!({ "@type": format!("{PREFIX}RoutesConfigDump"), "dynamic_route_configs": dynamic })
}

fn endpoints(configurator: &Configurator, keep: &dyn Fn(&str) -> bool) -> Value {
    let held = configurator.held_assignments().filter(|(name, _)| keep(name));
    let dynamic: Vec<Value> = held.map(|(_, source)| entry(source, types::ENDPOINT, "endpoint_config")).collect();
    json!({ "@type": format!("{PREFIX}EndpointsConfigDump"), "dynamic_endpoint_configs": dynamic })
}

/// Names and lifetimes; certificates without their keys are in `/certs`.
fn secrets(configurator: &Configurator, keep: &dyn Fn(&str) -> bool) -> Value {
    let certificates = configurator.secrets.certificates();
    let active: Vec<Value> = certificates
        .iter()
        .filter(|(name, _)| keep(name))
        .map(|(name, identity)| {
            json!({ "name": &**name, "last_updated": timestamp(identity.info().not_before),
                "secret": { "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": &**name } })
        })
        .collect();
    let warming: Vec<Value> = configurator.secrets.missing().iter().map(|name| json!({ "name": &**name })).collect();
    json!({ "@type": format!("{PREFIX}SecretsConfigDump"), "dynamic_active_secrets": active, "dynamic_warming_secrets": warming })
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
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_244_399, "2026-11-21T06:59:59.000Z"),
        ] {
            assert_eq!(timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
