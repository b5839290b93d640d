//! `istio.peer_metadata`: peers introduce themselves in headers, which never reach an application.

use std::sync::Arc;

use meltemi_http::{HeaderValue, Headers, RequestHead, ResponseHead, name};
use meltemi_plan::filter::{PeerMetadata, PeerMethod};

use crate::context::Context;
use crate::info::{Direction, StreamInfo};
use crate::peer::Peer;

pub(crate) struct PeerExchange {
    config: Arc<PeerMetadata>,
    /// Our own headers; `None` when we have nothing to say.
    own: Option<(HeaderValue, HeaderValue)>,
}

impl PeerExchange {
    pub fn new(config: Arc<PeerMetadata>, _direction: Direction, context: Arc<Context>) -> Self {
        let value = |text: &str| HeaderValue::from_str(text).ok().filter(|v| !v.is_empty());
        Self { config, own: value(&context.node.id).zip(value(&context.node.header)) }
    }

    pub fn on_request(&self, head: &mut RequestHead, info: &mut StreamInfo) {
        if self.config.downstream_discovery.iter().any(is_headers) {
            let (announced, peer) = take(&mut head.headers);
            info.peer_announced = announced;
            info.peer = peer;
        }
        let Some(PeerMethod::IstioHeaders { skip_external_clusters }) =
            self.config.upstream_propagation.iter().find(|m| is_headers(m))
        else {
            return;
        };
        if !(*skip_external_clusters && is_external(info)) {
            self.introduce(&mut head.headers);
        }
    }

    pub fn on_response(&self, head: &mut ResponseHead, info: &mut StreamInfo) {
        if self.config.upstream_discovery.iter().any(is_headers) {
            let (_, peer) = take(&mut head.headers);
            info.upstream.peer = peer.or(info.upstream.peer.take());
        }
        // Only to those who said who they are.
        if info.peer_announced && self.config.downstream_propagation.iter().any(is_headers) {
            self.introduce(&mut head.headers);
        }
    }

    fn introduce(&self, headers: &mut Headers) {
        if let Some((id, metadata)) = &self.own {
            headers.insert(name::X_ENVOY_PEER_METADATA_ID, id.clone());
            headers.insert(name::X_ENVOY_PEER_METADATA, metadata.clone());
        }
    }
}

fn is_headers(method: &PeerMethod) -> bool {
    matches!(method, PeerMethod::IstioHeaders { .. })
}

fn take(headers: &mut Headers) -> (bool, Option<Arc<Peer>>) {
    let announced = headers.remove(&name::X_ENVOY_PEER_METADATA_ID).is_some();
    let metadata = headers.remove(&name::X_ENVOY_PEER_METADATA);
    (announced, metadata.and_then(|v| Peer::from_header(v.as_bytes())))
}

/// Outside the mesh: Istio marks such clusters, and passes through what it does not know.
fn is_external(info: &StreamInfo) -> bool {
    info.upstream.cluster.as_ref().is_some_and(|cluster| {
        matches!(&*cluster.name, "PassthroughCluster" | "BlackHoleCluster" | "InboundPassthroughCluster")
            || cluster.metadata.value("istio", &["external"]).and_then(serde_json::Value::as_bool) == Some(true)
    })
}
