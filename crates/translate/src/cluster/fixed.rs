//! The clusters that every proxy has, whatever the mesh holds.

use super::input::{Common, PassthroughKind};
use super::{metadata, policy, protocol};
use crate::names;
use crate::wire::duration;
use meltemi_config::networking::ConnectionPoolSettings;
use meltemi_proto::envoy::config::cluster::v3::{Cluster, cluster};
use meltemi_proto::envoy::config::core::v3::{BindConfig, ExtraSourceAddress, SocketAddress, socket_address};

/// Connections of the proxy to its own workload come from here, which the capture rules let pass.
pub const INBOUND_SOURCE_V4: &str = "127.0.0.6";
pub const INBOUND_SOURCE_V6: &str = "::6";

/// No endpoints: what must not be reached.
pub fn black_hole(common: &Common) -> Cluster {
    Cluster {
        name: names::BLACK_HOLE_CLUSTER.into(),
        alt_stat_name: metadata::stat_name(names::BLACK_HOLE_CLUSTER),
        cluster_discovery_type: Some(discovery(cluster::DiscoveryType::Static)),
        connect_timeout: Some(duration(common.mesh.connect_timeout)),
        lb_policy: cluster::LbPolicy::RoundRobin as i32,
        ..Cluster::default()
    }
}

/// To wherever the connection was going before it was captured.
pub fn passthrough(kind: PassthroughKind, common: &Common) -> Cluster {
    let name = match kind {
        PassthroughKind::Outbound => names::PASSTHROUGH_CLUSTER,
        PassthroughKind::Inbound => names::INBOUND_PASSTHROUGH_CLUSTER,
    };
    let mut cluster = Cluster {
        name: name.into(),
        alt_stat_name: metadata::stat_name(name),
        cluster_discovery_type: Some(discovery(cluster::DiscoveryType::OriginalDst)),
        lb_policy: cluster::LbPolicy::ClusterProvided as i32,
        ..Cluster::default()
    };
    policy::connection_pool(&mut cluster, &ConnectionPoolSettings::default(), None, &common.mesh);
    protocol::passthrough(common).apply(&mut cluster);
    match kind {
        PassthroughKind::Outbound => metadata::exchange(&mut cluster, common.dialect),
        PassthroughKind::Inbound => cluster.upstream_bind_config = Some(inbound_source(common)),
    }
    cluster
}

pub fn discovery(kind: cluster::DiscoveryType) -> cluster::ClusterDiscoveryType {
    cluster::ClusterDiscoveryType::Type(kind as i32)
}

/// Binds connections to the workload, so that capture does not send them back to the proxy.
pub fn inbound_source(common: &Common) -> BindConfig {
    let source = |address: &str| SocketAddress {
        address: address.into(),
        port_specifier: Some(socket_address::PortSpecifier::PortValue(0)),
        ..SocketAddress::default()
    };
    let (first, second) = match (common.ipv4, common.ipv6) {
        (false, true) => (INBOUND_SOURCE_V6, None),
        (_, true) => (INBOUND_SOURCE_V4, Some(INBOUND_SOURCE_V6)),
        (_, false) => (INBOUND_SOURCE_V4, None),
    };
    BindConfig {
        source_address: Some(source(first)),
        extra_source_addresses: second
            .map(|address| ExtraSourceAddress { address: Some(source(address)), ..ExtraSourceAddress::default() })
            .into_iter()
            .collect(),
        ..BindConfig::default()
    }
}
