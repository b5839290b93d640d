//! `networking.istio.io`: the types of its kinds, field for field as the CRDs have them. No behaviour here beyond small
//! accessors; meaning is `validate`'s and `model`'s.

mod destination_rule;
mod envoy_filter;
mod gateway;
mod proxy_config;
mod service_entry;
mod sidecar;
mod virtual_service;

pub use destination_rule::*;
pub use envoy_filter::*;
pub use gateway::*;
pub use proxy_config::*;
pub use service_entry::*;
pub use sidecar::*;
pub use virtual_service::*;
