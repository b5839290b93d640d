//! The Deployment of a gateway: one container with the proxy, whose agent is told by flags and environment as Istio's is.

use super::DeploymentValues;
use super::meta::Named;
use meltemi_config::Str;
use meltemi_model::Labels;
use serde_json::{Value, json};

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";
const INJECT: &str = "sidecar.istio.io/inject";
const REVISION: &str = "istio.io/rev";
const NETWORK: &str = "topology.istio.io/network";
/// On a Gateway: another image, whole, and levels of the logs.
const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";
const LOG_LEVEL: &str = "sidecar.istio.io/logLevel";
const COMPONENT_LOG_LEVEL: &str = "sidecar.istio.io/componentLogLevel";
const AGENT_LOG_LEVEL: &str = "sidecar.istio.io/agentLogLevel";
const METRICS_PORT: u32 = 15020;
const STATUS_PORT: u32 = 15021;
const PROMETHEUS_PORT: u32 = 15090;
const TOKEN_SECONDS: u32 = 43_200;

pub fn deployment(named: &Named<'_>, values: &DeploymentValues) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": named.metadata(&named.name),
        "spec": {
            "selector": {"matchLabels": named.selector()},
            "template": {
                "metadata": {"annotations": annotations(named, values), "labels": labels(named)},
                "spec": pod(named, values),
            },
        },
    })
}

fn labels(named: &Named<'_>) -> Labels {
    let mut labels = named.labels.clone();
    let own: [(&str, Str); 3] =
        [(INJECT, "false".into()), (CANONICAL_NAME, named.name.clone()), (CANONICAL_REVISION, "latest".into())];
    for (key, value) in own {
        labels.entry(key.into()).or_insert(value);
    }
    // The selector's labels are among those of everything; that we manage the pod is said here as well.
    labels.insert(super::MANAGED.into(), crate::class::GATEWAY_CONTROLLER.replace('/', "-").into());
    labels
}

fn annotations(named: &Named<'_>, values: &DeploymentValues) -> Labels {
    let revision: Str = if values.revision.is_empty() { "default".into() } else { values.revision.clone() };
    let own: [(&str, Str); 4] = [
        (REVISION, revision),
        ("prometheus.io/path", "/stats/prometheus".into()),
        ("prometheus.io/port", METRICS_PORT.to_string().into()),
        ("prometheus.io/scrape", "true".into()),
    ];
    let mut annotations = named.annotations.clone();
    annotations.extend(own.map(|(key, value)| (Str::from(key), value)));
    annotations
}

fn pod(named: &Named<'_>, values: &DeploymentValues) -> Value {
    let mut pod = json!({
        "securityContext": security(values),
        "serviceAccountName": named.account,
        "containers": [container(named, values)],
        "volumes": volumes(values),
    });
    if !values.image_pull_secrets.is_empty() {
        pod["imagePullSecrets"] = values.image_pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
    pod
}

fn security(values: &DeploymentValues) -> Value {
    if !values.security_context.is_null() {
        return values.security_context.clone();
    }
    let mut security = json!({"sysctls": [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}]});
    if !values.seccomp_profile.is_null() {
        security["seccompProfile"] = values.seccomp_profile.clone();
    }
    security
}

fn container(named: &Named<'_>, values: &DeploymentValues) -> Value {
    let annotation = |key: &str| named.meta.annotations.get(key);
    let own_image = annotation(PROXY_IMAGE).filter(|image| image.contains('/'));
    let port = |number: u32, name: &str| json!({"containerPort": number, "name": name, "protocol": "TCP"});
    let mut container = json!({
        "name": "istio-proxy",
        "image": own_image.unwrap_or(&values.image),
        "securityContext": {
            "capabilities": {"drop": ["ALL"]},
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "runAsUser": values.user,
            "runAsGroup": values.group,
            "runAsNonRoot": true,
        },
        "ports": [
            port(METRICS_PORT, "metrics"), port(STATUS_PORT, "status-port"), port(PROMETHEUS_PORT, "http-envoy-prom")
        ],
        "args": arguments(named, values),
        "env": environment(named, values),
        "startupProbe": probe(30, 1, 1),
        "readinessProbe": probe(4, 0, 15),
        "volumeMounts": mounts(values),
    });
    for (field, value) in [("resources", &values.resources), ("lifecycle", &values.lifecycle)] {
        if !value.is_null() {
            container[field] = value.clone();
        }
    }
    if let Some(policy) = &values.image_pull_policy {
        container["imagePullPolicy"] = json!(policy);
    }
    container
}

/// Ready as soon as the proxy has its configuration.
fn probe(failures: u32, delay_seconds: u32, period_seconds: u32) -> Value {
    json!({
        "failureThreshold": failures,
        "httpGet": {"path": "/healthz/ready", "port": STATUS_PORT, "scheme": "HTTP"},
        "initialDelaySeconds": delay_seconds,
        "periodSeconds": period_seconds,
        "successThreshold": 1,
        "timeoutSeconds": 1,
    })
}

fn arguments(named: &Named<'_>, values: &DeploymentValues) -> Vec<String> {
    let level = |key: &str, default: &Str| named.meta.annotations.get(key).unwrap_or(default).to_string();
    let mut all = vec![
        "proxy".to_owned(),
        "router".to_owned(),
        "--domain".to_owned(),
        format!("$(POD_NAMESPACE).svc.{}", values.cluster_domain),
        "--proxyLogLevel".to_owned(),
        level(LOG_LEVEL, &values.log_level),
        "--proxyComponentLogLevel".to_owned(),
        level(COMPONENT_LOG_LEVEL, &values.component_log_level),
        "--log_output_level".to_owned(),
        level(AGENT_LOG_LEVEL, &values.agent_log_level),
    ];
    if values.log_as_json {
        all.push("--log_as_json".to_owned());
    }
    all
}

fn environment(named: &Named<'_>, values: &DeploymentValues) -> Vec<Value> {
    let plain = |name: &str, value: &str| json!({"name": name, "value": value});
    let field = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    let limit = |name: &str, resource: &str| json!({"name": name, "valueFrom": {"resourceFieldRef": {"resource": resource, "divisor": "1"}}});
    let owner = format!("kubernetes://apis/apps/v1/namespaces/{}/deployments/{}", named.meta.namespace, named.name);
    let requested = named.labels.get(NETWORK);
    let network = requested.unwrap_or(&values.network);
    let mut all = vec![
        plain("PILOT_CERT_PROVIDER", &values.cert_provider),
        plain("CA_ADDR", &values.ca_address),
        field("POD_NAME", "metadata.name"),
        field("POD_NAMESPACE", "metadata.namespace"),
        field("INSTANCE_IP", "status.podIP"),
        field("SERVICE_ACCOUNT", "spec.serviceAccountName"),
        field("HOST_IP", "status.hostIP"),
        limit("ISTIO_CPU_LIMIT", "limits.cpu"),
        plain("PROXY_CONFIG", &format!("{}\n", values.proxy_config)),
        plain("ISTIO_META_POD_PORTS", "[]"),
        plain("ISTIO_META_APP_CONTAINERS", ""),
        limit("GOMEMLIMIT", "limits.memory"),
        plain("ISTIO_META_CLUSTER_ID", &values.cluster_id),
        field("ISTIO_META_NODE_NAME", "spec.nodeName"),
        plain("ISTIO_META_INTERCEPTION_MODE", "REDIRECT"),
    ];
    all.extend((!network.is_empty()).then(|| plain("ISTIO_META_NETWORK", network)));
    all.push(plain("ISTIO_META_WORKLOAD_NAME", &named.name));
    all.push(plain("ISTIO_META_OWNER", &owner));
    all.extend((!values.mesh_id.is_empty()).then(|| plain("ISTIO_META_MESH_ID", &values.mesh_id)));
    all.extend((!values.trust_domain.is_empty()).then(|| plain("TRUST_DOMAIN", &values.trust_domain)));
    all.extend(values.proxy_metadata.iter().map(|(name, value)| plain(name, value)));
    all.extend(requested.map(|network| plain("ISTIO_META_REQUESTED_NETWORK_VIEW", network)));
    all
}

/// Whether the roots of the mesh are in a ConfigMap of each namespace.
fn has_own_roots(values: &DeploymentValues) -> bool {
    &*values.cert_provider == "istiod" || values.cert_provider.starts_with("k8s.io/")
}

fn mounts(values: &DeploymentValues) -> Vec<Value> {
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    let mut all = vec![
        mount("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
        mount("credential-socket", "/var/run/secrets/credential-uds"),
        mount("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
    ];
    all.extend(has_own_roots(values).then(|| mount("istiod-ca-cert", "/var/run/secrets/istio")));
    all.extend([
        mount("istio-data", "/var/lib/istio/data"),
        mount("istio-envoy", "/etc/istio/proxy"),
        mount("istio-token", "/var/run/secrets/tokens"),
        mount("istio-podinfo", "/etc/istio/pod"),
    ]);
    all
}

fn volumes(values: &DeploymentValues) -> Vec<Value> {
    let empty = |name: &str| json!({"name": name, "emptyDir": {}});
    let item = |path: &str| json!({"path": path, "fieldRef": {"fieldPath": format!("metadata.{path}")}});
    let token = json!({
        "path": "istio-token", "expirationSeconds": TOKEN_SECONDS, "audience": values.token_audience
    });
    let mut all = vec![
        empty("workload-socket"),
        empty("credential-socket"),
        empty("workload-certs"),
        json!({"name": "istio-envoy", "emptyDir": {"medium": "Memory"}}),
        empty("istio-data"),
        json!({"name": "istio-podinfo", "downwardAPI": {"items": [item("labels"), item("annotations")]}}),
        json!({"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}}),
    ];
    let roots = || json!({"name": "istiod-ca-cert", "configMap": {"name": values.trust_bundle}});
    all.extend(has_own_roots(values).then(roots));
    all
}
