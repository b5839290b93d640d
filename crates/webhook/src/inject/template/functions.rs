//! The functions that Istio gives to injection templates, beside those of sprig, of which some have another meaning here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use gotmpl::{FuncMap, Result, TemplateError, Value, ValueFunc};
use meltemi_config::{format_duration, parse_duration};
use serde_json::Value as Json;

use super::{Environment, view};

pub type Function = fn(&[Value]) -> Result<Value>;

const FUNCTIONS: &[(&str, Function)] = &[
    ("annotation", annotation),
    ("appendMultusNetwork", append_multus_network),
    ("applicationPorts", |args| container_ports(args, false)),
    // The needle comes first, for pipelines.
    ("contains", |args| Ok(Value::Bool(text(args, 1)?.contains(&*text(args, 0)?)))),
    ("directory", directory),
    ("excludeInboundPort", exclude_inbound_port),
    ("excludeInterfaces", |args| Ok(text(args, 0)?.into())),
    ("formatDuration", duration),
    ("fromJSON", from_json),
    ("includeInboundPorts", |args| container_ports(args, true)),
    ("indent", indent),
    ("index", index),
    ("isset", is_set),
    ("kubevirtInterfaces", |args| Ok(text(args, 0)?.into())),
    ("mergeMaps", |args| merge_maps(args).map(Value::from)),
    ("omit", omit),
    ("omitNil", |args| Ok(without_nil(arg(args, 0)?).unwrap_or(Value::Nil))),
    ("otelResourceAttributes", open_telemetry_attributes),
    ("protoToJSON", |args| Ok(object_text(arg(args, 0)?).into())),
    ("strdict", dictionary_of_text),
    ("structToJSON", |args| Ok(object_text(arg(args, 0)?).into())),
    ("toJSON", |args| Ok(object_text(arg(args, 0)?).into())),
    ("toJsonMap", |args| Ok(view::json_text(&Value::from(merge_maps(args)?)).into())),
    ("toLower", |args| Ok(text(args, 0)?.to_lowercase().into())),
    ("toYaml", to_yaml),
    ("valueOrDefault", |args| {
        let (value, default) = (arg(args, 0)?, arg(args, 1)?);
        let is_nothing = matches!(value, Value::Nil) || value.as_str() == Some("");
        Ok(if is_nothing { default } else { value }.clone())
    }),
];

pub fn functions(environment: &Environment) -> FuncMap {
    let mut functions = as_map(FUNCTIONS);
    let environment = environment.clone();
    let variable: ValueFunc = Arc::new(move |args| {
        let value = environment.get(&*text(args, 0)?).filter(|value| !value.is_empty());
        value.map_or_else(|| arg(args, 1).cloned(), |value| Ok(value.as_str().into()))
    });
    functions.insert("env".to_owned(), variable);
    functions
}

pub fn as_map(functions: &[(&str, Function)]) -> FuncMap {
    functions.iter().map(|(name, function)| ((*name).to_owned(), Arc::new(*function) as ValueFunc)).collect()
}

pub fn refuse<T>(reason: impl Into<String>) -> Result<T> {
    Err(TemplateError::Exec(reason.into()))
}

pub fn arg(args: &[Value], position: usize) -> Result<&Value> {
    args.get(position).map_or_else(|| refuse(format!("argument {} is missing", position + 1)), Ok)
}

/// An argument as Go's `fmt.Sprint` writes it.
pub fn text(args: &[Value], position: usize) -> Result<String> {
    arg(args, position).map(Value::to_string)
}

pub fn number(args: &[Value], position: usize) -> Result<i64> {
    let value = arg(args, position)?;
    match value {
        Value::Bool(value) => Ok(i64::from(*value)),
        Value::String(text) => Ok(number_of(text)),
        _ => Ok(value.as_int().or_else(|| whole(value.as_float()?)).unwrap_or_default()),
    }
}

/// As the library that sprig uses reads texts: in Go's notations, and without a fraction.
fn number_of(text: &str) -> i64 {
    let text = text.trim();
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let lower = digits.to_ascii_lowercase();
    let in_base = [("0x", 16), ("0o", 8), ("0b", 2)].into_iter().find_map(|(prefix, base)| {
        lower.strip_prefix(prefix).map(|digits| i64::from_str_radix(digits, base).unwrap_or_default())
    });
    let whole = || digits.split_once('.').map_or(digits, |(whole, _)| whole).parse::<i64>().unwrap_or_default();
    sign * in_base.unwrap_or_else(whole)
}

fn whole(number: f64) -> Option<i64> {
    format!("{:.0}", number.trunc()).parse().ok()
}

pub fn map(args: &[Value], position: usize) -> Result<Arc<BTreeMap<Arc<str>, Value>>> {
    match arg(args, position)? {
        Value::Map(map) => Ok(map.clone()),
        Value::Nil => Ok(Arc::default()),
        other => refuse(format!("argument {} is {}, not a map", position + 1, other.type_name())),
    }
}

pub fn list(args: &[Value], position: usize) -> Result<Arc<[Value]>> {
    match arg(args, position)? {
        Value::List(list) => Ok(list.clone()),
        Value::Nil => Ok(Arc::from([])),
        other => refuse(format!("argument {} is {}, not a list", position + 1, other.type_name())),
    }
}

fn annotation(args: &[Value]) -> Result<Value> {
    let name = text(args, 1)?;
    let given = arg(args, 0)?.field("Annotations").and_then(|annotations| annotations.field(&name));
    given.map_or_else(|| Ok(text(args, 2)?.into()), |value| Ok(value.clone()))
}

/// As the engine's, but a map of texts has the empty text for what it has not.
fn index(args: &[Value]) -> Result<Value> {
    let mut value = arg(args, 0)?.clone();
    for key in &args[1..] {
        let is_text = matches!(&value, Value::Map(map) if map.values().all(|value| value.as_str().is_some()));
        value = match value.index(key)? {
            Value::Nil if is_text => "".into(),
            found => found,
        };
    }
    Ok(value)
}

fn is_set(args: &[Value]) -> Result<Value> {
    Ok(Value::Bool(map(args, 0)?.contains_key(&*text(args, 1)?)))
}

fn directory(args: &[Value]) -> Result<Value> {
    let path = text(args, 0)?;
    Ok(path.rfind('/').map_or("", |slash| &path[..=slash]).into())
}

fn duration(args: &[Value]) -> Result<Value> {
    let given = text(args, 0)?;
    parse_duration(&given)
        .map_or_else(|_| refuse(format!("{given:?} is no duration")), |duration| Ok(go_duration(duration).into()))
}

/// Go's `time.Duration.String`: `45s`, `1m30s`, `250ms`.
pub fn go_duration(duration: Duration) -> String {
    let (seconds, nanos) = (duration.as_secs(), duration.subsec_nanos());
    if seconds == 0 && nanos > 0 {
        return below_a_second(nanos);
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = format_duration(Duration::new(seconds % 60, nanos));
    match (hours, minutes) {
        (0, 0) => rest,
        (0, _) => format!("{minutes}m{rest}"),
        _ => format!("{hours}h{minutes}m{rest}"),
    }
}

fn below_a_second(nanos: u32) -> String {
    let (unit, size) = match nanos {
        1_000_000.. => ("ms", 6),
        1000.. => ("µs", 3),
        _ => ("ns", 0),
    };
    let digits = format!("{nanos:0width$}", width = size + 1);
    let (whole, fraction) = digits.split_at(digits.len() - size);
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    format!("{whole}{point}{fraction}{unit}")
}

fn exclude_inbound_port(args: &[Value]) -> Result<Value> {
    let (port, excluded) = (text(args, 0)?.trim().to_owned(), text(args, 1)?);
    if port.is_empty() || port == "0" || excluded.split(',').any(|other| other == port) {
        return Ok(excluded.into());
    }
    let ports: Vec<&str> = excluded.split(',').map(str::trim).filter(|other| !other.is_empty()).collect();
    Ok([ports, vec![&*port]].concat().join(",").into())
}

/// The TCP ports of containers, of all of them or of all but the proxy.
fn container_ports(args: &[Value], with_proxy: bool) -> Result<Value> {
    let mut ports = Vec::new();
    for container in list(args, 0)?.iter() {
        let is_proxy = container.field("Name").and_then(Value::as_str) == Some(crate::inject::names::PROXY_CONTAINER);
        let Some(Value::List(list)) = container.field("Ports").filter(|_| with_proxy || !is_proxy) else { continue };
        for port in list.iter() {
            let protocol = port.field("Protocol").and_then(Value::as_str);
            let number = port.field("ContainerPort").filter(|_| !matches!(protocol, Some("UDP" | "SCTP")));
            ports.extend(number.map(Value::to_string));
        }
    }
    Ok(ports.join(",").into())
}

/// Adds our network to those that a pod asks Multus for, in the form that it asks in.
fn append_multus_network(args: &[Value]) -> Result<Value> {
    let (existing, network) = (text(args, 0)?, text(args, 1)?);
    if existing.is_empty() {
        return Ok(network.into());
    }
    let Some(end) = existing.rfind(']') else {
        let is_there = existing.split(',').any(|other| other.trim() == network);
        return Ok(if is_there { existing } else { format!("{existing}, {network}") }.into());
    };
    let Ok(networks) = serde_json::from_str::<Vec<Json>>(&existing) else {
        tracing::warn!("k8s.v1.cni.cncf.io/networks is no JSON list: left as it is");
        return Ok(existing.into());
    };
    let (namespace, name) = network.split_once('/').unwrap_or(("", &network));
    let is_ours = |other: &Json| other["name"] == name && other["namespace"].as_str().unwrap_or_default() == namespace;
    if networks.iter().any(is_ours) {
        return Ok(existing.into());
    }
    let namespace = if namespace.is_empty() { String::new() } else { format!(r#", "namespace": "{namespace}""#) };
    Ok(format!(r#"{}, {{"name": "{name}"{namespace}}}{}"#, &existing[..end], &existing[end..]).into())
}

fn from_json(args: &[Value]) -> Result<Value> {
    let given = text(args, 0)?;
    serde_json::from_str(&given)
        .map_or_else(|error| refuse(format!("fromJSON: {error}")), |json| Ok(view::plain(&json)))
}

/// Every line but the first is moved to the right.
fn indent(args: &[Value]) -> Result<Value> {
    let margin = format!("\n{}", super::sprig::spaces(number(args, 0)?)?);
    Ok(text(args, 1)?.replace('\n', &margin).into())
}

fn to_yaml(args: &[Value]) -> Result<Value> {
    let value = crate::inject::shape::sorted(&view::to_json(arg(args, 0)?));
    crate::inject::document::yaml(&value).map_or_else(refuse, |text| Ok(text.into()))
}

fn object_text(value: &Value) -> String {
    if matches!(value, Value::Nil) { "{}".to_owned() } else { view::json_text(value) }
}

fn merge_maps(args: &[Value]) -> Result<BTreeMap<Arc<str>, Value>> {
    let mut merged = BTreeMap::new();
    for position in 0..args.len() {
        merged.extend(map(args, position)?.iter().map(|(name, value)| (name.clone(), value.clone())));
    }
    Ok(merged)
}

fn omit(args: &[Value]) -> Result<Value> {
    let mut kept = (*map(args, 0)?).clone();
    for position in 1..args.len() {
        kept.remove(&*text(args, position)?);
    }
    Ok(kept.into())
}

fn dictionary_of_text(args: &[Value]) -> Result<Value> {
    let entries = args.chunks(2).map(|pair| {
        let value = pair.get(1).map(Value::to_string).unwrap_or_default();
        (Arc::from(pair[0].to_string()), Value::from(value))
    });
    Ok(entries.collect::<BTreeMap<Arc<str>, Value>>().into())
}

/// Without what is nil in it; nothing, if that leaves nothing.
fn without_nil(value: &Value) -> Option<Value> {
    match value {
        Value::Nil => None,
        Value::Map(map) => {
            let kept: BTreeMap<_, _> =
                map.iter().filter_map(|(name, value)| Some((name.clone(), without_nil(value)?))).collect();
            (map.is_empty() || !kept.is_empty()).then(|| kept.into())
        }
        Value::List(list) => {
            let kept: Vec<_> = list.iter().filter_map(without_nil).collect();
            (list.is_empty() || !kept.is_empty()).then(|| kept.into())
        }
        other => Some(other.clone()),
    }
}

const OPEN_TELEMETRY: &str = "resource.opentelemetry.io/";

/// `OTEL_RESOURCE_ATTRIBUTES` by OpenTelemetry's conventions for Kubernetes, where a provider of traces asks for them.
fn open_telemetry_attributes(args: &[Value]) -> Result<Value> {
    let (annotations, labels) = (map(args, 1)?, map(args, 2)?);
    let (namespace, containers) = (text(args, 3)?, list(args, 4)?);
    if !wants_attributes(&view::to_json(arg(args, 0)?)) {
        return Ok("".into());
    }
    let said = |name: &str| said_in(&annotations, &format!("{OPEN_TELEMETRY}{name}"));
    let of_container = |field: &str| containers.first().and_then(|first| first.field(field)).map(Value::to_string);
    let of_image = || of_container("Image").filter(|_| containers.len() == 1).and_then(|image| version_of(&image));
    let instance = || of_container("Name").map(|name| format!("{namespace}.$(POD_NAME).{name}"));
    let attributes = [
        ("service.namespace", said("service.namespace").or_else(|| Some(namespace.clone()).filter(|n| !n.is_empty()))),
        (
            "service.version",
            said("service.version").or_else(|| said_in(&labels, "app.kubernetes.io/version")).or_else(of_image),
        ),
        ("service.instance.id", said("service.instance.id").or_else(instance)),
    ];
    let attributes = attributes.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", value?)));
    Ok(attributes.collect::<Vec<_>>().join(",").into())
}

fn wants_attributes(mesh: &Json) -> bool {
    let providers = mesh["extensionProviders"].as_array().map(Vec::as_slice).unwrap_or_default();
    providers
        .iter()
        .any(|provider| provider["opentelemetry"]["serviceAttributeEnrichment"] == "OTEL_SEMANTIC_CONVENTIONS")
}

fn said_in(map: &BTreeMap<Arc<str>, Value>, name: &str) -> Option<String> {
    map.get(name).map(Value::to_string).filter(|value| !value.is_empty())
}

/// The tag of an image, its digest, or both with `@` between.
fn version_of(image: &str) -> Option<String> {
    let (reference, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let name = reference.rsplit('/').next().unwrap_or(reference);
    let tag = name.rsplit_once(':').map(|(_, tag)| tag).filter(|tag| !tag.is_empty());
    let parts: Vec<&str> = tag.into_iter().chain(digest.filter(|digest| !digest.is_empty())).collect();
    (!parts.is_empty()).then(|| parts.join("@"))
}
