//! Dynamic forward proxying: requests and connections that go to the host which they name.

use crate::cluster::DnsFamily;
use std::sync::Arc;
use std::time::Duration;

/// Envoy's `DnsCacheConfig`: names that traffic asked for and the addresses that they had. All that name the same cache
/// share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DnsCache {
    pub name: Arc<str>,
    pub family: DnsFamily,
    /// How long an answer counts before it is asked for again.
    pub refresh_rate: Duration,
    /// Bounds of the wait after an answer that failed.
    pub failure_base: Duration,
    pub failure_max: Duration,
    /// A failed answer is not kept; the next request asks again.
    pub forget_failures: bool,
    /// A name that nobody asked for in this time may be forgotten.
    pub host_ttl: Duration,
    pub max_hosts: u32,
    /// Requests that wait for answers at once.
    pub max_pending: u32,
    pub query_timeout: Duration,
}

/// A connection goes to the host that its TLS greeting names, at this port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SniForward {
    pub cache: Arc<DnsCache>,
    pub port: u16,
}
