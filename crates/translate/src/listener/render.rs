//! A decided [`spec::Listener`](super::spec::Listener) as its message.

use std::time::Duration;

use meltemi_proto::envoy::config::core::v3::{TrafficDirection, UdpSocketConfig};
use meltemi_proto::envoy::config::listener::v3::listener::{ConnectionBalanceConfig, connection_balance_config};
use meltemi_proto::envoy::config::listener::v3::{
    AdditionalAddress, Filter, FilterChain, FilterChainMatch, Listener as Message, QuicProtocolOptions,
    UdpListenerConfig,
};
use meltemi_proto::envoy::extensions::filters::network::mongo_proxy::v3::MongoProxy;
use meltemi_proto::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy;
use meltemi_proto::envoy::extensions::filters::network::tcp_proxy::v3::tcp_proxy::{
    ClusterSpecifier, OnDemand, TunnelingConfig, WeightedCluster, weighted_cluster::ClusterWeight,
};
use meltemi_proto::envoy::r#type::v3::{HashPolicy, hash_policy};

use super::spec::{Chain, Class, Listener, Match, Tcp, Terminal, Transport};
use super::{access_log, filters, hcm, tls};
use crate::profile::Profile;
use crate::security::SecurityFilters;
use crate::wire;

/// How long a client of a gateway may take for its TLS handshake, Istio's `PILOT_GATEWAY_TRANSPORT_SOCKET_CONNECT_TIMEOUT`.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);

pub fn listener(spec: &Listener) -> Message {
    let profile = &*spec.profile;
    let address = |bind: &String| {
        if spec.quic { wire::udp_address(bind, spec.port) } else { wire::socket_address(bind, spec.port) }
    };
    let security = spec.security.filters();
    let parts = Parts { profile, class: spec.class, quic: spec.quic, security: &security };
    let chain = |c: &Chain| parts.chain(c);
    let exact_balance = match spec.class {
        Class::SidecarInbound => profile.inbound_exact_balance,
        Class::SidecarOutbound | Class::Gateway => profile.outbound_exact_balance,
    };
    let direction = if spec.class.is_inbound() { TrafficDirection::Inbound } else { TrafficDirection::Outbound };
    Message {
        name: spec.name.to_string(),
        address: spec.binds.first().map(address),
        additional_addresses: spec
            .binds
            .iter()
            .skip(1)
            .map(|bind| AdditionalAddress { address: Some(address(bind)), ..AdditionalAddress::default() })
            .collect(),
        filter_chains: spec.chains.iter().map(chain).collect(),
        default_filter_chain: spec.default_chain.as_ref().map(chain),
        use_original_dst: spec.use_original_dst.then_some(true),
        transparent: spec.transparent.then_some(true),
        listener_filters: spec.filters.iter().map(filters::of_listener).collect(),
        listener_filters_timeout: spec.filters_timeout.map(wire::duration),
        continue_on_listener_filters_timeout: spec.continue_on_filters_timeout,
        traffic_direction: direction as i32,
        connection_balance_config: (exact_balance && !spec.quic).then_some(ConnectionBalanceConfig {
            balance_type: Some(connection_balance_config::BalanceType::ExactBalance(
                connection_balance_config::ExactBalance {},
            )),
        }),
        access_log: if spec.may_refuse() { access_log::of_listener(profile) } else { Vec::new() },
        bind_to_port: (!spec.bind_to_port).then_some(false),
        // One accept per wake-up spreads connections evenly over the workers.
        udp_listener_config: spec.quic.then(|| UdpListenerConfig {
            downstream_socket_config: Some(UdpSocketConfig::default()),
            quic_options: Some(QuicProtocolOptions::default()),
            ..UdpListenerConfig::default()
        }),
        max_connections_to_accept_per_socket_event: spec.bind_to_port.then_some(1),
        ..Message::default()
    }
}

/// What the chains of a listener have in common.
struct Parts<'a> {
    profile: &'a Profile,
    class: Class,
    quic: bool,
    security: &'a SecurityFilters,
}

impl Parts<'_> {
    fn chain(&self, spec: &Chain) -> FilterChain {
        let socket = if self.quic { tls::quic_transport_socket } else { tls::transport_socket };
        FilterChain {
            filter_chain_match: (!spec.matches.is_empty()).then(|| chain_match(&spec.matches)),
            filters: self.filters(spec),
            metadata: spec.origin.as_ref().map(wire::origin_metadata),
            transport_socket: spec.tls.as_ref().map(socket),
            transport_socket_connect_timeout: (self.class == Class::Gateway).then(|| wire::duration(HANDSHAKE_TIMEOUT)),
            name: spec.name.clone(),
            ..FilterChain::default()
        }
    }

    fn filters(&self, spec: &Chain) -> Vec<Filter> {
        let istio = self.profile.dialect.has_istio_filters();
        let mut chain = Vec::with_capacity(3);
        if spec.exchange_metadata && istio {
            chain.push(filters::tcp_metadata_exchange());
        }
        // Of HTTP, requests are authorized and not connections.
        if matches!(&spec.terminal, Terminal::Tcp(tcp) if tcp.is_authorized()) {
            chain.extend(self.security.tcp.iter().cloned());
        }
        if spec.report && istio && self.profile.metrics {
            chain.push(filters::tcp_stats(self.class));
        }
        match &spec.terminal {
            Terminal::Http(http) => {
                let mut manager = hcm::build(http, self.profile, self.class, &self.security.http);
                hcm::limit(&mut manager, &self.security.rate_limits);
                if self.quic {
                    hcm::serve_http3(&mut manager);
                }
                chain.push(filters::network_filter(filters::HTTP_CONNECTION_MANAGER, &manager));
            }
            Terminal::Tcp(tcp) => chain.extend(tcp_filters(tcp, self.profile, self.class)),
        }
        chain
    }
}

fn chain_match(spec: &Match) -> FilterChainMatch {
    FilterChainMatch {
        destination_port: spec.destination_port,
        prefix_ranges: spec.prefixes.iter().filter_map(|text| wire::cidr(text)).collect(),
        server_names: spec.server_names.clone(),
        transport_protocol: match spec.transport {
            None => "",
            Some(Transport::Tls) => "tls",
            Some(Transport::RawBuffer) => "raw_buffer",
        }
        .into(),
        application_protocols: spec.application_protocols.iter().map(|name| (*name).into()).collect(),
        ..FilterChainMatch::default()
    }
}

fn tcp_filters(tcp: &Tcp, profile: &Profile, class: Class) -> Vec<Filter> {
    let mut chain = Vec::with_capacity(2);
    if tcp.mongo {
        let config = MongoProxy { stat_prefix: tcp.stat_prefix.clone(), ..MongoProxy::default() };
        chain.push(filters::network_filter("envoy.filters.network.mongo_proxy", &config));
    }
    if let Some((cache, port)) = &tcp.sni_forward {
        chain.push(filters::sni_dynamic_forward_proxy(cache, *port));
    }
    let source_ip =
        || HashPolicy { policy_specifier: Some(hash_policy::PolicySpecifier::SourceIp(hash_policy::SourceIp {})) };
    let config = TcpProxy {
        stat_prefix: tcp.stat_prefix.clone(),
        cluster_specifier: Some(cluster_specifier(&tcp.clusters)),
        idle_timeout: tcp.idle_timeout.map(wire::duration),
        max_downstream_connection_duration: tcp.max_connection_duration.map(wire::duration),
        hash_policy: tcp.hash_source_ip.then(source_ip).into_iter().collect(),
        tunneling_config: tcp.tunnel.as_ref().map(|tunnel| TunnelingConfig {
            hostname: tunnel.target.clone(),
            use_post: tunnel.post,
            ..TunnelingConfig::default()
        }),
        access_log: if tcp.logged { access_log::of_tcp(profile) } else { Vec::new() },
        on_demand: (profile.on_demand && class == Class::SidecarOutbound).then(|| OnDemand {
            odcds_config: Some(wire::ads()),
            resources_locator: String::new(),
            timeout: Some(wire::duration(filters::ON_DEMAND_TIMEOUT)),
        }),
        ..TcpProxy::default()
    };
    chain.push(filters::network_filter(filters::TCP_PROXY, &config));
    chain
}

fn cluster_specifier(clusters: &[(String, u32)]) -> ClusterSpecifier {
    match clusters {
        [(only, _)] => ClusterSpecifier::Cluster(only.clone()),
        _ => ClusterSpecifier::WeightedClusters(WeightedCluster {
            clusters: clusters
                .iter()
                .map(|(name, weight)| ClusterWeight { name: name.clone(), weight: *weight, metadata_match: None })
                .collect(),
        }),
    }
}
