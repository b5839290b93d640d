//! Command strings (`%REQ(:path)%`), compiled: access log formats, header values, custom tags, local replies.
//!
//! The operators are data; `meltemi_filters` evaluates them over its stream info.

mod parse;

use crate::common::Value;
use crate::header::HeaderKey;
use std::sync::Arc;

/// A compiled command string.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Format {
    pub ops: Arc<[FormatOp]>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FormatOp {
    Literal(Box<str>),
    /// `limit` is the maximum number of bytes of the result (`%REQ(x):10%`).
    Command {
        operator: Operator,
        limit: Option<usize>,
    },
}

impl Format {
    pub fn literal(text: &str) -> Self {
        if text.is_empty() { Self::default() } else { Self { ops: Arc::new([FormatOp::Literal(text.into())]) } }
    }

    /// The text, if nothing in it depends on the stream.
    pub fn as_literal(&self) -> Option<&str> {
        match &*self.ops {
            [] => Some(""),
            [FormatOp::Literal(text)] => Some(text),
            _ => None,
        }
    }
}

/// Which part of an address is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressPart {
    Full,
    WithoutPort,
    /// Without a port, and of the address this many bits, as a range.
    Range(u8),
    Port,
    EndpointId,
}

/// Which peer's or own address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AddressOf {
    DownstreamRemote,
    /// The address of the peer socket, whatever XFF or PROXY protocol said.
    DownstreamDirectRemote,
    DownstreamLocal,
    /// The listener's own address, before original destination.
    DownstreamDirectLocal,
    UpstreamHost,
    UpstreamRemote,
    UpstreamLocal,
}

/// A fact of one side's TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TlsFact {
    PeerUriSan,
    PeerDnsSan,
    PeerIpSan,
    PeerEmailSan,
    LocalUriSan,
    LocalDnsSan,
    LocalIpSan,
    PeerSubject,
    LocalSubject,
    PeerIssuer,
    PeerSerial,
    PeerFingerprint256,
    PeerFingerprint1,
    /// Of the whole chain that the peer showed, leaf first.
    PeerChainFingerprints256,
    PeerChainSerials,
    PeerCert,
    TlsSessionId,
    TlsCipher,
    TlsVersion,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

/// Points of a stream between which `%COMMON_DURATION%` measures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimePoint {
    DownstreamStart,
    DownstreamRxEnd,
    UpstreamConnectStart,
    UpstreamConnectEnd,
    UpstreamTxStart,
    UpstreamTxEnd,
    UpstreamRxStart,
    UpstreamRxEnd,
    DownstreamTxStart,
    DownstreamTxEnd,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GrpcStatusFormat {
    CamelString,
    SnakeString,
    Number,
}

/// Byte and header-byte counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Count {
    BytesReceived,
    BytesSent,
    RequestHeaderBytes,
    ResponseHeaderBytes,
    ResponseTrailerBytes,
    UpstreamWireReceived,
    UpstreamWireSent,
    UpstreamHeaderReceived,
    UpstreamHeaderSent,
    DownstreamWireReceived,
    DownstreamWireSent,
    DownstreamHeaderReceived,
    DownstreamHeaderSent,
    /// Of QUIC, and so always zero.
    Retransmitted,
}

/// Whose metadata `%METADATA(TYPE:...)%` reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MetadataOf {
    Dynamic,
    Cluster,
    Route,
    VirtualHost,
    UpstreamHost,
    Listener,
    ListenerFilterChain,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Operator {
    /// `None`: ISO 8601 with milliseconds. Otherwise a strftime string with Envoy's `%Nf` digits.
    StartTime {
        format: Option<Arc<str>>,
        local: bool,
    },
    /// Time of emission instead of start.
    EmitTime {
        format: Option<Arc<str>>,
        local: bool,
    },
    RequestHeader {
        key: HeaderKey,
        alternative: Option<HeaderKey>,
    },
    ResponseHeader {
        key: HeaderKey,
        alternative: Option<HeaderKey>,
    },
    ResponseTrailer {
        key: HeaderKey,
        alternative: Option<HeaderKey>,
    },
    Protocol,
    UpstreamProtocol,
    ResponseCode,
    /// `keep_whitespace`: print as is instead of with `_`.
    ResponseCodeDetails {
        keep_whitespace: bool,
    },
    ConnectionTerminationDetails,
    ResponseFlags,
    ResponseFlagsLong,
    Count(Count),
    Duration,
    RequestDuration,
    RequestTxDuration,
    ResponseDuration,
    ResponseTxDuration,
    RoundTripDuration,
    DownstreamHandshakeDuration,
    CommonDuration {
        from: TimePoint,
        to: TimePoint,
        unit: TimeUnit,
    },
    Address {
        of: AddressOf,
        part: AddressPart,
    },
    UpstreamCluster,
    UpstreamClusterRaw,
    UpstreamHostName {
        with_port: bool,
    },
    UpstreamRequestAttemptCount,
    UpstreamTransportFailureReason,
    UpstreamConnectionId,
    UpstreamConnectionPoolReadyDuration,
    DownstreamTransportFailureReason,
    DownstreamLocalCloseReason,
    DownstreamDetectedCloseType,
    UpstreamLocalCloseReason,
    UpstreamDetectedCloseType,
    RequestedServerName(ServerName),
    RouteName,
    VirtualClusterName,
    FilterChainName,
    Hostname,
    ConnectionId,
    StreamId,
    UniqueId,
    TraceId,
    SpanId,
    GrpcStatus(GrpcStatusFormat),
    LocalReplyBody,
    AccessLogType,
    /// When the peer's certificate begins or ends to be valid.
    PeerCertificateTime {
        upstream: bool,
        end: bool,
        format: Option<Arc<str>>,
    },
    DownstreamTls(TlsFact),
    UpstreamTls(TlsFact),
    Ja3,
    Ja4,
    Metadata {
        of: MetadataOf,
        namespace: Arc<str>,
        path: Vec<Arc<str>>,
    },
    /// `plain`: the string without quotes.
    FilterState {
        key: Arc<str>,
        plain: bool,
        field: Option<Arc<str>>,
        upstream: bool,
    },
    Path {
        with_query: bool,
        original: PathChoice,
    },
    QueryParameter(Arc<str>),
    /// All of them, as they came or decoded.
    QueryParameters {
        decoded: bool,
    },
    /// Set by filters of others, and so empty.
    CustomFlags,
    /// The first of these that has a value.
    Coalesce(Arc<[(Operator, Option<usize>)]>),
    Environment(Arc<str>),
}

/// `%PATH(x:CHOICE)%`: the path as received or as forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PathChoice {
    Original,
    Current,
    OriginalOrCurrent,
}

/// `%REQUESTED_SERVER_NAME(CHOICE:HOST)%`: the name of the TLS handshake, or the request's host instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerName {
    Sni,
    /// The host where there is no SNI.
    SniOrHost(HostChoice),
    Host(HostChoice),
}

/// The host as received or as forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostChoice {
    Original,
    Current,
    OriginalOrCurrent,
}

/// A JSON access log or local reply: a tree whose leaves are formats.
#[derive(Debug, Clone, PartialEq)]
pub enum JsonFormat {
    Object(Vec<(Arc<str>, JsonFormat)>),
    List(Vec<JsonFormat>),
    /// A single command keeps its type (number, null, object); anything else is a string.
    Format(Format),
    Literal(Value),
}
