//! The CNI plugin and the daemon of each node: pods are captured without NET_ADMIN of their own.
//!
//! The container runtime starts the plugin ([`plugin`]) for each pod, last in a chain. It asks the daemon, over a socket
//! that only root may use ([`query`]), what the pod is, decides ([`decide`]) and puts the rules into the pod's network
//! namespace. It has no credentials of its own. The daemon ([`daemon`]) puts plugin and configuration in place and keeps
//! them there ([`conflist`], [`install`]), answers the plugin, mends pods that came before it ([`repair`]) and takes off the
//! taint that keeps pods away until then.
//!
//! Never: a pod let through that should be captured, because something could not be found out. What can't be asked fails the
//! pod's start, and the kubelet tries again.

pub mod conflist;
pub mod daemon;
pub mod decide;
pub mod failure;
pub mod install;
pub mod invocation;
pub mod network;
pub mod plugin;
pub mod query;
pub mod repair;

mod cluster;
mod serve;

pub use cluster::Cluster;
pub use meltemi_kubernetes::nodes::{Change, Container, Failure as InitFailure, NodeClient, NodeError, Pod, Selectors};
