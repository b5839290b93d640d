//! Who is on the other side of a connection, as Istio's metadata exchange tells it.
//!
//! Owns the encoding of node metadata for headers (`x-envoy-peer-metadata`, base64 of a protobuf `Struct`) and for TCP.

use std::sync::Arc;

/// A workload, as the peer says. Missing values are `unknown` in metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    pub instance: Arc<str>,
    pub workload: Arc<str>,
    pub namespace: Arc<str>,
    pub cluster: Arc<str>,
    pub canonical_service: Arc<str>,
    pub canonical_revision: Arc<str>,
    pub app: Arc<str>,
    pub version: Arc<str>,
    pub owner: Arc<str>,
    pub identity: Arc<str>,
}
