//! The bootstrap.

use crate::cluster::Cluster;
use crate::common::{Address, Value};
use crate::endpoint::Locality;
use crate::listener::Listener;
use crate::tls::Secret;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Bootstrap {
    pub node: Node,
    pub listeners: Vec<Arc<Listener>>,
    pub clusters: Vec<Arc<Cluster>>,
    pub secrets: Vec<Arc<Secret>>,
    pub ads: Option<AdsConfig>,
    /// Listeners come from ADS as well (`lds_config`).
    pub follows_listeners: bool,
    /// Clusters come from ADS as well (`cds_config`).
    pub follows_clusters: bool,
    pub admin: Option<Admin>,
    pub runtime: Vec<RuntimeLayer>,
    pub limits: ConnectionLimits,
    /// The cluster that this proxy is part of, for zone-aware routing.
    pub local_cluster: Option<Arc<str>>,
    /// What of the document is accepted but has no effect here, with the reason.
    pub ignored: Vec<(Arc<str>, Arc<str>)>,
}

#[derive(Debug, Clone, Default)]
pub struct Node {
    pub id: Arc<str>,
    pub cluster: Arc<str>,
    pub metadata: Value,
    pub locality: Locality,
    pub user_agent_name: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdsConfig {
    pub delta: bool,
    pub cluster: Arc<str>,
    pub authority: Arc<str>,
    pub initial_metadata: Vec<(Arc<str>, Arc<str>)>,
    pub timeout: Option<Duration>,
}

#[derive(Debug, Clone)]
pub struct Admin {
    pub address: Option<Address>,
    pub access_logs: Vec<crate::access_log::AccessLog>,
}

#[derive(Debug, Clone)]
pub struct RuntimeLayer {
    pub name: Arc<str>,
    /// Keys with their values; empty for layers that are filled at run time.
    pub values: Value,
}

/// How many downstream connections may be open; what comes beyond is closed at once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Of all listeners but those with `ignore_global_conn_limit`: the resource monitor
    /// `envoy.resource_monitors.global_downstream_max_connections`, else runtime `overload.global_downstream_max_connections`.
    pub total: Option<u64>,
    /// By listener: runtime `envoy.resource_limits.listener.<name>.connection_limit`.
    pub listeners: BTreeMap<Arc<str>, u64>,
    /// Of one source address at one listener: runtime `meltemi.resource_limits.connections_per_source`.
    pub per_source: Option<u64>,
}
