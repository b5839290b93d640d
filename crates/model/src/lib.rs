//! The mesh as immutable values: services, endpoints, nodes, and the [`Snapshot`] that generators read.
//!
//! Never does I/O and never reads a clock. The word Kubernetes stays on this side of `translate`. The next snapshot costs what
//! changed: unchanged parts are shared by `Arc`.

pub mod authentication;
pub mod change;
pub mod config;
pub mod destination_rule;
pub mod endpoint;
pub mod endpoint_index;
pub mod host;
pub mod key_set;
pub mod labels;
pub mod locality;
mod migration;
pub mod node;
pub mod policy;
pub mod protocol;
pub mod quota;
pub mod rate_limit;
pub mod resilience;
pub mod scope;
pub mod semantics;
pub mod service;
pub mod service_index;
pub mod session;
pub mod sharded;
pub mod shared;
pub mod snapshot;
#[cfg(test)]
mod testing;
pub mod virtual_service;

pub use authentication::{MtlsMode, MtlsPolicy};
pub use change::{Change, Changes, Update};
pub use config::{Config, ConfigRef, ObjectKey};
pub use destination_rule::MergedRule;
pub use endpoint::{Address, Endpoint, EndpointShard, EndpointSummary, Health, TlsMode};
pub use endpoint_index::EndpointIndex;
pub use key_set::{KeyFetch, KeySets, KeySource};
pub use labels::Labels;
pub use locality::Locality;
pub use migration::MigrationStep;
pub use node::{InterceptionMode, Node, NodeDescription, NodeError, NodeKind};
pub use policy::{ByNamespace, Selection, Workload};
pub use protocol::Protocol;
pub use quota::QuotaIndex;
pub use resilience::{Anomalies, Resilience, ResilienceIndex, Retries};
pub use scope::{EgressListener, OutboundPolicy, Services, SidecarScope};
pub use service::{Port, RegistryKind, Resolution, Service, ServiceKey, TargetPort, TrafficDistribution, Visibility};
pub use service_index::ServiceIndex;
pub use session::{PersistentSession, Sessions};
pub use sharded::Sharded;
pub use shared::Shared;
pub use snapshot::{Options, ServiceTarget, Snapshot};
