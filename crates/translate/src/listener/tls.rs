//! Terminated TLS: the settings of mesh mTLS and of servers that name their own certificates, and their message.

use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::{
    AggregatedConfigSource, ApiConfigSource, ApiVersion, ConfigSource, DataSource, TransportSocket, api_config_source,
    config_source, data_source, transport_socket,
};
use meltemi_proto::envoy::extensions::transport_sockets::quic::v3::QuicDownstreamTransport;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::tls_parameters::TlsProtocol;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, TlsParameters,
};

use super::access_log::grpc_service;
use super::spec::{Secret, Tls, TlsVersion, Validation};
use crate::compliance;
use crate::profile::Profile;
use crate::wire::{exact, prefix};

/// What a server of HTTP offers.
pub const ALPN_HTTP: [&str; 2] = ["h2", "http/1.1"];
/// What a server of TCP offers where peers exchange metadata.
pub const ALPN_TCP_WITH_EXCHANGE: [&str; 3] = ["istio-peer-exchange", "h2", "http/1.1"];

/// Istio's suites for mesh mTLS before TLS 1.3.
const MESH_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];

const AGENT_CLUSTER: &str = "sds-grpc";

/// The mesh's own mTLS: the workload's certificate, and peers of any of the trust domains.
pub fn mesh(exchange: bool, profile: &Profile) -> Tls {
    let ciphers = match profile.mesh_tls.ciphers.as_slice() {
        [] => MESH_CIPHERS.map(String::from).to_vec(),
        own => own.to_vec(),
    };
    Tls {
        alpn: if exchange { ALPN_TCP_WITH_EXCHANGE.to_vec() } else { ALPN_HTTP.to_vec() },
        require_client_certificate: true,
        certificates: vec![Secret::Agent("default".into())],
        validation: Some(Validation {
            root: Some(Secret::Agent("ROOTCA".into())),
            san_prefixes: profile.trust_domains.iter().map(|domain| format!("spiffe://{domain}/")).collect(),
            ..Validation::default()
        }),
        minimum: Some(profile.mesh_tls.minimum),
        maximum: Some(TlsVersion::V1_3),
        ciphers,
        curves: profile.mesh_tls.curves.clone(),
        compliance: profile.compliance,
    }
}

pub fn transport_socket(tls: &Tls) -> TransportSocket {
    TransportSocket {
        name: "envoy.transport_sockets.tls".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(meltemi_proto::pack_downstream_tls_context(
            &downstream(tls),
        ))),
    }
}

pub fn quic_transport_socket(tls: &Tls) -> TransportSocket {
    let transport =
        QuicDownstreamTransport { downstream_tls_context: Some(downstream(tls)), ..QuicDownstreamTransport::default() };
    TransportSocket {
        name: "envoy.transport_sockets.quic".into(),
        config_type: Some(transport_socket::ConfigType::TypedConfig(Any::pack(&transport))),
    }
}

pub fn downstream(tls: &Tls) -> DownstreamTlsContext {
    let common = CommonTlsContext {
        tls_params: parameters(tls),
        tls_certificate_sds_secret_configs: tls.certificates.iter().map(sds).collect(),
        alpn_protocols: tls.alpn.iter().map(|name| (*name).into()).collect(),
        validation_context_type: tls.validation.as_ref().map(validation),
        ..CommonTlsContext::default()
    };
    DownstreamTlsContext {
        common_tls_context: Some(common),
        require_client_certificate: Some(tls.require_client_certificate),
        ..DownstreamTlsContext::default()
    }
}

fn parameters(tls: &Tls) -> Option<TlsParameters> {
    let version = |version: Option<TlsVersion>| match version {
        None => TlsProtocol::TlsAuto,
        Some(TlsVersion::V1_0) => TlsProtocol::TlSv10,
        Some(TlsVersion::V1_1) => TlsProtocol::TlSv11,
        Some(TlsVersion::V1_2) => TlsProtocol::TlSv12,
        Some(TlsVersion::V1_3) => TlsProtocol::TlSv13,
    } as i32;
    let mut parameters = TlsParameters {
        tls_minimum_protocol_version: version(tls.minimum),
        tls_maximum_protocol_version: version(tls.maximum),
        cipher_suites: tls.ciphers.clone(),
        ecdh_curves: tls.curves.clone(),
        ..TlsParameters::default()
    };
    compliance::enforce(&mut parameters, tls.compliance);
    (parameters != TlsParameters::default()).then_some(parameters)
}

#[expect(deprecated, reason = "Istio sends untyped names, and proxies compare URIs and DNS names with them alike")]
fn validation(validation: &Validation) -> ValidationContextType {
    let sans = validation.sans.iter().map(|san| exact(san));
    let prefixes = validation.san_prefixes.iter().map(|san| prefix(san));
    let context = CertificateValidationContext {
        match_subject_alt_names: sans.chain(prefixes).collect(),
        verify_certificate_spki: validation.spki.clone(),
        verify_certificate_hash: validation.hashes.clone(),
        crl: validation.crl.as_ref().map(|path| DataSource {
            specifier: Some(data_source::Specifier::Filename(path.clone())),
            ..DataSource::default()
        }),
        trust_chain_verification: match validation.accept_untrusted {
            true => TrustChainVerification::AcceptUntrusted,
            false => TrustChainVerification::VerifyTrustChain,
        } as i32,
        ..CertificateValidationContext::default()
    };
    match &validation.root {
        None => ValidationContextType::ValidationContext(context),
        Some(root) => ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(context),
            validation_context_sds_secret_config: Some(sds(root)),
            ..CombinedCertificateValidationContext::default()
        }),
    }
}

fn sds(secret: &Secret) -> SdsSecretConfig {
    let (name, specifier) = match secret {
        Secret::Agent(name) => {
            (name, config_source::ConfigSourceSpecifier::ApiConfigSource(secret_server(AGENT_CLUSTER, "")))
        }
        Secret::External { name, cluster, authority } => {
            (name, config_source::ConfigSourceSpecifier::ApiConfigSource(secret_server(cluster, authority)))
        }
        Secret::Discovery(name) => (name, config_source::ConfigSourceSpecifier::Ads(AggregatedConfigSource {})),
    };
    // A secret that does not exist must not hold back the listener for ever, so discovery's keep Envoy's fetch timeout;
    // the agent always has the workload's own.
    let initial_fetch_timeout = match secret {
        Secret::Agent(name) if name == "default" || name == "ROOTCA" => {
            Some(crate::wire::duration(std::time::Duration::ZERO))
        }
        _ => None,
    };
    SdsSecretConfig {
        name: name.clone(),
        sds_config: Some(ConfigSource {
            initial_fetch_timeout,
            resource_api_version: ApiVersion::V3 as i32,
            config_source_specifier: Some(specifier),
            ..ConfigSource::default()
        }),
    }
}

fn secret_server(cluster: &str, authority: &str) -> ApiConfigSource {
    ApiConfigSource {
        api_type: api_config_source::ApiType::Grpc as i32,
        transport_api_version: ApiVersion::V3 as i32,
        grpc_services: vec![grpc_service(cluster, authority)],
        set_node_on_first_message_only: true,
        ..ApiConfigSource::default()
    }
}
