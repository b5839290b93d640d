//! A replica's proxy: its environment and files, as injection gives them to a pod on Kubernetes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::address::FABRIC;
use crate::docs::{DOMAIN, NODE};
use crate::error::LocalError;
use crate::pod::Pod;
use crate::process::Program;
use crate::workload::{Replica, Role};

/// The mark on the proxy's own sockets: Istio's 1337, in the one form that a user namespace of a single id allows.
pub(crate) const SOCKET_MARK: u32 = 0x539;

/// Token, root certificate and the downward API's files, where the agent looks for them in its working folder.
pub(crate) fn write_files(pod: &Pod, folder: &Path) -> Result<(), LocalError> {
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, content)).map_err(LocalError::io(name.to_owned()))
    };
    let root = &pod.shared.root_certificate;
    let root = fs::read(root).map_err(LocalError::io(root.display().to_string()))?;
    write("var/run/secrets/istio/root-cert.pem", &root)?;
    write("var/run/secrets/tokens/istio-token", pod.token.as_bytes())?;
    let lines = |map: &BTreeMap<String, String>| {
        map.iter().map(|(key, value)| format!("{key}={}\n", json!(value))).collect::<String>()
    };
    write("etc/istio/pod/labels", lines(&pod.replica.labels).as_bytes())?;
    write("etc/istio/pod/annotations", lines(&pod.replica.annotations).as_bytes())
}

pub(crate) fn program(pod: &Pod, folder: &Path) -> Program {
    let replica = &pod.replica;
    let role = if replica.role == Role::Router { "router" } else { "sidecar" };
    let domain = format!("{}.svc.{DOMAIN}", replica.namespace);
    let arguments = ["proxy", role, "--domain", &domain].into_iter().map(str::to_owned);
    let envoy = replica.envoy.iter().flat_map(|path| ["--envoy".to_owned(), path.display().to_string()]);
    Program {
        label: format!("{}/istio-proxy", replica.name),
        program: pod.shared.executable.clone(),
        arguments: arguments.chain(envoy).collect(),
        environment: environment(pod, replica),
        folder: folder.to_owned(),
        log: pod.log("istio-proxy"),
        verbose: pod.shared.verbose,
    }
}

fn environment(pod: &Pod, replica: &Replica) -> Vec<(String, String)> {
    let ports: Vec<_> = replica
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "containerPort": port.number, "protocol": port.protocol}))
        .collect();
    let containers: Vec<_> = replica.containers.iter().map(|container| container.name.as_str()).collect();
    let owner = format!(
        "kubernetes://apis/apps/v1/namespaces/{}/{}s/{}",
        replica.namespace,
        replica.owner_kind.to_lowercase(),
        replica.owner
    );
    let mut settings: BTreeMap<String, String> = [
        ("POD_NAME", replica.name.clone()),
        ("POD_NAMESPACE", replica.namespace.clone()),
        ("INSTANCE_IP", pod.address().to_string()),
        ("HOST_IP", FABRIC.to_string()),
        ("SERVICE_ACCOUNT", replica.service_account.clone()),
        ("PILOT_CERT_PROVIDER", "istiod".to_owned()),
        ("TRUST_DOMAIN", pod.shared.trust_domain.clone()),
        ("PROXY_CONFIG", replica.proxy_config.clone()),
        ("ISTIO_META_POD_PORTS", json!(ports).to_string()),
        ("ISTIO_META_APP_CONTAINERS", containers.join(",")),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes".to_owned()),
        ("ISTIO_META_NODE_NAME", NODE.to_owned()),
        ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT".to_owned()),
        ("ISTIO_META_WORKLOAD_NAME", replica.owner.clone()),
        ("ISTIO_META_OWNER", owner),
        ("ISTIO_META_MESH_ID", pod.shared.mesh_id.clone()),
        ("ISTIO_META_DNS_CAPTURE", "true".to_owned()),
        ("MELTEMI_SOCKET_MARK", SOCKET_MARK.to_string()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect();
    if replica.role == Role::Router {
        settings.insert("ISTIO_META_UNPRIVILEGED_POD".to_owned(), "true".to_owned());
        settings.remove("ISTIO_META_DNS_CAPTURE");
    }
    settings.extend(metadata(&replica.proxy_config));
    settings.into_iter().collect()
}

/// Injection makes `proxyMetadata` variables of the container, too.
fn metadata(proxy_config: &str) -> Vec<(String, String)> {
    let config: Value = serde_json::from_str(proxy_config).unwrap_or_default();
    let variables = config["proxyMetadata"].as_object().into_iter().flatten();
    variables.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
}
