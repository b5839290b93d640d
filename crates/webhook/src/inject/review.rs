//! The webhook's question: is this pod to be injected, and what is to change.

use std::collections::BTreeMap;

use meltemi_config::mesh::ProxyConfig;
use serde_json::{Value, json};

use super::{Context, InjectError, Injector, NativeSidecars, Node, ProxyIds, Workload};
use super::{mesh, names, openshift, pod, policy};
use crate::admission::AdmissionRequest;

/// What of the cluster injection needs to know. Answers come from memory.
pub trait Cluster: Send + Sync {
    fn nodes(&self) -> Vec<Node>;

    /// None: there is no such namespace, or it is not known yet.
    fn namespace_annotations(&self, namespace: &str) -> Option<BTreeMap<String, String>>;

    /// The ProxyConfigs (in YAML or JSON) that hold for a pod, the most particular one last. Those of the namespace `root`
    /// are for the whole mesh.
    fn proxy_configs(&self, root: &str, namespace: &str, labels: &BTreeMap<String, String>) -> Vec<String>;
}

/// How injection depends on where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Platform {
    pub native_sidecars: NativeSidecars,
    /// `PLATFORM=openshift`.
    pub is_openshift: bool,
}

/// What becomes of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    Skipped,
    /// A JSON patch.
    Injected(Value),
}

impl Injector {
    /// Decides on the pod of a request; `path` is the request's, and may name the cluster and network.
    ///
    /// # Errors
    /// When the pod's annotations are wrong, or a template makes something that is no pod.
    pub fn review(
        &self,
        request: &AdmissionRequest,
        path: &str,
        platform: Platform,
        cluster: &dyn Cluster,
    ) -> Result<Outcome, InjectError> {
        check_shape(&request.object)?;
        let mut pod = request.object.clone();
        let has_namespace = pod["metadata"]["namespace"].as_str().is_some_and(|namespace| !namespace.is_empty());
        if !has_namespace {
            set_namespace(&mut pod, &request.namespace);
        }
        if !policy::is_required(&self.settings.config, &pod) {
            return Ok(Outcome::Skipped);
        }
        let context = self.context(&mut pod, path, platform, cluster)?;
        let mut injected = self.inject(&pod, context)?;
        if !has_namespace && let Some(metadata) = injected["metadata"].as_object_mut() {
            metadata.shift_remove("namespace");
        }
        let patch = json_patch::diff(&request.object, &injected);
        Ok(Outcome::Injected(json!(patch)))
    }

    fn context(
        &self,
        pod: &mut Value,
        path: &str,
        platform: Platform,
        cluster: &dyn Cluster,
    ) -> Result<Context, InjectError> {
        let config = &self.settings.config;
        let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default().to_owned();
        let mut ids = ProxyIds::default();
        if platform.is_openshift {
            ids = cluster.namespace_annotations(&namespace).map_or(ids, |found| ProxyIds::of_namespace(&found));
            openshift::forget_assigned_user(pod);
        }
        let node = pod["spec"]["nodeName"].as_str().unwrap_or_default();
        Ok(Context {
            workload: Workload::of_pod(pod),
            mesh: self.settings.mesh.clone(),
            proxy_config: self.proxy_config(pod, &namespace, cluster)?,
            native_sidecar: platform.native_sidecars.for_pod(node, &cluster.nodes()),
            ids,
            variables: variables(path),
            default_templates: config.default_templates.clone(),
            aliases: config.aliases.clone(),
            injected_annotations: config.injected_annotations.clone(),
        })
    }

    /// The mesh's, then the ProxyConfigs', then that of the pod's annotation.
    fn proxy_config(&self, pod: &Value, namespace: &str, cluster: &dyn Cluster) -> Result<ProxyConfig, InjectError> {
        let labels = pod["metadata"]["labels"].as_object().into_iter().flatten();
        let labels =
            labels.map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        let mut config = self.settings.mesh.default_config.clone();
        for text in cluster.proxy_configs(&self.settings.mesh.root_namespace, namespace, &labels) {
            config = mesh::overlaid(&config, &text)?;
        }
        match pod::annotation(pod, names::PROXY_CONFIG) {
            Some(text) => Ok(mesh::overlaid(&config, text)?),
            None => Ok(config),
        }
    }
}

/// What is no pod at all is refused here; what is wrong in a pod is refused by the API server, with its path.
fn check_shape(object: &Value) -> Result<(), InjectError> {
    let parts = [("object", Some(object)), ("metadata", object.get("metadata")), ("spec", object.get("spec"))];
    let wrong = parts.into_iter().find(|(_, part)| part.is_some_and(|part| !part.is_object() && !part.is_null()));
    match wrong {
        _ if object.is_null() => Err(InjectError::NotAPod("object")),
        Some((name, _)) => Err(InjectError::NotAPod(name)),
        None => Ok(()),
    }
}

fn set_namespace(pod: &mut Value, namespace: &str) {
    if let Some(pod) = pod.as_object_mut() {
        pod::object(pod, "metadata").insert("namespace".to_owned(), json!(namespace));
    }
}

/// Short names of variables in paths.
const PARAMETERS: [(&str, &str); 2] = [("cluster", names::CLUSTER_VARIABLE), ("net", names::NETWORK_VARIABLE)];

/// `/inject/cluster/c/net/n/name/value…`, where a slash in a value is `--slash--`; or, of old, `/inject/:ENV:cluster=c:ENV:net=n`.
fn variables(path: &str) -> BTreeMap<String, String> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut parts = path.splitn(3, '/');
    let Some(parameters) = parts.nth(2) else { return BTreeMap::new() };
    let pairs: Vec<(&str, String)> = if parameters.starts_with(":ENV:") {
        let pairs = parameters.split(":ENV:").filter_map(|pair| pair.split_once('='));
        pairs.map(|(name, value)| (name, value.to_owned())).collect()
    } else {
        let parts: Vec<&str> = parameters.split('/').collect();
        let pairs = parts.chunks_exact(2).map(|pair| (pair[0], pair[1].replace("--slash--", "/")));
        pairs.collect()
    };
    let named = pairs.into_iter().filter(|(name, _)| !name.is_empty()).map(|(name, value)| {
        let known = PARAMETERS.iter().find(|(short, _)| *short == name);
        (known.map_or_else(|| name.to_uppercase(), |(_, variable)| (*variable).to_owned()), value)
    });
    named.collect()
}

#[cfg(test)]
mod tests;
