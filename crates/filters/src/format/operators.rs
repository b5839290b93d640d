//! One function for each group of operators. Each appends its value and says whether there was one.

use std::borrow::Cow;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use meltemi_net::Address;
use meltemi_plan::format::{AddressOf, AddressPart, Count, MetadataOf, Operator, TimePoint, TimeUnit};
use meltemi_plan::{HeaderKey, Metadata};

use super::{Scope, json, request, time, tls};
use crate::lookup::{Fields, RequestFields, ResponseFields};

pub(super) fn write(operator: &Operator, scope: &Scope<'_>, out: &mut Vec<u8>) -> bool {
    let info = scope.info;
    match operator {
        Operator::StartTime { format, local } => time::write(out, info.start_time, format.as_deref(), *local),
        Operator::EmitTime { format, local } => time::write(out, SystemTime::now(), format.as_deref(), *local),
        Operator::RequestHeader { key, alternative } => scope
            .request
            .is_some_and(|head| header(out, |key| RequestFields(head).first(key), key, alternative.as_ref())),
        Operator::ResponseHeader { key, alternative } => scope
            .response
            .is_some_and(|head| header(out, |key| ResponseFields(head).first(key), key, alternative.as_ref())),
        Operator::ResponseTrailer { key, alternative } => {
            scope.trailers.is_some_and(|fields| header(out, |key| Fields(fields).first(key), key, alternative.as_ref()))
        }
        Operator::Path { with_query, original } => request::path(out, scope, *with_query, *original),
        Operator::QueryParameter(name) => request::query_parameter(out, scope, name),
        Operator::QueryParameters { decoded } => request::query_parameters(out, scope, *decoded),
        Operator::RequestedServerName(choice) => request::server_name(out, scope, *choice),
        // Nothing sets any, and none is not the same as no value.
        Operator::CustomFlags => true,
        Operator::Coalesce(choices) => coalesce(out, scope, choices),
        Operator::Protocol => text(out, info.protocol.map(|p| p.as_str())),
        Operator::UpstreamProtocol => text(out, info.upstream.protocol.map(|p| p.as_str())),
        Operator::ResponseCode => number(out, u64::from(info.response_code.unwrap_or(0))),
        Operator::ResponseCodeDetails { keep_whitespace } => {
            details(out, info.response_code_details.as_deref(), *keep_whitespace)
        }
        Operator::ConnectionTerminationDetails => details(out, info.connection_termination_details.as_deref(), false),
        Operator::ResponseFlags if info.flags.is_empty() => literal(out, b"-"),
        Operator::ResponseFlags => write!(out, "{}", info.flags).is_ok(),
        Operator::ResponseFlagsLong => text(out, Some(info.flags.long().as_str())),
        Operator::GrpcStatus(format) => grpc_status(out, scope, *format),
        Operator::Count(count) => number(out, counted(*count, scope)),
        Operator::Duration
        | Operator::RequestDuration
        | Operator::RequestTxDuration
        | Operator::ResponseDuration
        | Operator::ResponseTxDuration
        | Operator::RoundTripDuration
        | Operator::DownstreamHandshakeDuration
        | Operator::UpstreamConnectionPoolReadyDuration
        | Operator::CommonDuration { .. } => duration(operator, scope, out),
        Operator::Address { of, part } => address(out, scope, *of, *part),
        Operator::PeerCertificateTime { upstream, end, format } => {
            let tls = if *upstream { info.upstream.tls.as_ref() } else { info.connection.tls.as_ref() };
            tls.is_some_and(|tls| tls::certificate_time(out, tls, *end, format.as_deref()))
        }
        Operator::DownstreamTls(fact) => info.connection.tls.as_ref().is_some_and(|tls| tls::fact(out, tls, *fact)),
        Operator::UpstreamTls(fact) => info.upstream.tls.as_ref().is_some_and(|tls| tls::fact(out, tls, *fact)),
        Operator::Metadata { of, namespace, path } => metadata(out, scope, *of, namespace, path),
        Operator::FilterState { key, plain, field: None, upstream: _ } => filter_state(out, scope, key, *plain),
        // Fields of objects that filters of others would keep.
        Operator::FilterState { field: Some(_), .. } => false,
        Operator::Environment(name) => std::env::var(&**name).is_ok_and(|value| text(out, Some(&value))),
        Operator::TraceId => info.trace.as_ref().is_some_and(|t| text(out, Some(&t.trace_id_hex()))),
        Operator::SpanId => info.trace.as_ref().is_some_and(|t| write!(out, "{:016x}", t.span_id).is_ok()),
        Operator::LocalReplyBody => {
            text(out, Some(scope.local_reply_body));
            true
        }
        Operator::AccessLogType => text(out, Some(scope.log_type.name())),
        Operator::UniqueId => unique_id(out),
        Operator::StreamId => {
            let id = scope.request.and_then(|head| head.headers.get(&meltemi_http::name::X_REQUEST_ID));
            bytes(out, id.map(|v| v.as_bytes()))
        }
        _ => name(operator, scope, out),
    }
}

/// Operators that print the name of something.
fn name(operator: &Operator, scope: &Scope<'_>, out: &mut Vec<u8>) -> bool {
    let info = scope.info;
    let connection = &info.connection;
    match operator {
        Operator::UpstreamCluster => text(out, info.upstream.cluster.as_ref().map(|c| &*c.stat_name)),
        Operator::UpstreamClusterRaw => text(out, info.upstream.cluster.as_ref().map(|c| &*c.name)),
        Operator::UpstreamHostName { with_port } => {
            let part = if *with_port { AddressPart::Full } else { AddressPart::WithoutPort };
            // A name comes alone, as Envoy prints it.
            text(out, info.upstream.hostname.as_deref()) || address(out, scope, AddressOf::UpstreamHost, part)
        }
        Operator::UpstreamRequestAttemptCount => number(out, u64::from(info.upstream.attempts)),
        Operator::UpstreamTransportFailureReason => details(out, info.upstream.transport_failure.as_deref(), false),
        Operator::UpstreamConnectionId => number(out, info.upstream.connection_id.unwrap_or(0)),
        Operator::DownstreamTransportFailureReason => details(out, info.state("downstream_tls_failure"), false),
        Operator::RouteName => text(out, info.route.as_ref().map(|r| &*r.name)),
        Operator::FilterChainName => text(out, Some(&connection.filter_chain)),
        Operator::ConnectionId => number(out, connection.id),
        Operator::Hostname => text(out, Some(hostname())),
        // Not computed, and shown as absent: fingerprints, virtual clusters, close reasons.
        _ => false,
    }
}

fn coalesce(out: &mut Vec<u8>, scope: &Scope<'_>, choices: &[(Operator, Option<usize>)]) -> bool {
    let start = out.len();
    choices.iter().any(|(operator, limit)| {
        out.truncate(start);
        let there = write(operator, scope, out) && out.len() > start;
        out.truncate(limit.map_or(out.len(), |limit| out.len().min(start.saturating_add(limit))));
        there
    })
}

/// A random UUID (RFC 9562 section 5.4), another one each time.
fn unique_id(out: &mut Vec<u8>) -> bool {
    let random = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
    let hex = format!("{random:032x}");
    write!(out, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]).is_ok()
}

fn hostname() -> &'static str {
    static NAME: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    NAME.get_or_init(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        name.trim_end().to_owned()
    })
}

pub(super) fn text(out: &mut Vec<u8>, value: Option<&str>) -> bool {
    bytes(out, value.map(str::as_bytes))
}

pub(super) fn bytes(out: &mut Vec<u8>, value: Option<&[u8]>) -> bool {
    let value = value.unwrap_or_default();
    out.extend_from_slice(value);
    !value.is_empty()
}

fn number(out: &mut Vec<u8>, value: u64) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    true
}

/// Whitespace would split a log line's columns.
fn details(out: &mut Vec<u8>, value: Option<&str>, keep_whitespace: bool) -> bool {
    let start = out.len();
    let there = text(out, value);
    if !keep_whitespace {
        for byte in &mut out[start..] {
            if byte.is_ascii_whitespace() {
                *byte = b'_';
            }
        }
    }
    there
}

/// Of a repeated field the first value, as Envoy prints it; matchers see all of them.
fn header<'a>(
    out: &mut Vec<u8>,
    first: impl Fn(&HeaderKey) -> Option<&'a [u8]>,
    key: &HeaderKey,
    alternative: Option<&HeaderKey>,
) -> bool {
    bytes(out, first(key).or_else(|| first(alternative?)))
}

fn counted(count: Count, scope: &Scope<'_>) -> u64 {
    let info = scope.info;
    match count {
        Count::BytesReceived => info.bytes_received,
        Count::BytesSent => info.bytes_sent,
        // As the request is by now, pseudo-headers included; the other counts what came.
        Count::RequestHeaderBytes => scope.request.map_or(0, |head| head.byte_size() as u64),
        Count::DownstreamHeaderReceived => info.request_header_bytes,
        Count::ResponseHeaderBytes | Count::DownstreamHeaderSent => info.response_header_bytes,
        Count::ResponseTrailerBytes => scope.trailers.map_or(0, |t| t.byte_size() as u64),
        Count::UpstreamWireReceived => info.upstream.wire_bytes_received,
        Count::UpstreamWireSent => info.upstream.wire_bytes_sent,
        Count::UpstreamHeaderReceived => info.upstream.header_bytes_received,
        Count::UpstreamHeaderSent => info.upstream.header_bytes_sent,
        Count::DownstreamWireReceived => info.bytes_received + info.request_header_bytes,
        Count::DownstreamWireSent => info.bytes_sent + info.response_header_bytes,
        Count::Retransmitted => 0,
    }
}

fn point(scope: &Scope<'_>, point: TimePoint) -> Option<Instant> {
    let info = scope.info;
    let timing = &info.upstream.timing;
    match point {
        TimePoint::DownstreamStart => Some(info.start),
        TimePoint::DownstreamRxEnd => info.last_downstream_byte_received,
        TimePoint::UpstreamConnectStart => timing.connect_start,
        TimePoint::UpstreamConnectEnd => timing.connected,
        TimePoint::UpstreamTxStart => timing.first_byte_sent,
        TimePoint::UpstreamTxEnd => timing.last_byte_sent,
        TimePoint::UpstreamRxStart => timing.first_byte_received,
        TimePoint::UpstreamRxEnd => timing.last_byte_received,
        TimePoint::DownstreamTxStart => info.first_downstream_byte_sent,
        TimePoint::DownstreamTxEnd => info.last_downstream_byte_sent,
    }
}

fn duration(operator: &Operator, scope: &Scope<'_>, out: &mut Vec<u8>) -> bool {
    use TimePoint::{
        DownstreamRxEnd, DownstreamStart, DownstreamTxEnd, UpstreamConnectEnd, UpstreamConnectStart, UpstreamRxStart,
        UpstreamTxEnd,
    };
    let (from, to, unit) = match operator {
        Operator::Duration => return number(out, scope.info.elapsed().as_millis() as u64),
        Operator::RequestDuration => (DownstreamStart, DownstreamRxEnd, TimeUnit::Milliseconds),
        Operator::RequestTxDuration => (DownstreamStart, UpstreamTxEnd, TimeUnit::Milliseconds),
        Operator::ResponseDuration => (DownstreamStart, UpstreamRxStart, TimeUnit::Milliseconds),
        Operator::ResponseTxDuration => (UpstreamRxStart, DownstreamTxEnd, TimeUnit::Milliseconds),
        Operator::UpstreamConnectionPoolReadyDuration => {
            (UpstreamConnectStart, UpstreamConnectEnd, TimeUnit::Milliseconds)
        }
        Operator::CommonDuration { from, to, unit } => (*from, *to, *unit),
        // Round trips are QUIC's; handshakes are not timed.
        _ => return false,
    };
    let between = |from: Instant, to: Instant| -> Duration { to.saturating_duration_since(from) };
    let Some(elapsed) = point(scope, from).zip(point(scope, to)).map(|(a, b)| between(a, b)) else { return false };
    let value = match unit {
        TimeUnit::Milliseconds => elapsed.as_millis(),
        TimeUnit::Microseconds => elapsed.as_micros(),
        TimeUnit::Nanoseconds => elapsed.as_nanos(),
    };
    number(out, value as u64)
}

/// The digits of each octet, and how many they are.
static OCTETS: [([u8; 3], u8); 256] = {
    let mut octets = [([0; 3], 0); 256];
    let mut n = 0;
    while n < octets.len() {
        let (hundreds, tens, ones) = (b'0' + (n / 100) as u8, b'0' + (n / 10 % 10) as u8, b'0' + (n % 10) as u8);
        octets[n] = match n {
            0..10 => ([ones, 0, 0], 1),
            10..100 => ([tens, ones, 0], 2),
            _ => ([hundreds, tens, ones], 3),
        };
        n += 1;
    }
    octets
};

/// By hand: an access log line has four of them, and `Display` took 5,200 of the 41,500 instructions of a request.
fn ipv4(out: &mut Vec<u8>, ip: Ipv4Addr) -> bool {
    // Room for what the last octet does not fill, and for the dot behind it.
    let mut text = [0; 16];
    let mut end = 0;
    for octet in ip.octets() {
        let (digits, count) = OCTETS[usize::from(octet)];
        text[end..end + 3].copy_from_slice(&digits);
        end += usize::from(count);
        text[end] = b'.';
        end += 1;
    }
    literal(out, &text[..end - 1])
}

fn literal(out: &mut Vec<u8>, text: &[u8]) -> bool {
    out.extend_from_slice(text);
    true
}

fn address(out: &mut Vec<u8>, scope: &Scope<'_>, of: AddressOf, part: AddressPart) -> bool {
    let (info, connection) = (scope.info, &scope.info.connection);
    let address = match of {
        AddressOf::DownstreamRemote => Some(&info.remote),
        AddressOf::DownstreamDirectRemote => Some(&connection.direct_remote),
        AddressOf::DownstreamLocal => Some(&connection.local),
        AddressOf::DownstreamDirectLocal => Some(&connection.direct_local),
        AddressOf::UpstreamHost => info.upstream.host.as_ref(),
        // Of a connection that came about.
        AddressOf::UpstreamRemote => info.upstream.local.as_ref().and(info.upstream.host.as_ref()),
        AddressOf::UpstreamLocal => info.upstream.local.as_ref(),
    };
    match (address, part) {
        (None | Some(Address::Unnamed), _) | (_, AddressPart::EndpointId) => false,
        (Some(Address::Unix(path)), AddressPart::Full | AddressPart::WithoutPort | AddressPart::Range(_)) => {
            write!(out, "{}", path.display()).is_ok()
        }
        (Some(Address::Unix(_)), AddressPart::Port) => false,
        (Some(Address::Socket(socket)), AddressPart::Full) => match socket {
            SocketAddr::V4(v4) => ipv4(out, *v4.ip()) && literal(out, b":") && number(out, u64::from(v4.port())),
            SocketAddr::V6(v6) => write!(out, "{v6}").is_ok(),
        },
        (Some(Address::Socket(socket)), AddressPart::WithoutPort) => match socket.ip() {
            IpAddr::V4(ip) => ipv4(out, ip),
            IpAddr::V6(ip) => write!(out, "{ip}").is_ok(),
        },
        (Some(Address::Socket(socket)), AddressPart::Range(bits)) => range(out, socket.ip(), bits),
        (Some(Address::Socket(socket)), AddressPart::Port) => number(out, u64::from(socket.port())),
    }
}

/// The first address of the range of this many bits that holds `ip`, with their number; at most as many as there are.
fn range(out: &mut Vec<u8>, ip: IpAddr, bits: u8) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let bits = bits.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            write!(out, "{}/{bits}", Ipv4Addr::from(u32::from(ip) & mask)).is_ok()
        }
        IpAddr::V6(ip) => {
            let bits = bits.min(128);
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            write!(out, "{}/{bits}", Ipv6Addr::from(u128::from(ip) & mask)).is_ok()
        }
    }
}

/// The metadata that an operator or a custom tag names.
pub(crate) fn metadata_of<'a>(scope: &Scope<'a>, of: MetadataOf) -> Option<&'a Metadata> {
    let info = scope.info;
    match of {
        MetadataOf::Cluster => info.upstream.cluster.as_ref().map(|c| &*c.metadata),
        MetadataOf::Route => info.route.as_ref().and_then(|r| r.metadata.as_deref()),
        MetadataOf::VirtualHost => info.virtual_host.as_ref().and_then(|v| v.metadata.as_deref()),
        MetadataOf::UpstreamHost => info.upstream.metadata.as_deref(),
        MetadataOf::Dynamic => info.metadata.as_deref(),
        MetadataOf::Listener | MetadataOf::ListenerFilterChain => None,
    }
}

fn metadata<S: AsRef<str>>(out: &mut Vec<u8>, scope: &Scope<'_>, of: MetadataOf, namespace: &str, path: &[S]) -> bool {
    match metadata_of(scope, of).and_then(|m| m.value(namespace, path)) {
        None | Some(serde_json::Value::Null) => false,
        Some(serde_json::Value::String(value)) => text(out, Some(value)),
        Some(value) => write!(out, "{value}").is_ok(),
    }
}

/// `PLAIN` prints the string, otherwise it is JSON.
fn filter_state(out: &mut Vec<u8>, scope: &Scope<'_>, key: &str, plain: bool) -> bool {
    let Some(value) = peer_state(scope, key).or_else(|| scope.info.state(key).map(Cow::Borrowed)) else { return false };
    if plain {
        return text(out, Some(&value));
    }
    json::write_string(value.as_bytes(), out);
    true
}

/// The objects under which Istio's filters keep peers.
fn peer_state<'a>(scope: &Scope<'a>, key: &str) -> Option<Cow<'a, str>> {
    let peer = match key {
        "wasm.downstream_peer" | "downstream_peer" => scope.info.downstream_peer(),
        "wasm.upstream_peer" | "upstream_peer" => scope.info.upstream.peer.as_ref(),
        "wasm.downstream_peer_id" | "downstream_peer_id" => {
            return scope.info.downstream_peer().map(|p| Cow::Owned(p.instance.to_string()));
        }
        _ => return None,
    };
    peer.map(|p| Cow::Owned(p.to_string()))
}

fn grpc_status(out: &mut Vec<u8>, scope: &Scope<'_>, format: meltemi_plan::format::GrpcStatusFormat) -> bool {
    use meltemi_plan::format::GrpcStatusFormat::{CamelString, Number, SnakeString};
    if !scope.info.is_grpc {
        return false;
    }
    // An answer that is not gRPC stands for a status all the same.
    let of_response = || scope.info.response_code.map(crate::grpc_status_of);
    let Some(status) = scope.info.grpc_status.or_else(of_response) else { return false };
    let names = super::GRPC_STATUSES.get(status as usize);
    match (format, names) {
        (CamelString, Some((camel, _))) => text(out, Some(camel)),
        (SnakeString, Some((_, snake))) => text(out, Some(snake)),
        (Number, _) | (_, None) => number(out, u64::from(status)),
    }
}
