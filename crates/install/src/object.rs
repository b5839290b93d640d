//! An object of a cluster, as it is written and applied.
//!
//! Owns: what every object has (kind, name, labels) and the order in which objects are made. Pure.

use std::fmt;

use serde_json::{Map, Value};

/// In which order objects are made, so that none waits for a later one; it is taken down the other way round.
const ORDER: [&str; 20] = [
    "Namespace",
    "CustomResourceDefinition",
    "ServiceAccount",
    "ClusterRole",
    "ClusterRoleBinding",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "ResourceQuota",
    "NetworkPolicy",
    "Service",
    "EndpointSlice",
    "Deployment",
    "DaemonSet",
    "HorizontalPodAutoscaler",
    "PodDisruptionBudget",
    "NetworkAttachmentDefinition",
    "MutatingWebhookConfiguration",
    "ValidatingWebhookConfiguration",
];

pub const COMPONENT_LABEL: &str = "operator.istio.io/component";
pub const OWNER_LABEL: &str = "install.operator.istio.io/owning-resource";
pub const REVISION_LABEL: &str = "istio.io/rev";
pub const TAG_LABEL: &str = "istio.io/tag";

/// Names an object in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    pub api_version: String,
    pub kind: String,
    /// Empty for objects of the cluster.
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{}/{}", self.kind, self.name),
            namespace => write!(f, "{}/{}.{namespace}", self.kind, self.name),
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct Object(Value);

impl Object {
    /// Refuses what has no kind, version or name.
    pub fn new(value: Value) -> Result<Self, String> {
        for at in ["/apiVersion", "/kind", "/metadata/name"] {
            if value.pointer(at).and_then(Value::as_str).is_none_or(str::is_empty) {
                return Err(format!("{} is missing", at[1..].replace('/', ".")));
            }
        }
        Ok(Self(value))
    }

    pub fn value(&self) -> &Value {
        &self.0
    }

    pub fn value_mut(&mut self) -> &mut Value {
        &mut self.0
    }

    fn text(&self, at: &str) -> &str {
        self.0.pointer(at).and_then(Value::as_str).unwrap_or_default()
    }

    pub fn kind(&self) -> &str {
        self.text("/kind")
    }

    pub fn name(&self) -> &str {
        self.text("/metadata/name")
    }

    pub fn namespace(&self) -> &str {
        self.text("/metadata/namespace")
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey {
            api_version: self.text("/apiVersion").to_owned(),
            kind: self.kind().to_owned(),
            namespace: self.namespace().to_owned(),
            name: self.name().to_owned(),
        }
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.0.get("metadata")?.get("labels")?.get(name)?.as_str()
    }

    /// Another object goes with which this one goes.
    pub fn has_owner(&self) -> bool {
        self.0.pointer("/metadata/ownerReferences").and_then(Value::as_array).is_some_and(|owners| !owners.is_empty())
    }

    pub fn set_label(&mut self, name: &str, value: &str) {
        let labels = &mut self.0["metadata"]["labels"];
        if !labels.is_object() {
            *labels = Value::Object(Map::new());
        }
        labels[name] = Value::from(value);
    }

    /// By kind, then namespace and name.
    pub fn rank(&self) -> (usize, &str, &str, &str) {
        (rank(self.kind()), self.kind(), self.namespace(), self.name())
    }
}

/// The place of a kind in the order in which objects are made; kinds that are not known come before webhooks.
pub fn rank(kind: &str) -> usize {
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len() - 3)
}

/// Puts objects into the order in which they are made.
pub fn sort(objects: &mut [Object]) {
    objects.sort_by(|a, b| a.rank().cmp(&b.rank()));
}

/// Several documents, each after its `---`.
pub fn manifest<'a>(objects: impl IntoIterator<Item = &'a Object>) -> String {
    objects.into_iter().map(|object| format!("---\n{}", crate::yaml::write(object.value()))).collect()
}
