//! The HTTP connection manager.

use bytes::Bytes;

use crate::access_log::{AccessLog, AccessLogFilter};
use crate::filter::HttpFilter;
use crate::format::{Format, JsonFormat};
use crate::header::HeaderAdd;
use crate::on_demand::OnDemand;
use crate::route::RouteConfiguration;
use crate::tracing::Tracing;
use meltemi_matchers::CidrSet;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// HTTP/2 by ALPN or connection preface, else HTTP/1.
    Auto,
    Http1,
    Http2,
    /// On QUIC listeners, and on them alone.
    Http3,
}

#[derive(Debug, Clone)]
pub enum RouteSource {
    Inline(Arc<RouteConfiguration>),
    /// A subscription by name; requests wait for nothing: until it arrives the listener is not ready.
    Rds(Arc<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServerHeader {
    Overwrite,
    AppendIfAbsent,
    PassThrough,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ForwardClientCert {
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClientCertDetails {
    pub subject: bool,
    pub cert: bool,
    pub chain: bool,
    pub dns: bool,
    pub uri: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EscapedSlashes {
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnderscoreAction {
    Allow,
    Reject,
    Drop,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StripPort {
    No,
    /// Only the listener's own port.
    Matching,
    Any,
}

/// Options of one HTTP/1 side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http1Options {
    pub allow_absolute_url: bool,
    pub accept_http_10: bool,
    pub default_host_for_http_10: Arc<str>,
    pub enable_trailers: bool,
    pub header_case: HeaderCase,
    pub stream_error_on_invalid: Option<bool>,
    pub send_fully_qualified_url: bool,
    pub allow_custom_methods: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderCase {
    Lower,
    /// `Content-Type`.
    Proper,
    /// As the other side wrote them.
    Preserve,
}

/// Options of one HTTP/2 side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2Options {
    pub hpack_table_size: u32,
    pub max_concurrent_streams: u32,
    pub initial_stream_window: u32,
    pub initial_connection_window: u32,
    pub allow_connect: bool,
    pub max_outbound_frames: u32,
    pub max_outbound_control_frames: u32,
    pub stream_error_on_invalid: Option<bool>,
    pub keepalive: Option<Http2Keepalive>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Keepalive {
    pub interval: Option<Duration>,
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub struct Upgrade {
    /// Lower case: `websocket`, `connect`.
    pub kind: Arc<str>,
    pub enabled: bool,
}

#[derive(Debug, Clone, Default)]
pub struct InternalAddresses {
    pub unix_sockets: bool,
    /// The ranges that count as internal.
    pub ranges: CidrSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// Write the trace decision into the 14th digit.
    pub pack_trace_reason: bool,
}

#[derive(Debug, Clone)]
pub enum BodyFormat {
    Text { format: Format, content_type: Arc<str> },
    Json { format: JsonFormat, content_type: Arc<str> },
}

#[derive(Debug, Clone, Default)]
pub struct LocalReplyConfig {
    pub mappers: Vec<ResponseMapper>,
    pub body_format: Option<BodyFormat>,
}

#[derive(Debug, Clone)]
pub struct ResponseMapper {
    pub filter: AccessLogFilter,
    pub status: Option<u16>,
    pub body: Option<Bytes>,
    pub body_format: Option<BodyFormat>,
    pub headers: Vec<HeaderAdd>,
}

/// Times that are `None` never elapse.
#[derive(Debug, Clone)]
pub struct Hcm {
    pub stat_prefix: Arc<str>,
    pub codec: Codec,
    pub route: RouteSource,
    pub http_filters: Vec<HttpFilter>,
    /// The connection manager itself waits; the filter is not among `http_filters`.
    pub on_demand: Option<OnDemand>,
    pub access_logs: Vec<AccessLog>,
    pub tracing: Option<Tracing>,
    pub http1: Http1Options,
    pub http2: Http2Options,
    /// Extended CONNECT over HTTP/3 (Envoy's `http3_protocol_options.allow_extended_connect`).
    pub http3_connect: bool,

    pub idle_timeout: Option<Duration>,
    pub max_connection_duration: Option<Duration>,
    pub max_stream_duration: Option<Duration>,
    pub stream_idle_timeout: Option<Duration>,
    pub request_headers_timeout: Option<Duration>,
    pub drain_timeout: Duration,
    pub delayed_close_timeout: Option<Duration>,

    pub max_request_headers_bytes: u32,
    pub max_headers_count: u32,
    /// 0: unlimited.
    pub max_requests_per_connection: u32,
    pub headers_with_underscores: UnderscoreAction,

    pub server_name: Arc<str>,
    pub server_header: ServerHeader,
    pub scheme_overwrite: Option<Arc<str>>,
    pub via: Option<Arc<str>>,

    pub use_remote_address: bool,
    pub xff_trusted_hops: u32,
    pub skip_xff_append: bool,
    pub internal_addresses: InternalAddresses,
    pub append_x_forwarded_port: bool,
    pub forward_client_cert: ForwardClientCert,
    pub client_cert_details: ClientCertDetails,

    pub generate_request_id: bool,
    pub preserve_external_request_id: bool,
    pub always_set_request_id_in_response: bool,
    pub request_id: RequestId,

    pub normalize_path: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
    pub strip_port: StripPort,
    pub strip_trailing_host_dot: bool,

    pub proxy_100_continue: bool,
    pub stream_error_on_invalid: bool,
    pub upgrades: Vec<Upgrade>,
    pub local_reply: LocalReplyConfig,
}
