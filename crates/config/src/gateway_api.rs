//! `gateway.networking.k8s.io`: the types of Kubernetes' Gateway API, field for field as its CRDs have them (the
//! experimental channel). No behaviour here beyond small accessors; meaning is `validate`'s and the `gateway-api` crate's.

mod backend;
mod gateway;
mod grant;
mod grpc;
mod http;
mod l4;
mod listener_set;
mod policy;
mod pool;
mod reference;
mod rule;

pub use backend::*;
pub use gateway::*;
pub use grant::*;
pub use grpc::*;
pub use http::*;
pub use l4::*;
pub use listener_set::*;
pub use policy::*;
pub use pool::*;
pub use reference::*;
pub use rule::{FilteredBackend, RouteRule, RuledRoute};

/// The group of the API.
pub const GROUP: &str = "gateway.networking.k8s.io";
/// The group of what the API is trying.
pub const EXPERIMENTAL_GROUP: &str = "gateway.networking.x-k8s.io";
/// The group of pools of inference servers.
pub const INFERENCE_GROUP: &str = "inference.networking.k8s.io";
