//! Clusters at run time: members, load balancing, health, outliers, circuit breakers, DNS.
//!
//! Owns which endpoint serves a request and whether it may. Must never speak HTTP to serve a request, nor hold a lock while
//! one is served: a pick reads one immutable set and the worker's own cursors. Costs some tens of nanoseconds a pick, O(hosts)
//! a change of members or health.

mod adapt;
pub mod anomaly;
mod balance;
mod breakers;
mod client;
mod cluster;
mod dns;
mod dns_cache;
mod edf;
mod endpoint;
pub mod hash;
mod health;
pub mod latency;
mod load;
mod members;
mod original_dst;
pub mod outlier;
pub mod set;
pub mod stats;
mod subset;
mod tasks;
#[cfg(test)]
mod testing;
mod zone;

pub use balance::{LbState, OverrideHost, PickContext, PickError};
pub use breakers::{Breakers, Permit, Resource, RoutingPriority};
pub use client::{Post, PostError};
pub use cluster::{Cluster, ClusterSet, Transport};
pub use dns_cache::{DnsCache, DnsCacheStats, Unresolved};
pub use endpoint::{ActiveConnection, ActiveRequest, Check, Endpoint, Fault, Health, HostState, HostStats};
pub use latency::{Latency, PeakEwma};
pub use members::{EdsHealth, Host, HostGroup};
pub use outlier::Outcome;
pub use set::{EndpointSet, Policy};
pub use stats::{AnomalyStats, ClusterStats, MembershipStats, TrafficStats};
pub use tasks::Background;
pub use zone::{Local, ZoneStats};
