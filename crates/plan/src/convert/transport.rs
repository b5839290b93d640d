//! Transport sockets of both sides.

use super::common::{enumeration, required, resolve, structure, unknown_type, unpack};
use super::tls::{downstream_tls, upstream_tls};
use crate::cluster::{ProxyProtocolVersion, TransportMatch, TransportSocket};
use crate::error::{At, Result, refuse};
use crate::tls::DownstreamTls;
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::cluster;
use meltemi_proto::envoy::config::core::v3 as core;
use meltemi_proto::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use meltemi_proto::envoy::extensions::transport_sockets::quic::v3::QuicDownstreamTransport;
use meltemi_proto::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use meltemi_proto::envoy::extensions::transport_sockets::tls::v3::{DownstreamTlsContext, UpstreamTlsContext};

fn typed(value: &core::TransportSocket) -> Result<Option<Any>> {
    match value.config_type.as_ref() {
        Some(core::transport_socket::ConfigType::TypedConfig(any)) => resolve(any).map(Some).at("typed_config"),
        None if value.name == "envoy.transport_sockets.raw_buffer" || value.name == "raw_buffer" => Ok(None),
        None => refuse("typed_config: is required"),
    }
}

/// `None`: plain text. `quic`: of a QUIC listener.
pub(crate) fn downstream(value: &core::TransportSocket, quic: bool) -> Result<Option<DownstreamTls>> {
    let Some(any) = typed(value)? else { return Ok(None) };
    if any.is::<QuicDownstreamTransport>() != quic {
        let fault =
            if quic { "a QUIC listener needs QuicDownstreamTransport" } else { "QUIC needs udp_listener_config" };
        return refuse(fault).at("typed_config");
    }
    if quic {
        return unpack(&any).and_then(|config| super::quic::context(&config)).map(Some).at("typed_config");
    }
    if any.is::<RawBuffer>() {
        return Ok(None);
    }
    if any.is::<DownstreamTlsContext>() {
        let context = meltemi_proto::unpack_downstream_tls_context(&any)?;
        return downstream_tls(&context).map(Some).at("typed_config");
    }
    unknown_type(&any).at("typed_config")
}

pub(crate) fn upstream(value: &core::TransportSocket) -> Result<TransportSocket> {
    let Some(any) = typed(value)? else { return Ok(TransportSocket::Plain) };
    if any.is::<RawBuffer>() {
        return Ok(TransportSocket::Plain);
    }
    if any.is::<UpstreamTlsContext>() {
        let context = meltemi_proto::unpack_upstream_tls_context(&any)?;
        return upstream_tls(&context).map(|tls| TransportSocket::Tls(tls.into())).at("typed_config");
    }
    if any.is::<ProxyProtocolUpstreamTransport>() {
        return unpack(&any).and_then(|config| proxy_protocol(&config)).at("typed_config");
    }
    unknown_type(&any).at("typed_config")
}

fn proxy_protocol(value: &ProxyProtocolUpstreamTransport) -> Result<TransportSocket> {
    use core::proxy_protocol_config::Version;
    let version = value.config.as_ref().map_or(0, |config| config.version);
    let version = match enumeration::<Version>(version).at("config.version")? {
        Version::V1 => ProxyProtocolVersion::V1,
        Version::V2 => ProxyProtocolVersion::V2,
    };
    match upstream(required(&value.transport_socket, "transport_socket")?).at("transport_socket")? {
        TransportSocket::ProxyProtocol { .. } => refuse("transport_socket: one PROXY protocol header is enough"),
        inner @ (TransportSocket::Plain | TransportSocket::Tls(_)) => {
            Ok(TransportSocket::ProxyProtocol { version, inner: Box::new(inner) })
        }
    }
}

pub(crate) fn transport_match(value: &cluster::TransportSocketMatch) -> Result<TransportMatch> {
    Ok(TransportMatch {
        name: value.name.as_str().into(),
        criteria: value.r#match.as_ref().map_or_else(|| serde_json::json!({}), structure),
        transport: upstream(required(&value.transport_socket, "transport_socket")?).at("transport_socket")?,
    })
}
