//! The names, labels and annotations of what is deployed, and the objects that consist of little else.

use super::DeploymentValues;
use crate::class::Controller;
use crate::gateway::{self, SERVICE_ACCOUNT};
use meltemi_config::gateway_api::KubernetesGateway;
use meltemi_config::{Meta, Str};
use meltemi_model::Labels;
use serde_json::{Value, json};

const API_PREFIX: &str = "gateway.networking.k8s.io/";
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";
const DATA_PLANE_MODE: &str = "istio.io/dataplane-mode";
/// Annotations of the Gateway that are for its controllers alone.
const NOT_COPIED: [&str; 4] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    gateway::NAME_OVERRIDE,
    SERVICE_ACCOUNT,
    super::CONTROLLER_VERSION,
];

/// What is deployed, by its names.
pub struct Named<'a> {
    pub meta: &'a Meta,
    pub spec: &'a KubernetesGateway,
    /// Of the Deployment and the Service.
    pub name: Str,
    pub account: Str,
    /// Of everything.
    pub labels: Labels,
    pub annotations: Labels,
    pub quic: bool,
}

impl<'a> Named<'a> {
    pub fn of(meta: &'a Meta, spec: &'a KubernetesGateway, controller: Controller, values: &DeploymentValues) -> Self {
        let default: Str = gateway::default_name(meta, (spec, controller)).into();
        let named = |annotation: &str| {
            meta.annotations.get(annotation).filter(|name| !name.is_empty()).unwrap_or(&default).clone()
        };
        let own = spec.infrastructure.as_ref();
        let copied = |own: &Labels| if values.copies_metadata { own.clone() } else { Labels::new() };
        let mut labels = match own.map(|own| &own.labels).filter(|labels| !labels.is_empty()) {
            Some(labels) => theirs(labels),
            None => copied(&meta.labels),
        };
        let mut annotations = match own.map(|own| &own.annotations).filter(|annotations| !annotations.is_empty()) {
            Some(annotations) => theirs(annotations),
            None => copied(&meta.annotations),
        };
        annotations.retain(|key, _| !NOT_COPIED.contains(&&**key));
        // The traffic of a gateway is not to be redirected unless somebody says so.
        if !meta.labels.contains_key(DATA_PLANE_MODE) {
            labels.entry(DATA_PLANE_MODE.into()).or_insert_with(|| "none".into());
        }
        labels.insert(GATEWAY_NAME.into(), meta.name.clone());
        labels.insert(CLASS_NAME.into(), spec.gateway_class_name.clone());
        let (name, account) = (named(gateway::NAME_OVERRIDE), named(SERVICE_ACCOUNT));
        Self { meta, spec, name, account, labels, annotations, quic: values.quic }
    }

    /// `metadata` of an object of this name.
    pub fn metadata(&self, name: &Str) -> Value {
        json!({
            "name": name,
            "namespace": self.meta.namespace,
            "annotations": self.annotations,
            "labels": self.labels,
            "ownerReferences": [{
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "name": self.meta.name,
                "uid": self.meta.uid,
            }],
        })
    }

    /// Selects the pods.
    pub fn selector(&self) -> Value {
        json!({GATEWAY_NAME: self.meta.name})
    }

    pub fn service_account(&self) -> Value {
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": self.metadata(&self.account)})
    }

    pub fn autoscaler(&self) -> Value {
        json!({
            "apiVersion": "autoscaling/v2",
            "kind": "HorizontalPodAutoscaler",
            "metadata": self.metadata(&self.name),
            "spec": {
                "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name},
                "maxReplicas": 1,
            },
        })
    }

    pub fn disruption_budget(&self) -> Value {
        json!({
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": self.metadata(&self.name),
            "spec": {"selector": {"matchLabels": self.selector()}},
        })
    }
}

/// Without what is the API's own to set.
fn theirs(own: &Labels) -> Labels {
    own.iter()
        .filter(|(key, _)| !key.starts_with(API_PREFIX))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
