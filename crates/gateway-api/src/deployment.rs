//! What is deployed for a Gateway that names no Service of its own: istiod's Deployment, Service and ServiceAccount, and where its
//! overlays ask for them a HorizontalPodAutoscaler and a PodDisruptionBudget.
//!
//! Owns the objects as values, as a function of the Gateways, the mesh's values and the ConfigMaps that are laid over them. Never
//! applies anything: who does asks [`over`] first, so that nothing of others is taken over.

mod meta;
mod overlay;
mod pod;
mod ports;
mod values;

pub use values::DeploymentValues;

use crate::catalogue::Catalogue;
use crate::class::{Controller, GATEWAY_CONTROLLER};
use crate::error::Problem;
use crate::gateway;
use meltemi_config::gateway_api::KubernetesGateway;
use meltemi_config::kube::ConfigMap;
use meltemi_config::{Meta, Str};
use meltemi_model::{ObjectKey, config};
use meta::Named;
use serde_json::{Value, json};

/// On a Gateway: which generation of controllers deploys for it; larger numbers win.
const CONTROLLER_VERSION: &str = "gateway.istio.io/controller-version";
/// Istio's, since 1.18.
const OWN_VERSION: u32 = 5;
/// On what is deployed: by whom.
pub const MANAGED: &str = "gateway.istio.io/managed";
/// On a ConfigMap of the root namespace: the class whose Gateways it is laid over.
const CLASS_DEFAULTS: &str = "gateway.istio.io/defaults-for-class";
/// On deployments of Istio 1.23 and before, in a selector that cannot change.
const OLD_NAME: &str = "istio.io/gateway-name";

/// What is deployed for one Gateway.
#[derive(Clone, Debug, PartialEq)]
pub struct Deployed {
    pub gateway: ObjectKey,
    /// Of the Gateway, which owns the objects.
    pub uid: Str,
    /// The Gateway's annotation to apply first, to its `status` subresource; absent where the Gateway has it.
    pub claim: Option<Value>,
    /// In the order of their application; or why there are none.
    pub objects: Result<Vec<Value>, Problem>,
}

/// Makes the objects of a Gateway in place of ours: of its `metadata` and `spec`, the `names` of Deployment and account, the `ports` and
/// the `type` of the Service, the `labels` and `annotations` of all, the `cluster`, the proxy's `user` and `group`.
pub type Template<'a> = &'a dyn Fn(&Value) -> Result<Vec<Value>, String>;

/// What is deployed for every Gateway of ours, in the order of namespaces and names, by the values that are for it.
pub fn deployments(
    catalogue: &Catalogue,
    values: impl Fn(&Meta) -> DeploymentValues,
    template: Option<Template<'_>>,
) -> Vec<Deployed> {
    let of_one = |(meta, spec): (&Meta, &KubernetesGateway)| {
        let controller = Controller::of_class(catalogue, &spec.gateway_class_name)?;
        // A waypoint is a proxy of another kind; a remote Gateway's is in another cluster.
        if controller != Controller::Gateway || !gateway::is_managed(spec) || meta.deletion_timestamp.is_some() {
            return None;
        }
        let claim = claim(meta)?;
        let gateway = ObjectKey { namespace: meta.namespace.clone(), name: meta.name.clone() };
        Some(Deployed {
            gateway,
            uid: meta.uid.clone(),
            claim,
            objects: objects(catalogue, (&values(meta), template), (meta, spec, controller)),
        })
    };
    catalogue.all::<KubernetesGateway>().filter_map(of_one).collect()
}

/// `None` where a newer controller deploys; else the annotation, where it is not there yet.
fn claim(meta: &Meta) -> Option<Option<Value>> {
    match meta.annotations.get(CONTROLLER_VERSION).map(|version| version.parse::<u32>()) {
        Some(Ok(OWN_VERSION)) => Some(None),
        Some(Ok(newer)) if newer > OWN_VERSION => None,
        Some(Err(_)) => None,
        Some(Ok(_)) | None => Some(Some(json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "Gateway",
            "metadata": {
                "name": meta.name,
                "namespace": meta.namespace,
                "annotations": {CONTROLLER_VERSION: OWN_VERSION.to_string()},
            },
        }))),
    }
}

fn objects(
    catalogue: &Catalogue,
    (values, template): (&DeploymentValues, Option<Template<'_>>),
    (meta, spec, controller): (&Meta, &KubernetesGateway, Controller),
) -> Result<Vec<Value>, Problem> {
    let overlays = overlays(catalogue, values, meta, spec)?;
    let named = Named::of(meta, spec, controller, values);
    let all = match template {
        Some(template) => templated(template, &input(catalogue, values, &named), meta)?,
        None => vec![
            named.service_account(),
            pod::deployment(&named, values),
            ports::service(catalogue, &named),
            named.autoscaler(),
            named.disruption_budget(),
        ],
    };
    let laid = all.into_iter().map(|object| {
        let need = overlay::Need::of(&object);
        overlay::laid_over(object, &overlays, need)
    });
    let managed_by = GATEWAY_CONTROLLER.replace('/', "-");
    let mark = |mut object: Value| {
        object["metadata"]["labels"][MANAGED] = managed_by.clone().into();
        object
    };
    laid.filter_map(Result::transpose).map(|object| object.map(mark)).collect()
}

/// What a template is told.
fn input(catalogue: &Catalogue, values: &DeploymentValues, named: &Named<'_>) -> Value {
    let service = ports::service(catalogue, named);
    let meta = named.meta;
    json!({
        "metadata": {
            "name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "labels": meta.labels, "annotations": meta.annotations,
        },
        "spec": named.spec,
        "names": {"deployment": named.name, "account": named.account},
        "ports": service["spec"]["ports"],
        "type": service["spec"]["type"],
        "labels": named.labels,
        "annotations": named.annotations,
        "cluster": values.cluster_id,
        "user": values.user,
        "group": values.group,
    })
}

/// Of the kinds that are deployed, and in the Gateway's namespace: what a template makes has the rights of the control plane.
fn templated(template: Template<'_>, input: &Value, meta: &Meta) -> Result<Vec<Value>, Problem> {
    let wrong = |reason: String| Problem::new("InvalidParameters", format!("template kube-gateway: {reason}"));
    let objects = template(input).map_err(wrong)?;
    for object in &objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        if !overlay::is_deployed(kind) {
            return Err(wrong(format!("it makes a {kind}, which is not deployed for Gateways")));
        }
        if object["metadata"]["namespace"] != *meta.namespace {
            return Err(wrong(format!("its {kind} is not in the Gateway's namespace")));
        }
    }
    Ok(objects)
}

/// The ConfigMaps that are laid over what is deployed: the class's, then the Gateway's own.
fn overlays<'a>(
    catalogue: &'a Catalogue,
    values: &DeploymentValues,
    meta: &Meta,
    spec: &KubernetesGateway,
) -> Result<Vec<&'a ConfigMap>, Problem> {
    let is_default = |own: &Meta| {
        own.namespace == values.root_namespace && own.labels.get(CLASS_DEFAULTS) == Some(&spec.gateway_class_name)
    };
    let of_class = catalogue.all::<ConfigMap>().filter(|(own, _)| is_default(own));
    let oldest = of_class.min_by_key(|(own, _)| (config::creation(own), own.name.clone()));
    let mut all: Vec<&ConfigMap> = oldest.map(|(_, map)| map).into_iter().collect();
    if let Some(problem) = gateway::parameters(catalogue, meta, spec) {
        return Err(problem);
    }
    let named = spec.infrastructure.as_ref().and_then(|own| own.parameters_ref.as_ref());
    let own = named.and_then(|reference| catalogue.config_map(&meta.namespace, &reference.name));
    all.extend(own.map(|(_, map)| map));
    Ok(all)
}

/// The object to apply where `existing` is there (null: nothing is). `None`: it is somebody else's, and stays as it is.
pub fn over(existing: &Value, mut wanted: Value) -> Option<Value> {
    if existing.is_null() {
        return Some(wanted);
    }
    existing["metadata"]["labels"].get(MANAGED)?;
    // What is not as it was when we looked is not ours to change.
    wanted["metadata"]["resourceVersion"] = existing["metadata"]["resourceVersion"].clone();
    let selector = &existing["spec"]["selector"];
    if wanted["kind"] == "Deployment" && selector["matchLabels"][OLD_NAME].as_str().is_some_and(|name| !name.is_empty())
    {
        wanted["spec"]["selector"] = selector.clone();
        let name = existing["spec"]["template"]["metadata"]["labels"][OLD_NAME].clone();
        wanted["spec"]["template"]["metadata"]["labels"][OLD_NAME] = name;
    }
    Some(wanted)
}

fn text(value: &Value) -> Str {
    value.as_str().unwrap_or_default().into()
}

#[cfg(test)]
mod tests;
