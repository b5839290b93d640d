//! What of the installation's values decides about deployed gateways.

use super::text;
use meltemi_config::Str;
use meltemi_config::mesh::MeshConfig;
use serde_json::{Value, json};
use std::collections::BTreeMap;

const CLUSTER: &str = "Kubernetes";
/// Whom a proxy's process runs as.
const USER: u64 = 1337;

/// Istio's Helm values, as far as a gateway's pod has them.
#[derive(Clone, Debug, PartialEq)]
pub struct DeploymentValues {
    /// The proxy's image, with registry and tag.
    pub image: Str,
    pub image_pull_policy: Option<Str>,
    pub image_pull_secrets: Vec<Str>,
    /// `resources` of the container; null: none.
    pub resources: Value,
    /// `lifecycle` of the container; null: none.
    pub lifecycle: Value,
    pub log_level: Str,
    pub component_log_level: Str,
    pub agent_log_level: Str,
    pub log_as_json: bool,
    pub cluster_domain: Str,
    pub cluster_id: Str,
    /// The network of workloads that name none; may be empty.
    pub network: Str,
    pub mesh_id: Str,
    pub trust_domain: Str,
    /// `host:port` of the authority.
    pub ca_address: Str,
    pub cert_provider: Str,
    pub token_audience: Str,
    /// Empty: `default`.
    pub revision: Str,
    /// ConfigMap with the mesh's roots.
    pub trust_bundle: Str,
    pub root_namespace: Str,
    /// ProxyConfig as it is handed to the agent.
    pub proxy_config: Value,
    pub proxy_metadata: BTreeMap<Str, Str>,
    /// A pod's own `securityContext`; null: low ports without privilege.
    pub security_context: Value,
    /// `seccompProfile` of a pod without a `securityContext` of its own; null: the cluster's.
    pub seccomp_profile: Value,
    /// Whether what is deployed has the Gateway's own labels and annotations (`PILOT_ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS`).
    pub copies_metadata: bool,
    /// Whether listeners of HTTPS have a UDP port beside (`PILOT_ENABLE_QUIC_LISTENERS`).
    pub quic: bool,
    pub user: u64,
    pub group: u64,
}

impl DeploymentValues {
    /// From a tree of Helm values, with Istio's defaults where it says nothing, and the mesh's settings.
    pub fn of(values: &Value, mesh: &MeshConfig) -> Self {
        let global = &values["global"];
        let or = |value: &Value, default: &str| match value {
            Value::String(text) if !text.is_empty() => Str::from(text.as_str()),
            Value::Number(number) => number.to_string().into(),
            _ => default.into(),
        };
        let (proxy, revision) = (&global["proxy"], text(&values["revision"]));
        let namespace = or(&global["istioNamespace"], &mesh.root_namespace);
        let suffix = if revision.is_empty() { String::new() } else { format!("-{revision}") };
        let trust_domain = or(&global["trustDomain"], &mesh.trust_domain);
        let environment = &values["pilot"]["env"];
        let is = |name: &str| match &environment[name] {
            Value::Bool(value) => Some(*value),
            Value::String(value) => value.parse().ok(),
            _ => None,
        };
        let secrets = global["imagePullSecrets"].as_array().into_iter().flatten().map(text);
        Self {
            image: image(global),
            image_pull_policy: Some(text(&global["imagePullPolicy"])).filter(|policy| !policy.is_empty()),
            image_pull_secrets: secrets.collect(),
            resources: without_nulls(&proxy["resources"]),
            lifecycle: proxy["lifecycle"].clone(),
            log_level: or(&proxy["logLevel"], "warning"),
            component_log_level: or(&proxy["componentLogLevel"], "misc:error"),
            agent_log_level: or(&global["logging"]["level"], "default:info"),
            log_as_json: global["logAsJson"] == true,
            cluster_domain: or(&proxy["clusterDomain"], "cluster.local"),
            cluster_id: or(&global["multiCluster"]["clusterName"], CLUSTER),
            network: text(&global["network"]),
            mesh_id: or(&global["meshID"], &trust_domain),
            trust_domain,
            ca_address: or(&global["caAddress"], &format!("istiod{suffix}.{namespace}.svc:15012")),
            cert_provider: or(&global["pilotCertProvider"], "istiod"),
            token_audience: or(&global["sds"]["token"]["aud"], "istio-ca"),
            revision,
            trust_bundle: or(&global["trustBundleName"], "istio-ca-root-cert"),
            root_namespace: mesh.root_namespace.clone(),
            proxy_config: json!({}),
            proxy_metadata: mesh.default_config.proxy_metadata.clone(),
            security_context: filled(&values["gateways"]["securityContext"]),
            seccomp_profile: filled(&values["gateways"]["seccompProfile"]),
            copies_metadata: is("PILOT_ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS").unwrap_or(true),
            quic: is("PILOT_ENABLE_QUIC_LISTENERS").unwrap_or(false),
            user: USER,
            group: USER,
        }
    }
}

/// `hub/image:tag-variant`; an image that has a registry already is whole.
fn image(global: &Value) -> Str {
    let own = global["proxy"]["image"].as_str().unwrap_or("proxyv2");
    if own.contains('/') {
        return own.into();
    }
    let (hub, tag) = (text(&global["hub"]), &global["tag"]);
    let tag = tag.as_str().map_or_else(|| tag.to_string(), str::to_owned);
    let variant = global["variant"].as_str().filter(|variant| !variant.is_empty() && *variant != "default");
    match variant {
        Some(variant) => format!("{hub}/{own}:{tag}-{variant}").into(),
        None => format!("{hub}/{own}:{tag}").into(),
    }
}

/// What the charts write where nobody said anything is nothing.
fn filled(value: &Value) -> Value {
    if value.as_object().is_some_and(serde_json::Map::is_empty) { Value::Null } else { value.clone() }
}

/// A value that was unset by hand is not there.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, inner)| !inner.is_null());
            kept.map(|(key, inner)| (key.clone(), without_nulls(inner))).collect()
        }
        other => other.clone(),
    }
}
