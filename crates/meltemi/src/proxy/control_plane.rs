//! The agent's way to discovery, as the xDS client wants it.

use std::sync::Arc;

use meltemi_agent::IdentityKeeper;
use meltemi_agent::upstream::ControlPlane;
use meltemi_proto::envoy::config::core::v3::Node;
use meltemi_xds::client::{Connect, Options, Target};

/// A stream to discovery, with the workload's certificate once there is one, and its token.
pub fn options(control_plane: &Arc<ControlPlane>, keeper: &Arc<IdentityKeeper>, node: Node) -> Options {
    let connect: Connect = {
        let (control_plane, secret) = (Arc::clone(control_plane), keeper.subscribe());
        Arc::new(move || {
            let (control_plane, secret) = (Arc::clone(&control_plane), secret.borrow().clone());
            Box::pin(async move { Ok(control_plane.discovery_channel(secret.as_deref()).await?) })
        })
    };
    let headers = Arc::clone(control_plane);
    let mut options = Options::new(Target::Custom(connect), node);
    options.metadata = Some(Arc::new(move || headers.headers()));
    options
}
