//! ConfigMaps laid over what is deployed, by Kubernetes' strategic merge: maps are merged, null takes away, and lists of objects are
//! merged by the key of their elements where Kubernetes' types say so.

use crate::error::Problem;
use meltemi_config::kube::ConfigMap;
use serde_json::{Map, Value};

/// The keys that a ConfigMap may have, each with the kind that it is for.
const OVERLAYS: [(&str, &str); 5] = [
    ("deployment", "Deployment"),
    ("service", "Service"),
    ("serviceAccount", "ServiceAccount"),
    ("horizontalPodAutoscaler", "HorizontalPodAutoscaler"),
    ("podDisruptionBudget", "PodDisruptionBudget"),
];
/// What an overlay may not change.
const FIXED: [&str; 11] = [
    "name",
    "generateName",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "ownerReferences",
    "finalizers",
];
const DIRECTIVE: &str = "$patch";

/// Whether an object is there without an overlay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Always,
    Asked,
}

impl Need {
    /// What scales and protects a gateway is there where somebody asks for it.
    pub fn of(object: &Value) -> Self {
        match object["kind"].as_str() {
            Some("HorizontalPodAutoscaler" | "PodDisruptionBudget") => Self::Asked,
            _ => Self::Always,
        }
    }
}

/// Whether objects of a kind are deployed for Gateways.
pub fn is_deployed(kind: &str) -> bool {
    OVERLAYS.iter().any(|(_, own)| *own == kind)
}

/// The object with what the maps lay over it, one after another; `None` where none asks for it.
pub fn laid_over(object: Value, maps: &[&ConfigMap], need: Need) -> Result<Option<Value>, Problem> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let key = OVERLAYS.iter().find(|(_, own)| *own == kind).map_or("", |(key, _)| key);
    let mut laid = object.clone();
    let mut asked = false;
    for map in maps {
        if let Some(unknown) = map.data.keys().find(|key| OVERLAYS.iter().all(|(own, _)| *own != &***key)) {
            let known: Vec<&str> = OVERLAYS.iter().map(|(key, _)| *key).collect();
            return Err(wrong(format!("unsupported overlay {unknown:?} (supported: {})", known.join(", "))));
        }
        let Some(text) = map.data.get(key) else { continue };
        let patch: Value = serde_saphyr::from_str(text).map_err(|error| wrong(format!("overlay {key}: {error}")))?;
        merge(&mut laid, &patch, kind).map_err(|why| wrong(format!("overlay {key}: {why}")))?;
        asked = true;
    }
    let (before, after) = (&object["metadata"], &laid["metadata"]);
    let fixed = |field: &str| before[field] == after[field];
    if !FIXED.iter().all(|field| fixed(field)) || !after["managedFields"].is_null() {
        return Err(wrong(format!("overlay {key}: illegal metadata change")));
    }
    Ok((asked || need == Need::Always).then_some(laid))
}

fn wrong(message: String) -> Problem {
    Problem::new("InvalidParameters", message)
}

/// By what the elements of a list are told apart; `None`: the list is replaced as a whole.
fn merge_key(field: &str, kind: &str) -> Option<&'static str> {
    match field {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "volumes"
        | "env"
        | "imagePullSecrets"
        | "resourceClaims"
        | "schedulingGates"
        | "secrets" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        "volumeDevices" => Some("devicePath"),
        "ports" if kind == "Service" => Some("port"),
        "ports" => Some("containerPort"),
        "hostAliases" => Some("ip"),
        "topologySpreadConstraints" => Some("topologyKey"),
        "ownerReferences" => Some("uid"),
        _ => None,
    }
}

fn merge(target: &mut Value, patch: &Value, kind: &str) -> Result<(), String> {
    let Value::Object(changes) = patch else {
        return if patch.is_null() { Ok(()) } else { Err("a map is expected".into()) };
    };
    match changes.get(DIRECTIVE).map(Value::as_str) {
        None => {}
        Some(Some("replace")) => {
            *target = plain(changes);
            return Ok(());
        }
        Some(Some("delete")) => {
            *target = Value::Null;
            return Ok(());
        }
        Some(_) => return Err(format!("{DIRECTIVE} is replace or delete")),
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else { return Ok(()) };
    for (name, change) in changes {
        if name.starts_with('$') {
            return Err(format!("{name} is not supported"));
        }
        match change {
            Value::Null => drop(fields.remove(name)),
            Value::Object(_) => {
                let inner = fields.entry(name.clone()).or_insert(Value::Null);
                merge(inner, change, kind)?;
                if inner.is_null() {
                    fields.remove(name);
                }
            }
            Value::Array(items) => match merge_key(name, kind) {
                Some(key) => merge_list(fields.entry(name.clone()).or_insert(Value::Null), items, (key, kind))?,
                None => drop(fields.insert(name.clone(), change.clone())),
            },
            other => drop(fields.insert(name.clone(), other.clone())),
        }
    }
    Ok(())
}

fn plain(changes: &Map<String, Value>) -> Value {
    changes.iter().filter(|(name, _)| *name != DIRECTIVE).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Elements with a known key are merged, others are added; `$patch: delete` takes one away.
fn merge_list(target: &mut Value, items: &[Value], (key, kind): (&str, &str)) -> Result<(), String> {
    let mut list = target.as_array().cloned().unwrap_or_default();
    for item in items {
        if item[DIRECTIVE] == "replace" && item.get(key).is_none() {
            list = items.iter().filter(|item| item.get(key).is_some()).cloned().collect();
            break;
        }
        if item.get(key).is_none() {
            return Err(format!("an element has no {key}"));
        }
        let place = list.iter().position(|own| own[key] == item[key]);
        match (place, item[DIRECTIVE] == "delete") {
            (Some(place), true) => drop(list.remove(place)),
            (None, true) => {}
            (Some(place), false) => merge(&mut list[place], item, kind)?,
            (None, false) => list.push(item.clone()),
        }
    }
    *target = Value::Array(list);
    Ok(())
}
