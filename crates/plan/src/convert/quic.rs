//! QUIC listeners: `udp_listener_config`, and what must hold of a listener that has it.

use super::common::{duration_or, optional_duration, positive, required};
use crate::error::{At, PlanError, Result, refuse};
use crate::hcm::Codec;
use crate::listener::{NetworkFilter, Quic};
use crate::tls::{DownstreamTls, TlsVersion};
use meltemi_proto::envoy::config::core::v3::{self as core, socket_address::Protocol};
use meltemi_proto::envoy::config::listener::v3 as proto;
use std::time::Duration;

/// Envoy's defaults.
const MAX_STREAMS: u32 = 100;
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);
/// Numbers of streams have so many bits less than 64 that QUIC can count.
const MOST_STREAMS: u32 = 1 << 30;

/// `None`: the listener is one of TCP.
pub(super) fn quic(value: &proto::Listener) -> Result<Option<Quic>> {
    let Some(udp) = &value.udp_listener_config else { return Ok(None) };
    let options = udp.quic_options.as_ref().ok_or_else(|| {
        PlanError::new("is required: UDP is served as QUIC only").under("quic_options").under("udp_listener_config")
    })?;
    if !value.listener_filters.is_empty() {
        return refuse("listener_filters: a QUIC listener has none");
    }
    if value.use_original_dst == Some(true) {
        return refuse("use_original_dst: a QUIC listener has no original destinations");
    }
    quic_options(options).map(Some).at("quic_options").at("udp_listener_config")
}

fn quic_options(value: &proto::QuicProtocolOptions) -> Result<Quic> {
    let within = "quic_protocol_options";
    let protocol = value.quic_protocol_options.clone().unwrap_or_default();
    let window = |set: Option<u32>, most: u32, field: &str| match set.unwrap_or(most) {
        size if (1..=most).contains(&size) => Ok(size),
        _ => Err(PlanError::new(format!("must be between 1 and {most}")).under(field).under(within)),
    };
    let idle = optional_duration(protocol.idle_network_timeout.as_ref()).at("idle_network_timeout").at(within)?;
    let keepalive = protocol.connection_keepalive.unwrap_or_default();
    let keepalive = optional_duration(keepalive.initial_interval.as_ref()).at("initial_interval");
    Ok(Quic {
        accepts: !value.reject_new_connections
            && value.enabled.as_ref().and_then(|flag| flag.default_value).unwrap_or(true),
        max_concurrent_streams: match protocol.max_concurrent_streams.unwrap_or(MAX_STREAMS) {
            streams @ 1..=MOST_STREAMS => streams,
            _ => return refuse("max_concurrent_streams: must be between 1 and 2^30").at(within),
        },
        stream_window: window(protocol.initial_stream_window_size, STREAM_WINDOW, "initial_stream_window_size")?,
        connection_window: window(
            protocol.initial_connection_window_size,
            CONNECTION_WINDOW,
            "initial_connection_window_size",
        )?,
        idle_timeout: match idle {
            Some(idle) => positive(idle).at("idle_network_timeout").at(within)?,
            None => duration_or(value.idle_timeout.as_ref(), IDLE_TIMEOUT).and_then(positive).at("idle_timeout")?,
        },
        handshake_timeout: duration_or(value.crypto_handshake_timeout.as_ref(), HANDSHAKE_TIMEOUT)
            .and_then(positive)
            .at("crypto_handshake_timeout")?,
        keepalive_interval: keepalive.at("connection_keepalive").at(within)?.filter(|interval| !interval.is_zero()),
        max_connections: value.max_sessions_per_event_loop.filter(|most| *most > 0),
    })
}

/// An address with the protocol of its listener.
pub(super) fn address(value: &core::Address, quic: bool) -> Result<crate::common::Address> {
    let Some(core::address::Address::SocketAddress(socket)) = &value.address else {
        return if quic { refuse("socket_address: is required for UDP") } else { super::common::address(value) };
    };
    if (socket.protocol == Protocol::Udp as i32) != quic {
        let fault = if quic { "must be UDP" } else { "UDP needs udp_listener_config" };
        return Err(PlanError::new(fault).under("protocol").under("socket_address"));
    }
    let mut socket = socket.clone();
    socket.protocol = Protocol::Tcp as i32;
    super::common::address(&core::Address { address: Some(core::address::Address::SocketAddress(socket)) })
}

/// TLS as QUIC has it: version 1.3, and a protocol agreed on.
pub(super) fn tls(mut tls: DownstreamTls) -> Result<DownstreamTls> {
    if tls.common.max_version != TlsVersion::V1_3 {
        return refuse("tls_params.tls_maximum_protocol_version: QUIC has TLS 1.3 only").at("common_tls_context");
    }
    tls.common.min_version = TlsVersion::V1_3;
    if tls.common.alpn.is_empty() {
        tls.common.alpn = vec!["h3".into()];
    }
    Ok(tls)
}

/// A chain's last filter takes HTTP/3 on QUIC and nowhere else.
pub(super) fn check_filters(filters: &[NetworkFilter], quic: bool) -> Result<()> {
    for (index, filter) in filters.iter().enumerate() {
        let fault = match filter {
            NetworkFilter::HttpConnectionManager(hcm) if (hcm.codec == Codec::Http3) == quic => continue,
            NetworkFilter::HttpConnectionManager(_) if quic => "codec_type: a QUIC listener needs HTTP3",
            NetworkFilter::HttpConnectionManager(_) => "codec_type: HTTP3 needs a QUIC listener",
            NetworkFilter::Rbac(_) | NetworkFilter::IstioStats(_) => continue,
            _ if quic => "is not supported on a QUIC listener",
            _ => continue,
        };
        return Err(PlanError::new(fault).under(&format!("filters[{index}]")));
    }
    Ok(())
}

/// The TLS context of a QUIC transport socket.
pub(super) fn context(
    value: &meltemi_proto::envoy::extensions::transport_sockets::quic::v3::QuicDownstreamTransport,
) -> Result<DownstreamTls> {
    let field = "downstream_tls_context";
    super::tls::downstream_tls(required(&value.downstream_tls_context, field)?).and_then(tls).at(field)
}

#[cfg(test)]
mod tests;
