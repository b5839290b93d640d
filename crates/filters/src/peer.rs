//! Who is on the other side of a connection, as Istio's metadata exchange tells it.
//!
//! Owns the encoding of node metadata for headers (`x-envoy-peer-metadata`, base64 of a protobuf `Struct`) and for TCP, and
//! the short form that endpoints carry (`istio.workload`). What a peer says is bounded and never trusted for more than labels.

#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use meltemi_plan::Metadata;
use meltemi_proto::prost_types::{Struct, Value, value::Kind};
use serde_json::Value as Json;

/// Larger exchanges are ignored.
pub(crate) const LIMIT: usize = 32 * 1024;
/// Peers remembered by each worker.
const CACHE: usize = 512;

/// A workload, as the peer says. Empty where it did not; metrics then read `unknown`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The pod's name.
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

/// As Istio's filter state prints it.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{};{};{};{};{}",
            self.workload, self.namespace, self.canonical_service, self.canonical_revision, self.cluster
        )
    }
}

const CANONICAL_NAME: &str = "service.istio.io/canonical-name";
const CANONICAL_REVISION: &str = "service.istio.io/canonical-revision";

impl Peer {
    fn from_fields(top: impl Fn(&str) -> Option<String>, label: impl Fn(&str) -> Option<String>) -> Self {
        let text = |value: Option<String>| Arc::<str>::from(value.unwrap_or_default());
        let owner = top("OWNER").unwrap_or_default();
        let workload = top("WORKLOAD_NAME").or_else(|| owner.rsplit('/').next().map(str::to_owned));
        let app = label("app").or_else(|| label("app.kubernetes.io/name"));
        let service = label(CANONICAL_NAME).or_else(|| app.clone()).or_else(|| workload.clone());
        let version = label("version").or_else(|| label("app.kubernetes.io/version"));
        Self {
            instance: text(top("NAME")),
            namespace: text(top("NAMESPACE")),
            cluster: text(top("CLUSTER_ID")),
            canonical_service: text(service),
            canonical_revision: text(label(CANONICAL_REVISION).or_else(|| version.clone())),
            app: text(app),
            version: text(version),
            identity: text(top("IDENTITY")),
            workload: text(workload),
            owner: owner.into(),
        }
    }

    /// From the metadata of a node in JSON, as in a bootstrap.
    pub fn from_node_metadata(metadata: &Json) -> Self {
        let text = |value: &Json| value.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        Self::from_fields(
            |key| metadata.get(key).and_then(text),
            |key| metadata.get("LABELS").and_then(|l| l.get(key)).and_then(text),
        )
    }

    pub(crate) fn from_struct(fields: &Struct) -> Self {
        fn text(value: &Value) -> Option<String> {
            match &value.kind {
                Some(Kind::StringValue(text)) if !text.is_empty() => Some(text.clone()),
                _ => None,
            }
        }
        let labels = match fields.fields.get("LABELS").map(|v| &v.kind) {
            Some(Some(Kind::StructValue(labels))) => Some(labels),
            _ => None,
        };
        Self::from_fields(
            |key| fields.fields.get(key).and_then(text),
            |key| labels.and_then(|l| l.fields.get(key)).and_then(text),
        )
    }

    /// `workload;namespace;canonical service;canonical revision;cluster`, as endpoints carry it under `istio`/`workload`.
    pub fn from_endpoint(metadata: &Metadata) -> Option<Self> {
        let text = metadata.value("istio", &["workload"])?.as_str()?;
        let parts: Vec<&str> = text.split(';').collect();
        let [workload, namespace, service, revision, rest @ ..] = parts.as_slice() else { return None };
        Some(Self {
            workload: (*workload).into(),
            namespace: (*namespace).into(),
            canonical_service: (*service).into(),
            canonical_revision: (*revision).into(),
            cluster: rest.first().copied().unwrap_or_default().into(),
            // Istio knows no more of an endpoint, and takes the canonical names for these.
            app: (*service).into(),
            version: (*revision).into(),
            ..Self::default()
        })
    }

    /// From the value of `x-envoy-peer-metadata`; remembered, since a peer sends the same with each request.
    pub fn from_header(value: &[u8]) -> Option<Arc<Self>> {
        thread_local! {
            static PEERS: RefCell<HashMap<Box<[u8]>, Arc<Peer>>> = RefCell::default();
        }
        if value.len() > LIMIT {
            return None;
        }
        PEERS.with_borrow_mut(|peers| {
            if let Some(known) = peers.get(value) {
                return Some(known.clone());
            }
            let bytes = STANDARD.decode(value).or_else(|_| STANDARD_NO_PAD.decode(value)).ok()?;
            let peer = Arc::new(Self::from_bytes(&bytes)?);
            if peers.len() >= CACHE {
                peers.clear();
            }
            peers.insert(value.into(), peer.clone());
            Some(peer)
        })
    }

    /// From an encoded `Struct`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        meltemi_proto::decode_struct(bytes).ok().map(|fields| Self::from_struct(&fields))
    }

    /// The `Struct` that describes this workload, with the labels that others read.
    pub fn to_struct(&self) -> Struct {
        let text = |value: &str| Value { kind: Some(Kind::StringValue(value.to_owned())) };
        let set = |pairs: &[(&str, &Arc<str>)]| -> BTreeMap<String, Value> {
            pairs.iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| ((*k).to_owned(), text(v))).collect()
        };
        let mut fields = set(&[
            ("NAME", &self.instance),
            ("NAMESPACE", &self.namespace),
            ("CLUSTER_ID", &self.cluster),
            ("OWNER", &self.owner),
            ("WORKLOAD_NAME", &self.workload),
            ("IDENTITY", &self.identity),
        ]);
        let labels = set(&[
            (CANONICAL_NAME, &self.canonical_service),
            (CANONICAL_REVISION, &self.canonical_revision),
            ("app", &self.app),
            ("version", &self.version),
        ]);
        if !labels.is_empty() {
            let labels = Struct { fields: labels };
            fields.insert("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) });
        }
        Struct { fields }
    }
}

/// This proxy, as it presents itself.
#[derive(Clone, Debug, Default)]
pub struct LocalNode {
    /// `sidecar~ip~pod.ns~ns.svc.cluster.local`.
    pub id: Arc<str>,
    pub peer: Arc<Peer>,
    pub service_cluster: Arc<str>,
    /// `ISTIO_VERSION`, else ours.
    pub version: Arc<str>,
    /// The value of `x-envoy-peer-metadata`.
    pub header: Arc<str>,
}

impl LocalNode {
    pub fn new(id: &str, service_cluster: &str, metadata: &Json) -> Self {
        let peer = Arc::new(Peer::from_node_metadata(metadata));
        let header = STANDARD.encode(meltemi_proto::encode(&peer.to_struct())).into();
        let version = metadata.get("ISTIO_VERSION").and_then(Json::as_str).unwrap_or(env!("CARGO_PKG_VERSION")).into();
        Self { id: id.into(), service_cluster: service_cluster.into(), version, peer, header }
    }
}
