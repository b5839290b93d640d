//! The Kubernetes kinds that a mesh reads: services and endpoints, pods and what makes pods, identities, and data.
//!
//! A field that Kubernetes knows and a mesh has no use for is `Ignored`: accepted, not kept. A field that nobody knows
//! is an error, as `kubectl --validate=strict` has it.

mod core;
mod ingress;
mod pod;
mod workload;

pub use self::core::*;
pub use ingress::*;
pub use pod::*;
pub use workload::*;
