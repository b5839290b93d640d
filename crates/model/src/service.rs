//! Services as the mesh sees them, whichever registry they come from.

use crate::labels::Labels;
use crate::protocol::Protocol;
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;

/// A service's identity: its host name within the namespace that declares it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceKey {
    pub namespace: Arc<str>,
    pub hostname: Arc<str>,
}

impl ServiceKey {
    pub fn new(namespace: impl Into<Arc<str>>, hostname: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), hostname: hostname.into() }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

/// How a client finds the endpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Resolution {
    /// The control plane knows them and the proxy balances.
    #[default]
    ClientSideLb,
    /// The proxy resolves the endpoints' names and balances over all answers.
    DnsLb,
    /// The proxy resolves one name and uses one answer at a time.
    DnsRoundRobin,
    /// To the address that the application asked for.
    Passthrough,
    /// A wildcard host, resolved per request.
    DynamicDns,
    /// Another name of a service (ExternalName): takes part only through that service's [`Service::aliases`].
    Alias,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RegistryKind {
    #[default]
    Kubernetes,
    /// ServiceEntry.
    External,
}

impl RegistryKind {
    /// As Istio writes it in debug output and NDS.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kubernetes => "Kubernetes",
            Self::External => "External",
        }
    }
}

/// Which namespaces see an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    #[default]
    Public,
    /// `~`: nobody.
    None,
    Namespaces(BTreeSet<Arc<str>>),
}

impl Visibility {
    /// From `exportTo` of an object in `namespace`; an empty list means `default`.
    pub fn parse<'a>(export_to: impl IntoIterator<Item = &'a str>, namespace: &str, default: &Self) -> Self {
        let mut namespaces = BTreeSet::new();
        let mut none = false;
        for entry in export_to {
            match entry {
                "*" => return Self::Public,
                "~" => none = true,
                "." => _ = namespaces.insert(Arc::from(namespace)),
                other => _ = namespaces.insert(Arc::from(other)),
            }
        }
        match (namespaces.is_empty(), none) {
            (false, _) => Self::Namespaces(namespaces),
            (true, true) => Self::None,
            (true, false) => default.clone().for_namespace(namespace),
        }
    }

    /// A mesh-wide default says `.`; this names the namespace it stands for.
    fn for_namespace(self, namespace: &str) -> Self {
        match self {
            Self::Namespaces(set) if set.contains(".") => Self::Namespaces(
                set.into_iter().map(|entry| if &*entry == "." { Arc::from(namespace) } else { entry }).collect(),
            ),
            other => other,
        }
    }

    pub fn includes(&self, namespace: &str) -> bool {
        match self {
            Self::Public => true,
            Self::None => false,
            Self::Namespaces(set) => set.contains(namespace),
        }
    }

    /// Seen by `namespace` alone.
    pub fn is_private_to(&self, namespace: &str) -> bool {
        matches!(self, Self::Namespaces(set) if set.len() == 1 && set.contains(namespace))
    }
}

/// `trafficDistribution` of a Service, or the annotation of that name: how near endpoints should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    #[default]
    Any,
    PreferSameZone,
    PreferSameNode,
}

/// Where a port leads on the workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum TargetPort {
    /// The same number.
    #[default]
    Same,
    Number(u32),
    /// A container port's name, resolved per pod.
    Name(Arc<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Port {
    pub name: Arc<str>,
    pub number: u32,
    pub protocol: Protocol,
    pub target: TargetPort,
}

impl Port {
    /// The target where it is a number.
    pub fn target_number(&self) -> Option<u32> {
        match &self.target {
            TargetPort::Same => Some(self.number),
            TargetPort::Number(number) => Some(*number),
            TargetPort::Name(_) => None,
        }
    }
}

/// Seconds and nanoseconds since the epoch; what has none sorts first, as Istio's zero time does.
pub type Creation = Option<(i64, i32)>;

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Service {
    pub hostname: Arc<str>,
    pub namespace: Arc<str>,
    /// The object's name; of a ServiceEntry, the host.
    pub name: Arc<str>,
    /// Cluster VIPs; of a ServiceEntry also CIDR ranges. Empty for headless services.
    pub addresses: Vec<Arc<str>>,
    /// From 240.240.0.0/16, for ServiceEntries without an address.
    pub auto_address: Option<Ipv4Addr>,
    pub ports: Vec<Port>,
    pub resolution: Resolution,
    pub mesh_external: bool,
    pub export_to: Visibility,
    /// `subjectAltNames` of a ServiceEntry and the annotated service accounts of a Service: identities beyond those of the
    /// endpoints.
    pub subject_alt_names: Vec<Arc<str>>,
    pub labels: Labels,
    pub registry: RegistryKind,
    pub headless: bool,
    pub external_name: Option<Arc<str>>,
    /// Services of which this one is the target by ExternalName.
    pub aliases: Vec<ServiceKey>,
    pub selector: Labels,
    pub publish_not_ready: bool,
    /// `internalTrafficPolicy: Local`: only endpoints of the client's own node.
    pub node_local: bool,
    pub distribution: TrafficDistribution,
    /// How many ServiceEntries declare this host in this namespace; each claims an address slot and the lowest counts.
    pub declarations: u32,
    pub creation: Creation,
}

impl Service {
    pub fn key(&self) -> ServiceKey {
        ServiceKey { namespace: self.namespace.clone(), hostname: self.hostname.clone() }
    }

    pub fn port(&self, number: u32) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }

    pub fn port_named(&self, name: &str) -> Option<&Port> {
        self.ports.iter().find(|port| &*port.name == name)
    }

    pub fn is_wildcard(&self) -> bool {
        crate::host::is_wildcard(&self.hostname)
    }

    /// What DNS answers and what listeners bind: the declared addresses, else the allocated one.
    pub fn effective_addresses(&self, auto_allocate: bool) -> Vec<Arc<str>> {
        if !self.addresses.is_empty() {
            return self.addresses.clone();
        }
        match self.auto_address {
            Some(address) if auto_allocate => vec![Arc::from(address.to_string())],
            _ => Vec::new(),
        }
    }

    /// Two declarations of one host in one namespace act as one service with the ports of both.
    pub fn merge_ports(&mut self, other: &Self) {
        for port in &other.ports {
            if self.port(port.number).is_none() {
                self.ports.push(port.clone());
            }
        }
    }
}
