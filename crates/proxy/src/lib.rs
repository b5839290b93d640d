//! The proxy: xDS in, connections through.
//!
//! The main thread owns configuration: [`configurator`] turns accepted resources into the next [`World`] and publishes it;
//! [`admin`] shows it. Worker threads own connections: each takes one `World` a request, and waits for the main thread only for
//! what it is the first to need ([`demand`]).
//! Nothing here knows Istio or Kubernetes.

pub mod admin;
mod admission;
mod anomalies;
pub mod boot;
mod call;
pub mod chain;
pub mod configurator;
mod demand;
pub mod hcm;
mod relay;
pub mod router;
pub mod secrets;
mod spans;
pub mod tcp_proxy;
pub mod worker;
pub mod world;

pub use boot::{Options, Proxy, RunError, SecretSource};
pub use world::{ActiveListener, ChainRuntime, World};
