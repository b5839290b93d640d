//! The mesh's configuration as injection sees it: Istio's way of laying one ProxyConfig over another, and of writing down
//! only what differs from the default.

use meltemi_config::mesh::{MeshConfig, ProxyConfig};
use meltemi_config::{Problem, Severity, parse_mesh_config, parse_proxy_config};
use serde_json::{Map, Number, Value, json};

use super::document;
use super::values::merge_patch;

/// Fields of ProxyConfig that take one another's place.
const SERVICE_NAME: [&str; 2] = ["serviceCluster", "tracingServiceName"];
/// Headers of which an overlay that is silent leaves what was.
const KEPT_HEADERS: [&str; 5] = ["forwardedClientCert", "requestId", "attemptCount", "server", "envoyDebugHeaders"];

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not parse {what}: {problems}")]
pub struct MeshError {
    what: &'static str,
    problems: String,
}

impl MeshError {
    fn new(what: &'static str, problems: &[Problem]) -> Self {
        let errors = problems.iter().filter(|problem| problem.severity == Severity::Error);
        let lines: Vec<String> = errors.map(|problem| format!("{}: {}", problem.path, problem.message)).collect();
        Self { what, problems: lines.join("; ") }
    }
}

/// # Errors
/// When the text is no MeshConfig.
pub fn mesh_config(text: &str) -> Result<MeshConfig, MeshError> {
    let settings = parse_mesh_config("mesh", text).map_err(|problems| MeshError::new("mesh config", &problems))?;
    Ok(settings.value)
}

/// A JSON merge patch (RFC 7386) over a mesh configuration.
///
/// # Errors
/// When what comes of it is no MeshConfig.
pub fn patched(mesh: &MeshConfig, patch: &Value) -> Result<MeshConfig, MeshError> {
    let mut document = without_nulls(&json!(mesh));
    merge_patch(&mut document, patch);
    mesh_config(&document.to_string())
}

/// A ProxyConfig in YAML (the annotation `proxy.istio.io/config`) over another: what it says replaces, field by field;
/// `proxyMetadata` is joined.
///
/// # Errors
/// When the text, or what comes of it, is no ProxyConfig.
pub fn overlaid(base: &ProxyConfig, text: &str) -> Result<ProxyConfig, MeshError> {
    let wrong = |problems: Vec<Problem>| MeshError::new("proxy config", &problems);
    // For its own errors, with its own paths.
    parse_proxy_config("proxy config", text).map_err(wrong)?;
    let overlay: Option<Map<String, Value>> =
        document::read(text).map_err(|error| MeshError { what: "proxy config", problems: error.to_string() })?;
    let Value::Object(mut merged) = without_nulls(&json!(base)) else { return Ok(base.clone()) };
    for (name, value) in overlay.into_iter().flatten() {
        lay(&mut merged, camel_case(&name), value);
    }
    let settings = parse_proxy_config("proxy config", &Value::Object(merged).to_string()).map_err(wrong)?;
    Ok(settings.value)
}

fn lay(merged: &mut Map<String, Value>, name: String, value: Value) {
    if value.is_null() {
        return;
    }
    if SERVICE_NAME.contains(&name.as_str()) {
        merged.retain(|other, _| !SERVICE_NAME.contains(&other.as_str()));
    }
    match (name.as_str(), merged.get_mut(&name), value) {
        ("proxyMetadata", Some(Value::Object(present)), Value::Object(given)) => present.extend(given),
        ("proxyHeaders", Some(present), Value::Object(mut given)) => {
            for header in KEPT_HEADERS {
                if let Some(kept) = present.get(header).filter(|_| !given.contains_key(header)) {
                    given.insert(header.to_owned(), kept.clone());
                }
            }
            *present = Value::Object(given);
        }
        (_, _, value) => {
            merged.insert(name, value);
        }
    }
}

/// Documents may write `drain_duration` for `drainDuration`.
fn camel_case(name: &str) -> String {
    let mut parts = name.split('_');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(&super::shape::go_name(part));
    }
    out
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        other => other.clone(),
    }
}

/// What a proxy has to be told: the fields that are not as a proxy has them by itself, as protojson writes them.
pub fn told(config: &ProxyConfig) -> Value {
    let default = json!(ProxyConfig::default());
    let Value::Object(fields) = json!(config) else { return json!({}) };
    let is_told = |name: &String, value: &Value| !value.is_null() && *value != default[name] && !is_zero(name, value);
    let told = fields.into_iter().filter(|(name, value)| is_told(name, value));
    Value::Object(told.map(|(name, value)| (name.clone(), as_protojson(&name, value))).collect())
}

/// Fields of ProxyConfig, at any depth, that hold a `google.protobuf.Duration`.
const DURATIONS: [&str; 7] = [
    "drainDuration",
    "fileFlushInterval",
    "interval",
    "parentShutdownDuration",
    "pollDelay",
    "terminationDrainDuration",
    "time",
];

/// Fields that hold a `google.protobuf.Int64Value`, which protojson writes as text.
const LONG_NUMBERS: [&str; 3] = ["maxNumberOfAnnotations", "maxNumberOfAttributes", "maxNumberOfMessageEvents"];

/// Up to here every whole number is a binary one, too (2⁵³).
const MAX_WHOLE: f64 = 9_007_199_254_740_992.0;

/// With the fractions of seconds in three, six or nine digits, and whole numbers without a point.
fn as_protojson(name: &str, value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().map(|(name, value)| (name.clone(), as_protojson(&name, value))).collect())
        }
        Value::Array(items) => items.into_iter().map(|item| as_protojson(name, item)).collect(),
        Value::Number(number) if LONG_NUMBERS.contains(&name) => json!(number.to_string()),
        Value::Number(number) => Value::Number(without_point(number)),
        Value::String(text) if DURATIONS.contains(&name) => json!(padded(&text)),
        other => other,
    }
}

fn without_point(number: Number) -> Number {
    let whole = number.as_f64().filter(|value| number.is_f64() && value.fract() == 0.0 && value.abs() <= MAX_WHOLE);
    whole.and_then(|value| format!("{value:.0}").parse::<i64>().ok()).map_or(number, Number::from)
}

fn padded(duration: &str) -> String {
    match duration.strip_suffix('s').and_then(|number| number.split_once('.')) {
        Some((whole, fraction)) => format!("{whole}.{fraction:0<width$}s", width = fraction.len().next_multiple_of(3)),
        None => duration.to_owned(),
    }
}

/// Protojson leaves out what is zero, unless zero is something other than nothing.
fn is_zero(name: &str, value: &Value) -> bool {
    let says_something = matches!(name, "concurrency" | "holdApplicationUntilProxyStarts" | "statsCompression");
    !says_something
        && (*value == json!(0) || *value == json!("") || (name, value) == ("controlPlaneAuthPolicy", &json!("NONE")))
}

#[cfg(test)]
mod tests;
