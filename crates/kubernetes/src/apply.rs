//! Objects of an installation, or of a Gateway's deployment, in a cluster: server-side apply, lists by label, removal.
//!
//! Owns: how objects that are known only as JSON are reached, and what of an answer means what. Decides nothing about an
//! installation. Every call has a bound of its own in the API server and in the client.

mod labelled;

use std::path::Path;
use std::time::Duration;

use kube::Client;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
    PropagationPolicy, ValidationDirective,
};
use meltemi_base::causes;
use serde_json::Value;
use thiserror::Error;

use crate::client::configuration;

pub use labelled::{Held, Labelled, Place, follow_labelled};

/// Who we are to the API server where it notes down who manages which field.
pub const MANAGER: &str = "meltemi-install";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Objects a page; an installation has some dozens.
const PAGE: u32 = 500;
/// Of a list that does not end.
const MAX_PAGES: usize = 200;

#[derive(Debug, Error)]
pub enum ClusterError {
    #[error("no cluster is known here: {0}")]
    Configuration(String),
    /// Others manage fields that we want: each with who it is.
    #[error("others manage {}", .0.join("; "))]
    Conflict(Vec<String>),
    /// Not any more the version that was to be changed.
    #[error("others changed it at the same time")]
    Modified,
    #[error("the API server has no such kind or object")]
    Missing,
    #[error("the API server refuses: {0}")]
    Refused(String),
    #[error("the API server cannot be reached: {0}")]
    Unreachable(String),
}

impl From<kube::Error> for ClusterError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 404 => Self::Missing,
            kube::Error::Api(status) if status.code == 409 && status.reason == "Conflict" => {
                let causes = status.details.as_ref().map(|details| &details.causes[..]).unwrap_or_default();
                let fields: Vec<_> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
                if fields.is_empty() { Self::Modified } else { Self::Conflict(fields) }
            }
            kube::Error::Api(status) => Self::Refused(status.message),
            kube::Error::Service(cause) => Self::Unreachable(cause.to_string()),
            other => Self::Unreachable(other.to_string()),
        }
    }
}

/// A kind, as it is addressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resource {
    pub api_version: &'static str,
    pub kind: &'static str,
    pub plural: &'static str,
    pub namespaced: bool,
}

const fn resource(api_version: &'static str, kind: &'static str, plural: &'static str, namespaced: bool) -> Resource {
    Resource { api_version, kind, plural, namespaced }
}

/// Every kind that an installation may hold, in the order in which they are taken down.
pub const RESOURCES: &[Resource] = &[
    resource(
        "admissionregistration.k8s.io/v1",
        "ValidatingWebhookConfiguration",
        "validatingwebhookconfigurations",
        false,
    ),
    resource("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", false),
    resource("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "network-attachment-definitions", true),
    resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets", true),
    resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true),
    resource("apps/v1", "DaemonSet", "daemonsets", true),
    resource("apps/v1", "Deployment", "deployments", true),
    resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices", true),
    resource("v1", "Service", "services", true),
    resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies", true),
    resource("v1", "ResourceQuota", "resourcequotas", true),
    resource("v1", "Secret", "secrets", true),
    resource("v1", "ConfigMap", "configmaps", true),
    resource("coordination.k8s.io/v1", "Lease", "leases", true),
    resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings", true),
    resource("rbac.authorization.k8s.io/v1", "Role", "roles", true),
    resource("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", false),
    resource("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", false),
    resource("v1", "ServiceAccount", "serviceaccounts", true),
    resource("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", false),
    resource("v1", "Namespace", "namespaces", false),
    resource("v1", "Pod", "pods", true),
];

impl Resource {
    pub fn of_kind(kind: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|resource| resource.kind == kind)
    }

    fn api(&self) -> ApiResource {
        let (group, version) = self.api_version.rsplit_once('/').unwrap_or(("", self.api_version));
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, self.kind), self.plural)
    }
}

/// What became of an object that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    Created,
    Changed,
    Unchanged,
}

/// How an object is applied.
#[derive(Debug, Clone, Copy, Default)]
pub struct Apply {
    /// The API server checks all of it, and keeps nothing.
    pub dry_run: bool,
    /// Fields that others manage are taken over.
    pub take_over: bool,
}

/// A cluster that an installation goes to.
#[derive(Clone)]
pub struct Cluster {
    client: Client,
    manager: &'static str,
}

impl Cluster {
    /// By a client that is there already, under a manager's name of its own.
    pub fn of(client: Client, manager: &'static str) -> Self {
        Self { client, manager }
    }

    /// By a kubeconfig and one of its contexts, or as the environment says.
    pub async fn connect(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Self, ClusterError> {
        let mut config = configuration(kubeconfig, context).await.map_err(ClusterError::Configuration)?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        config.read_timeout = Some(READ_TIMEOUT);
        let client = Client::try_from(config).map_err(|error| ClusterError::Configuration(causes(&error)))?;
        Ok(Self { client, manager: MANAGER })
    }

    fn api(&self, resource: &Resource, namespace: &str) -> Api<DynamicObject> {
        if resource.namespaced && !namespace.is_empty() {
            Api::namespaced_with(self.client.clone(), namespace, &resource.api())
        } else {
            Api::all_with(self.client.clone(), &resource.api())
        }
    }

    /// Absent where neither the object nor its kind is there.
    pub async fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Result<Option<Value>, ClusterError> {
        let found = self.api(resource, namespace).get_opt(name).await?;
        Ok(found.map(|object| value(resource, object)))
    }

    /// Objects of a kind in all namespaces, or in one; none where the kind is not known.
    pub async fn list(&self, resource: &Resource, namespace: &str, labels: &str) -> Result<Vec<Value>, ClusterError> {
        self.listed(resource, namespace, ListParams::default().labels(labels)).await
    }

    /// Objects of a kind that have this name, in all namespaces.
    pub async fn named(&self, resource: &Resource, name: &str) -> Result<Vec<Value>, ClusterError> {
        self.listed(resource, "", ListParams::default().fields(&format!("metadata.name={name}"))).await
    }

    async fn listed(
        &self,
        resource: &Resource,
        namespace: &str,
        parameters: ListParams,
    ) -> Result<Vec<Value>, ClusterError> {
        let api = self.api(resource, namespace);
        let mut parameters = parameters.limit(PAGE);
        let mut objects = Vec::new();
        for _ in 0..MAX_PAGES {
            let page = match api.list(&parameters).await.map_err(ClusterError::from) {
                Err(ClusterError::Missing) => return Ok(objects),
                other => other?,
            };
            objects.extend(page.items.into_iter().map(|object| value(resource, object)));
            match page.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => parameters.continue_token = Some(token),
                None => return Ok(objects),
            }
        }
        Err(ClusterError::Refused(format!("more than {MAX_PAGES} pages of {}", resource.plural)))
    }

    /// Makes the object what is given, as far as it is given. `before` is what is there.
    pub async fn apply(
        &self,
        resource: &Resource,
        object: &Value,
        before: Option<&Value>,
        how: Apply,
    ) -> Result<Applied, ClusterError> {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let api = self.api(resource, text("/metadata/namespace"));
        let mut parameters = PatchParams::apply(self.manager).validation(ValidationDirective::Strict);
        parameters.dry_run = how.dry_run;
        parameters.force = how.take_over;
        let after = api.patch(text("/metadata/name"), &parameters, &Patch::Apply(object)).await?;
        let after = value(resource, after);
        Ok(match before {
            None => Applied::Created,
            // A dry run has no version of its own.
            Some(before) if how.dry_run => {
                if same(before, &after) {
                    Applied::Unchanged
                } else {
                    Applied::Changed
                }
            }
            Some(before) if before["metadata"]["resourceVersion"] == after["metadata"]["resourceVersion"] => {
                Applied::Unchanged
            }
            Some(_) => Applied::Changed,
        })
    }

    /// Applies to the subresource `status`, by force. API servers of old take annotations by it, too; one of 1.36 does not.
    pub async fn apply_status(&self, resource: &Resource, object: &Value) -> Result<(), ClusterError> {
        let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default();
        let api = self.api(resource, text("/metadata/namespace"));
        let parameters = PatchParams::apply(self.manager).force();
        Ok(api.patch_status(text("/metadata/name"), &parameters, &Patch::Apply(object)).await.map(drop)?)
    }

    /// False where an object of this name is there already.
    pub async fn create(&self, resource: &Resource, object: &Value) -> Result<bool, ClusterError> {
        let namespace = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or_default();
        let wrong = |error: serde_json::Error| ClusterError::Refused(error.to_string());
        let object: DynamicObject = serde_json::from_value(object.clone()).map_err(wrong)?;
        let parameters = PostParams { field_manager: Some(self.manager.to_owned()), ..PostParams::default() };
        match self.api(resource, namespace).create(&parameters, &object).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// False where it is not there any more. What depends on it goes first.
    pub async fn delete(&self, resource: &Resource, namespace: &str, name: &str) -> Result<bool, ClusterError> {
        let parameters =
            DeleteParams { propagation_policy: Some(PropagationPolicy::Background), ..DeleteParams::default() };
        match self.api(resource, namespace).delete(name, &parameters).await.map_err(ClusterError::from) {
            Ok(_) => Ok(true),
            Err(ClusterError::Missing) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Lists leave out kind and version of their members.
fn value(resource: &Resource, object: DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    value["apiVersion"] = Value::from(resource.api_version);
    value["kind"] = Value::from(resource.kind);
    value
}

/// Equal, but for what the API server notes down of each change.
fn same(before: &Value, after: &Value) -> bool {
    let bare = |value: &Value| {
        let mut value = value.clone();
        for key in ["managedFields", "resourceVersion", "generation"] {
            value["metadata"].as_object_mut().map(|metadata| metadata.shift_remove(key));
        }
        value
    };
    bare(before) == bare(after)
}

#[cfg(test)]
mod tests;
