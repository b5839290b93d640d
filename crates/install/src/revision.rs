//! The revisions of the control plane that a cluster has, with all that belongs to each.
//!
//! Owns: what of the cluster's objects says which revision it is of. Reads only.

use std::collections::BTreeMap;

use meltemi_kubernetes::apply::{Cluster, Resource};
use serde::Serialize;
use serde_json::Value;

use crate::lifecycle::LifecycleError;
use crate::lifecycle::remove::injected_by;
use crate::object::{COMPONENT_LABEL, REVISION_LABEL, TAG_LABEL};
use crate::tag::{injected, tags};

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Revision {
    pub name: String,
    pub tags: Vec<String>,
    pub control_planes: Vec<ControlPlane>,
    pub webhooks: Vec<String>,
    /// Installed gateways, as `namespace/name`.
    pub gateways: Vec<String>,
    /// Namespaces that are injected by it, by its name or by a tag.
    pub namespaces: Vec<String>,
    /// Pods with a proxy of it, as `namespace/name`.
    pub proxies: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ControlPlane {
    pub namespace: String,
    pub name: String,
    pub image: String,
    pub wanted: u64,
    pub ready: u64,
}

/// What revisions are made of.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub webhooks: Vec<Value>,
    pub deployments: Vec<Value>,
    pub namespaces: Vec<Value>,
    pub pods: Vec<Value>,
}

/// Asks a cluster.
pub async fn look(cluster: &Cluster) -> Result<Vec<Revision>, LifecycleError> {
    let mut observed = Observed::default();
    for (kind, labels, place) in [
        ("MutatingWebhookConfiguration", REVISION_LABEL, &mut observed.webhooks),
        ("Deployment", COMPONENT_LABEL, &mut observed.deployments),
        ("Namespace", "", &mut observed.namespaces),
        ("Pod", "service.istio.io/canonical-name", &mut observed.pods),
    ] {
        if let Some(resource) = Resource::of_kind(kind) {
            *place = cluster.list(resource, "", labels).await?;
        }
    }
    Ok(revisions(&observed))
}

fn label<'a>(object: &'a Value, name: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(name)?.as_str()
}

fn text<'a>(object: &'a Value, at: &str) -> &'a str {
    object.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

fn full_name(object: &Value) -> String {
    format!("{}/{}", text(object, "/metadata/namespace"), text(object, "/metadata/name"))
}

/// Sorts what was seen by revision.
pub fn revisions(observed: &Observed) -> Vec<Revision> {
    let mut found: BTreeMap<String, Revision> = BTreeMap::new();
    let mut of = |name: &str, add: &mut dyn FnMut(&mut Revision)| {
        let fresh = || Revision { name: name.to_owned(), ..Revision::default() };
        add(found.entry(name.to_owned()).or_insert_with(fresh));
    };
    for webhook in &observed.webhooks {
        let Some(revision) = label(webhook, REVISION_LABEL) else { continue };
        of(revision, &mut |it| it.webhooks.push(text(webhook, "/metadata/name").to_owned()));
        if label(webhook, TAG_LABEL).is_none() {
            let namespaces = injected(revision, &observed.namespaces);
            of(revision, &mut |it| it.namespaces.extend(namespaces.clone()));
        }
    }
    for tag in tags(&observed.webhooks, &observed.namespaces) {
        of(&tag.revision, &mut |it| {
            it.tags.push(tag.name.clone());
            it.namespaces.extend(tag.namespaces.clone());
        });
    }
    for deployment in &observed.deployments {
        let revision = label(deployment, REVISION_LABEL).unwrap_or("default");
        of(revision, &mut |it| match label(deployment, COMPONENT_LABEL) {
            Some("Pilot") => it.control_planes.push(control_plane(deployment)),
            _ => it.gateways.push(full_name(deployment)),
        });
    }
    for pod in &observed.pods {
        if let Some(revision) = injected_by(pod) {
            of(&revision, &mut |it| it.proxies.push(full_name(pod)));
        }
    }
    let mut all: Vec<Revision> = found.into_values().collect();
    for revision in &mut all {
        revision.namespaces.sort();
        revision.namespaces.dedup();
    }
    all
}

fn control_plane(deployment: &Value) -> ControlPlane {
    ControlPlane {
        namespace: text(deployment, "/metadata/namespace").to_owned(),
        name: text(deployment, "/metadata/name").to_owned(),
        image: text(deployment, "/spec/template/spec/containers/0/image").to_owned(),
        wanted: deployment["spec"]["replicas"].as_u64().unwrap_or(1),
        ready: deployment["status"]["readyReplicas"].as_u64().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests;
