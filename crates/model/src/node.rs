//! A connected proxy, as it describes itself.
//!
//! Owns parsing of node ids and metadata. What a node says of itself is untrusted until the transport's identity has been
//! compared with it; that is the caller's part.

use crate::labels::{Labels, labels_of};
use crate::locality::Locality;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use thiserror::Error;

/// Bounds what one node can make the control plane remember.
const MAX_ADDRESSES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    Sidecar,
    Router,
    Waypoint,
    Ztunnel,
    AgentGateway,
}

impl NodeKind {
    fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "sidecar" => Self::Sidecar,
            "router" => Self::Router,
            "waypoint" => Self::Waypoint,
            "ztunnel" => Self::Ztunnel,
            "agentgateway" => Self::AgentGateway,
            _ => return None,
        })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Router => "router",
            Self::Waypoint => "waypoint",
            Self::Ztunnel => "ztunnel",
            Self::AgentGateway => "agentgateway",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum InterceptionMode {
    #[default]
    Redirect,
    Tproxy,
    None,
}

#[derive(Debug, Error, PartialEq, Eq)]
pub enum NodeError {
    #[error("node id {0:?} is not <type>~<ip>~<pod>.<ns>~<ns>.svc.<domain>")]
    Shape(String),
    #[error("node id names the unknown type {0:?}")]
    Kind(String),
    #[error("node id {0:?} has no valid address and metadata has no INSTANCE_IPS")]
    Address(String),
}

/// What the xDS node message carries, out of protobuf.
#[derive(Clone, Debug, Default)]
pub struct NodeDescription {
    pub id: String,
    pub metadata: Map<String, Value>,
    pub locality: Locality,
    /// Names of the extensions that the proxy has, as it announces them.
    pub extensions: BTreeSet<Arc<str>>,
    pub user_agent: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: Arc<str>,
    pub kind: NodeKind,
    /// The first is the primary one.
    pub ip_addresses: Vec<Arc<str>>,
    /// `<pod>.<namespace>`.
    pub name: Arc<str>,
    /// The namespace whose configuration applies.
    pub namespace: Arc<str>,
    /// `<ns>.svc.<domain>`.
    pub dns_domain: Arc<str>,
    pub labels: Labels,
    pub locality: Locality,
    pub extensions: BTreeSet<Arc<str>>,
    pub user_agent: Arc<str>,
    pub metadata: Map<String, Value>,
}

impl Node {
    pub fn new(description: NodeDescription) -> Result<Self, NodeError> {
        let NodeDescription { id, metadata, locality, extensions, user_agent } = description;
        let parts: Vec<&str> = id.split('~').collect();
        let [kind, address, name, dns_domain] = parts[..] else {
            return Err(NodeError::Shape(id));
        };
        let kind = NodeKind::parse(kind).ok_or_else(|| NodeError::Kind(kind.to_owned()))?;
        let ip_addresses = addresses(address, &metadata);
        if ip_addresses.is_empty() {
            return Err(NodeError::Address(id));
        }
        let text = |key: &str| metadata.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let namespace = text("NAMESPACE")
            .or_else(|| dns_domain.split_once(".svc.").map(|(namespace, _)| namespace))
            .or_else(|| name.rsplit_once('.').map(|(_, namespace)| namespace))
            .unwrap_or_default();
        let labels = node_labels(&metadata);
        let locality = match labels.get("istio-locality") {
            Some(label) if locality.is_empty() => Locality::of_label(label),
            _ => locality,
        };
        Ok(Self {
            kind,
            ip_addresses,
            name: name.into(),
            namespace: namespace.into(),
            dns_domain: dns_domain.into(),
            labels,
            locality,
            extensions,
            user_agent: user_agent.into(),
            id: id.as_str().into(),
            metadata,
        })
    }

    /// A metadata value that is text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).and_then(Value::as_str)
    }

    /// A metadata value that is a boolean, in any of the forms that proxies send: `true`, `"true"`, `1`, `"1"`.
    pub fn flag(&self, key: &str) -> bool {
        match self.metadata.get(key) {
            Some(Value::Bool(value)) => *value,
            Some(Value::String(text)) => matches!(text.as_str(), "true" | "True" | "TRUE" | "1" | "t"),
            Some(Value::Number(number)) => number.as_f64() == Some(1.0),
            _ => false,
        }
    }

    pub fn is_sidecar(&self) -> bool {
        self.kind == NodeKind::Sidecar
    }

    pub fn is_router(&self) -> bool {
        self.kind == NodeKind::Router
    }

    pub fn interception_mode(&self) -> InterceptionMode {
        match self.text("INTERCEPTION_MODE") {
            Some("TPROXY") => InterceptionMode::Tproxy,
            Some("NONE") => InterceptionMode::None,
            _ => InterceptionMode::Redirect,
        }
    }

    /// `generator: grpc`: a proxyless gRPC client or server.
    pub fn is_grpc(&self) -> bool {
        self.text("GENERATOR") == Some("grpc")
    }

    /// A sidecar that asks for virtual hosts and clusters when traffic first needs them, and gets no others.
    pub fn on_demand(&self) -> bool {
        self.is_sidecar() && !self.is_grpc() && self.flag("ON_DEMAND")
    }

    /// The proxy answers DNS and so needs the name table.
    pub fn dns_capture(&self) -> bool {
        self.flag("DNS_CAPTURE")
    }

    pub fn dns_auto_allocate(&self) -> bool {
        // On with DNS capture unless turned off, as the allocated addresses only work there.
        self.flag("DNS_AUTO_ALLOCATE") || (self.dns_capture() && !self.metadata.contains_key("DNS_AUTO_ALLOCATE"))
    }

    pub fn cluster_id(&self) -> &str {
        self.text("CLUSTER_ID").unwrap_or_default()
    }

    pub fn network(&self) -> &str {
        self.text("NETWORK").unwrap_or_default()
    }

    pub fn service_account(&self) -> &str {
        self.text("SERVICE_ACCOUNT").unwrap_or_default()
    }

    pub fn node_name(&self) -> &str {
        self.text("NODE_NAME").unwrap_or_default()
    }

    pub fn has_ipv4(&self) -> bool {
        self.ip_addresses.iter().any(|address| matches!(address.parse(), Ok(IpAddr::V4(_))))
    }

    pub fn has_ipv6(&self) -> bool {
        self.ip_addresses.iter().any(|address| matches!(address.parse(), Ok(IpAddr::V6(_))))
    }

    /// The cluster's DNS domain: `cluster.local` of `default.svc.cluster.local`.
    pub fn domain(&self) -> &str {
        self.dns_domain.split_once(".svc.").map_or("cluster.local", |(_, domain)| domain)
    }

    /// A container port by name, from metadata `POD_PORTS` (a JSON text).
    pub fn pod_port(&self, name: &str) -> Option<u32> {
        let ports: Value = match self.metadata.get("POD_PORTS")? {
            Value::String(text) => serde_json::from_str(text).ok()?,
            other => other.clone(),
        };
        let found = ports.as_array()?.iter().find(|port| port["name"].as_str() == Some(name))?;
        found["containerPort"].as_u64().and_then(|port| u32::try_from(port).ok())
    }
}

fn addresses(primary: &str, metadata: &Map<String, Value>) -> Vec<Arc<str>> {
    let listed = metadata.get("INSTANCE_IPS").and_then(Value::as_str).unwrap_or_default();
    let mut addresses: Vec<Arc<str>> = Vec::new();
    for text in std::iter::once(primary).chain(listed.split(',')) {
        let Ok(address) = text.trim().parse::<IpAddr>() else { continue };
        let text: Arc<str> = address.to_string().into();
        if !addresses.contains(&text) && addresses.len() < MAX_ADDRESSES {
            addresses.push(text);
        }
    }
    addresses
}

fn node_labels(metadata: &Map<String, Value>) -> Labels {
    let mut labels = Labels::new();
    for key in ["STATIC_LABELS", "LABELS"] {
        if let Some(Value::Object(map)) = metadata.get(key) {
            labels.extend(labels_of(map.iter().filter_map(|(key, value)| Some((key, value.as_str()?)))));
        }
    }
    labels
}

#[cfg(test)]
mod tests;
