//! From the settings of a gateway in an IstioOperator to the values of the gateway's chart, whose names are others.

use serde_json::{Value, json};

use super::{Component, copy, map};
use crate::operator::Operator;
use crate::path;

/// `values.gateways.NAME` → chart.
const RENAMED: [(&str, &str); 29] = [
    ("autoscaleEnabled", "autoscaling.enabled"),
    ("autoscaleMin", "autoscaling.minReplicas"),
    ("autoscaleMax", "autoscaling.maxReplicas"),
    ("cpu.targetAverageUtilization", "autoscaling.targetCPUUtilizationPercentage"),
    ("memory.targetAverageUtilization", "autoscaling.targetMemoryUtilizationPercentage"),
    ("replicaCount", "replicaCount"),
    ("rollingMaxSurge", "strategy.rollingUpdate.maxSurge"),
    ("rollingMaxUnavailable", "strategy.rollingUpdate.maxUnavailable"),
    ("type", "service.type"),
    ("ports", "service.ports"),
    ("loadBalancerIP", "service.loadBalancerIP"),
    ("loadBalancerSourceRanges", "service.loadBalancerSourceRanges"),
    ("externalTrafficPolicy", "service.externalTrafficPolicy"),
    ("serviceAnnotations", "service.annotations"),
    ("ipFamilies", "service.ipFamilies"),
    ("ipFamilyPolicy", "service.ipFamilyPolicy"),
    ("serviceAccount.annotations", "serviceAccount.annotations"),
    ("podAnnotations", "podAnnotations"),
    ("resources", "resources"),
    ("nodeSelector", "nodeSelector"),
    ("tolerations", "tolerations"),
    ("affinity", "affinity"),
    ("env", "env"),
    ("secretVolumes", "secretVolumes"),
    ("configVolumes", "configVolumes"),
    ("additionalContainers", "additionalContainers"),
    ("runAsRoot", "runAsRoot"),
    ("injectionTemplate", "injectionTemplate"),
    ("labels", "labels"),
];

/// `values` → chart, for what all components share.
const SHARED: [(&str, &str); 8] = [
    ("revision", "revision"),
    ("ownerName", "ownerName"),
    ("global.platform", "platform"),
    ("global.imagePullPolicy", "imagePullPolicy"),
    ("global.imagePullSecrets", "imagePullSecrets"),
    ("global.priorityClassName", "priorityClassName"),
    ("global.networkPolicy.enabled", "networkPolicy.enabled"),
    ("global.defaultPodDisruptionBudget.enabled", "podDisruptionBudget.enabled"),
];

/// `k8s` → chart, for what the chart's conditions and lists of ports need to know.
const KUBERNETES: [(&str, &str); 4] = [
    ("k8s.hpaSpec.minReplicas", "autoscaling.minReplicas"),
    ("k8s.hpaSpec.maxReplicas", "autoscaling.maxReplicas"),
    ("k8s.replicaCount", "replicaCount"),
    ("k8s.service.ports", "service.ports"),
];

fn settings(values: &Value, component: Component) -> Value {
    let all = values.get("gateways").and_then(|gateways| gateways.get(component.release()));
    all.cloned().unwrap_or_else(|| json!({}))
}

/// Istio lets `values` switch a gateway on, too.
pub(super) fn is_enabled_by_values(values: &Value, component: Component) -> bool {
    path::find(&settings(values, component), "enabled") == Some(&Value::Bool(true))
}

pub(super) fn values(operator: &Operator, component: Component, name: &str, spec: &Value) -> Value {
    let settings = settings(&operator.values, component);
    let kind = if component == Component::EgressGateways { "egressgateway" } else { "ingressgateway" };
    let mut values = json!({
        "name": name,
        "component": component.label(),
        "serviceAccount": {"name": format!("{name}-service-account")},
        "labels": {"app": component.release(), "istio": kind},
    });
    if component == Component::EgressGateways {
        values["service"] = json!({"type": "ClusterIP", "ports": [
            {"name": "http2", "port": 80, "targetPort": 8080, "protocol": "TCP"},
            {"name": "https", "port": 443, "targetPort": 8443, "protocol": "TCP"},
        ]});
    }
    for (from, to) in SHARED {
        copy(&operator.values, from, &mut values, to);
    }
    for (from, to) in [
        ("defaultNodeSelector", "nodeSelector"),
        ("defaultTolerations", "tolerations"),
        ("defaultResources", "resources"),
    ] {
        copy(&operator.values["global"], from, &mut values, to);
    }
    let labels = map(values.get("labels"));
    for (from, to) in RENAMED {
        copy(&settings, from, &mut values, to);
    }
    for (from, to) in KUBERNETES {
        copy(spec, from, &mut values, to);
    }
    let more = [map(settings.get("labels")), map(spec.get("label"))];
    values["labels"] = Value::Object(more.into_iter().fold(labels, |mut labels, more| {
        labels.extend(more);
        labels
    }));
    copy(&operator.values["meshConfig"], "enablePrometheusMerge", &mut values, "prometheusMerge");
    if let Some(network) = values["labels"].get("topology.istio.io/network").cloned() {
        values["networkGateway"] = network;
    }
    values
}
