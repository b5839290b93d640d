//! From prost messages to the plan. One module a message family; each public function is one xDS resource.

pub(crate) mod access_log;
mod bootstrap;
mod cluster;
mod cluster_http;
mod common;
mod dynamic_forward;
mod endpoint;
mod ext_authz;
mod filter;
mod hcm;
mod header;
mod health;
mod istio;
mod jwt;
mod lb;
mod listener;
mod network;
mod quic;
mod rate_limit;
mod rbac;
mod retry;
mod route;
mod route_action;
mod secret;
mod session;
mod spiffe;
mod tls;
mod tracing;
mod transport;

pub use bootstrap::bootstrap;
pub use cluster::{cluster, encoded_cluster};
pub use endpoint::{encoded_load_assignment, load_assignment};
pub use listener::{encoded_listener, listener};
pub use route::{encoded_route_configuration, encoded_virtual_host, route_configuration};
pub use secret::{encoded_secret, secret};
