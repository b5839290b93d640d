//! Settings from the environment, in the form that pilot-agent takes them: `POD_NAME`, `INSTANCE_IP`, `ISTIO_META_*`,
//! `PROXY_CONFIG` and the files that Kubernetes mounts.

mod certificate;

use crate::app_metrics::AppMetrics;
use crate::app_probes::AppProbes;
use crate::health::ReadinessProbe;
use crate::termination::Patience;
use meltemi_proto::prost_types::{Struct, Value as ProtoValue, value::Kind};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use certificate::{CertificateFiles, CertificateSource};

/// Environment variables beyond these would make a node message of more than the xDS server takes.
const MAX_METADATA_BYTES: usize = 256 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error("{0} is not set: pilot-agent's contract needs it")]
    Missing(&'static str),
    #[error("{name}={value:?}: {reason}")]
    Invalid { name: String, value: String, reason: String },
    #[error("node metadata has {0} bytes; at most {MAX_METADATA_BYTES} are sent")]
    TooLarge(usize),
}

fn invalid(name: &str, value: &str, reason: impl ToString) -> EnvironmentError {
    EnvironmentError::Invalid { name: name.to_owned(), value: value.to_owned(), reason: reason.to_string() }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Sidecar,
    Router,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Sidecar => "sidecar",
            Role::Router => "router",
        }
    }
}

/// Where a proxy gets its life from and who it is.
#[derive(Clone, Debug)]
pub struct Settings {
    pub role: Role,
    pub pod: String,
    pub namespace: String,
    pub service_account: String,
    pub addresses: Vec<IpAddr>,
    pub dns_domain: String,
    pub trust_domain: String,
    pub mesh_id: String,
    pub cluster_id: String,
    /// Host and port of discovery, such as `istiod.istio-system.svc:15012`.
    pub discovery_address: String,
    /// Host and port of the certificate authority; discovery's unless `CA_ADDR` says otherwise.
    pub ca_address: String,
    /// Plain text towards discovery (`controlPlaneAuthPolicy: NONE`).
    pub plaintext_discovery: bool,
    pub token_file: PathBuf,
    pub root_certificate_file: PathBuf,
    /// Where the workload's certificate comes from.
    pub certificate_source: CertificateSource,
    /// Where the application is served SPIFFE's Workload API, if it is (`MELTEMI_WORKLOAD_API_SOCKET`).
    pub workload_api_socket: Option<PathBuf>,
    /// Revocation lists that are mounted, if they are (`MELTEMI_CRL_FILE`).
    pub crl_file: PathBuf,
    pub certificate_ttl: Duration,
    /// Who of several is to sign the certificate (`ISTIO_META_CERT_SIGNER`); empty: the mesh's own.
    pub certificate_signer: String,
    /// A certificate is renewed when so much of its life is left (`SECRET_GRACE_PERIOD_RATIO`), give or take the jitter.
    pub renewal: Renewal,
    pub concurrency: Option<u32>,
    pub admin_port: u16,
    pub status_port: u16,
    pub readiness_port: u16,
    pub prometheus_port: u16,
    pub dns_capture: bool,
    pub dns_address: String,
    pub drain_duration: Duration,
    pub termination_drain_duration: Duration,
    /// What the end of the proxy waits for.
    pub patience: Patience,
    /// What the kubelet asks of the application (`ISTIO_KUBE_APP_PROBERS`).
    pub app_probes: AppProbes,
    /// Where the application's metrics are (`ISTIO_PROMETHEUS_ANNOTATIONS`), of sidecars alone.
    pub app_metrics: Option<AppMetrics>,
    /// `ON_DEMAND_IDLE_SECONDS`: configuration that traffic asked for is given up when unused for so long.
    pub on_demand_idle: Duration,
    /// Node metadata as discovery sees it.
    pub metadata: Map<String, Value>,
    pub locality: Option<String>,
    /// How to ask the application whether it serves (`readinessProbe` of `PROXY_CONFIG`).
    pub readiness_probe: Option<ReadinessProbe>,
    /// The mark on our own sockets that capture rules leave alone, where user ids cannot tell them
    /// (`MELTEMI_SOCKET_MARK`).
    pub socket_mark: Option<u32>,
}

/// When a certificate is renewed, as shares of its life.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Renewal {
    pub grace_ratio: f64,
    /// So that a fleet does not renew in step.
    pub jitter: f64,
}

impl Default for Renewal {
    /// Istio's.
    fn default() -> Self {
        Self { grace_ratio: 0.5, jitter: 0.01 }
    }
}

impl Renewal {
    fn from_variables(vars: &Variables) -> Result<Self, EnvironmentError> {
        let share = |name: &str, default: f64| match vars.number(name, default)? {
            share if (0.0..=1.0).contains(&share) => Ok(share),
            _ => Err(invalid(name, vars.text(name).unwrap_or_default(), "not between 0 and 1")),
        };
        let Self { grace_ratio, jitter } = Self::default();
        Ok(Self {
            grace_ratio: share("SECRET_GRACE_PERIOD_RATIO", grace_ratio)?,
            jitter: share("SECRET_GRACE_PERIOD_RATIO_JITTER", jitter)?,
        })
    }

    /// The share of a certificate's life after which it is renewed; `random` is in [0, 1).
    pub fn after(self, random: f64) -> f64 {
        (1.0 - self.grace_ratio + (random * 2.0 - 1.0) * self.jitter).clamp(0.0, 1.0)
    }
}

/// The parts of `PROXY_CONFIG` (Istio's ProxyConfig as YAML) that concern the agent.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ProxyConfig {
    discovery_address: Option<String>,
    concurrency: Option<u32>,
    proxy_admin_port: Option<u16>,
    status_port: Option<u16>,
    drain_duration: Option<String>,
    termination_drain_duration: Option<String>,
    control_plane_auth_policy: Option<String>,
    mesh_id: Option<String>,
    readiness_probe: Option<ReadinessProbe>,
    proxy_metadata: BTreeMap<String, String>,
}

/// A view of the environment that tests can make by hand.
pub struct Variables(BTreeMap<String, String>);

impl Variables {
    pub fn of_process() -> Self {
        // Names or values that are not Unicode cannot be part of the contract.
        Self(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    /// These, and of the others those that are not among them.
    fn with_defaults(&self, others: &BTreeMap<String, String>) -> Self {
        let mut all = others.clone();
        all.extend(self.0.clone());
        Self(all)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn or(&self, name: &str, default: &str) -> String {
        self.text(name).unwrap_or(default).to_owned()
    }

    fn number<T: std::str::FromStr<Err: ToString>>(&self, name: &str, default: T) -> Result<T, EnvironmentError> {
        self.text(name).map_or(Ok(default), |text| text.parse().map_err(|e: T::Err| invalid(name, text, e)))
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), Some("true" | "TRUE" | "True" | "1" | "t" | "T"))
    }
}

impl Settings {
    /// Reads the settings of a proxy of this role. `dns_domain` is pilot-agent's `--domain`.
    pub fn from_variables(role: Role, dns_domain: Option<&str>, vars: &Variables) -> Result<Self, EnvironmentError> {
        let proxy_config = proxy_config(vars)?;
        let vars = vars.with_defaults(&proxy_config.proxy_metadata);
        let namespace = vars.or("POD_NAMESPACE", "default");
        let addresses = addresses(&vars)?;
        let discovery_address = discovery_address(&proxy_config, &vars);
        let status_port = proxy_config.status_port.unwrap_or(15020);
        let termination_drain_duration = termination_drain_duration(&proxy_config, &vars)?;
        let mut settings = Self {
            role,
            pod: vars.text("POD_NAME").ok_or(EnvironmentError::Missing("POD_NAME"))?.to_owned(),
            service_account: vars.or("SERVICE_ACCOUNT", "default"),
            addresses,
            dns_domain: dns_domain.map_or_else(|| format!("{namespace}.svc.cluster.local"), str::to_owned),
            trust_domain: trust_domain(&vars),
            mesh_id: mesh_id(&proxy_config, &vars),
            cluster_id: vars.or("ISTIO_META_CLUSTER_ID", "Kubernetes"),
            ca_address: vars.or("CA_ADDR", &discovery_address),
            plaintext_discovery: proxy_config.control_plane_auth_policy.as_deref() == Some("NONE"),
            discovery_address,
            token_file: vars.or("MELTEMI_TOKEN_FILE", "./var/run/secrets/tokens/istio-token").into(),
            root_certificate_file: vars.or("MELTEMI_ROOT_CERT_FILE", "./var/run/secrets/istio/root-cert.pem").into(),
            certificate_source: CertificateSource::from_variables(&vars, Path::new("."))?,
            workload_api_socket: vars.text("MELTEMI_WORKLOAD_API_SOCKET").map(PathBuf::from),
            crl_file: vars.or("MELTEMI_CRL_FILE", "/var/run/secrets/istio/crl/ca-crl.pem").into(),
            certificate_ttl: secret_ttl(&vars)?,
            certificate_signer: vars.or("ISTIO_META_CERT_SIGNER", ""),
            renewal: Renewal::from_variables(&vars)?,
            concurrency: proxy_config.concurrency,
            admin_port: proxy_config.proxy_admin_port.unwrap_or(15000),
            status_port,
            readiness_port: vars.number("ENVOY_STATUS_PORT", 15021)?,
            prometheus_port: vars.number("ENVOY_PROMETHEUS_PORT", 15090)?,
            dns_capture: vars.flag("ISTIO_META_DNS_CAPTURE"),
            dns_address: vars.or("DNS_PROXY_ADDR", "localhost:15053"),
            drain_duration: duration("drainDuration", proxy_config.drain_duration.as_deref(), 45)?,
            termination_drain_duration,
            patience: patience(termination_drain_duration, &vars)?,
            app_probes: app_probes(&vars)?,
            app_metrics: app_metrics(role, status_port, &vars)?,
            on_demand_idle: Duration::from_secs(vars.number("ON_DEMAND_IDLE_SECONDS", 600)?),
            metadata: Map::new(),
            locality: None,
            readiness_probe: proxy_config.readiness_probe.clone(),
            socket_mark: socket_mark(&vars)?,
            namespace,
        };
        settings.metadata = settings.node_metadata(&vars)?;
        settings.locality = settings.metadata_label("istio-locality").map(|text| text.replace('.', "/"));
        Ok(settings)
    }

    /// The proxy takes connections for addresses of others (`INTERCEPTION_MODE: TPROXY`).
    pub fn is_transparent(&self) -> bool {
        self.metadata.get("INTERCEPTION_MODE").and_then(Value::as_str) == Some("TPROXY")
    }

    /// `<role>~<ip>~<pod>.<namespace>~<dns domain>`.
    pub fn node_id(&self) -> String {
        let ip = self.addresses.first().map_or_else(|| "127.0.0.1".to_owned(), IpAddr::to_string);
        format!("{}~{ip}~{}.{}~{}", self.role.as_str(), self.pod, self.namespace, self.dns_domain)
    }

    /// `<app or canonical name>.<namespace>`, Envoy's `--service-cluster`.
    pub fn node_cluster(&self) -> String {
        let app = self.metadata_label("app").or_else(|| self.metadata_label("service.istio.io/canonical-name"));
        let name = app.map(str::to_owned).or_else(|| self.metadata["WORKLOAD_NAME"].as_str().map(str::to_owned));
        format!("{}.{}", name.unwrap_or_else(|| "istio-proxy".to_owned()), self.namespace)
    }

    fn metadata_label(&self, key: &str) -> Option<&str> {
        self.metadata.get("LABELS")?.get(key)?.as_str()
    }

    fn node_metadata(&self, vars: &Variables) -> Result<Map<String, Value>, EnvironmentError> {
        let mut metadata = Map::new();
        for (name, value) in &vars.0 {
            if let Some(key) = name.strip_prefix("ISTIO_METAJSON_") {
                let parsed: Value = serde_json::from_str(value).map_err(|e| invalid(name, value, e))?;
                let Value::Object(fields) = parsed else { return Err(invalid(name, value, "not a JSON object")) };
                match metadata.entry(key.to_owned()).or_insert_with(|| Value::Object(Map::new())) {
                    Value::Object(into) => into.extend(fields),
                    other => *other = Value::Object(fields),
                }
            } else if let Some(key) = name.strip_prefix("ISTIO_META_") {
                metadata.insert(key.to_owned(), Value::String(value.clone()));
            }
        }
        let podinfo = PathBuf::from(vars.or("MELTEMI_PODINFO_DIR", "./etc/istio/pod"));
        for (key, file) in [("LABELS", "labels"), ("ANNOTATIONS", "annotations")] {
            let entries = downward_file(&podinfo.join(file));
            if let Value::Object(into) = metadata.entry(key).or_insert_with(|| Value::Object(Map::new())) {
                for (name, value) in entries {
                    into.entry(name).or_insert(Value::String(value));
                }
            }
        }
        self.default_metadata(&mut metadata);
        announce_config(vars, &mut metadata)?;
        let size = Value::Object(metadata.clone()).to_string().len();
        if size > MAX_METADATA_BYTES { Err(EnvironmentError::TooLarge(size)) } else { Ok(metadata) }
    }

    /// Istio's control plane refuses a node whose ports are text.
    fn default_metadata(&self, metadata: &mut Map<String, Value>) {
        let ips: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        for (key, value) in [
            ("NAME", json!(self.pod)),
            ("NAMESPACE", json!(self.namespace)),
            ("SERVICE_ACCOUNT", json!(self.service_account)),
            ("INSTANCE_IPS", json!(ips.join(","))),
            ("CLUSTER_ID", json!(self.cluster_id)),
            ("MESH_ID", json!(self.mesh_id)),
            ("INTERCEPTION_MODE", json!("REDIRECT")),
            ("ENVOY_STATUS_PORT", json!(self.readiness_port)),
            ("ENVOY_PROMETHEUS_PORT", json!(self.prometheus_port)),
            ("PILOT_SAN", json!(["istiod.istio-system.svc"])),
            // Istio's control planes take a version below 1.0 for the newest of theirs.
            ("ISTIO_VERSION", json!(env!("CARGO_PKG_VERSION"))),
            ("WORKLOAD_NAME", json!(workload_of(&self.pod))),
        ] {
            metadata.entry(key).or_insert(value);
        }
    }
}

/// A Deployment's pod is called `<deployment>-<replica set hash>-<pod hash>`.
fn workload_of(pod: &str) -> &str {
    let hash = |part: &str| (4..=10).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    let Some((rest, last)) = pod.rsplit_once('-') else { return pod };
    match rest.rsplit_once('-') {
        Some((name, middle)) if hash(last) && hash(middle) => name,
        _ => pod,
    }
}

fn addresses(vars: &Variables) -> Result<Vec<IpAddr>, EnvironmentError> {
    let mut list = Vec::new();
    let text = vars.text("INSTANCE_IP").ok_or(EnvironmentError::Missing("INSTANCE_IP"))?;
    for part in text.split(',').chain(vars.text("INSTANCE_IPS").into_iter().flat_map(|t| t.split(','))) {
        let ip = part.trim().parse().map_err(|e| invalid("INSTANCE_IP", part, e))?;
        if !list.contains(&ip) {
            list.push(ip);
        }
    }
    Ok(list)
}

fn proxy_config(vars: &Variables) -> Result<ProxyConfig, EnvironmentError> {
    let Some(text) = vars.text("PROXY_CONFIG") else { return Ok(ProxyConfig::default()) };
    serde_saphyr::from_str(text).map_err(|e| invalid("PROXY_CONFIG", text, e))
}

/// Discovery configures a proxy by the settings that it was started with, and takes a workload with a probe for unhealthy until
/// it hears otherwise. What metadata of that name holds already counts more.
fn announce_config(vars: &Variables, metadata: &mut Map<String, Value>) -> Result<(), EnvironmentError> {
    let text = vars.text("PROXY_CONFIG").unwrap_or("{}");
    let given: Value = serde_saphyr::from_str(text).map_err(|e| invalid("PROXY_CONFIG", text, e))?;
    let Value::Object(given) = given else { return Ok(()) };
    if let Value::Object(config) = metadata.entry("PROXY_CONFIG").or_insert_with(|| Value::Object(Map::new())) {
        for (key, value) in given {
            config.entry(key).or_insert(value);
        }
    }
    Ok(())
}

fn discovery_address(config: &ProxyConfig, vars: &Variables) -> String {
    let set = vars.text("MELTEMI_DISCOVERY_ADDRESS").or(config.discovery_address.as_deref());
    set.unwrap_or("istiod.istio-system.svc:15012").to_owned()
}

fn trust_domain(vars: &Variables) -> String {
    vars.or("TRUST_DOMAIN", "cluster.local")
}

fn mesh_id(config: &ProxyConfig, vars: &Variables) -> String {
    let set = vars.text("ISTIO_META_MESH_ID").or(config.mesh_id.as_deref());
    set.map_or_else(|| trust_domain(vars), str::to_owned)
}

fn socket_mark(vars: &Variables) -> Result<Option<u32>, EnvironmentError> {
    const NAME: &str = "MELTEMI_SOCKET_MARK";
    vars.text(NAME).map(|text| text.parse().map_err(|e| invalid(NAME, text, e))).transpose()
}

fn duration(name: &str, text: Option<&str>, default_seconds: u64) -> Result<Duration, EnvironmentError> {
    match text {
        None => Ok(Duration::from_secs(default_seconds)),
        Some(text) => go_duration(text).ok_or_else(|| invalid(name, text, "not a duration such as 45s")),
    }
}

/// `TERMINATION_DRAIN_DURATION_SECONDS`, older than the field, is what an operator sets for one pod.
fn termination_drain_duration(config: &ProxyConfig, vars: &Variables) -> Result<Duration, EnvironmentError> {
    match vars.text("TERMINATION_DRAIN_DURATION_SECONDS") {
        Some(_) => Ok(Duration::from_secs(vars.number("TERMINATION_DRAIN_DURATION_SECONDS", 0)?)),
        None => duration("terminationDrainDuration", config.termination_drain_duration.as_deref(), 5),
    }
}

fn patience(drain: Duration, vars: &Variables) -> Result<Patience, EnvironmentError> {
    let at_least = duration("MINIMUM_DRAIN_DURATION", vars.text("MINIMUM_DRAIN_DURATION"), 5)?;
    let until_unused = vars.flag("EXIT_ON_ZERO_ACTIVE_CONNECTIONS");
    Ok(if until_unused { Patience::UntilUnused { at_least } } else { Patience::For(drain) })
}

fn app_probes(vars: &Variables) -> Result<AppProbes, EnvironmentError> {
    const NAME: &str = "ISTIO_KUBE_APP_PROBERS";
    let Some(text) = vars.text(NAME) else { return Ok(AppProbes::default()) };
    AppProbes::parse(text).map_err(|reason| invalid(NAME, text, reason))
}

/// A gateway's status port is one of its Service, where the application's metrics would be everybody's.
fn app_metrics(role: Role, status_port: u16, vars: &Variables) -> Result<Option<AppMetrics>, EnvironmentError> {
    const NAME: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
    let Some(text) = vars.text(NAME).filter(|_| role == Role::Sidecar) else { return Ok(None) };
    AppMetrics::parse(text, status_port).map_err(|reason| invalid(NAME, text, reason))
}

fn secret_ttl(vars: &Variables) -> Result<Duration, EnvironmentError> {
    match vars.text("SECRET_TTL") {
        None => Ok(Duration::from_secs(24 * 3600)),
        Some(text) => go_duration(text).ok_or_else(|| invalid("SECRET_TTL", text, "not a duration such as 24h0m0s")),
    }
}

/// Go's `time.ParseDuration` for what configuration holds: `1h30m`, `45s`, `100ms`.
pub fn go_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut total = Duration::ZERO;
    if rest == "0" {
        return Some(total);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |i| digits + i);
        let seconds = match &rest[digits..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * seconds).ok()?)?;
        rest = &rest[unit_end..];
    }
    (!text.trim().is_empty()).then_some(total)
}

/// Lines `key="value"` as the downward API writes them; a file that is not there has none.
fn downward_file(path: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (key, quoted) = line.split_once('=')?;
            let value: String = serde_json::from_str(quoted).ok()?;
            Some((key.to_owned(), value))
        })
        .collect()
}

/// JSON as `google.protobuf.Struct`.
pub fn proto_struct(map: &Map<String, Value>) -> Struct {
    Struct { fields: map.iter().map(|(k, v)| (k.clone(), proto_value(v))).collect() }
}

fn proto_value(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(b) => Kind::BoolValue(*b),
        Value::Number(n) => Kind::NumberValue(n.as_f64().unwrap_or_default()),
        Value::String(s) => Kind::StringValue(s.clone()),
        Value::Array(list) => {
            Kind::ListValue(meltemi_proto::prost_types::ListValue { values: list.iter().map(proto_value).collect() })
        }
        Value::Object(map) => Kind::StructValue(proto_struct(map)),
    };
    ProtoValue { kind: Some(kind) }
}

#[cfg(test)]
mod tests;
