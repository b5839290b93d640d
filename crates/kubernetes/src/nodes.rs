//! What the daemon of a node asks of the cluster: the pods of its node, and its node itself.
//!
//! Owns: the few facts of a pod that matter to capture, taken from Kubernetes' own type, and the calls by which a pod is
//! deleted, labelled or written about. Never hands on a variable of a container's environment that is not in
//! [`VARIABLES`], as others may hold secrets. Cost: one watch of the node's pods; a call for each change.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1 as core;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::events::{Event as Report, EventType, Recorder, Reporter};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Api, Client, ResourceExt as _};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::mpsc::Sender;

#[cfg(test)]
mod tests;

/// The container that is the proxy.
pub const PROXY: &str = "istio-proxy";

/// The variables of the proxy's container that say what to capture.
pub const VARIABLES: [&str; 4] = ["DISABLE_ENVOY", "INVALID_DROP", "ISTIO_DUAL_STACK", "ISTIO_META_DNS_CAPTURE"];

/// A failed call, as the API server or the way to it tells of it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(String);

impl From<kube::Error> for NodeError {
    fn from(error: kube::Error) -> Self {
        NodeError(error.to_string())
    }
}

impl NodeError {
    pub fn new(message: impl Into<String>) -> Self {
        NodeError(message.into())
    }
}

/// What matters of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    pub host_network: bool,
    pub containers: Vec<Container>,
    /// `status.podIPs`.
    pub addresses: Vec<String>,
    /// Init containers that have not done their work, with how they ended last.
    pub failures: Vec<Failure>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Container {
    pub name: String,
    pub arguments: Vec<String>,
    /// Of the proxy's container, those in [`VARIABLES`].
    pub variables: BTreeMap<String, String>,
    pub user: Option<i64>,
    pub group: Option<i64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failure {
    pub container: String,
    pub exit_code: i32,
    pub message: String,
}

impl From<&core::Container> for Container {
    fn from(container: &core::Container) -> Self {
        let context = container.security_context.as_ref();
        let wanted = |variable: &&core::EnvVar| container.name == PROXY && VARIABLES.contains(&&*variable.name);
        let variables = container.env.iter().flatten().filter(wanted);
        Container {
            name: container.name.clone(),
            arguments: container.args.clone().unwrap_or_default(),
            variables: variables.map(|v| (v.name.clone(), v.value.clone().unwrap_or_default())).collect(),
            user: context.and_then(|context| context.run_as_user),
            group: context.and_then(|context| context.run_as_group),
        }
    }
}

/// How an init container ended last, where it has not come to its good end since.
fn failure(status: &core::ContainerStatus) -> Option<Failure> {
    let ended = |state: &Option<core::ContainerState>| state.as_ref().and_then(|state| state.terminated.clone());
    if ended(&status.state).is_some_and(|now| now.exit_code == 0) {
        return None;
    }
    let last = ended(&status.last_state)?;
    let message = last.message.unwrap_or_default();
    Some(Failure { container: status.name.clone(), exit_code: last.exit_code, message })
}

impl From<core::Pod> for Pod {
    fn from(pod: core::Pod) -> Self {
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers).map(Container::from);
        Pod {
            containers: containers.collect(),
            host_network: spec.host_network.unwrap_or_default(),
            addresses: status.pod_ips.into_iter().flatten().map(|address| address.ip).collect(),
            failures: status.init_container_statuses.iter().flatten().filter_map(failure).collect(),
            namespace: pod.metadata.namespace.unwrap_or_default(),
            name: pod.metadata.name.unwrap_or_default(),
            uid: pod.metadata.uid.unwrap_or_default(),
            resource_version: pod.metadata.resource_version.unwrap_or_default(),
            labels: pod.metadata.labels.unwrap_or_default(),
            annotations: pod.metadata.annotations.unwrap_or_default(),
        }
    }
}

impl Pod {
    /// From a document of kind Pod.
    pub fn from_document(document: serde_json::Value) -> Result<Pod, NodeError> {
        let pod: core::Pod = serde_json::from_value(document).map_err(|error| NodeError(error.to_string()))?;
        Ok(pod.into())
    }
}

/// Which pods of the node to watch, in the API server's selector syntax.
#[derive(Debug, Clone, Default)]
pub struct Selectors {
    pub labels: String,
    pub fields: String,
}

/// A pod as it is now, or that it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Seen(Box<Pod>),
    Gone { namespace: String, name: String },
}

/// An API server, from the point of view of one node.
#[derive(Clone)]
pub struct NodeClient {
    client: Client,
    node: String,
    reporter: Recorder,
}

impl NodeClient {
    /// Uses the service account of the pod, or a kubeconfig file.
    pub async fn connect(node: &str) -> Result<Self, NodeError> {
        Ok(Self::new(Client::try_default().await?, node))
    }

    pub fn new(client: Client, node: &str) -> Self {
        let reporter = Reporter { controller: "meltemi-cni".to_owned(), instance: Some(node.to_owned()) };
        NodeClient { reporter: Recorder::new(client.clone(), reporter), client, node: node.to_owned() }
    }

    fn pods(&self, namespace: &str) -> Api<core::Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    pub async fn pod(&self, namespace: &str, name: &str) -> Result<Option<Pod>, NodeError> {
        Ok(self.pods(namespace).get_opt(name).await?.map(Pod::from))
    }

    /// Sends the node's pods, and each as it changes, until nobody listens. Survives what breaks a watch.
    pub async fn watch(&self, selectors: &Selectors, changes: Sender<Change>) {
        let mut fields = format!("spec.nodeName={}", self.node);
        if !selectors.fields.is_empty() {
            fields = format!("{},{fields}", selectors.fields);
        }
        let mut config = watcher::Config::default().fields(&fields);
        if !selectors.labels.is_empty() {
            config = config.labels(&selectors.labels);
        }
        let events = watch(Api::<core::Pod>::all(self.client.clone()), config).default_backoff();
        let mut events = std::pin::pin!(events.map_err(|error| NodeError(error.to_string())));
        while let Some(event) = events.next().await {
            let change = match event {
                Ok(Event::Apply(pod) | Event::InitApply(pod)) => Change::Seen(Box::new(pod.into())),
                Ok(Event::Delete(pod)) => {
                    Change::Gone { namespace: pod.namespace().unwrap_or_default(), name: pod.name_any() }
                }
                Ok(Event::Init | Event::InitDone) => continue,
                Err(error) => {
                    tracing::warn!(%error, "watching the node's pods");
                    continue;
                }
            };
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }

    /// Deletes the pod if it still is the one that was looked at.
    pub async fn delete(&self, pod: &Pod) -> Result<(), NodeError> {
        let preconditions =
            Preconditions { uid: Some(pod.uid.clone()), resource_version: Some(pod.resource_version.clone()) };
        let parameters = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.pods(&pod.namespace).delete(&pod.name, &parameters).await?;
        Ok(())
    }

    /// Labels a pod by its status, which needs less of a right than the pod itself.
    pub async fn label(&self, pod: &Pod, key: &str, value: &str) -> Result<(), NodeError> {
        let patch = Patch::Merge(json!({"metadata": {"labels": {key: value}}}));
        self.pods(&pod.namespace).patch_status(&pod.name, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Writes a warning about a pod, for `kubectl describe`.
    pub async fn warn(&self, pod: &Pod, reason: &str, note: &str) -> Result<(), NodeError> {
        let report = Report {
            type_: EventType::Warning,
            reason: reason.to_owned(),
            note: Some(note.to_owned()),
            action: "Repair".to_owned(),
            secondary: None,
        };
        let about = core::ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.clone()),
            name: Some(pod.name.clone()),
            uid: Some(pod.uid.clone()),
            ..core::ObjectReference::default()
        };
        Ok(self.reporter.publish(&report, &about).await?)
    }

    /// Takes the taint with this key off the node; true where there was one. Other taints, even ones that come meanwhile,
    /// stay: the change is refused if the node has changed since it was read, and tried again.
    pub async fn remove_taint(&self, key: &str) -> Result<bool, NodeError> {
        let nodes: Api<core::Node> = Api::all(self.client.clone());
        for _ in 0..MAX_CONFLICTS {
            let node = nodes.get(&self.node).await?;
            let Some(patch) = without_taint(&node, key) else { return Ok(false) };
            match nodes.patch(&self.node, &PatchParams::default(), &Patch::Merge(patch)).await {
                Ok(_) => return Ok(true),
                Err(kube::Error::Api(status)) if status.code == CONFLICT => tokio::time::sleep(CONFLICT_PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(NodeError(format!("node {}: changed by others {MAX_CONFLICTS} times in a row", self.node)))
    }
}

const CONFLICT: u16 = 409;
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);
const MAX_CONFLICTS: u32 = 5;

/// The change that leaves all taints of a node but those with `key`; none where it has no such taint.
fn without_taint(node: &core::Node, key: &str) -> Option<serde_json::Value> {
    let taints = node.spec.as_ref()?.taints.as_ref()?;
    let left: Vec<_> = taints.iter().filter(|taint| taint.key != key).collect();
    if left.len() == taints.len() {
        return None;
    }
    let version = node.metadata.resource_version.as_deref();
    Some(json!({"metadata": {"resourceVersion": version}, "spec": {"taints": left}}))
}
