//! Makes an installation: component by component, each ready before the next.
//!
//! Owns: whose objects are taken over, what of a living object is kept, and which objects are left from before.

use std::collections::BTreeSet;

use meltemi_kubernetes::apply::{Apply, Cluster, ClusterError, RESOURCES};
use serde_json::Value;

use super::{Action, Change, Event, LifecycleError, Listener, Options, live, objects, ready, resource};
use crate::component::Component;
use crate::object::{COMPONENT_LABEL, OWNER_LABEL, Object, ObjectKey, REVISION_LABEL};
use crate::operator::Operator;
use crate::render::Rendered;

/// The label of a component that Istio has and we have not.
const ZTUNNEL: &str = "Ztunnel";

/// Makes the objects, waits for them, then removes what the same installation made before and makes no more.
pub async fn install(
    cluster: &Cluster,
    operator: &Operator,
    rendered: &Rendered,
    options: Options,
    listener: Listener<'_>,
) -> Result<Vec<Change>, LifecycleError> {
    let mut changes = Vec::new();
    for part in &rendered.parts {
        listener(Event::Begun(part.component));
        changes.extend(apply_all(cluster, &part.objects, options, listener).await?);
        if let (Some(limit), false) = (options.wait, options.dry_run) {
            ready::wait(cluster, &part.objects, limit, listener).await?;
        }
    }
    for key in stale(cluster, operator, rendered).await? {
        if !options.dry_run {
            cluster.delete(resource(&key)?, &key.namespace, &key.name).await?;
        }
        listener(Event::Removed(key.clone()));
        changes.push(Change { object: key, action: Action::Removed, taken_over: Vec::new() });
    }
    Ok(changes)
}

/// Makes objects what is wanted, one after the other.
pub async fn apply_all(
    cluster: &Cluster,
    objects: &[Object],
    options: Options,
    listener: Listener<'_>,
) -> Result<Vec<Change>, LifecycleError> {
    let mut changes = Vec::new();
    for object in objects {
        let change = apply(cluster, object, options).await?;
        listener(Event::Applied(change.clone()));
        changes.push(change);
    }
    Ok(changes)
}

async fn apply(cluster: &Cluster, object: &Object, options: Options) -> Result<Change, LifecycleError> {
    let key = object.key();
    let before = live(cluster, &key).await?;
    let change = |action, taken_over| Change { object: key.clone(), action, taken_over };
    if key.kind == "Namespace" && before.is_some() {
        // It was there before us, and stays when we go.
        return Ok(change(Action::Unchanged, Vec::new()));
    }
    let wanted = carried_over(object.value(), before.as_ref());
    let mut how = Apply { dry_run: options.dry_run, take_over: false };
    let resource = resource(&key)?;
    let failed = |source| LifecycleError::Object { key: Box::new(key.clone()), source };
    let source = match cluster.apply(resource, &wanted, before.as_ref(), how).await {
        Ok(applied) => return Ok(change(applied.into(), Vec::new())),
        // The namespace of a dry run was never made.
        Err(ClusterError::Missing) if options.dry_run => return Ok(change(Action::Created, Vec::new())),
        Err(conflict @ ClusterError::Conflict(_)) => conflict,
        Err(error) => return Err(failed(error)),
    };
    if !options.force && !before.as_ref().is_some_and(is_of_a_mesh) {
        return Err(LifecycleError::Stranger { key: Box::new(key), source });
    }
    how.take_over = true;
    let applied = cluster.apply(resource, &wanted, before.as_ref(), how).await.map_err(failed)?;
    let ClusterError::Conflict(fields) = source else { return Ok(change(applied.into(), Vec::new())) };
    Ok(change(applied.into(), fields))
}

/// Whether an object was made by an installer of a mesh: by istioctl, by Istio's charts, by its control plane, or by us.
pub fn is_of_a_mesh(object: &Value) -> bool {
    let label = |name: &str| object.pointer("/metadata/labels")?.get(name)?.as_str();
    let installed = label(COMPONENT_LABEL).is_some() || label("app.kubernetes.io/part-of") == Some("istio");
    let kinds = label("app") == Some("istio-pilot") && label("chart") == Some("istio");
    let charts = ["istiod", "sidecar-injector", "istio-cni", "istio-ingressgateway", "istio-egressgateway"];
    let group = object.pointer("/spec/group").and_then(Value::as_str).unwrap_or_default();
    let defines = object["kind"] == "CustomResourceDefinition" && group.ends_with(".istio.io");
    installed || kinds || defines || label("app").is_some_and(|app| charts.contains(&app))
}

/// What the control plane has written into a living object since, and goes on to hold.
pub fn carried_over(wanted: &Value, live: Option<&Value>) -> Value {
    let mut wanted = wanted.clone();
    let (Some(live), "ValidatingWebhookConfiguration") = (live, wanted["kind"].as_str().unwrap_or_default()) else {
        return wanted;
    };
    let before = live["webhooks"].as_array().cloned().unwrap_or_default();
    for webhook in wanted["webhooks"].as_array_mut().into_iter().flatten() {
        let same = before.iter().find(|before| before["name"] == webhook["name"]);
        // A webhook that was ready must not fail open again.
        if let Some(policy) = same.and_then(|same| same.get("failurePolicy")).filter(|policy| *policy == "Fail") {
            webhook["failurePolicy"] = policy.clone();
        }
    }
    wanted
}

/// What the same installation made before, and makes no more.
async fn stale(cluster: &Cluster, operator: &Operator, rendered: &Rendered) -> Result<Vec<ObjectKey>, LifecycleError> {
    let labels = labels_of_made(operator);
    let kept: BTreeSet<_> = rendered.objects().iter().map(Object::key).collect();
    let mut stale = Vec::new();
    for resource in RESOURCES.iter().filter(|resource| is_pruned(resource.kind)) {
        let present = cluster.list(resource, "", &labels).await?;
        let made = objects(present).filter(|object| !object.has_owner());
        stale.extend(made.map(|object| object.key()).filter(|key| !kept.contains(key)));
    }
    Ok(stale)
}

/// What selects the objects that an installation may have made. A running Istio's ztunnel is among them, unless the mesh is still
/// to be an ambient one, whose pods would be cut off without it.
fn labels_of_made(operator: &Operator) -> String {
    let owner = operator.values["ownerName"].as_str().unwrap_or(&operator.name);
    let revision = operator.revision.as_deref().unwrap_or("default");
    let ambient = &operator.values["pilot"]["env"]["PILOT_ENABLE_AMBIENT"];
    let is_ambient = *ambient == true || *ambient == "true";
    let of_istio = Some(ZTUNNEL).filter(|_| !is_ambient);
    let components: Vec<&str> = Component::ALL.map(Component::label).into_iter().chain(of_istio).collect();
    let components = components.join(",");
    format!("{COMPONENT_LABEL} in ({components}),{OWNER_LABEL}={owner},{REVISION_LABEL}={revision}")
}

/// Kinds hold users' documents, namespaces everybody's.
fn is_pruned(kind: &str) -> bool {
    !["CustomResourceDefinition", "Namespace", "Pod", "Secret", "Lease"].contains(&kind)
}

#[cfg(test)]
mod tests;
