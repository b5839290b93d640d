//! The annotation `sidecar.istio.io/status`: what injection put into a pod, so that a second injection can take it out.

use serde::Deserialize;
use serde_json::{Value, json};

use super::names;
use super::pod;

/// What is said of an earlier injection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Status {
    pub containers: Option<Vec<String>>,
    pub init_containers: Option<Vec<String>>,
}

impl Status {
    /// Of a pod that was injected before. Where it cannot be read, nothing can be taken out.
    pub fn of_pod(pod: &Value) -> Option<Self> {
        let text = pod::annotation(pod, names::STATUS)?;
        serde_json::from_str(text).map_err(|error| tracing::warn!(%error, "annotation {}", names::STATUS)).ok()
    }

    pub fn list(&self, list: &str) -> &[String] {
        let names = if list == "containers" { &self.containers } else { &self.init_containers };
        names.as_deref().unwrap_or_default()
    }
}

/// The status of a pod into which `template` was merged.
pub fn of(template: &Value, revision: &str) -> String {
    let names = |list: &str| {
        let names: Vec<&str> = pod::list(template, list).iter().map(pod::name_of).collect();
        if names.is_empty() { Value::Null } else { json!(names) }
    };
    super::shape::go_text(&json!({
        "initContainers": names("initContainers"),
        "containers": names("containers"),
        "volumes": names("volumes"),
        "imagePullSecrets": names("imagePullSecrets"),
        "revision": if revision.is_empty() { "default" } else { revision },
    }))
}
