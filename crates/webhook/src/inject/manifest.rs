//! Injection into documents in files, as `istioctl kube-inject`: every kind that makes pods, everything else unchanged.

use meltemi_config::split_documents;
use serde_json::{Value, json};

use super::shape::{Shape, canonical, sorted};
use super::{Context, InjectError, Injector, NativeSidecars, Node, ProxyIds, Workload};
use super::{document, mesh, names, pod, policy};

/// Kinds that make pods, and `List`s of them.
const KINDS: [(&str, &str); 10] = [
    ("v1", "List"),
    ("v1", "Pod"),
    ("v1", "ReplicationController"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "Job"),
    ("batch/v1", "CronJob"),
    ("apps.openshift.io/v1", "DeploymentConfig"),
];

#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    #[error("line {line}: {reason}")]
    Document { line: u64, reason: String },
    #[error("{object}: {error}")]
    Inject { object: String, error: InjectError },
    #[error("{object}: spec.template is required")]
    NoTemplate { object: String },
}

/// Documents with proxies, and what is to be said of them.
#[derive(Debug, Default)]
pub struct Injected {
    /// Each document ends with `---`.
    pub text: String,
    pub warnings: Vec<String>,
}

/// What decides whether proxies are native sidecars.
#[derive(Debug, Clone, Default)]
pub struct Nodes {
    pub native_sidecars: NativeSidecars,
    pub nodes: Vec<Node>,
}

impl Injector {
    /// # Errors
    /// When a document cannot be read, or a pod in it cannot be injected.
    pub fn inject_documents(&self, text: &str, nodes: &Nodes) -> Result<Injected, ManifestError> {
        let mut injected = Injected::default();
        for (line, part) in split_documents(text) {
            let value = document::value(part).map_err(|error| ManifestError::Document {
                line: u64::from(line) + error.line - 1,
                reason: error.message,
            })?;
            if is_injectable(&value) {
                let mut job = Job { injector: self, nodes, warnings: &mut injected.warnings };
                let value = job.document(&value)?;
                let text = document::yaml(&sorted(&value));
                injected
                    .text
                    .push_str(&text.map_err(|reason| ManifestError::Document { line: u64::from(line), reason })?);
            } else {
                injected.text.push_str(part.strip_prefix('\n').unwrap_or(part));
            }
            if !injected.text.is_empty() && !injected.text.ends_with('\n') {
                injected.text.push('\n');
            }
            injected.text.push_str("---\n");
        }
        Ok(injected)
    }
}

pub(super) fn is_injectable(value: &Value) -> bool {
    KINDS.iter().any(|(version, kind)| value["apiVersion"] == *version && value["kind"] == *kind)
}

struct Job<'a> {
    injector: &'a Injector,
    nodes: &'a Nodes,
    warnings: &'a mut Vec<String>,
}

impl Job<'_> {
    fn document(&mut self, value: &Value) -> Result<Value, ManifestError> {
        if value["kind"] == "List" {
            return self.list(value);
        }
        let kind = value["kind"].as_str().unwrap_or_default();
        let (metadata, spec) = places(kind);
        let name = object_name(value, metadata);
        if matches!(kind, "ReplicationController" | "DeploymentConfig") && !value["spec"]["template"].is_object() {
            return Err(ManifestError::NoTemplate { object: format!("{kind} {name:?}") });
        }
        let part = |path: &str| value.pointer(path).cloned().unwrap_or_else(|| json!({}));
        let pod = json!({ "metadata": part(metadata), "spec": part(spec) });
        let mut out = canonical(value, Shape::of_kind(kind).unwrap_or_else(Shape::pod));
        if let Some(injected) = self.pod(&pod, value, kind, &name)? {
            for (path, key) in [(metadata, "metadata"), (spec, "spec")] {
                if let Some(place) = out.pointer_mut(path) {
                    *place = injected[key].clone();
                }
            }
        }
        Ok(out)
    }

    fn list(&mut self, value: &Value) -> Result<Value, ManifestError> {
        let mut out = value.clone();
        for item in out["items"].as_array_mut().into_iter().flatten() {
            if is_injectable(item) {
                *item = self.document(item)?;
            }
        }
        if out["metadata"].is_null() {
            out["metadata"] = json!({});
        }
        Ok(out)
    }

    /// None: the pod is not to be injected, which is said.
    fn pod(&mut self, pod: &Value, owner: &Value, kind: &str, name: &str) -> Result<Option<Value>, ManifestError> {
        let reason = if policy::in_host_network(pod) {
            "host networking enabled"
        } else if policy::is_wanted_by_itself(pod) {
            let wrong = |error| ManifestError::Inject { object: format!("{kind} {name:?}"), error };
            let context = self.context(pod, owner, kind).map_err(wrong)?;
            return self.injector.inject(pod, context).map(Some).map_err(wrong);
        } else {
            "sidecar injection disabled"
        };
        self.warnings.push(format!("===> Skipping injection because {kind} {name:?} has {reason}\n"));
        Ok(None)
    }

    fn context(&self, pod: &Value, owner: &Value, kind: &str) -> Result<Context, InjectError> {
        let settings = &self.injector.settings;
        let mut mesh = settings.mesh.clone();
        if let Some(text) = pod::annotation(pod, names::PROXY_CONFIG) {
            mesh.default_config = mesh::overlaid(&mesh.default_config, text)?;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let workload = match kind {
            "Pod" => Workload::of_pod(pod),
            _ => Workload {
                api_version: text(&owner["apiVersion"]),
                kind: kind.to_owned(),
                namespace: text(&owner["metadata"]["namespace"]),
                name: text(&owner["metadata"]["name"]),
            },
        };
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        Ok(Context {
            workload,
            proxy_config: mesh.default_config.clone(),
            mesh,
            native_sidecar: self.nodes.native_sidecars.for_pod(node, &self.nodes.nodes),
            ids: ProxyIds::default(),
            variables: Default::default(),
            default_templates: settings.config.default_templates.clone(),
            aliases: settings.config.aliases.clone(),
            injected_annotations: settings.config.injected_annotations.clone(),
        })
    }
}

/// Where a kind has its pods' metadata and spec. Of a CronJob, Istio labels the jobs and not their pods.
fn places(kind: &str) -> (&'static str, &'static str) {
    match kind {
        "Pod" => ("/metadata", "/spec"),
        "CronJob" => ("/spec/jobTemplate/metadata", "/spec/jobTemplate/spec/template/spec"),
        _ => ("/spec/template/metadata", "/spec/template/spec"),
    }
}

/// `namespace/name`, the name being the pod's if it has one.
fn object_name(value: &Value, metadata: &str) -> String {
    let own = value.pointer(metadata).and_then(|metadata| metadata["name"].as_str()).filter(|name| !name.is_empty());
    let name = own.or_else(|| value["metadata"]["name"].as_str()).unwrap_or_default();
    match value["metadata"]["namespace"].as_str() {
        Some(namespace) if !namespace.is_empty() => format!("{namespace}/{name}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests;
