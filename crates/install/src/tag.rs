//! Revision tags: names that stand for a revision, so that namespaces need no new label when it changes.
//!
//! Owns: the webhooks that make a tag, and what is read of those that a cluster has. The chart has their shape. Pure.

use serde::Serialize;
use serde_json::{Value, json};

use crate::chart::{Chart, ChartError, Contents, Release};
use crate::merge::overlay;
use crate::object::{OWNER_LABEL, Object, REVISION_LABEL, TAG_LABEL};

/// A tag, or a revision's own webhook.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Tag {
    pub name: String,
    pub revision: String,
    /// Namespaces that are injected by it.
    pub namespaces: Vec<String>,
}

/// What a tag is made of.
#[derive(Debug, Clone)]
pub struct TagRequest<'a> {
    pub name: &'a str,
    /// `default`, or the name of one.
    pub revision: &'a str,
    /// Where the control plane is.
    pub namespace: &'a str,
    /// Injects what has no label at all, too.
    pub everywhere: bool,
}

/// The objects of a tag. That of the name `default` validates what names no revision, too.
pub fn objects(request: &TagRequest<'_>) -> Result<Vec<Object>, ChartError> {
    let revision = if request.revision == "default" { "" } else { request.revision };
    let release = Release { name: "istio-tags", namespace: request.namespace };
    let mut values = json!({
        "revision": revision,
        "revisionTags": [request.name],
        "sidecarInjectorWebhook": {"enableNamespacesByDefault": request.everywhere},
    });
    let mut made = Chart::Istiod.render(&release, &values, &Contents::default())?;
    made.retain(|object| object.label(TAG_LABEL) == Some(request.name));
    if request.name == "default" {
        overlay(
            &mut values,
            &json!({"defaultRevision": request.revision, "global": {"istioNamespace": request.namespace}}),
        );
        let base = Chart::Base.render(&release, &values, &Contents::default())?;
        let mut validators: Vec<_> = base.into_iter().filter(|it| it.name() == "istiod-default-validator").collect();
        for validator in &mut validators {
            validator.set_label(TAG_LABEL, request.name);
        }
        made.append(&mut validators);
    }
    for object in &mut made {
        // A tag belongs to no installation: none of them prunes it.
        if let Some(labels) = object.value_mut().pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
            labels.shift_remove(OWNER_LABEL);
        }
    }
    Ok(made)
}

/// The tags that webhooks of a cluster make, with the namespaces that each injects.
pub fn tags(webhooks: &[Value], namespaces: &[Value]) -> Vec<Tag> {
    let mut tags: Vec<Tag> = webhooks
        .iter()
        .filter_map(|webhook| {
            let labels = webhook.pointer("/metadata/labels")?;
            let name = labels.get(TAG_LABEL)?.as_str()?.to_owned();
            let revision = labels.get(REVISION_LABEL)?.as_str()?.to_owned();
            Some(Tag { namespaces: injected(&name, namespaces), name, revision })
        })
        .collect();
    tags.sort();
    tags.dedup();
    tags
}

/// Namespaces whose label names a tag or revision.
pub fn injected(name: &str, namespaces: &[Value]) -> Vec<String> {
    let of = |namespace: &&Value| {
        let label = |key: &str| namespace.pointer("/metadata/labels")?.get(key)?.as_str();
        match label("istio-injection") {
            // The older label wins.
            Some("enabled") => name == "default",
            Some(_) => false,
            None => label(REVISION_LABEL) == Some(name),
        }
    };
    let text = |namespace: &Value| Some(namespace.pointer("/metadata/name")?.as_str()?.to_owned());
    namespaces.iter().filter(of).filter_map(text).collect()
}

#[cfg(test)]
mod tests;
