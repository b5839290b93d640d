//! From text to [`Format`]: Envoy's command grammar, `%COMMAND(ARGUMENT):LENGTH%`.

mod coalesce;
mod request;

use super::{
    AddressOf, AddressPart, Count, Format, FormatOp, GrpcStatusFormat, JsonFormat, MetadataOf, Operator, TimePoint,
    TimeUnit, TlsFact,
};
use crate::common::Value;
use crate::error::{At, Result, refuse};
use crate::header::HeaderKey;
use std::sync::Arc;

impl Format {
    pub fn parse(text: &str) -> Result<Self> {
        let mut ops = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(after) = rest.strip_prefix("%%") {
                literal.push('%');
                rest = after;
                continue;
            }
            let command = Command::read(rest)?;
            if !literal.is_empty() {
                ops.push(FormatOp::Literal(std::mem::take(&mut literal).into()));
            }
            ops.push(FormatOp::Command { operator: operator(command.name, command.argument)?, limit: command.limit });
            rest = &rest[command.length..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            ops.push(FormatOp::Literal(literal.into()));
        }
        Ok(Self { ops: ops.into() })
    }
}

impl JsonFormat {
    /// A struct whose string leaves are formats.
    pub fn of(value: &Value) -> Result<Self> {
        Ok(match value {
            Value::String(text) => Self::Format(Format::parse(text)?),
            Value::Object(fields) => Self::Object(
                fields
                    .iter()
                    .map(|(key, value)| Ok((Arc::from(key.as_str()), Self::of(value).at(key)?)))
                    .collect::<Result<_>>()?,
            ),
            Value::Array(items) => Self::List(items.iter().map(Self::of).collect::<Result<_>>()?),
            other => Self::Literal(other.clone()),
        })
    }
}

struct Command<'a> {
    name: &'a str,
    argument: Option<&'a str>,
    limit: Option<usize>,
    /// Of the whole command with both percent signs.
    length: usize,
}

impl<'a> Command<'a> {
    /// `text` starts with the opening percent sign.
    fn read(text: &'a str) -> Result<Self> {
        let wrong = || refuse(format!("malformed command in {text:?}"));
        let body = &text[1..];
        let end =
            body.find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')).filter(|end| *end > 0);
        let Some(end) = end else { return wrong() };
        let name = &body[..end];
        let after = &body[end..];
        let Some(arguments) = after.strip_prefix('(') else {
            let Some((limit, tail)) = Self::tail(after) else { return wrong() };
            return Ok(Self { name, argument: None, limit, length: text.len() - tail.len() });
        };
        // The argument ends at the first `)` after which the command can end.
        for (at, _) in arguments.match_indices(')') {
            if let Some((limit, tail)) = Self::tail(&arguments[at + 1..]) {
                return Ok(Self { name, argument: Some(&arguments[..at]), limit, length: text.len() - tail.len() });
            }
        }
        wrong()
    }

    /// `%` or `:NUMBER%`, and what follows.
    fn tail(text: &'a str) -> Option<(Option<usize>, &'a str)> {
        if let Some(rest) = text.strip_prefix('%') {
            return Some((None, rest));
        }
        let rest = text.strip_prefix(':')?;
        let end = rest.find('%')?;
        Some((Some(rest[..end].parse().ok()?), &rest[end + 1..]))
    }
}

fn operator(name: &str, argument: Option<&str>) -> Result<Operator> {
    if let Some(operator) = plain(name) {
        return match (operator, argument) {
            (operator, None) => Ok(operator),
            (Operator::Address { of, part: AddressPart::WithoutPort }, Some(bits)) => address_range(of, bits),
            (_, Some(_)) => refuse(format!("%{name}% takes no argument")),
        };
    }
    if let Some(fact) = tls_fact(name) {
        return if argument.is_none() { Ok(fact) } else { refuse(format!("%{name}% takes no argument")) };
    }
    with_argument(name, argument)
}

/// Operators that take no argument.
#[rustfmt::skip]
fn plain(name: &str) -> Option<Operator> {
    Some(match name {
        "PROTOCOL" => Operator::Protocol,
        "UPSTREAM_PROTOCOL" => Operator::UpstreamProtocol,
        "RESPONSE_CODE" => Operator::ResponseCode,
        "CONNECTION_TERMINATION_DETAILS" => Operator::ConnectionTerminationDetails,
        "RESPONSE_FLAGS" => Operator::ResponseFlags,
        "RESPONSE_FLAGS_LONG" => Operator::ResponseFlagsLong,
        "BYTES_RECEIVED" => Operator::Count(Count::BytesReceived),
        "BYTES_SENT" => Operator::Count(Count::BytesSent),
        "BYTES_RETRANSMITTED" | "PACKETS_RETRANSMITTED" => Operator::Count(Count::Retransmitted),
        "REQUEST_HEADERS_BYTES" => Operator::Count(Count::RequestHeaderBytes),
        "RESPONSE_HEADERS_BYTES" => Operator::Count(Count::ResponseHeaderBytes),
        "RESPONSE_TRAILERS_BYTES" => Operator::Count(Count::ResponseTrailerBytes),
        "UPSTREAM_WIRE_BYTES_RECEIVED" => Operator::Count(Count::UpstreamWireReceived),
        "UPSTREAM_WIRE_BYTES_SENT" => Operator::Count(Count::UpstreamWireSent),
        "UPSTREAM_HEADER_BYTES_RECEIVED" => Operator::Count(Count::UpstreamHeaderReceived),
        "UPSTREAM_HEADER_BYTES_SENT" => Operator::Count(Count::UpstreamHeaderSent),
        "DOWNSTREAM_WIRE_BYTES_RECEIVED" => Operator::Count(Count::DownstreamWireReceived),
        "DOWNSTREAM_WIRE_BYTES_SENT" => Operator::Count(Count::DownstreamWireSent),
        "DOWNSTREAM_HEADER_BYTES_RECEIVED" => Operator::Count(Count::DownstreamHeaderReceived),
        "DOWNSTREAM_HEADER_BYTES_SENT" => Operator::Count(Count::DownstreamHeaderSent),
        "DURATION" => Operator::Duration,
        "REQUEST_DURATION" => Operator::RequestDuration,
        "REQUEST_TX_DURATION" => Operator::RequestTxDuration,
        "RESPONSE_DURATION" => Operator::ResponseDuration,
        "RESPONSE_TX_DURATION" => Operator::ResponseTxDuration,
        "ROUNDTRIP_DURATION" => Operator::RoundTripDuration,
        "DOWNSTREAM_HANDSHAKE_DURATION" => Operator::DownstreamHandshakeDuration,
        "UPSTREAM_CONNECTION_POOL_READY_DURATION" => Operator::UpstreamConnectionPoolReadyDuration,
        "UPSTREAM_CLUSTER" => Operator::UpstreamCluster,
        "UPSTREAM_CLUSTER_RAW" => Operator::UpstreamClusterRaw,
        "UPSTREAM_HOST_NAME" => Operator::UpstreamHostName { with_port: true },
        "UPSTREAM_HOST_NAME_WITHOUT_PORT" => Operator::UpstreamHostName { with_port: false },
        "UPSTREAM_REQUEST_ATTEMPT_COUNT" => Operator::UpstreamRequestAttemptCount,
        "UPSTREAM_TRANSPORT_FAILURE_REASON" => Operator::UpstreamTransportFailureReason,
        "UPSTREAM_CONNECTION_ID" => Operator::UpstreamConnectionId,
        "DOWNSTREAM_TRANSPORT_FAILURE_REASON" => Operator::DownstreamTransportFailureReason,
        "DOWNSTREAM_LOCAL_CLOSE_REASON" => Operator::DownstreamLocalCloseReason,
        "DOWNSTREAM_DETECTED_CLOSE_TYPE" => Operator::DownstreamDetectedCloseType,
        "UPSTREAM_LOCAL_CLOSE_REASON" => Operator::UpstreamLocalCloseReason,
        "UPSTREAM_DETECTED_CLOSE_TYPE" => Operator::UpstreamDetectedCloseType,
        "CUSTOM_FLAGS" => Operator::CustomFlags,
        "ROUTE_NAME" => Operator::RouteName,
        "VIRTUAL_CLUSTER_NAME" => Operator::VirtualClusterName,
        "FILTER_CHAIN_NAME" => Operator::FilterChainName,
        "HOSTNAME" => Operator::Hostname,
        "CONNECTION_ID" => Operator::ConnectionId,
        "STREAM_ID" => Operator::StreamId,
        "UNIQUE_ID" => Operator::UniqueId,
        "TRACE_ID" => Operator::TraceId,
        "SPAN_ID" => Operator::SpanId,
        "GRPC_STATUS_NUMBER" => Operator::GrpcStatus(GrpcStatusFormat::Number),
        "LOCAL_REPLY_BODY" => Operator::LocalReplyBody,
        "ACCESS_LOG_TYPE" => Operator::AccessLogType,
        "TLS_JA3_FINGERPRINT" => Operator::Ja3,
        "TLS_JA4_FINGERPRINT" => Operator::Ja4,
        _ => return address(name),
    })
}

#[rustfmt::skip]
fn address(name: &str) -> Option<Operator> {
    use AddressOf as Of;
    use AddressPart as Part;
    let (of, part) = match name {
        "UPSTREAM_HOST" => (Of::UpstreamHost, Part::Full),
        "UPSTREAM_REMOTE_ADDRESS" => (Of::UpstreamRemote, Part::Full),
        "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => (Of::UpstreamRemote, Part::WithoutPort),
        "UPSTREAM_REMOTE_PORT" => (Of::UpstreamRemote, Part::Port),
        "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID" => (Of::UpstreamRemote, Part::EndpointId),
        "UPSTREAM_LOCAL_ADDRESS" => (Of::UpstreamLocal, Part::Full),
        "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => (Of::UpstreamLocal, Part::WithoutPort),
        "UPSTREAM_LOCAL_PORT" => (Of::UpstreamLocal, Part::Port),
        "DOWNSTREAM_REMOTE_ADDRESS" => (Of::DownstreamRemote, Part::Full),
        "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT" => (Of::DownstreamRemote, Part::WithoutPort),
        "DOWNSTREAM_REMOTE_PORT" => (Of::DownstreamRemote, Part::Port),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS" => (Of::DownstreamDirectRemote, Part::Full),
        "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT" => (Of::DownstreamDirectRemote, Part::WithoutPort),
        "DOWNSTREAM_DIRECT_REMOTE_PORT" => (Of::DownstreamDirectRemote, Part::Port),
        "DOWNSTREAM_LOCAL_ADDRESS" => (Of::DownstreamLocal, Part::Full),
        "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT" => (Of::DownstreamLocal, Part::WithoutPort),
        "DOWNSTREAM_LOCAL_PORT" => (Of::DownstreamLocal, Part::Port),
        "DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID" => (Of::DownstreamLocal, Part::EndpointId),
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS" => (Of::DownstreamDirectLocal, Part::Full),
        "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT" => (Of::DownstreamDirectLocal, Part::WithoutPort),
        "DOWNSTREAM_DIRECT_LOCAL_PORT" => (Of::DownstreamDirectLocal, Part::Port),
        _ => return None,
    };
    Some(Operator::Address { of, part })
}

/// Of which family the address is, is not known yet; of more bits than it has, all are kept.
fn address_range(of: AddressOf, bits: &str) -> Result<Operator> {
    let part = match bits.parse::<u32>() {
        Ok(bits) => AddressPart::Range(bits.min(128) as u8),
        Err(_) if bits.is_empty() => AddressPart::WithoutPort,
        Err(_) => return refuse(format!("{bits:?} is not the length of a prefix")),
    };
    Ok(Operator::Address { of, part })
}

fn tls_fact(name: &str) -> Option<Operator> {
    let (side, fact): (fn(TlsFact) -> Operator, &str) = match name.strip_prefix("DOWNSTREAM_") {
        Some(fact) => (Operator::DownstreamTls, fact),
        None => (Operator::UpstreamTls, name.strip_prefix("UPSTREAM_")?),
    };
    let of_clients = matches!(side(TlsFact::TlsVersion), Operator::DownstreamTls(_));
    Some(side(match fact {
        "PEER_EMAIL_SAN" if of_clients => TlsFact::PeerEmailSan,
        "LOCAL_SUBJECT" if of_clients => TlsFact::LocalSubject,
        "PEER_SERIAL" if of_clients => TlsFact::PeerSerial,
        "PEER_FINGERPRINT_256" if of_clients => TlsFact::PeerFingerprint256,
        "PEER_FINGERPRINT_1" if of_clients => TlsFact::PeerFingerprint1,
        "PEER_CHAIN_FINGERPRINTS_256" if of_clients => TlsFact::PeerChainFingerprints256,
        "PEER_CHAIN_SERIALS" if of_clients => TlsFact::PeerChainSerials,
        "PEER_URI_SAN" => TlsFact::PeerUriSan,
        "PEER_DNS_SAN" => TlsFact::PeerDnsSan,
        "PEER_IP_SAN" => TlsFact::PeerIpSan,
        "LOCAL_URI_SAN" => TlsFact::LocalUriSan,
        "LOCAL_DNS_SAN" => TlsFact::LocalDnsSan,
        "LOCAL_IP_SAN" => TlsFact::LocalIpSan,
        "PEER_SUBJECT" => TlsFact::PeerSubject,
        "PEER_ISSUER" => TlsFact::PeerIssuer,
        "PEER_CERT" => TlsFact::PeerCert,
        "TLS_SESSION_ID" => TlsFact::TlsSessionId,
        "TLS_CIPHER" => TlsFact::TlsCipher,
        "TLS_VERSION" => TlsFact::TlsVersion,
        _ => return None,
    }))
}

fn with_argument(name: &str, argument: Option<&str>) -> Result<Operator> {
    let required = || match argument {
        Some(text) if !text.is_empty() => Ok(text),
        _ => refuse(format!("%{name}% needs an argument")),
    };
    Ok(match name {
        "START_TIME" | "START_TIME_LOCAL" => Operator::StartTime {
            format: argument.filter(|text| !text.is_empty()).map(Arc::from),
            local: name == "START_TIME_LOCAL",
        },
        "EMIT_TIME" | "EMIT_TIME_LOCAL" => Operator::EmitTime {
            format: argument.filter(|text| !text.is_empty()).map(Arc::from),
            local: name == "EMIT_TIME_LOCAL",
        },
        "DOWNSTREAM_PEER_CERT_V_START"
        | "DOWNSTREAM_PEER_CERT_V_END"
        | "UPSTREAM_PEER_CERT_V_START"
        | "UPSTREAM_PEER_CERT_V_END" => Operator::PeerCertificateTime {
            upstream: name.starts_with("UPSTREAM"),
            end: name.ends_with("END"),
            format: argument.filter(|text| !text.is_empty()).map(Arc::from),
        },
        "REQ" | "REQUEST_HEADER" => {
            let (key, alternative) = header_pair(required()?)?;
            Operator::RequestHeader { key, alternative }
        }
        "RESP" | "RESPONSE_HEADER" => {
            let (key, alternative) = header_pair(required()?)?;
            Operator::ResponseHeader { key, alternative }
        }
        "TRAILER" | "RESPONSE_TRAILER" => {
            let (key, alternative) = header_pair(required()?)?;
            Operator::ResponseTrailer { key, alternative }
        }
        "RESPONSE_CODE_DETAILS" => match argument {
            None => Operator::ResponseCodeDetails { keep_whitespace: false },
            Some("ALLOW_WHITESPACES") => Operator::ResponseCodeDetails { keep_whitespace: true },
            Some(other) => return refuse(format!("%RESPONSE_CODE_DETAILS({other})%: unknown argument")),
        },
        "GRPC_STATUS" => Operator::GrpcStatus(match argument {
            None | Some("CAMEL_STRING") => GrpcStatusFormat::CamelString,
            Some("SNAKE_STRING") => GrpcStatusFormat::SnakeString,
            Some("NUMBER") => GrpcStatusFormat::Number,
            Some(other) => return refuse(format!("%GRPC_STATUS({other})%: unknown argument")),
        }),
        "COMMON_DURATION" => common_duration(required()?)?,
        "DYNAMIC_METADATA" => metadata(MetadataOf::Dynamic, required()?)?,
        "CLUSTER_METADATA" => metadata(MetadataOf::Cluster, required()?)?,
        "UPSTREAM_METADATA" => metadata(MetadataOf::UpstreamHost, required()?)?,
        "METADATA" => typed_metadata(required()?)?,
        "FILTER_STATE" => filter_state(required()?, false)?,
        "UPSTREAM_FILTER_STATE" => filter_state(required()?, true)?,
        "PATH" => request::path(argument.unwrap_or_default())?,
        "REQUESTED_SERVER_NAME" => request::server_name(argument.unwrap_or_default())?,
        "QUERY_PARAM" => Operator::QueryParameter(required()?.into()),
        "QUERY_PARAMS" => request::query_parameters(argument.unwrap_or_default())?,
        "COALESCE" => coalesce::coalesce(required()?)?,
        "ENVIRONMENT" => Operator::Environment(required()?.into()),
        _ => return refuse(format!("unknown command %{name}%")),
    })
}

fn header_pair(text: &str) -> Result<(HeaderKey, Option<HeaderKey>)> {
    let (key, alternative) = match text.split_once('?') {
        Some((key, alternative)) => (key, Some(HeaderKey::parse(alternative)?)),
        None => (text, None),
    };
    Ok((HeaderKey::parse(key)?, alternative))
}

fn common_duration(text: &str) -> Result<Operator> {
    let parts: Vec<&str> = text.split(':').collect();
    let [from, to, unit] = parts[..] else {
        return refuse(format!("%COMMON_DURATION({text})%: START:END:PRECISION expected"));
    };
    let point = |name: &str| {
        Ok(match name {
            "DS_RX_BEG" => TimePoint::DownstreamStart,
            "DS_RX_END" => TimePoint::DownstreamRxEnd,
            "US_CX_BEG" => TimePoint::UpstreamConnectStart,
            "US_CX_END" | "US_HS_END" => TimePoint::UpstreamConnectEnd,
            "US_TX_BEG" => TimePoint::UpstreamTxStart,
            "US_TX_END" => TimePoint::UpstreamTxEnd,
            "US_RX_BEG" => TimePoint::UpstreamRxStart,
            "US_RX_END" => TimePoint::UpstreamRxEnd,
            "DS_TX_BEG" => TimePoint::DownstreamTxStart,
            "DS_TX_END" => TimePoint::DownstreamTxEnd,
            other => return refuse(format!("%COMMON_DURATION%: unknown time point {other}")),
        })
    };
    let unit = match unit {
        "ms" => TimeUnit::Milliseconds,
        "us" => TimeUnit::Microseconds,
        "ns" => TimeUnit::Nanoseconds,
        other => return refuse(format!("%COMMON_DURATION%: unknown precision {other}")),
    };
    Ok(Operator::CommonDuration { from: point(from)?, to: point(to)?, unit })
}

fn metadata(of: MetadataOf, text: &str) -> Result<Operator> {
    let mut parts = text.split(':').map(Arc::from);
    match parts.next() {
        Some(namespace) => Ok(Operator::Metadata { of, namespace, path: parts.collect() }),
        None => refuse("metadata command needs a namespace"),
    }
}

fn typed_metadata(text: &str) -> Result<Operator> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let of = match kind {
        "DYNAMIC" => MetadataOf::Dynamic,
        "CLUSTER" => MetadataOf::Cluster,
        "ROUTE" => MetadataOf::Route,
        "VIRTUAL_HOST" => MetadataOf::VirtualHost,
        "UPSTREAM_HOST" => MetadataOf::UpstreamHost,
        "LISTENER" => MetadataOf::Listener,
        "LISTENER_FILTER_CHAIN" => MetadataOf::ListenerFilterChain,
        other => return refuse(format!("%METADATA({other})%: unknown kind")),
    };
    metadata(of, rest)
}

fn filter_state(text: &str, upstream: bool) -> Result<Operator> {
    let mut parts = text.split(':');
    let key: Arc<str> = parts.next().unwrap_or_default().into();
    let (plain, field) = match parts.next() {
        None | Some("TYPED") => (false, None),
        Some("PLAIN") => (true, None),
        Some("FIELD") => match parts.next() {
            Some(field) if !field.is_empty() => (true, Some(Arc::from(field))),
            _ => return refuse("%FILTER_STATE%: FIELD needs a name"),
        },
        Some(other) => return refuse(format!("%FILTER_STATE%: unknown serialization {other}")),
    };
    Ok(Operator::FilterState { key, plain, field, upstream })
}

#[cfg(test)]
mod tests;
