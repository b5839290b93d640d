//! The clusters that every proxy has, whatever the mesh holds.

use super::input::{Common, PassthroughKind};
use super::{metadata, policy, protocol, tls};
use crate::dynamic_dns::DnsCache;
use crate::names;
use crate::wire::duration;
use meltemi_config::networking::ConnectionPoolSettings;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::{Cluster, cluster};
use meltemi_proto::envoy::config::core::v3::{BindConfig, ExtraSourceAddress, SocketAddress, socket_address};
use meltemi_proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::ClusterConfig;
use meltemi_proto::envoy::extensions::clusters::dynamic_forward_proxy::v3::cluster_config::ClusterImplementationSpecifier;

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

/// To the host that a request names, as no service claims it.
pub fn allow_any_dynamic_dns(common: &Common, cache: &DnsCache) -> Cluster {
    let mut options = protocol::passthrough(common);
    let settings = common.mesh.outbound_traffic_policy.tls.as_ref();
    let socket = settings.and_then(|settings| tls::of_unclaimed(common, settings, &mut options));
    let checked = options.auto.auto_sni && options.auto.auto_san_validation;
    let mut cluster = Cluster {
        name: names::ALLOW_ANY_DYNAMIC_DNS_CLUSTER.into(),
        alt_stat_name: metadata::stat_name(names::ALLOW_ANY_DYNAMIC_DNS_CLUSTER),
        // In plaintext there is no certificate that could be another's.
        cluster_discovery_type: Some(dynamic_forward(cache, socket.is_none() || !checked)),
        transport_socket: socket,
        lb_policy: cluster::LbPolicy::ClusterProvided as i32,
        ..Cluster::default()
    };
    policy::connection_pool(&mut cluster, &ConnectionPoolSettings::default(), None, &common.mesh);
    options.apply(&mut cluster);
    metadata::exchange(&mut cluster, common.dialect);
    cluster
}

/// `unchecked`: the server's certificate need not be that of the host which a request names.
pub fn dynamic_forward(cache: &DnsCache, unchecked: bool) -> cluster::ClusterDiscoveryType {
    let config = ClusterConfig {
        allow_insecure_cluster_options: unchecked,
        cluster_implementation_specifier: Some(ClusterImplementationSpecifier::DnsCacheConfig(cache.config())),
        ..ClusterConfig::default()
    };
    cluster::ClusterDiscoveryType::ClusterType(cluster::CustomClusterType {
        name: "envoy.clusters.dynamic_forward_proxy".into(),
        typed_config: Some(Any::pack(&config)),
    })
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
