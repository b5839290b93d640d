//! The proxies of a mesh: which workloads have one, and as what it would connect.

use std::collections::BTreeSet;

use meltemi_config::kube::Pod;
use meltemi_config::{Meta, Object, Source, Spec, nearest};
use meltemi_model::{Labels, Node, NodeDescription, NodeError, NodeKind, Snapshot};
use serde_json::{Map, Value, json};

use crate::fill::is_gateway;

/// One pod, with the node that its proxy is.
#[derive(Debug, Clone)]
pub struct Proxy {
    pub pod: String,
    /// The Deployment (or other kind) that the pod belongs to; the pod itself without one.
    pub workload: String,
    pub namespace: String,
    pub labels: Labels,
    /// None: the pod is outside of the mesh.
    pub node: Option<Node>,
    /// The document that it comes from.
    pub source: Option<Source>,
}

impl Proxy {
    /// `sidecar`, `gateway` or, outside of the mesh, `pod`.
    pub fn kind(&self) -> &'static str {
        match self.node.as_ref().map(|node| node.kind) {
            Some(NodeKind::Router) => "gateway",
            Some(NodeKind::Sidecar) => "sidecar",
            Some(kind) => kind.name(),
            None => "pod",
        }
    }

    pub fn is_gateway(&self) -> bool {
        self.node.as_ref().is_some_and(Node::is_router)
    }

    /// Whom its certificate names; none where its account is not known.
    pub fn identity(&self, snapshot: &Snapshot) -> Option<String> {
        let account = self.node.as_ref()?.text("SERVICE_ACCOUNT")?;
        let Self { namespace, .. } = self;
        Some(format!("spiffe://{}/ns/{namespace}/sa/{account}", snapshot.mesh.trust_domain))
    }

    /// `sidecar catalog-v1.shop`.
    pub fn title(&self) -> String {
        format!("{} {}.{}", self.kind(), self.workload, self.namespace)
    }
}

/// Every pod of these objects, ordered by namespace and workload.
pub fn of_objects(objects: &[Object], mesh_domain: &str) -> Result<Vec<Proxy>, NodeError> {
    let pods: Vec<(&Meta, &Pod)> = objects
        .iter()
        .filter_map(|object| match &object.spec {
            Spec::Pod(pod) => Some((&*object.meta, &**pod)),
            _ => None,
        })
        .filter(|(_, pod)| !matches!(&*pod.status.phase, "Succeeded" | "Failed") && !pod.status.pod_ip.is_empty())
        .collect();
    let injected = Injection::of(objects);
    let mut proxies = Vec::with_capacity(pods.len());
    for (meta, pod) in pods {
        let kind = injected.kind(meta, pod);
        let node = kind.map(|kind| node(meta, pod, kind, mesh_domain)).transpose()?;
        proxies.push(Proxy {
            pod: meta.name.to_string(),
            workload: workload(meta),
            namespace: meta.namespace.to_string(),
            labels: meta.labels.clone(),
            node,
            source: meta.source.clone(),
        });
    }
    proxies.sort_by(|a, b| (&a.namespace, &a.workload, &a.pod).cmp(&(&b.namespace, &b.workload, &b.pod)));
    Ok(proxies)
}

/// Which pods have a proxy.
pub(crate) struct Injection<'a> {
    /// The pods were injected already: those without the proxy's container have none.
    done: bool,
    refused: BTreeSet<&'a str>,
}

impl<'a> Injection<'a> {
    pub(crate) fn of(objects: &'a [Object]) -> Self {
        let namespaces = objects.iter().filter(|object| matches!(object.spec, Spec::Namespace(_)));
        let disabled =
            namespaces.filter(|object| object.meta.labels.get("istio-injection").is_some_and(|v| &**v == "disabled"));
        let is_injected = |object: &Object| match &object.spec {
            Spec::Pod(pod) => has_proxy(pod) && !is_gateway(&object.meta, &pod.spec),
            _ => false,
        };
        Self { done: objects.iter().any(is_injected), refused: disabled.map(|object| &*object.meta.name).collect() }
    }

    /// What a pod's proxy is; none outside of the mesh.
    pub(crate) fn kind(&self, meta: &Meta, pod: &Pod) -> Option<NodeKind> {
        if is_gateway(meta, &pod.spec) {
            return Some(NodeKind::Router);
        }
        let says = |key: &str| meta.labels.get(key).or_else(|| meta.annotations.get(key)).map(|value| &**value);
        let injected = match (self.done, says("sidecar.istio.io/inject")) {
            (true, _) => has_proxy(pod),
            (false, Some(said)) => said != "false",
            (false, None) => !self.refused.contains(&*meta.namespace),
        };
        (injected && !pod.spec.host_network).then_some(NodeKind::Sidecar)
    }
}

fn has_proxy(pod: &Pod) -> bool {
    pod.spec.containers.iter().chain(&pod.spec.init_containers).any(|container| &*container.name == "istio-proxy")
}

/// The name of what made the pod: a Deployment by its ReplicaSet without the template's hash, else the controller itself.
fn workload(meta: &Meta) -> String {
    let Some(owner) = meta.owner_references.iter().find(|owner| owner.controller).or(meta.owner_references.first())
    else {
        return meta.name.to_string();
    };
    let hash = meta.labels.get("pod-template-hash").filter(|_| &*owner.kind == "ReplicaSet");
    let stem = hash.and_then(|hash| owner.name.strip_suffix(&**hash)?.strip_suffix('-'));
    stem.unwrap_or(&owner.name).to_owned()
}

fn node(meta: &Meta, pod: &Pod, kind: NodeKind, domain: &str) -> Result<Node, NodeError> {
    let containers = || pod.spec.containers.iter().filter(|container| &*container.name != "istio-proxy");
    let ports = containers().flat_map(|container| &container.ports);
    let ports: Vec<Value> = ports
        .map(|port| json!({"name": port.name, "containerPort": port.container_port, "protocol": port.protocol}))
        .collect();
    let addresses: Vec<&str> = pod.ips().map(|address| &**address).collect();
    let names: Vec<&str> = containers().map(|container| &*container.name).collect();
    let workload = workload(meta);
    let mut metadata = Map::new();
    for (key, value) in [
        ("NAME", json!(meta.name)),
        ("NAMESPACE", json!(meta.namespace)),
        ("SERVICE_ACCOUNT", json!(pod.spec.effective_service_account())),
        ("INSTANCE_IPS", json!(addresses.join(","))),
        ("CLUSTER_ID", json!("Kubernetes")),
        ("INTERCEPTION_MODE", json!("REDIRECT")),
        ("DIALECT", json!("istio-proxy")),
        ("LABELS", json!(meta.labels)),
        ("ANNOTATIONS", json!(meta.annotations)),
        ("WORKLOAD_NAME", json!(workload)),
        ("NODE_NAME", json!(pod.spec.node_name)),
        ("POD_PORTS", json!(Value::Array(ports).to_string())),
        ("APP_CONTAINERS", json!(names.join(","))),
    ] {
        metadata.insert(key.to_owned(), value);
    }
    if kind == NodeKind::Router {
        metadata.insert("UNPRIVILEGED_POD".to_owned(), json!("true"));
    }
    let own = meta.annotations.get("proxy.istio.io/config").map(|text| serde_saphyr::from_str::<Value>(text));
    if let Some(Ok(config @ Value::Object(_))) = own {
        metadata.insert("PROXY_CONFIG".to_owned(), config);
    }
    let id = format!(
        "{}~{}~{}.{}~{}.svc.{domain}",
        kind.name(),
        addresses.first().unwrap_or(&""),
        meta.name,
        meta.namespace,
        meta.namespace
    );
    Node::new(NodeDescription { id, metadata, ..NodeDescription::default() })
}

/// Why there is no such proxy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    #[error("no workload {name:?}{}{}", in_namespace(namespace), meant(near))]
    Nothing { name: String, namespace: Option<String>, near: Vec<String> },
    #[error("{name:?} is in several namespaces: name one of {}", namespaces.join(", "))]
    Ambiguous { name: String, namespaces: Vec<String> },
}

fn in_namespace(namespace: &Option<String>) -> String {
    namespace.as_ref().map(|namespace| format!(" in namespace {namespace}")).unwrap_or_default()
}

fn meant(near: &[String]) -> String {
    match near {
        [] => String::new(),
        [one] => format!("; did you mean {one}?"),
        several => format!("; there are {}", several.join(", ")),
    }
}

/// The proxies that a name means: a pod, a workload, a service (by its selector), `kind/name`, `name.namespace`,
/// `namespace/name`, or labels such as `app=web`. Where several workloads fit, the first ones come first.
pub fn find<'a>(
    proxies: &'a [Proxy],
    services: &[(String, String, Labels)],
    name: &str,
    namespace: Option<&str>,
) -> Result<Vec<&'a Proxy>, NotFound> {
    let wanted = Wanted::parse(proxies, services, name, namespace);
    let found: Vec<&Proxy> =
        wanted.tiers(proxies, services).into_iter().find(|tier| !tier.is_empty()).unwrap_or_default();
    let namespaces: BTreeSet<&str> = found.iter().map(|proxy| proxy.namespace.as_str()).collect();
    match namespaces.len() {
        0 => Err(wanted.nothing(proxies, services)),
        1 => Ok(found),
        _ => {
            let namespaces = namespaces.into_iter().map(|namespace| format!("{}.{namespace}", wanted.name)).collect();
            Err(NotFound::Ambiguous { name: name.to_owned(), namespaces })
        }
    }
}

struct Wanted<'a> {
    name: &'a str,
    namespace: Option<&'a str>,
    /// Only this kind of name.
    service: Option<bool>,
}

impl<'a> Wanted<'a> {
    fn parse(
        proxies: &[Proxy],
        services: &[(String, String, Labels)],
        name: &'a str,
        namespace: Option<&'a str>,
    ) -> Self {
        let is_namespace = |text: &str| {
            proxies.iter().any(|proxy| proxy.namespace == text) || services.iter().any(|(_, own, _)| own == text)
        };
        let mut wanted = Wanted { name, namespace, service: None };
        if name.contains('=') {
            return wanted;
        }
        if let Some((before, rest)) = name.split_once('/') {
            wanted.name = rest;
            match before {
                "svc" | "service" | "services" => wanted.service = Some(true),
                "pod" | "po" | "pods" | "deploy" | "deployment" | "deployments" | "sts" | "statefulset" | "ds"
                | "daemonset" | "rs" | "replicaset" | "gateway" | "workload" => wanted.service = Some(false),
                other => wanted.namespace = Some(other),
            }
        }
        if let Some((before, after)) = wanted.name.split_once('.')
            && is_namespace(after.split('.').next().unwrap_or_default())
        {
            wanted.name = before;
            wanted.namespace = after.split('.').next();
        }
        wanted
    }

    /// What fits, in order of preference.
    fn tiers<'p>(&self, proxies: &'p [Proxy], services: &[(String, String, Labels)]) -> Vec<Vec<&'p Proxy>> {
        let here = |namespace: &str| self.namespace.is_none_or(|wanted| wanted == namespace);
        let filter = |fits: &dyn Fn(&Proxy) -> bool| -> Vec<&'p Proxy> {
            proxies.iter().filter(|proxy| here(&proxy.namespace) && fits(proxy)).collect()
        };
        if self.name.contains('=') {
            let pairs: Vec<(&str, &str)> = self.name.split(',').filter_map(|pair| pair.split_once('=')).collect();
            let labelled = |proxy: &Proxy| {
                pairs.iter().all(|(key, value)| proxy.labels.get(key.trim()).is_some_and(|own| &**own == value.trim()))
            };
            return vec![filter(&labelled)];
        }
        let selected = |proxy: &Proxy| {
            services.iter().any(|(name, namespace, selector)| {
                name == self.name
                    && *namespace == proxy.namespace
                    && !selector.is_empty()
                    && selector.iter().all(|(key, value)| proxy.labels.get(key) == Some(value))
            })
        };
        let direct = self.service != Some(true);
        let by_service = self.service != Some(false);
        let labelled = |proxy: &Proxy| {
            ["app", "istio", "app.kubernetes.io/name", "gateway.networking.k8s.io/gateway-name"]
                .iter()
                .any(|key| proxy.labels.get(*key).is_some_and(|own| **own == *self.name))
        };
        vec![
            filter(&|proxy| direct && proxy.pod == self.name),
            filter(&|proxy| direct && proxy.workload == self.name),
            filter(&|proxy| by_service && selected(proxy)),
            filter(&|proxy| direct && labelled(proxy)),
        ]
    }

    fn nothing(&self, proxies: &[Proxy], services: &[(String, String, Labels)]) -> NotFound {
        let here = |namespace: &str| self.namespace.is_none_or(|wanted| wanted == namespace);
        let title = |name: &str, namespace: &str| format!("{name}.{namespace}");
        let workloads: BTreeSet<(&str, &str)> =
            proxies.iter().map(|proxy| (proxy.workload.as_str(), proxy.namespace.as_str())).collect();
        let all = workloads.iter().copied();
        let all = all.chain(services.iter().map(|(name, namespace, _)| (name.as_str(), namespace.as_str())));
        let near = nearest(self.name, all.clone().map(|(name, _)| name));
        let same: BTreeSet<String> =
            all.filter(|(name, _)| Some(*name) == near).map(|(name, namespace)| title(name, namespace)).collect();
        let listed = || workloads.iter().filter(|(_, namespace)| here(namespace)).take(12);
        let near = match near {
            Some(_) => same.into_iter().collect(),
            None => listed().map(|(name, namespace)| title(name, namespace)).collect(),
        };
        NotFound::Nothing { name: self.name.to_owned(), namespace: self.namespace.map(str::to_owned), near }
    }
}

#[cfg(test)]
mod tests;
