//! Takes an installation away: a revision, what documents come to, or everything.
//!
//! Owns: which objects belong to what is removed, and in which order they go.

use std::collections::BTreeSet;

use meltemi_kubernetes::apply::{Cluster, RESOURCES, Resource};
use serde_json::Value;

use super::{Event, LifecycleError, Listener, objects, resource};
use crate::component::Component;
use crate::object::{COMPONENT_LABEL, Object, ObjectKey, REVISION_LABEL};
use crate::render::Rendered;

/// What is to go.
#[derive(Debug, Clone)]
pub enum Scope<'a> {
    /// A revision with its gateways; what revisions share stays.
    Revision(&'a str),
    /// What documents come to, but for kinds and namespaces.
    Rendered(&'a Rendered),
    /// Everything, with the kinds of the API and all documents of them, and what the control plane wrote itself.
    Everything,
}

/// What would be removed, in the order in which it is.
#[derive(Debug, Clone, Default)]
pub struct Removal {
    pub objects: Vec<ObjectKey>,
    /// Pods that have a proxy of what is removed, as `namespace/name`.
    pub proxies: Vec<String>,
}

/// Looks for what belongs to a scope.
pub async fn plan(cluster: &Cluster, scope: &Scope<'_>) -> Result<Removal, LifecycleError> {
    let mut removal = Removal::default();
    let mut homes = BTreeSet::new();
    let (labels, revision) = match scope {
        Scope::Revision(revision) => {
            let components = Component::ALL.map(Component::label)[1..].join(",");
            (format!("{COMPONENT_LABEL} in ({components}),{REVISION_LABEL}={revision}"), Some(*revision))
        }
        Scope::Rendered(rendered) => return of_rendered(cluster, rendered).await,
        Scope::Everything => (COMPONENT_LABEL.to_owned(), None),
    };
    for resource in RESOURCES.iter().filter(|resource| resource.kind != "Pod") {
        let whole = matches!(scope, Scope::Everything);
        if !whole && ["CustomResourceDefinition", "Namespace"].contains(&resource.kind) {
            continue;
        }
        for object in objects(cluster.list(resource, "", &labels).await?).filter(|object| !object.has_owner()) {
            if object.label(COMPONENT_LABEL) == Some(Component::Pilot.label()) && !object.namespace().is_empty() {
                homes.insert(object.namespace().to_owned());
            }
            removal.objects.push(object.key());
        }
        if whole {
            removal.objects.extend(written(cluster, resource, &homes).await?);
        }
    }
    keep_used_namespaces(cluster, &mut removal).await?;
    removal.proxies = proxies(cluster, revision).await?;
    Ok(removal)
}

async fn of_rendered(cluster: &Cluster, rendered: &Rendered) -> Result<Removal, LifecycleError> {
    let mut removal = Removal::default();
    for object in rendered.objects().iter().rev() {
        let key = object.key();
        if !["CustomResourceDefinition", "Namespace"].contains(&object.kind())
            && super::live(cluster, &key).await?.is_some()
        {
            removal.objects.push(key);
        }
    }
    Ok(removal)
}

/// What the control plane wrote by itself, of one kind.
async fn written(
    cluster: &Cluster,
    resource: &Resource,
    homes: &BTreeSet<String>,
) -> Result<Vec<ObjectKey>, LifecycleError> {
    let mut keys = Vec::new();
    let key = |object: &Object| object.key();
    match resource.kind {
        // The roots that it puts into each namespace.
        "ConfigMap" => {
            for name in ["istio-ca-root-cert", "istio-ca-crl"] {
                keys.extend(objects(cluster.named(resource, name).await?).map(|it| key(&it)));
            }
        }
        "Secret" | "Lease" => {
            for home in homes {
                let kept = ["istio-ca-secret", "istio-ca-former-roots", "istiod-tls"];
                let authority = |name: &str| resource.kind == "Secret" && kept.contains(&name);
                let election =
                    |name: &str| resource.kind == "Lease" && (name.starts_with("istio") || name.starts_with("meltemi"));
                let all = objects(cluster.list(resource, home, "").await?);
                keys.extend(all.filter(|it| authority(it.name()) || election(it.name())).map(|it| key(&it)));
            }
        }
        _ => {}
    }
    Ok(keys)
}

/// A namespace that we made goes only when nobody else lives there.
async fn keep_used_namespaces(cluster: &Cluster, removal: &mut Removal) -> Result<(), LifecycleError> {
    let removed: BTreeSet<ObjectKey> = removal.objects.iter().cloned().collect();
    let mut used = BTreeSet::new();
    for namespace in removed.iter().filter(|key| key.kind == "Namespace") {
        for kind in ["Deployment", "DaemonSet", "Service", "Secret", "Pod"] {
            let Some(resource) = Resource::of_kind(kind) else { continue };
            let mut all = objects(cluster.list(resource, &namespace.name, "").await?);
            if all.any(|object| !object.has_owner() && !removed.contains(&object.key())) {
                used.insert(namespace.clone());
            }
        }
    }
    removal.objects.retain(|key| !used.contains(key));
    Ok(())
}

/// Pods with a proxy, of one revision or of all.
async fn proxies(cluster: &Cluster, revision: Option<&str>) -> Result<Vec<String>, LifecycleError> {
    let Some(pods) = Resource::of_kind("Pod") else { return Ok(Vec::new()) };
    let found = cluster.list(pods, "", "service.istio.io/canonical-name").await?;
    let injected = found.iter().filter(|pod| injected_by(pod).is_some_and(|by| revision.is_none_or(|it| it == by)));
    // Gateways go with the installation.
    let application =
        injected.filter(|pod| pod.pointer("/metadata/labels").and_then(|it| it.get(COMPONENT_LABEL)).is_none());
    let name = |pod: &Value| {
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
        format!("{}/{}", text("namespace"), text("name"))
    };
    Ok(application.map(name).collect())
}

/// The revision whose injector wrote into a pod.
pub fn injected_by(pod: &Value) -> Option<String> {
    let status = pod.pointer("/metadata/annotations")?.get("sidecar.istio.io/status")?.as_str()?;
    let status: Value = serde_json::from_str(status).ok()?;
    Some(status["revision"].as_str().unwrap_or("default").to_owned())
}

/// Removes what was planned; gives what was there to be removed.
pub async fn remove(
    cluster: &Cluster,
    removal: &Removal,
    listener: Listener<'_>,
) -> Result<Vec<ObjectKey>, LifecycleError> {
    let mut removed = Vec::new();
    for key in &removal.objects {
        let deleted = cluster.delete(resource(key)?, &key.namespace, &key.name).await;
        if deleted.map_err(|source| LifecycleError::Object { key: Box::new(key.clone()), source })? {
            listener(Event::Removed(key.clone()));
            removed.push(key.clone());
        }
    }
    Ok(removed)
}

#[cfg(test)]
mod tests;
