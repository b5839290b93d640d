//! What an installation takes over of a mesh that runs already.
//!
//! Owns: which of its settings live on, where that is kept, and what is said of it. The mesh configuration of a running
//! Istio lies under what the documents say, and stays there: an annotation of the ConfigMap keeps it for the next time.

use meltemi_kubernetes::apply::{Cluster, MANAGER, Resource};
use serde_json::{Value, json};

use super::{LifecycleError, objects};
use crate::object::REVISION_LABEL;
use crate::operator::Adopted;
use crate::render::Rendered;
use crate::{path, yaml};

/// Holds what was adopted, as JSON.
pub const ADOPTED: &str = "install.meltemi.io/adopted-mesh";

/// What is taken over.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Adoption {
    pub adopted: Adopted,
    /// What is said of it, one thing a line.
    pub report: Vec<String>,
}

fn resource(kind: &str) -> Result<&'static Resource, LifecycleError> {
    let key = crate::object::ObjectKey {
        api_version: String::new(),
        kind: kind.to_owned(),
        namespace: String::new(),
        name: String::new(),
    };
    super::resource(&key)
}

/// Looks at what runs in a cluster.
pub async fn look(cluster: &Cluster, namespace: &str, revision: Option<&str>) -> Result<Adoption, LifecycleError> {
    let maps = resource("ConfigMap")?;
    let own = revision.map_or("istio".to_owned(), |revision| format!("istio-{revision}"));
    let mut adoption = Adoption::default();
    let mut names = vec![own];
    if revision.is_some() {
        // A canary beside a running Istio is a mesh like it.
        names.push("istio".to_owned());
    }
    let mut is_renewed = false;
    for (index, name) in names.iter().enumerate() {
        let Some(map) = cluster.get(maps, namespace, name).await? else { continue };
        is_renewed |= index == 0 && is_ours(&map);
        // Of another revision of ours nothing is taken: documents say what this one is.
        if index == 0 || !is_ours(&map) {
            adoption.adopted = adopted(&map);
            if !adoption.adopted.is_empty() && !is_ours(&map) {
                adoption.report.push(format!("ConfigMap/{name}.{namespace}: its mesh configuration lives on"));
            }
            break;
        }
    }
    if is_renewed {
        return Ok(adoption);
    }
    for name in ["cacerts", "istio-ca-secret"] {
        if cluster.get(resource("Secret")?, namespace, name).await?.is_some() {
            adoption.report.push(format!("Secret/{name}.{namespace}: its authority goes on to sign"));
            break;
        }
    }
    let injected = injected(cluster, revision).await?;
    if !injected.is_empty() {
        adoption.report.push(format!("injection goes on in {}", injected.join(", ")));
    }
    Ok(adoption)
}

/// Namespaces whose labels this revision answers to.
async fn injected(cluster: &Cluster, revision: Option<&str>) -> Result<Vec<String>, LifecycleError> {
    let label = revision.unwrap_or("default");
    let mut selectors = vec![format!("{REVISION_LABEL}={label}")];
    if revision.is_none() {
        selectors.push("istio-injection=enabled".to_owned());
    }
    let mut names = Vec::new();
    for selector in selectors {
        let found = cluster.list(resource("Namespace")?, "", &selector).await?;
        names.extend(objects(found).map(|namespace| namespace.name().to_owned()));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

fn is_ours(map: &Value) -> bool {
    let managers = map["metadata"]["managedFields"].as_array();
    managers.is_some_and(|managers| managers.iter().any(|it| it["manager"] == MANAGER && it["operation"] == "Apply"))
}

/// What of a ConfigMap lives on: all of a stranger's, what was adopted before of ours.
pub fn adopted(map: &Value) -> Adopted {
    if is_ours(map) {
        let kept = map["metadata"]["annotations"].get(ADOPTED).and_then(Value::as_str);
        return kept.and_then(|kept| serde_json::from_str(kept).ok()).unwrap_or_default();
    }
    let document = |key: &str| yaml::read(map["data"][key].as_str()?).ok().filter(Value::is_object);
    let mut mesh = document("mesh");
    // Where discovery is and which namespace is the root is for the new installation to say.
    if let Some(mesh) = &mut mesh {
        path::take(mesh, "defaultConfig.discoveryAddress");
        path::take(mesh, "rootNamespace");
    }
    let networks = document("meshNetworks").and_then(|it| it.get("networks").cloned());
    Adopted { mesh, networks: networks.filter(|it| it.as_object().is_some_and(|it| !it.is_empty())) }
}

/// Notes down in the ConfigMap what was adopted.
pub fn note(rendered: &mut Rendered, adopted: &Adopted) {
    let Ok(text) = serde_json::to_string(adopted) else { return };
    if adopted.is_empty() {
        return;
    }
    for object in rendered.parts.iter_mut().flat_map(|part| &mut part.objects) {
        if object.kind() == "ConfigMap" && object.value()["data"].get("mesh").is_some() {
            object.value_mut()["metadata"]["annotations"] = json!({ADOPTED: text});
        }
    }
}

#[cfg(test)]
mod tests;
