//! The way to the control plane that a bootstrap describes.

use super::{Options, RunError};
use meltemi_plan::common::Address;
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_xds::Variant;
use meltemi_xds::client::{self, Target};

/// None: everything is static.
pub fn from_bootstrap(options: &Options) -> Result<Option<client::Options>, RunError> {
    let Some(ads) = &options.bootstrap.ads else { return Ok(None) };
    let wrong =
        |reason: &str| RunError::Bootstrap(format!("dynamic_resources.ads_config: cluster {:?} {reason}", ads.cluster));
    let cluster = options.bootstrap.clusters.iter().find(|cluster| cluster.name == ads.cluster);
    let cluster = cluster.ok_or_else(|| wrong("is not a static cluster"))?;
    let address = cluster.static_addresses().next().ok_or_else(|| wrong("has no endpoint"))?;
    let target = match address {
        Address::Socket(address) => Target::Tcp(address.to_string()),
        Address::Name { host, port } => Target::Tcp(format!("{host}:{port}")),
        Address::Pipe { path, .. } => Target::Unix(path.to_path_buf()),
        Address::Internal { .. } => return Err(wrong("is an internal listener")),
    };
    let body: Bootstrap =
        meltemi_proto::unpack_bootstrap(&options.bootstrap_body).map_err(|e| RunError::Bootstrap(e.to_string()))?;
    let mut found = client::Options::new(target, announced(body.node.unwrap_or_default()));
    found.variant = if ads.delta { Variant::Delta } else { Variant::StateOfTheWorld };
    let headers: Vec<(String, String)> =
        ads.initial_metadata.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    if !headers.is_empty() {
        found.metadata = Some(std::sync::Arc::new(move || headers.clone()));
    }
    Ok(Some(found))
}

/// The node with what we are, as Envoy adds its version.
fn announced(mut node: meltemi_proto::envoy::config::core::v3::Node) -> meltemi_proto::envoy::config::core::v3::Node {
    node.user_agent_name = "meltemi".to_owned();
    node
}
