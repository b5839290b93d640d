//! The value of a patch, read as the message of Envoy's that it is to be part of.
//!
//! What cannot be part of it is an error; a field or a type that our descriptors do not have is a warning, since Envoy may
//! be newer than they are. Decodes the descriptors at first use, which takes some 30 MB.

use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::core::v3::TypedExtensionConfig;
use meltemi_proto::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use meltemi_proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost};
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use meltemi_proto::json::{self, JsonError};
use meltemi_proto::prost::{Message, Name};
use serde_json::{Map, Value};

use super::super::{Finding, Validation};
use crate::networking::ApplyTo;
use crate::path::Path;

/// Of one value: each costs a reading.
const MAX_WARNINGS: usize = 50;

/// Packages whose types Envoy may know though they are not among our descriptors.
const PACKAGES: &[&str] = &["envoy.", "google.", "istio.", "opentelemetry.", "udpa.", "xds."];

type Read = fn(&Value) -> Result<(), JsonError>;

fn read<M: Message + Name + Default>(value: &Value) -> Result<(), JsonError> {
    json::from_value::<M>(value).map(drop)
}

fn reader(apply_to: ApplyTo) -> Option<Read> {
    Some(match apply_to {
        ApplyTo::Invalid => return None,
        ApplyTo::Listener => read::<Listener>,
        ApplyTo::FilterChain => read::<FilterChain>,
        ApplyTo::NetworkFilter => read::<Filter>,
        ApplyTo::HttpFilter => read::<HttpFilter>,
        ApplyTo::RouteConfiguration => read::<RouteConfiguration>,
        ApplyTo::VirtualHost => read::<VirtualHost>,
        ApplyTo::HttpRoute => read::<Route>,
        ApplyTo::Cluster => read::<Cluster>,
        ApplyTo::ExtensionConfig => read::<TypedExtensionConfig>,
        ApplyTo::Bootstrap => read::<Bootstrap>,
        ApplyTo::ListenerFilter => read::<ListenerFilter>,
    })
}

/// Checks a value; reads it again without each part that nobody here knows.
pub(super) fn check(value: &Map<String, Value>, apply_to: ApplyTo, at: &Path<'_>, v: &mut Validation) {
    let Some(read) = reader(apply_to) else { return };
    types(value, at, v);
    let mut value = Value::Object(value.clone());
    for _ in 0..MAX_WARNINGS {
        let Err(error) = read(&value) else { return };
        let separator = if error.path.is_empty() || error.path.starts_with('[') { "" } else { "." };
        let found = Finding { path: format!("{at}{separator}{}", error.path), message: error.message };
        // Said already, by `types`.
        let type_unknown = found.message.starts_with(UNKNOWN_TYPE);
        let newer = found.message.starts_with("unknown field of ") || type_unknown;
        if !newer || !remove(&mut value, &error.path) {
            v.errors.push(found);
            return;
        }
        if !type_unknown {
            v.warnings.push(found);
        }
    }
}

const UNKNOWN_TYPE: &str = "unknown message type";

/// Looks for types that are not among our descriptors: a warning if they may be among Envoy's, else an error.
fn types(fields: &Map<String, Value>, at: &Path<'_>, v: &mut Validation) {
    if let Some(url) = fields.get("@type").and_then(Value::as_str).filter(|url| !json::is_known(url)) {
        let name = url.rsplit('/').next().unwrap_or_default();
        // Those of its second API are not.
        let gone = name.starts_with("envoy.") && (name.contains(".v2.") || name.contains(".v2alpha"));
        if gone {
            v.error(at, format_args!("{UNKNOWN_TYPE} {url:?}; Envoy's API is v3 now"));
        } else if PACKAGES.iter().any(|package| name.starts_with(package)) {
            v.warn(at, format_args!("{UNKNOWN_TYPE} {url:?}: what it holds is not checked"));
        } else {
            v.error(at, format_args!("{UNKNOWN_TYPE} {url:?}"));
        }
    }
    for (name, inner) in fields {
        let at = at.field(name);
        match name.as_str() {
            "typed_config" | "typedConfig" => typed(inner, &at, v),
            "typed_per_filter_config" | "typedPerFilterConfig" => {
                inner.as_object().into_iter().flatten().for_each(|(name, inner)| typed(inner, &at.field(name), v));
            }
            _ => {}
        }
        inner_types(inner, &at, v);
    }
}

/// Refuses what should be a message of any type and says of none which.
fn typed(value: &Value, at: &Path<'_>, v: &mut Validation) {
    v.require(at, !value.as_object().is_some_and(Map::is_empty), "Any JSON doesn't have '@type'");
}

fn inner_types(value: &Value, at: &Path<'_>, v: &mut Validation) {
    match value {
        Value::Object(fields) => types(fields, at, v),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, item)| inner_types(item, &at.index(i), v)),
        _ => {}
    }
}

/// Takes away what is at a path; false if nothing is there.
fn remove(value: &mut Value, path: &str) -> bool {
    let steps = steps(path);
    let Some((last, above)) = steps.split_last() else { return false };
    let mut holder = value;
    for step in above {
        let inner = match holder {
            Value::Array(items) => step.parse::<usize>().ok().and_then(|i| items.get_mut(i)),
            Value::Object(fields) => fields.get_mut(step),
            _ => None,
        };
        let Some(inner) = inner else { return false };
        holder = inner;
    }
    match holder {
        Value::Object(fields) => fields.shift_remove(last).is_some(),
        // An element keeps its place, so that paths of others stay right.
        Value::Array(items) => match last.parse::<usize>().ok().and_then(|i| items.get_mut(i)) {
            Some(item) if item.as_object().is_some_and(|fields| !fields.is_empty()) => {
                *item = Value::Object(Map::new());
                true
            }
            _ => false,
        },
        _ => false,
    }
}

/// The steps of a path such as `a.b[0]["c.d"]`.
fn steps(path: &str) -> Vec<String> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        rest = rest.strip_prefix('.').unwrap_or(rest);
        let (step, after) = if let Some(quoted) = rest.strip_prefix("[\"") {
            quoted.split_once("\"]").unwrap_or((quoted, ""))
        } else if let Some(index) = rest.strip_prefix('[') {
            index.split_once(']').unwrap_or((index, ""))
        } else {
            rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()))
        };
        steps.push(step.to_owned());
        rest = after;
    }
    steps
}
