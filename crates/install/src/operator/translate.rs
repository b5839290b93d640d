//! From the fields of a `spec` to values of charts; and from what Kubernetes has retired to what it takes now.
//!
//! Owns: which field of the `spec` becomes which value. Pure.

use serde_json::{Value, json};

use super::{Adopted, Findings, Notice};
use crate::merge::overlay;
use crate::path;

/// `spec` → `values`.
const RENAMED: [(&str, &str); 3] =
    [("hub", "values.global.hub"), ("tag", "values.global.tag"), ("revision", "values.revision")];

/// Puts everything that charts need below `values`. What the user wrote there wins.
pub fn into_values(spec: &mut Value, adopted: &Adopted, findings: &mut Findings) {
    let written = spec.get("values").cloned().unwrap_or_else(|| json!({}));
    for (from, to) in RENAMED {
        if let Some(value) = path::find(spec, from).cloned() {
            path::put(spec, to, value);
        }
    }
    let mut mesh = adopted.mesh.clone().unwrap_or_else(|| json!({}));
    for at in ["meshConfig", "values.meshConfig"] {
        if let Some(more) = path::find(spec, at) {
            overlay(&mut mesh, &more.clone());
        }
    }
    path::put(spec, "values.meshConfig", mesh);
    if let (Some(networks), None) = (&adopted.networks, path::find(spec, "values.global.meshNetworks")) {
        path::put(spec, "values.global.meshNetworks", networks.clone());
    }
    for (component, value) in [("pilot", "values.pilot.enabled"), ("cni", "values.pilot.cni.enabled")] {
        let enabled = path::find(spec, &format!("components.{component}.enabled")) == Some(&Value::Bool(true));
        path::put(spec, value, Value::Bool(enabled));
    }
    if let Value::Object(written) = &written {
        let mut again = Value::Object(written.clone());
        path::take(&mut again, "meshConfig");
        path::take(&mut again, "pilot.enabled");
        path::take(&mut again, "pilot.cni.enabled");
        overlay(&mut spec["values"], &again);
    }
    if let Some(more) = path::find(spec, "unvalidatedValues").cloned() {
        overlay(&mut spec["values"], &more);
    }
    unsupported(spec, findings);
}

/// What charts cannot do, though the field is known.
fn unsupported(spec: &Value, findings: &mut Findings) {
    let text = |at: &str| path::find(spec, at).and_then(Value::as_str);
    let provider = text("values.global.pilotCertProvider").unwrap_or("istiod");
    let at = "spec.values.global.pilotCertProvider";
    match provider.strip_prefix("k8s.io/") {
        Some(signer) if !signer.is_empty() => {
            if text("values.pilot.env.EXTERNAL_CA").is_none() {
                let message =
                    "discovery takes a signer of Kubernetes with EXTERNAL_CA alone, which pilot's env does not set";
                findings.notice(Notice::new(at, message.to_owned()));
            }
        }
        None if ["istiod", "custom", "none", ""].contains(&provider) => {}
        _ => findings.refuse(at, format!("{provider:?}: one of istiod, custom, none, k8s.io/SIGNER")),
    }
    let scope = text("values.global.resourceScope").unwrap_or("all");
    if !["all", "cluster", "namespace"].contains(&scope) {
        findings.refuse("spec.values.global.resourceScope", format!("{scope:?}: one of all, cluster, namespace"));
    }
}

/// Gives what `autoscaling/v2beta1` had its form in `autoscaling/v2`, in every `hpaSpec`.
pub fn modernise(spec: &mut Value, findings: &mut Findings) {
    let Some(components) = spec.get_mut("components").and_then(Value::as_object_mut) else { return };
    for (name, component) in components {
        let at = format!("spec.components.{name}");
        match component {
            Value::Array(list) => {
                for (index, member) in list.iter_mut().enumerate() {
                    modernise_component(member, &format!("{at}[{index}]"), findings);
                }
            }
            component => modernise_component(component, &at, findings),
        }
    }
}

fn modernise_component(component: &mut Value, at: &str, findings: &mut Findings) {
    let Some(metrics) = component.pointer_mut("/k8s/hpaSpec/metrics").and_then(Value::as_array_mut) else { return };
    for (index, metric) in metrics.iter_mut().enumerate() {
        let Some(resource) = metric.get_mut("resource").and_then(Value::as_object_mut) else { continue };
        for (old, kind, new) in [
            ("targetAverageUtilization", "Utilization", "averageUtilization"),
            ("targetAverageValue", "AverageValue", "averageValue"),
        ] {
            let Some(value) = resource.shift_remove(old) else { continue };
            resource.insert("target".to_owned(), json!({"type": kind, new: value}));
            let path = format!("{at}.k8s.hpaSpec.metrics[{index}].resource.{old}");
            let message = format!("is taken as target.{new}, which is its name in autoscaling/v2");
            findings.notice(Notice::new(&path, message));
        }
    }
}
