//! What stands beside a proxy on its node (pilot-agent's part): who it is, its certificate, its bootstrap, the secrets that
//! it serves, the names that it answers, its readiness, what others ask of the application, its end, and the supervision of
//! a foreign Envoy.
//!
//! Owns the workload's private key, which is made here and never leaves the process, except to an Envoy supervised over a
//! Unix socket that only its own user may open; or takes what another agent or files provide. Must never log a key or a token.

pub mod app_metrics;
pub mod app_probes;
pub mod bootstrap;
pub mod call;
pub mod dns;
pub mod environment;
pub mod envoy_admin;
pub mod health;
pub mod identity;
pub mod sds;
pub mod status;
pub mod supervise;
pub mod termination;
pub mod trust;
pub mod upstream;

pub use environment::{CertificateFiles, CertificateSource, EnvironmentError, Renewal, Role, Settings};
pub use identity::{IdentityKeeper, TrustBundle, WorkloadSecret, serve_workload_api};
