//! Which replicas should run, worked out from the manifests.
//!
//! Owns: what a pod template comes to on this machine. Pure: the same objects and images give the same replicas with the
//! same names. A replica whose content changed has another name, and so is replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use meltemi_config::kube::{Container, DaemonSet, Deployment, Pod, PodSpec, PodTemplate, ReplicaSet, StatefulSet};
use meltemi_config::mesh::MeshConfig;
use meltemi_config::{IntOrString, Object, Problem, Severity, Source, Spec};

use crate::images::{Images, Invocation};

mod environment;
mod proxy_config;
#[cfg(test)]
mod tests;

pub(crate) use environment::{Data, EnvValue, expand};
use proxy_config::ProxyConfigs;

/// How a replica takes part in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Its traffic goes through a sidecar.
    Sidecar,
    /// It is a gateway: nothing runs in it but the proxy.
    Router,
    /// It is outside of the mesh.
    Plain,
}

/// When a container counts as serving.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Check {
    /// All its ports accept.
    Ports(Vec<u16>),
    /// A GET is answered with 200 to 399.
    Http { port: u16, path: String },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ContainerPlan {
    pub name: String,
    pub program: std::path::PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, EnvValue)>,
    pub folder: Option<String>,
    pub check: Check,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NamedPort {
    pub container: String,
    pub name: String,
    pub number: u16,
    pub protocol: String,
}

/// One replica: a pod.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Replica {
    pub name: String,
    pub namespace: String,
    /// The Deployment (or other kind) it belongs to.
    pub owner_kind: &'static str,
    pub owner: String,
    pub labels: BTreeMap<String, String>,
    pub annotations: BTreeMap<String, String>,
    /// `PROXY_CONFIG` of its proxy.
    pub proxy_config: String,
    pub service_account: String,
    /// Its own name in the cluster's DNS, `<hostname>.<subdomain>`, where both are said; a StatefulSet says them for its pods.
    pub hostname: String,
    pub subdomain: String,
    pub role: Role,
    /// The Envoy that its proxy is; our own where there is none.
    pub envoy: Option<std::path::PathBuf>,
    pub containers: Vec<ContainerPlan>,
    pub ports: Vec<NamedPort>,
}

impl Replica {
    /// Unique among all that run at one time, and stable while the content is.
    pub fn key(&self) -> String {
        format!("{}.{}~{:x}", self.namespace, self.name, digest(self))
    }

    /// `namespace/owner`, for grouping replicas of one workload.
    pub fn workload(&self) -> String {
        format!("{}/{}/{}", self.namespace, self.owner_kind, self.owner)
    }
}

/// Problems are placed at their document; [`crate::manifests::placed`] finds the line of the field.
#[derive(Debug, Default)]
pub(crate) struct Desired {
    pub list: Vec<Arc<Replica>>,
    pub errors: Vec<Problem>,
    /// Fields of the manifests that have no effect here.
    pub warnings: Vec<Problem>,
}

pub(crate) const GATEWAY: &str = "istio-ingressgateway";
pub(crate) const SYSTEM: &str = "istio-system";
const MAX_REPLICAS: usize = 500;
/// How long the application of the samples serves on after SIGTERM.
const LINGER: &str = "ECHO_LINGER";

fn digest(value: &impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A hash in the letters that Kubernetes uses for names, which spell no word.
fn letters(mut hash: u64, length: usize) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut text = String::new();
    for _ in 0..length {
        text.push(char::from(ALPHABET[usize::try_from(hash % ALPHABET.len() as u64).unwrap_or_default()]));
        hash /= ALPHABET.len() as u64;
    }
    text
}

fn strings(map: &BTreeMap<meltemi_config::Str, meltemi_config::Str>) -> BTreeMap<String, String> {
    map.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// Every replica that the objects ask for, and a gateway where they bring none.
pub(crate) fn desired(objects: &[Object], images: &Images, mesh: &MeshConfig) -> Desired {
    let data = Data::of(objects);
    let configs = ProxyConfigs::of(objects, mesh);
    let uninjected = namespaces_without_injection(objects);
    let mut desired = Desired::default();
    for object in objects {
        let Some((count, template)) = template(object) else { continue };
        let builder = Builder { object, images, data: &data, configs: &configs, uninjected: &uninjected };
        builder.replicas(count, &template, &mut desired);
        if desired.list.len() > MAX_REPLICAS {
            let message = format!("more than {MAX_REPLICAS} replicas with those before: too many for one machine");
            desired.errors.push(builder.wrong("spec.replicas", message));
            desired.list.truncate(MAX_REPLICAS);
            break;
        }
    }
    if !desired.list.is_empty() && !desired.list.iter().any(|replica| replica.role == Role::Router) {
        desired.list.push(Arc::new(gateway(images, &configs)));
    }
    desired
}

fn namespaces_without_injection(objects: &[Object]) -> BTreeSet<&str> {
    let namespaces = objects.iter().filter(|object| matches!(object.spec, Spec::Namespace(_)));
    let disabled =
        namespaces.filter(|object| object.meta.labels.get("istio-injection").map(|v| &**v) == Some("disabled"));
    disabled.map(|object| &*object.meta.name).collect()
}

/// How many replicas of what, if the object is a workload. A Pod that has an address already runs elsewhere.
fn template(object: &Object) -> Option<(i32, PodTemplate)> {
    let replicas = |count: Option<i32>| count.unwrap_or(1).max(0);
    match &object.spec {
        Spec::Deployment(workload) => {
            let Deployment { spec, .. } = &**workload;
            Some((replicas(spec.replicas), spec.template.clone()))
        }
        Spec::StatefulSet(workload) => {
            let StatefulSet { spec, .. } = &**workload;
            let mut template = spec.template.clone();
            template.spec.subdomain = spec.service_name.clone();
            Some((replicas(spec.replicas), template))
        }
        Spec::ReplicaSet(workload) => {
            let ReplicaSet { spec, .. } = &**workload;
            Some((replicas(spec.replicas), spec.template.clone()))
        }
        Spec::DaemonSet(workload) => {
            let DaemonSet { spec, .. } = &**workload;
            Some((1, spec.template.clone()))
        }
        Spec::Pod(pod) => {
            let Pod { spec, status } = &**pod;
            let mut template = PodTemplate { spec: spec.clone(), ..PodTemplate::default() };
            template.metadata.labels = object.meta.labels.clone();
            template.metadata.annotations = object.meta.annotations.clone();
            status.pod_ip.is_empty().then_some((1, template))
        }
        _ => None,
    }
}

/// The gateway that stands in for Istio's default installation.
fn gateway(images: &Images, configs: &ProxyConfigs<'_>) -> Replica {
    let labels = [
        ("app", GATEWAY),
        ("istio", "ingressgateway"),
        ("service.istio.io/canonical-name", GATEWAY),
        ("service.istio.io/canonical-revision", "latest"),
    ];
    let labels: BTreeMap<_, _> = labels.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let hash = digest(&labels);
    Replica {
        name: format!("{GATEWAY}-{}-{}", letters(hash, 10), letters(hash ^ 1, 5)),
        namespace: SYSTEM.to_owned(),
        owner_kind: "Deployment",
        owner: GATEWAY.to_owned(),
        proxy_config: configs.effective(SYSTEM, &labels, &BTreeMap::new()),
        labels,
        annotations: BTreeMap::new(),
        service_account: format!("{GATEWAY}-service-account"),
        hostname: String::new(),
        subdomain: String::new(),
        role: Role::Router,
        envoy: images.default_envoy(),
        containers: Vec::new(),
        ports: Vec::new(),
    }
}

struct Builder<'a> {
    object: &'a Object,
    images: &'a Images,
    data: &'a Data<'a>,
    configs: &'a ProxyConfigs<'a>,
    uninjected: &'a BTreeSet<&'a str>,
}

impl Builder<'_> {
    fn wrong(&self, path: &str, message: impl std::fmt::Display) -> Problem {
        Problem {
            severity: Severity::Error,
            source: self.object.meta.source.clone().unwrap_or_else(|| Source { file: "".into(), line: 1 }),
            object: Some(self.object.key()),
            path: path.to_owned(),
            message: message.to_string(),
            suggestion: None,
        }
    }

    fn odd(&self, path: &str, message: impl std::fmt::Display) -> Problem {
        Problem { severity: Severity::Warning, ..self.wrong(path, message) }
    }

    fn spec_path(&self) -> &'static str {
        if matches!(self.object.spec, Spec::Pod(_)) { "spec" } else { "spec.template.spec" }
    }

    fn role(&self, template: &PodTemplate) -> Role {
        let meta = &template.metadata;
        let says = |key: &str| meta.labels.get(key).or_else(|| meta.annotations.get(key)).map(|value| &**value);
        let templates = meta.annotations.get("inject.istio.io/templates").map(|value| &**value).unwrap_or_default();
        if templates.split(',').any(|name| name.trim() == "gateway") {
            return Role::Router;
        }
        let injected = match says("sidecar.istio.io/inject") {
            Some(said) => said != "false",
            None => !self.uninjected.contains(&*self.object.meta.namespace),
        };
        if injected && !template.spec.host_network { Role::Sidecar } else { Role::Plain }
    }

    fn replicas(&self, count: i32, template: &PodTemplate, desired: &mut Desired) {
        let role = self.role(template);
        let containers = if role == Role::Router { Vec::new() } else { self.containers(template, desired) };
        if !template.spec.volumes.is_empty() {
            let path = format!("{}.volumes", self.spec_path());
            desired.warnings.push(self.odd(&path, "not mounted: programs see this machine's files"));
        }
        let meta = &self.object.meta;
        let mut labels = strings(&template.metadata.labels);
        canonical(&mut labels, role, &meta.name);
        let annotations = strings(&template.metadata.annotations);
        let replica = Replica {
            name: String::new(),
            namespace: meta.namespace.to_string(),
            owner_kind: self.object.kind().as_str(),
            owner: meta.name.to_string(),
            proxy_config: self.configs.effective(&meta.namespace, &labels, &annotations),
            labels,
            annotations,
            service_account: template.spec.effective_service_account().to_owned(),
            hostname: template.spec.hostname.to_string(),
            subdomain: template.spec.subdomain.to_string(),
            role,
            envoy: self.envoy(template, desired),
            containers,
            ports: ports(&template.spec),
        };
        let hash = digest(&replica);
        for ordinal in 0..usize::try_from(count).unwrap_or_default().min(MAX_REPLICAS) {
            let name = self.pod_name(hash, ordinal);
            let hostname = match &self.object.spec {
                Spec::StatefulSet(_) => name.clone(),
                _ => replica.hostname.clone(),
            };
            desired.list.push(Arc::new(Replica { name, hostname, ..replica.clone() }));
        }
    }

    /// The Envoy that the pod asks for; what every pod gets where nothing stands for that.
    fn envoy(&self, template: &PodTemplate, desired: &mut Desired) -> Option<std::path::PathBuf> {
        const PROXY_IMAGE: &str = "sidecar.istio.io/proxyImage";
        let image = template.metadata.annotations.get(PROXY_IMAGE).map(|image| &**image);
        self.images.envoy(image).unwrap_or_else(|message| {
            let metadata = if matches!(self.object.spec, Spec::Pod(_)) { "metadata" } else { "spec.template.metadata" };
            let path = format!("{metadata}.annotations.{PROXY_IMAGE}");
            desired.warnings.push(self.odd(&path, message));
            self.images.default_envoy()
        })
    }

    fn pod_name(&self, hash: u64, ordinal: usize) -> String {
        let owner = &self.object.meta.name;
        let suffix = letters(digest(&(owner, hash, ordinal)), 5);
        match &self.object.spec {
            Spec::Pod(_) => owner.to_string(),
            Spec::StatefulSet(_) => format!("{owner}-{ordinal}"),
            Spec::Deployment(_) => format!("{owner}-{}-{suffix}", letters(hash, 10)),
            _ => format!("{owner}-{suffix}"),
        }
    }

    fn containers(&self, template: &PodTemplate, desired: &mut Desired) -> Vec<ContainerPlan> {
        let (spec, mut plans) = (&template.spec, Vec::new());
        // An injected manifest carries its proxy; the fabric has its own.
        let own = spec.containers.iter().enumerate().filter(|(_, container)| &*container.name != "istio-proxy");
        for (index, container) in own {
            let path = format!("{}.containers[{index}]", self.spec_path());
            match self.container(template, container) {
                Ok(plan) => plans.push(plan),
                Err((field, message)) => desired.errors.push(self.wrong(&format!("{path}.{field}"), message)),
            }
        }
        if plans.is_empty() && spec.containers.is_empty() {
            desired.errors.push(self.wrong(&format!("{}.containers", self.spec_path()), "at least one is needed"));
        }
        plans
    }

    fn container(&self, template: &PodTemplate, container: &Container) -> Result<ContainerPlan, (String, String)> {
        let words = |list: &[meltemi_config::Str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (command, arguments) = (words(&container.command), words(&container.args));
        let invocation = self.images.invocation(&container.image, &command, &arguments);
        let Invocation { program, arguments } = invocation.map_err(|message| ("image".to_owned(), message))?;
        let ports: Vec<u16> = container
            .ports
            .iter()
            .filter(|port| port.protocol.is_empty() || &*port.protocol == "TCP")
            .filter_map(|port| u16::try_from(port.container_port).ok())
            .collect();
        let mut environment = self.data.environment(&self.object.meta.namespace, template, container)?;
        let echo = self.images.is_own(&program) && arguments.first().is_some_and(|word| word == "echo");
        if echo && !environment.iter().any(|(name, _)| name == LINGER) {
            // Here a replica is stopped once nothing is sent to it any more, or with all the others.
            environment.push((LINGER.to_owned(), EnvValue::Text("0".to_owned())));
        }
        Ok(ContainerPlan {
            name: container.name.to_string(),
            program,
            arguments,
            environment,
            folder: (!container.working_dir.is_empty()).then(|| container.working_dir.to_string()),
            check: check(container, ports),
        })
    }
}

/// The labels that injection adds.
fn canonical(labels: &mut BTreeMap<String, String>, role: Role, owner: &str) {
    if role == Role::Plain {
        return;
    }
    let first = |keys: &[&str]| keys.iter().find_map(|key| labels.get(*key).cloned());
    let name = first(&["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]);
    let revision = first(&["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]);
    let name = name.unwrap_or_else(|| owner.to_owned());
    labels.insert("service.istio.io/canonical-name".to_owned(), name);
    labels.insert("service.istio.io/canonical-revision".to_owned(), revision.unwrap_or_else(|| "latest".to_owned()));
    labels.entry("security.istio.io/tlsMode".to_owned()).or_insert_with(|| "istio".to_owned());
}

fn check(container: &Container, ports: Vec<u16>) -> Check {
    let probe = container.readiness_probe.as_ref().or(container.startup_probe.as_ref());
    let number = |port: &IntOrString| match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::Text(name) => {
            let named = container.ports.iter().find(|port| port.name == *name)?;
            u16::try_from(named.container_port).ok()
        }
    };
    if let Some(get) = probe.and_then(|probe| probe.http_get.as_ref())
        && let Some(port) = number(&get.port)
    {
        let path = if get.path.is_empty() { "/".to_owned() } else { get.path.to_string() };
        return Check::Http { port, path };
    }
    match probe.and_then(|probe| probe.tcp_socket.as_ref()).and_then(|socket| number(&socket.port)) {
        Some(port) => Check::Ports(vec![port]),
        None => Check::Ports(ports),
    }
}

fn ports(spec: &PodSpec) -> Vec<NamedPort> {
    let of = |container: &Container| {
        let named = container.ports.iter().filter_map(|port| {
            Some(NamedPort {
                container: container.name.to_string(),
                name: port.name.to_string(),
                number: u16::try_from(port.container_port).ok()?,
                protocol: if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.to_string() },
            })
        });
        named.collect::<Vec<_>>()
    };
    spec.containers.iter().flat_map(of).collect()
}
