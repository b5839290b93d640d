//! Clusters for gRPC libraries: the few fields that they know; what they would refuse is left out.

use super::input::OutboundCluster;
use super::{fixed, outbound, tls};
use crate::wire::exact;
use meltemi_config::networking::{ClientTlsMode, LoadBalancerSettings};
use meltemi_model::Resolution;
use meltemi_proto::envoy::config::cluster::v3::circuit_breakers::Thresholds;
use meltemi_proto::envoy::config::cluster::v3::cluster::{DiscoveryType, LbConfig, LbPolicy, RingHashLbConfig};
use meltemi_proto::envoy::config::cluster::v3::{CircuitBreakers, Cluster};
use meltemi_proto::envoy::config::core::v3::{TransportSocket, transport_socket};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CertificateProviderInstance, CombinedCertificateValidationContext, ValidationContextType,
};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext,
};
use meltemi_proto::envoy::r#type::matcher::v3::StringMatcher;
use meltemi_proto::{Any, pack_upstream_tls_context};

/// The certificate provider of the bootstrap that the agent writes.
const PROVIDER: &str = "default";

pub fn build(input: &OutboundCluster) -> Cluster {
    let mut cluster = Cluster { name: input.name.to_string(), ..Cluster::default() };
    if matches!(input.service.resolution, Resolution::DnsLb | Resolution::DnsRoundRobin) {
        cluster.cluster_discovery_type = Some(fixed::discovery(DiscoveryType::LogicalDns));
        let mut assignment = outbound::load_assignment(input);
        // gRPC resolves exactly one name.
        assignment.endpoints.truncate(1);
        assignment.endpoints.iter_mut().for_each(|locality| locality.lb_endpoints.truncate(1));
        cluster.load_assignment = Some(assignment);
    } else {
        cluster.cluster_discovery_type = Some(fixed::discovery(DiscoveryType::Eds));
        cluster.eds_cluster_config = Some(outbound::eds(&input.name));
    }
    let policy = input.policy.as_ref();
    load_balancing(&mut cluster, policy.and_then(|policy| policy.load_balancer.as_ref()));
    let requests = policy.and_then(|policy| policy.connection_pool.as_ref()).and_then(|pool| pool.http.as_ref());
    if let Some(limit) =
        requests.and_then(|http| u32::try_from(http.http2_max_requests).ok()).filter(|limit| *limit > 0)
    {
        let threshold = Thresholds { max_requests: Some(limit), ..Thresholds::default() };
        cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![threshold], ..CircuitBreakers::default() });
    }
    // Whether a client was built with xDS credentials is unknown, and gRPC cannot choose per endpoint: only when asked for.
    if policy.and_then(|policy| policy.tls.as_ref()).is_some_and(|tls| tls.mode == ClientTlsMode::IstioMutual) {
        cluster.transport_socket = Some(mutual(input));
    }
    cluster
}

fn load_balancing(cluster: &mut Cluster, settings: Option<&LoadBalancerSettings>) {
    let Some(hash) = settings.and_then(|settings| settings.consistent_hash.as_ref()) else {
        cluster.lb_policy = LbPolicy::RoundRobin as i32;
        return;
    };
    cluster.lb_policy = LbPolicy::RingHash as i32;
    let size = hash.ring_hash.as_ref().map_or(hash.minimum_ring_size, |ring| ring.minimum_ring_size);
    if size != 0 {
        let ring = RingHashLbConfig { minimum_ring_size: Some(size), ..RingHashLbConfig::default() };
        cluster.lb_config = Some(LbConfig::RingHashLbConfig(ring));
    }
}

fn mutual(input: &OutboundCluster) -> TransportSocket {
    let names = tls::identities(input);
    let context = UpstreamTlsContext {
        common_tls_context: Some(mesh_tls(names.iter().map(|name| exact(name)).collect())),
        ..UpstreamTlsContext::default()
    };
    socket(pack_upstream_tls_context(&context))
}

/// Of a library that serves: any identity of the mesh may connect, and which may do what is for its RBAC.
pub fn server_tls() -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(mesh_tls(Vec::new())),
        require_client_certificate: Some(true),
        ..DownstreamTlsContext::default()
    };
    socket(Any::pack(&context))
}

#[allow(deprecated)]
fn mesh_tls(match_subject_alt_names: Vec<StringMatcher>) -> CommonTlsContext {
    let instance =
        |name: &str| CertificateProviderInstance { instance_name: PROVIDER.into(), certificate_name: name.into() };
    let validation =
        CertificateValidationContext { match_subject_alt_names, ..CertificateValidationContext::default() };
    CommonTlsContext {
        // The deprecated fields are the ones that every gRPC release reads.
        tls_certificate_certificate_provider_instance: Some(instance("default")),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(
            CombinedCertificateValidationContext {
                default_validation_context: Some(validation),
                validation_context_certificate_provider_instance: Some(instance("ROOTCA")),
                ..CombinedCertificateValidationContext::default()
            },
        )),
        ..CommonTlsContext::default()
    }
}

fn socket(context: Any) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(context)),
    }
}
