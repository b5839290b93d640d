//! Load assignments.

use crate::common::{Address, Metadata};
use std::sync::Arc;

#[derive(Debug, Clone)]
pub struct LoadAssignment {
    pub cluster: Arc<str>,
    pub localities: Box<[LocalityEndpoints]>,
    /// Percent; Envoy's default is 140.
    pub overprovisioning_factor: u32,
    pub weighted_priority_health: bool,
    /// Of the encoded resource: equal plans have equal fingerprints.
    pub fingerprint: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, PartialOrd, Ord)]
pub struct Locality {
    pub region: Arc<str>,
    pub zone: Arc<str>,
    pub sub_zone: Arc<str>,
}

#[derive(Debug, Clone)]
pub struct LocalityEndpoints {
    pub locality: Arc<Locality>,
    pub priority: u32,
    /// `None`: takes no traffic under locality weighted balancing.
    pub weight: Option<u32>,
    pub endpoints: Box<[Endpoint]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndpointHealth {
    Unknown,
    Healthy,
    Unhealthy,
    Draining,
    Timeout,
    Degraded,
}

#[derive(Debug, Clone)]
pub struct Endpoint {
    pub address: Address,
    /// Tried in turn with `address`.
    pub additional_addresses: Box<[Address]>,
    pub hostname: Arc<str>,
    pub weight: u32,
    pub health: EndpointHealth,
    pub metadata: Option<Arc<Metadata>>,
    pub health_check: Option<Box<EndpointHealthCheck>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealthCheck {
    /// 0: the endpoint's own.
    pub port: u16,
    pub hostname: Arc<str>,
    pub address: Option<Address>,
    pub disabled: bool,
}
