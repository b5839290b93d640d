//! Who a client says it is, and whether it may.

use std::collections::BTreeSet;
use std::sync::Arc;

use meltemi_model::{Locality, Node, NodeDescription};
use meltemi_proto::envoy::config::core::v3::Node as ProtoNode;
use meltemi_proto::json::struct_to_value;
use meltemi_tls::SpiffeId;
use serde_json::Value;
use tonic::Status;

/// The largest metadata we take, as an estimate in bytes.
const MAX_METADATA_BYTES: usize = 1 << 20;

/// The node that a first request describes.
pub(crate) fn parse(node: Option<&ProtoNode>) -> Result<Node, Status> {
    let node = node.ok_or_else(|| Status::invalid_argument("the first request must have a node"))?;
    let metadata = node.metadata.as_ref().map(struct_to_value).unwrap_or_default();
    if metadata.to_string().len() > MAX_METADATA_BYTES {
        return Err(Status::invalid_argument("node metadata is too large"));
    }
    let metadata = match metadata {
        Value::Object(metadata) => metadata,
        _ => Default::default(),
    };
    let locality = node.locality.as_ref().map(|locality| Locality {
        region: locality.region.as_str().into(),
        zone: locality.zone.as_str().into(),
        sub_zone: locality.sub_zone.as_str().into(),
    });
    let extensions: BTreeSet<Arc<str>> =
        node.extensions.iter().map(|extension| extension.name.as_str().into()).collect();
    let description = NodeDescription {
        id: node.id.clone(),
        metadata,
        locality: locality.unwrap_or_default(),
        extensions,
        user_agent: node.user_agent_name.clone(),
    };
    Node::new(description).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Holds what a node says of itself against what its transport proved.
pub(crate) fn check(node: &Node, id: &SpiffeId) -> Result<(), Status> {
    if node.namespace != id.namespace {
        let text = format!("node of namespace {:?} has the identity {id}", &*node.namespace);
        return Err(Status::permission_denied(text));
    }
    match node.text("SERVICE_ACCOUNT") {
        Some(account) if !account.is_empty() && *account != *id.service_account => {
            Err(Status::permission_denied(format!("node of service account {account:?} has the identity {id}")))
        }
        _ => Ok(()),
    }
}
