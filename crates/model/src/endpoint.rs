//! Endpoints: the workloads behind a service.

use crate::labels::Labels;
use crate::locality::Locality;
use crate::service::ServiceKey;
use crate::shared::Shared;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    #[default]
    Healthy,
    Unhealthy,
    Draining,
    /// Terminating and not serving.
    Terminating,
}

/// What the endpoint's proxy accepts, from its label `security.istio.io/tlsMode`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsMode {
    Istio,
    #[default]
    Disabled,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// An IP address, or for DNS services a host name.
    Host(Arc<str>),
    /// A Unix socket's path.
    Unix(Arc<str>),
}

impl Default for Address {
    fn default() -> Self {
        Self::Host(Arc::from(""))
    }
}

impl Address {
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("unix://") {
            Some(path) => Self::Unix(Arc::from(path)),
            None => Self::Host(Arc::from(text)),
        }
    }

    /// The IP address or host name.
    pub fn host(&self) -> Option<&Arc<str>> {
        match self {
            Self::Host(host) => Some(host),
            Self::Unix(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(host) => f.write_str(host),
            Self::Unix(path) => write!(f, "unix://{path}"),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub address: Address,
    /// The endpoint's port for each of the service's port names.
    pub ports: Vec<(Arc<str>, u32)>,
    pub labels: Labels,
    pub network: Arc<str>,
    pub locality: Locality,
    /// 0 where not declared.
    pub weight: u32,
    pub service_account: Arc<str>,
    pub namespace: Arc<str>,
    pub workload_name: Arc<str>,
    pub tls_mode: TlsMode,
    pub health: Health,
    /// `hostname` of a pod with a subdomain: a name of its own in a headless service.
    pub hostname: Option<Arc<str>>,
    pub node_name: Arc<str>,
    pub cluster: Arc<str>,
}

impl Endpoint {
    pub fn port(&self, name: &str) -> Option<u32> {
        self.ports.iter().find(|(own, _)| &**own == name).map(|(_, port)| *port)
    }

    /// `spiffe://<trust domain>/ns/<namespace>/sa/<account>`, where the account is known.
    pub fn identity(&self, trust_domain: &str) -> Option<String> {
        if self.service_account.is_empty() || self.namespace.is_empty() {
            return None;
        }
        Some(format!("spiffe://{trust_domain}/ns/{}/sa/{}", self.namespace, self.service_account))
    }

    pub fn canonical_name(&self) -> &str {
        ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"]
            .iter()
            .find_map(|key| self.labels.get(*key))
            .map_or(&*self.workload_name, |value| &**value)
    }

    pub fn canonical_revision(&self) -> &str {
        ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"]
            .iter()
            .find_map(|key| self.labels.get(*key))
            .map_or("latest", |value| &**value)
    }

    /// Takes new requests: ready, or unready where the service asks for such.
    pub fn is_healthy(&self) -> bool {
        self.health == Health::Healthy
    }
}

/// All endpoints of one service: the unit of an endpoint update.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointShard {
    pub service: ServiceKey,
    pub endpoints: Vec<Shared<Endpoint>>,
    summary: EndpointSummary,
}

/// What a cluster's own definition takes from its endpoints: it changes far less often than they do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointSummary {
    /// `(namespace, service account)` of the workloads: who may answer for the service.
    pub accounts: BTreeSet<(Arc<str>, Arc<str>)>,
    /// Some endpoint does not take mTLS, or there is none.
    pub has_plaintext: bool,
}

impl EndpointShard {
    pub fn new(service: ServiceKey, endpoints: Vec<Shared<Endpoint>>) -> Self {
        let accounts = endpoints.iter().filter(|endpoint| !endpoint.service_account.is_empty());
        let summary = EndpointSummary {
            accounts: accounts.map(|endpoint| (endpoint.namespace.clone(), endpoint.service_account.clone())).collect(),
            has_plaintext: endpoints.is_empty()
                || endpoints.iter().any(|endpoint| endpoint.tls_mode == TlsMode::Disabled),
        };
        Self { service, endpoints, summary }
    }

    pub fn summary(&self) -> &EndpointSummary {
        &self.summary
    }
}
