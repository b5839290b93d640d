//! What `k8s` of a component changes in the objects that its chart made.
//!
//! Owns: which setting reaches which object, and patches of single fields (`overlays`). What reaches nothing is said. Pure.

use serde_json::{Value, json};

use crate::component::Instance;
use crate::merge::strategic;
use crate::object::Object;
use crate::operator::Notice;
use crate::{path, yaml};

/// Where a setting goes.
enum Target {
    /// Into the pods of the workload.
    Pod(&'static str),
    /// Into the component's container.
    Container(&'static str),
    /// Into an object of this kind, at this place.
    Object(&'static str, &'static str),
    /// Into the workload itself.
    Workload(&'static str),
}

const SETTINGS: [(&str, Target); 18] = [
    ("affinity", Target::Pod("spec.affinity")),
    ("nodeSelector", Target::Pod("spec.nodeSelector")),
    ("tolerations", Target::Pod("spec.tolerations")),
    ("priorityClassName", Target::Pod("spec.priorityClassName")),
    ("securityContext", Target::Pod("spec.securityContext")),
    ("volumes", Target::Pod("spec.volumes")),
    ("podAnnotations", Target::Pod("metadata.annotations")),
    ("env", Target::Container("env")),
    ("imagePullPolicy", Target::Container("imagePullPolicy")),
    ("readinessProbe", Target::Container("readinessProbe")),
    ("resources", Target::Container("resources")),
    ("volumeMounts", Target::Container("volumeMounts")),
    ("replicaCount", Target::Workload("spec.replicas")),
    ("strategy", Target::Workload("spec.strategy")),
    ("hpaSpec", Target::Object("HorizontalPodAutoscaler", "spec")),
    ("podDisruptionBudget", Target::Object("PodDisruptionBudget", "spec")),
    ("service", Target::Object("Service", "spec")),
    ("serviceAnnotations", Target::Object("Service", "metadata.annotations")),
];

/// Applies all of `k8s` to the instance's objects.
pub fn apply(instance: &Instance, objects: &mut [Object]) -> Result<Vec<Notice>, Notice> {
    let mut notices = Vec::new();
    let settings = instance.spec.get("k8s").cloned().unwrap_or_default();
    let at = format!("{}.k8s", instance.path);
    for (name, target) in SETTINGS {
        let Some(value) = settings.get(name).filter(|value| !value.is_null()) else { continue };
        if let Some(why) = set(instance, objects, name, &target, value) {
            notices.push(Notice::new(&format!("{at}.{name}"), format!("has no effect: {why}")));
        }
    }
    let overlays = settings.get("overlays").and_then(Value::as_array).cloned().unwrap_or_default();
    for (index, overlay) in overlays.iter().enumerate() {
        notices.extend(patch(&format!("{at}.overlays[{index}]"), overlay, objects)?);
    }
    Ok(notices)
}

/// The reason why a setting reaches nothing.
fn set(instance: &Instance, objects: &mut [Object], name: &str, target: &Target, value: &Value) -> Option<String> {
    let Some(workload) = instance.workload.kind else { return Some("this component has no pods".to_owned()) };
    let container = instance.workload.container;
    let (kind, change) = match target {
        Target::Pod(place) => (workload, at(&format!("spec.template.{place}"), value.clone())),
        Target::Workload(place) => (workload, at(place, value.clone())),
        Target::Container(field) => {
            let containers = json!([{"name": container, *field: value}]);
            (workload, at("spec.template.spec.containers", containers))
        }
        Target::Object(kind, place) => (*kind, at(place, value.clone())),
    };
    let scaled = objects.iter().any(|object| object.kind() == "HorizontalPodAutoscaler");
    if name == "replicaCount" && scaled {
        return Some("autoscaling decides; hpaSpec.minReplicas is the least".to_owned());
    }
    let found = objects.iter_mut().find(|object| object.kind() == kind && object.name() == instance.workload.name);
    let Some(object) = found else { return Some(format!("there is no {kind} {}", instance.workload.name)) };
    match name {
        // Ports are those of the chart's list already, which has no key that is unique.
        "service" if instance.component.is_gateway() => strategic(object.value_mut(), &without(change, "ports")),
        _ => strategic(object.value_mut(), &change),
    }
    if name == "podDisruptionBudget" && path::find(value, "maxUnavailable").is_some() {
        path::take(object.value_mut(), "spec.minAvailable");
    }
    None
}

fn at(place: &str, value: Value) -> Value {
    let mut change = json!({});
    path::put(&mut change, place, value);
    change
}

fn without(mut change: Value, field: &str) -> Value {
    path::take(&mut change, &format!("spec.{field}"));
    change
}

/// A text that holds a map or a list in YAML stands for it.
fn structured(value: Value) -> Value {
    let read = value.as_str().and_then(|text| yaml::read(text).ok());
    read.filter(|read| read.is_object() || read.is_array()).unwrap_or(value)
}

/// Applies one overlay: patches of single fields of one object.
fn patch(at: &str, overlay: &Value, objects: &mut [Object]) -> Result<Option<Notice>, Notice> {
    let text = |key: &str| overlay.get(key).and_then(Value::as_str).unwrap_or_default();
    for key in overlay.as_object().into_iter().flatten().map(|(key, _)| key) {
        if !["apiVersion", "kind", "name", "patches"].contains(&&**key) {
            return Err(Notice::new(&format!("{at}.{key}"), "is no field of an overlay".to_owned()));
        }
    }
    let (kind, name) = (text("kind"), text("name"));
    let Some(object) = objects.iter_mut().find(|object| object.kind() == kind && object.name() == name) else {
        return Ok(Some(Notice::new(at, format!("has no effect: there is no {kind} {name:?} in this component"))));
    };
    let patches = overlay.get("patches").and_then(Value::as_array).cloned().unwrap_or_default();
    for (index, patch) in patches.iter().enumerate() {
        let written = patch.get("path").and_then(Value::as_str).unwrap_or_default();
        let refused = |error: path::PathError| Notice::new(&format!("{at}.patches[{index}].path"), error.to_string());
        let steps = path::parse(written).map_err(refused)?;
        let value = structured(patch.get("value").cloned().unwrap_or_default());
        path::set(object.value_mut(), &steps, value).map_err(refused)?;
    }
    Ok(None)
}

/// Whether a setting reaches the chart as a value, so that nothing is left to patch.
pub fn reached_by_values(instance: &Instance, name: &str) -> bool {
    let of_service = |field: &&String| *field == "ports";
    match name {
        "replicaCount" => true,
        "hpaSpec" => instance.spec["k8s"]["hpaSpec"]
            .as_object()
            .is_some_and(|fields| fields.keys().all(|field| ["minReplicas", "maxReplicas"].contains(&&**field))),
        "service" if instance.component.is_gateway() => instance.spec["k8s"]["service"]
            .as_object()
            .is_some_and(|fields| fields.keys().all(|field| of_service(&field))),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
