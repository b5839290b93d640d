//! TLS towards endpoints: what the user's rule says, else mTLS towards the endpoints that take it.

use super::input::{AutoMtls, Common, OutboundCluster};
use super::metadata::{EXCHANGE_ALPN, text};
use super::protocol::Options;
use crate::compliance;
use crate::dialect::Dialect;
use crate::dynamic_dns;
use crate::names;
use crate::wire::{duration, exact};
use meltemi_config::networking::{ClientTlsMode, ClientTlsSettings, ProxyProtocol, ProxyProtocolVersion};
use meltemi_model::{Protocol, RegistryKind};
use meltemi_proto::envoy::config::cluster::v3::{Cluster, cluster};
use meltemi_proto::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, DataSource, GrpcService, ProxyProtocolConfig,
    TransportSocket, api_config_source, config_source, data_source, grpc_service, proxy_protocol_config,
    transport_socket,
};
use meltemi_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use meltemi_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::subject_alt_name_matcher::SanType;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, SubjectAltNameMatcher, TlsParameters,
    UpstreamTlsContext,
};
use meltemi_proto::{Any, pack_upstream_tls_context, prost_types::Struct};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

const AGENT_CLUSTER: &str = "sds-grpc";
const TLS_SOCKET: &str = "envoy.transport_sockets.tls";
/// The endpoint metadata key that says which TLS an endpoint takes.
pub const TLS_MODE: &str = "tlsMode";

/// What a cluster does.
enum Decision {
    Plain,
    /// Towards every endpoint.
    Always(Box<UpstreamTlsContext>),
    /// Towards endpoints that say `tlsMode: istio`.
    PerEndpoint(Box<UpstreamTlsContext>),
}

/// What TLS depends on beside its settings.
struct Whose<'a> {
    common: &'a Common,
    protocol: Protocol,
    /// The rule is for chosen workloads only.
    selected: bool,
    /// Names to expect where the settings say none.
    sans: &'a [Arc<str>],
    /// Hosts are those that requests name.
    dynamic: bool,
}

impl<'a> Whose<'a> {
    fn of(input: &'a OutboundCluster) -> Self {
        let external = input.service.registry == RegistryKind::External;
        Self {
            common: &input.common,
            protocol: input.port.protocol,
            selected: input.rule.as_ref().is_some_and(|rule| rule.has_selector()),
            sans: if external { &input.service.subject_alt_names } else { &[] },
            dynamic: dynamic_dns::is_dynamic(&input.service),
        }
    }
}

/// Towards hosts that no service claims (`MeshConfig.outboundTrafficPolicy.tls`). `None`: plaintext.
pub fn of_unclaimed(common: &Common, settings: &ClientTlsSettings, options: &mut Options) -> Option<TransportSocket> {
    let whose = Whose { common, protocol: Protocol::Http, selected: false, sans: &[], dynamic: true };
    let context = match settings.mode {
        ClientTlsMode::Disable => return None,
        ClientTlsMode::IstioMutual => {
            from_requests(settings, options);
            let sans = settings.subject_alt_names.iter().map(|name| name.to_string()).collect();
            mutual(&whose, sans, settings.sni.to_string(), options)
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => origination(&whose, settings, options)?,
    };
    Some(tls_socket(&context))
}

/// Sets transport sockets. Must come after the protocol is settled, for ALPN says it.
pub fn apply(cluster: &mut Cluster, input: &OutboundCluster, options: &mut Options) {
    let original = Some(super::fixed::discovery(cluster::DiscoveryType::OriginalDst));
    match decide(input, options) {
        Decision::Plain => {}
        Decision::Always(context) => cluster.transport_socket = Some(tls_socket(&context)),
        // Without a chosen endpoint there is nothing to match on; all of them take mTLS, or this is not decided.
        Decision::PerEndpoint(context) if cluster.cluster_discovery_type == original => {
            cluster.transport_socket = Some(tls_socket(&context));
        }
        Decision::PerEndpoint(context) => {
            let fields = [(TLS_MODE.to_owned(), text("istio"))].into_iter().collect();
            cluster.transport_socket_matches = vec![
                cluster::TransportSocketMatch {
                    name: "tlsMode-istio".into(),
                    r#match: Some(Struct { fields }),
                    transport_socket: Some(tls_socket(&context)),
                },
                cluster::TransportSocketMatch {
                    name: "tlsMode-disabled".into(),
                    r#match: Some(Struct::default()),
                    transport_socket: Some(raw_buffer()),
                },
            ];
        }
    }
    if let Some(proxy_protocol) = input.policy.as_ref().and_then(|policy| policy.proxy_protocol.as_ref()) {
        wrap_in_proxy_protocol(cluster, proxy_protocol);
    }
}

fn decide(input: &OutboundCluster, options: &mut Options) -> Decision {
    if input.sni_dnat {
        return Decision::Plain;
    }
    let Some(settings) = input.policy.as_ref().and_then(|policy| policy.tls.as_ref()) else {
        return match input.auto_mtls {
            AutoMtls::On => {
                let context = mutual(&Whose::of(input), identities(input), sni(input), options);
                Decision::PerEndpoint(Box::new(context))
            }
            AutoMtls::Off => Decision::Plain,
        };
    };
    match settings.mode {
        ClientTlsMode::Disable => Decision::Plain,
        ClientTlsMode::IstioMutual => {
            let sans = match settings.subject_alt_names.as_slice() {
                [] => identities(input),
                own => own.iter().map(|name| name.to_string()).collect(),
            };
            let sni = match (&*settings.sni, dynamic_dns::is_dynamic(&input.service)) {
                ("", true) => String::new(),
                ("", false) => sni(input),
                (own, _) => own.to_owned(),
            };
            if dynamic_dns::is_dynamic(&input.service) {
                from_requests(settings, options);
            }
            Decision::Always(Box::new(mutual(&Whose::of(input), sans, sni, options)))
        }
        ClientTlsMode::Simple | ClientTlsMode::Mutual => match origination(&Whose::of(input), settings, options) {
            Some(context) => Decision::Always(Box::new(context)),
            None => Decision::Plain,
        },
    }
}

/// Of hosts that requests name: the name is asked for, and its certificate expected.
fn from_requests(settings: &ClientTlsSettings, options: &mut Options) {
    options.auto.auto_sni = settings.sni.is_empty();
    options.auto.auto_san_validation = settings.insecure_skip_verify != Some(true);
}

fn sni(input: &OutboundCluster) -> String {
    names::outbound_sni(input.port.number, &input.subset, &input.service.hostname)
}

/// Who may answer: the workloads' accounts in the mesh's trust domains, and the names that the service lists.
pub fn identities(input: &OutboundCluster) -> Vec<String> {
    let mesh = &input.common.mesh;
    let domains = || std::iter::once(&mesh.trust_domain).chain(&mesh.trust_domain_aliases);
    let accounts = input.accounts.iter().flat_map(|(namespace, account)| {
        domains().map(move |domain| format!("spiffe://{domain}/ns/{namespace}/sa/{account}"))
    });
    let mut names: Vec<String> =
        accounts.chain(input.service.subject_alt_names.iter().map(|name| name.to_string())).collect();
    names.sort();
    names.dedup();
    names
}

/// A validation context that asks for one of these names: URIs, addresses or DNS names, as each looks.
fn expect_names<'a>(names: impl Iterator<Item = &'a str>) -> CertificateValidationContext {
    let typed = names.map(|name| {
        let kind = if name.contains("://") {
            SanType::Uri
        } else if name.parse::<IpAddr>().is_ok() {
            SanType::IpAddress
        } else {
            SanType::Dns
        };
        SubjectAltNameMatcher { san_type: kind as i32, matcher: Some(exact(name)), ..SubjectAltNameMatcher::default() }
    });
    CertificateValidationContext {
        match_typed_subject_alt_names: typed.collect(),
        ..CertificateValidationContext::default()
    }
}

/// Mesh mTLS with the workload's own certificate.
fn mutual(whose: &Whose<'_>, sans: Vec<String>, sni: String, options: &Options) -> UpstreamTlsContext {
    let validation = expect_names(sans.iter().map(String::as_str));
    UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            tls_params: Some(enforced(parameters(), whose.common)),
            tls_certificate_sds_secret_configs: vec![agent_secret("default")],
            validation_context_type: Some(combined(validation, agent_secret("ROOTCA"))),
            alpn_protocols: mesh_alpn(whose.common.dialect, whose.protocol, options),
            ..CommonTlsContext::default()
        }),
        sni,
        ..UpstreamTlsContext::default()
    }
}

/// Tells the server that a mesh client calls, and with what. Istio's proxies refine the HTTP version per connection; where
/// that filter is missing, the cluster's protocol is all there is to say.
fn mesh_alpn(dialect: Dialect, protocol: Protocol, options: &Options) -> Vec<String> {
    let names: &[&str] = match (dialect, options.is_http2()) {
        (Dialect::IstioProxy, true) => &[EXCHANGE_ALPN, "istio", "h2"],
        (Dialect::IstioProxy, false) => &[EXCHANGE_ALPN, "istio"],
        (_, true) => &["istio-h2", "istio", "h2"],
        (_, false) if protocol.is_http() => &["istio-http/1.1", "istio", "http/1.1"],
        (_, false) => &["istio"],
    };
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// TLS as the user asks for it, to servers that know nothing of the mesh. `None` where it cannot be had.
fn origination(whose: &Whose<'_>, settings: &ClientTlsSettings, options: &mut Options) -> Option<UpstreamTlsContext> {
    let sidecar = whose.common.class == super::ProxyClass::Sidecar;
    // Roots alone, or what nobody gets: connections are then to fail, not to be in the clear.
    let is_public = ["configmap://", "invalid://"].iter().any(|kind| settings.credential_name.starts_with(kind));
    if !settings.credential_name.is_empty() && sidecar && !whose.selected && !is_public {
        // A rule for everyone would hand one workload's credential to all.
        return None;
    }
    let skip = settings.insecure_skip_verify == Some(true);
    if whose.dynamic {
        from_requests(settings, options);
    } else if settings.sni.is_empty() {
        options.auto.auto_sni = true;
        options.auto.auto_san_validation = settings.subject_alt_names.is_empty() && !skip;
    }
    let sans: Vec<&str> = match settings.subject_alt_names.as_slice() {
        [] => whose.sans.iter().map(|name| &**name).collect(),
        own => own.iter().map(|name| &**name).collect(),
    };
    let mut common = CommonTlsContext {
        tls_params: Some(enforced(with_mesh_defaults(parameters(), whose.common), whose.common)),
        alpn_protocols: if options.is_http2() { vec!["h2".into()] } else { Vec::new() },
        ..CommonTlsContext::default()
    };
    let validation = CertificateValidationContext {
        crl: Some(&settings.ca_crl).filter(|path| !path.is_empty()).map(|path| file(path)),
        ..expect_names(sans.into_iter())
    };
    let mutual = settings.mode == ClientTlsMode::Mutual;
    let root = if !settings.credential_name.is_empty() {
        let name = credential(&settings.credential_name);
        if mutual {
            common.tls_certificate_sds_secret_configs = vec![discovery_secret(&name)];
        }
        discovery_secret(&format!("{name}-cacert"))
    } else {
        if mutual {
            if settings.client_certificate.is_empty() || settings.private_key.is_empty() {
                return None;
            }
            let name = format!("file-cert:{}~{}", settings.client_certificate, settings.private_key);
            common.tls_certificate_sds_secret_configs = vec![agent_secret(&name)];
        }
        let path = if settings.ca_certificates.is_empty() { "system" } else { &*settings.ca_certificates };
        agent_secret(&format!("file-root:{path}"))
    };
    common.validation_context_type = Some(if skip {
        ValidationContextType::ValidationContext(CertificateValidationContext::default())
    } else {
        combined(validation, root)
    });
    Some(UpstreamTlsContext {
        common_tls_context: Some(common),
        sni: settings.sni.to_string(),
        ..UpstreamTlsContext::default()
    })
}

/// The SDS name of a credential: `kubernetes://name`, unless it says its kind itself.
fn credential(name: &str) -> String {
    if name.contains("://") { name.to_owned() } else { format!("kubernetes://{name}") }
}

fn parameters() -> TlsParameters {
    TlsParameters {
        tls_minimum_protocol_version: TlsProtocol::TlSv12 as i32,
        tls_maximum_protocol_version: TlsProtocol::TlSv13 as i32,
        ..TlsParameters::default()
    }
}

fn with_mesh_defaults(mut parameters: TlsParameters, common: &Common) -> TlsParameters {
    if let Some(defaults) = &common.mesh.tls_defaults {
        let list = |names: &[std::sync::Arc<str>]| names.iter().map(|name| name.to_string()).collect();
        parameters.ecdh_curves = list(&defaults.ecdh_curves);
        parameters.cipher_suites = list(&defaults.cipher_suites);
    }
    parameters
}

fn enforced(mut parameters: TlsParameters, common: &Common) -> TlsParameters {
    compliance::enforce(&mut parameters, common.compliance);
    parameters
}

fn combined(validation: CertificateValidationContext, root: SdsSecretConfig) -> ValidationContextType {
    ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
        default_validation_context: Some(validation),
        validation_context_sds_secret_config: Some(root),
        ..CombinedCertificateValidationContext::default()
    })
}

fn file(path: &str) -> DataSource {
    DataSource { specifier: Some(data_source::Specifier::Filename(path.into())), ..DataSource::default() }
}

/// A secret that the agent beside the proxy serves.
fn agent_secret(name: &str) -> SdsSecretConfig {
    let target = grpc_service::TargetSpecifier::EnvoyGrpc(grpc_service::EnvoyGrpc {
        cluster_name: AGENT_CLUSTER.into(),
        ..grpc_service::EnvoyGrpc::default()
    });
    let source = config_source::ConfigSourceSpecifier::ApiConfigSource(ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc as i32,
        transport_api_version: ApiVersion::V3 as i32,
        grpc_services: vec![GrpcService { target_specifier: Some(target), ..GrpcService::default() }],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    });
    // The agent always has the workload's own; the cluster waits for them.
    let own = matches!(name, "default" | "ROOTCA");
    secret(name, source, own.then_some(Duration::ZERO))
}

/// A secret that discovery serves.
fn discovery_secret(name: &str) -> SdsSecretConfig {
    secret(name, config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {}), None)
}

fn secret(
    name: &str,
    source: config_source::ConfigSourceSpecifier,
    fetch_timeout: Option<Duration>,
) -> SdsSecretConfig {
    SdsSecretConfig {
        name: name.into(),
        sds_config: Some(ConfigSource {
            initial_fetch_timeout: fetch_timeout.map(duration),
            resource_api_version: ApiVersion::V3 as i32,
            config_source_specifier: Some(source),
            ..ConfigSource::default()
        }),
    }
}

fn tls_socket(context: &UpstreamTlsContext) -> TransportSocket {
    socket(TLS_SOCKET, pack_upstream_tls_context(context))
}

fn raw_buffer() -> TransportSocket {
    socket("envoy.transport_sockets.raw_buffer", Any::pack(&RawBuffer {}))
}

fn socket(name: &str, config: Any) -> TransportSocket {
    TransportSocket { name: name.into(), config_type: Some(transport_socket::ConfigType::TypedConfig(config)) }
}

fn wrap_in_proxy_protocol(cluster: &mut Cluster, settings: &ProxyProtocol) {
    let version = match settings.version {
        ProxyProtocolVersion::V1 => proxy_protocol_config::Version::V1,
        ProxyProtocolVersion::V2 => proxy_protocol_config::Version::V2,
    };
    let wrap = |inner: TransportSocket| {
        let config = ProxyProtocolUpstreamTransport {
            config: Some(ProxyProtocolConfig { version: version as i32, ..ProxyProtocolConfig::default() }),
            transport_socket: Some(inner),
            ..ProxyProtocolUpstreamTransport::default()
        };
        socket("envoy.transport_sockets.upstream_proxy_protocol", Any::pack(&config))
    };
    if cluster.transport_socket_matches.is_empty() {
        let inner = cluster.transport_socket.take().unwrap_or_else(raw_buffer);
        cluster.transport_socket = Some(wrap(inner));
    }
    for entry in &mut cluster.transport_socket_matches {
        entry.transport_socket = entry.transport_socket.take().map(wrap);
    }
}
