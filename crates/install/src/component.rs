//! The components of an installation: which there are, where each goes, and with which values its chart is rendered.
//!
//! Owns: what of a `spec` belongs to which component. Pure.

mod gateway;

use serde_json::{Map, Value, json};

use crate::chart::Chart;
use crate::operator::Operator;
use crate::path;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    Base,
    Pilot,
    Cni,
    IngressGateways,
    EgressGateways,
}

impl Component {
    /// In the order in which they are made.
    pub const ALL: [Self; 5] = [Self::Base, Self::Pilot, Self::Cni, Self::IngressGateways, Self::EgressGateways];

    /// The value of `operator.istio.io/component`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Base => "Base",
            Self::Pilot => "Pilot",
            Self::Cni => "Cni",
            Self::IngressGateways => "IngressGateways",
            Self::EgressGateways => "EgressGateways",
        }
    }

    /// As users call it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Base => "Kinds and validation",
            Self::Pilot => "Control plane",
            Self::Cni => "CNI plugin",
            Self::IngressGateways => "Ingress gateways",
            Self::EgressGateways => "Egress gateways",
        }
    }

    /// The name below `components`.
    pub fn field(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Pilot => "pilot",
            Self::Cni => "cni",
            Self::IngressGateways => "ingressGateways",
            Self::EgressGateways => "egressGateways",
        }
    }

    pub fn chart(self) -> Chart {
        match self {
            Self::Base => Chart::Base,
            Self::Pilot => Chart::Istiod,
            Self::Cni => Chart::Cni,
            Self::IngressGateways | Self::EgressGateways => Chart::Gateway,
        }
    }

    /// The name of its chart's release.
    pub fn release(self) -> &'static str {
        match self {
            Self::Base => "istio-base",
            Self::Pilot => "istiod",
            Self::Cni => "istio-cni",
            Self::IngressGateways => "istio-ingressgateway",
            Self::EgressGateways => "istio-egressgateway",
        }
    }

    pub fn is_gateway(self) -> bool {
        matches!(self, Self::IngressGateways | Self::EgressGateways)
    }
}

/// One of the things that a component comes to: of gateways there may be several.
#[derive(Debug, Clone)]
pub struct Instance {
    pub component: Component,
    /// What the `spec` says of it.
    pub spec: Value,
    /// `spec.components.ingressGateways[1]`.
    pub path: String,
    pub namespace: String,
    /// Of the workload that settings are meant for.
    pub workload: Workload,
    /// Of its chart.
    pub values: Value,
}

impl Instance {
    /// The name of its release: of gateways there may be several.
    pub fn release(&self) -> &str {
        if self.component.is_gateway() { &self.workload.name } else { self.component.release() }
    }
}

/// What `k8s` of a component changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Absent for a component without pods.
    pub kind: Option<&'static str>,
    pub name: String,
    pub container: &'static str,
}

/// The instances that are switched on, in the order in which they are made.
pub fn instances(operator: &Operator) -> Vec<Instance> {
    Component::ALL.into_iter().flat_map(|component| of(operator, component)).collect()
}

fn of(operator: &Operator, component: Component) -> Vec<Instance> {
    let field = component.field();
    let spec = operator.components.get(field);
    let at = format!("spec.components.{field}");
    let specs: Vec<(String, Value)> = match spec {
        Some(Value::Array(members)) => {
            members.iter().enumerate().map(|(index, spec)| (format!("{at}[{index}]"), spec.clone())).collect()
        }
        Some(spec) => vec![(at, spec.clone())],
        None => Vec::new(),
    };
    let forced = component.is_gateway() && gateway::is_enabled_by_values(&operator.values, component);
    let wanted = |spec: &Value| forced || spec.get("enabled").and_then(Value::as_bool).unwrap_or(true);
    let wanted = specs.into_iter().filter(|(_, spec)| wanted(spec));
    wanted.map(|(path, spec)| instance(operator, component, path, spec)).collect()
}

fn instance(operator: &Operator, component: Component, path: String, spec: Value) -> Instance {
    let text = |key: &str| spec.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let namespace = text("namespace").unwrap_or(&operator.namespace).to_owned();
    let name = text("name").unwrap_or(component.release()).to_owned();
    let (values, workload) = match component {
        Component::Base => (base_values(operator), Workload { kind: None, name, container: "" }),
        Component::Pilot => {
            let suffix = operator.revision.as_deref().map(|revision| format!("-{revision}")).unwrap_or_default();
            let name = format!("istiod{suffix}");
            (pilot_values(operator, &spec), Workload { kind: Some("Deployment"), name, container: "discovery" })
        }
        Component::Cni => {
            let name = "istio-cni-node".to_owned();
            let values = image_values(operator.values.clone(), "cni", &spec);
            (values, Workload { kind: Some("DaemonSet"), name, container: "install-cni" })
        }
        Component::IngressGateways | Component::EgressGateways => {
            let values = gateway::values(operator, component, &name, &spec);
            (values, Workload { kind: Some("Deployment"), name, container: "istio-proxy" })
        }
    };
    Instance { component, spec, path, namespace, workload, values }
}

/// The default revision validates what names none, unless another is said to.
fn base_values(operator: &Operator) -> Value {
    let mut values = operator.values.clone();
    if operator.revision.is_some() && path::find(&values, "defaultRevision").is_none() {
        path::put(&mut values, "defaultRevision", json!(""));
    }
    values
}

fn pilot_values(operator: &Operator, spec: &Value) -> Value {
    let mut values = image_values(operator.values.clone(), "pilot", spec);
    for (from, to) in [
        ("k8s.hpaSpec.minReplicas", "pilot.autoscaleMin"),
        ("k8s.hpaSpec.maxReplicas", "pilot.autoscaleMax"),
        ("k8s.replicaCount", "pilot.replicaCount"),
    ] {
        copy(spec, from, &mut values, to);
    }
    values
}

fn image_values(mut values: Value, at: &str, spec: &Value) -> Value {
    copy(spec, "hub", &mut values, &format!("{at}.hub"));
    copy(spec, "tag", &mut values, &format!("{at}.tag"));
    values
}

/// Charts' conditions see what `k8s` says, too.
fn copy(from: &Value, at: &str, to: &mut Value, place: &str) {
    if let Some(value) = path::find(from, at) {
        path::put(to, place, value.clone());
    }
}

fn map(value: Option<&Value>) -> Map<String, Value> {
    value.and_then(Value::as_object).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests;
