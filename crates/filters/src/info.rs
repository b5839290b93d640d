//! What is known of a connection and of a stream on it: the one record that access logs, metrics and tracing read.
//!
//! Facts of the connection are shared by its streams. Everything here is plain data; recording a fact never allocates but
//! for strings that are new to the stream.

use std::borrow::Cow;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use meltemi_http::{Headers, Protocol, ResponseHead};
use meltemi_net::Address;
use meltemi_telemetry::TraceContext;
use meltemi_tls::PeerInfo;

use crate::flags::ResponseFlags;
use crate::http::{AlpnOverrides, Session};
use crate::peer::Peer;
use crate::tracing::AttemptSpan;

/// TLS facts of one side of the proxy.
#[derive(Clone, Debug, Default)]
pub struct TlsInfo {
    /// `TLSv1.3`.
    pub version: Option<&'static str>,
    /// OpenSSL's name, as Envoy shows it.
    pub cipher: Option<Cow<'static, str>>,
    pub alpn: Option<Arc<str>>,
    pub sni: Option<Arc<str>>,
    /// The peer's certificate, when it presented one that was verified.
    pub peer: Option<Arc<PeerInfo>>,
    /// URI SANs of the certificate that this side presented.
    pub local_uri_sans: Arc<[String]>,
    /// Subject of the certificate that this side presented.
    pub local_subject: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Direction {
    #[default]
    Unspecified,
    Inbound,
    Outbound,
}

/// Facts of a downstream connection.
#[derive(Debug)]
pub struct ConnectionInfo {
    /// Unique in the process.
    pub id: u64,
    pub start: Instant,
    pub start_time: SystemTime,
    /// The peer of the socket, before any forwarding header; after PROXY protocol.
    pub remote: Address,
    /// As `remote`, before PROXY protocol.
    pub direct_remote: Address,
    /// The original destination where it was restored, else the socket's own address.
    pub local: Address,
    /// The socket's own address.
    pub direct_local: Address,
    /// From TLS, else from inspection.
    pub requested_server_name: Option<Arc<str>>,
    pub tls: Option<TlsInfo>,
    pub listener: Arc<str>,
    pub filter_chain: Arc<str>,
    pub direction: Direction,
    /// From TCP metadata exchange; header exchange overrides it for its stream.
    pub peer: Option<Arc<Peer>>,
}

impl ConnectionInfo {
    /// A bare connection between two addresses, now.
    pub fn new(remote: Address, local: Address) -> Self {
        Self {
            id: 0,
            start: Instant::now(),
            start_time: SystemTime::now(),
            direct_remote: remote.clone(),
            remote,
            direct_local: local.clone(),
            local,
            requested_server_name: None,
            tls: None,
            listener: Arc::from(""),
            filter_chain: Arc::from(""),
            direction: Direction::Unspecified,
            peer: None,
        }
    }

    /// Both sides proved who they are.
    pub fn is_mutual_tls(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.peer.is_some())
    }
}

/// Facts of the upstream side of a stream. Reset by each attempt but for `attempts` and `cluster`.
#[derive(Clone, Debug, Default)]
pub struct UpstreamInfo {
    pub cluster: Option<Arc<meltemi_plan::Cluster>>,
    pub host: Option<Address>,
    /// The endpoint's DNS name, for LOGICAL_DNS and STRICT_DNS.
    pub hostname: Option<Arc<str>>,
    /// The endpoint's metadata.
    pub metadata: Option<Arc<meltemi_plan::Metadata>>,
    pub local: Option<Address>,
    pub protocol: Option<Protocol>,
    pub tls: Option<TlsInfo>,
    /// `%UPSTREAM_TRANSPORT_FAILURE_REASON%`.
    pub transport_failure: Option<Cow<'static, str>>,
    /// `%UPSTREAM_REQUEST_ATTEMPT_COUNT%`.
    pub attempts: u32,
    /// Envoy's dynamic forward proxy filter is there: a host that cannot be resolved is answered as such.
    pub resolves: bool,
    pub connection_id: Option<u64>,
    pub wire_bytes_sent: u64,
    pub wire_bytes_received: u64,
    pub header_bytes_sent: u64,
    pub header_bytes_received: u64,
    /// From metadata exchange with the upstream.
    pub peer: Option<Arc<Peer>>,
    /// ALPN that `istio.alpn` asks the upstream connection to offer instead of its transport's, by protocol.
    pub alpn: Option<Arc<AlpnOverrides>>,
    /// Of a client that keeps its host.
    pub session: Option<Box<Session>>,
    pub timing: UpstreamTiming,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct UpstreamTiming {
    pub connect_start: Option<Instant>,
    pub connected: Option<Instant>,
    pub handshaken: Option<Instant>,
    pub first_byte_sent: Option<Instant>,
    pub last_byte_sent: Option<Instant>,
    pub first_byte_received: Option<Instant>,
    pub last_byte_received: Option<Instant>,
}

/// One request, or one TCP connection being proxied.
#[derive(Debug)]
pub struct StreamInfo {
    pub connection: Rc<ConnectionInfo>,
    pub start: Instant,
    pub start_time: SystemTime,
    pub protocol: Option<Protocol>,
    /// The trusted client address (`x-forwarded-for` applied); `connection.remote` unless that was configured.
    pub remote: Address,
    /// Set before the filters run, so that they find their overrides.
    pub route: Option<Arc<meltemi_plan::Route>>,
    pub virtual_host: Option<Arc<meltemi_plan::VirtualHost>>,
    pub route_configuration: Option<Arc<meltemi_plan::RouteConfiguration>>,
    /// The weighted cluster that was drawn.
    pub weighted: Option<(Arc<meltemi_plan::route::WeightedClusters>, usize)>,
    pub upstream: UpstreamInfo,
    pub response_code: Option<u16>,
    pub response_code_details: Option<Cow<'static, str>>,
    pub connection_termination_details: Option<Cow<'static, str>>,
    pub flags: ResponseFlags,
    /// Body bytes from and to downstream.
    pub bytes_received: u64,
    pub bytes_sent: u64,
    /// Bytes of heads, as decoded.
    pub request_header_bytes: u64,
    pub response_header_bytes: u64,
    pub last_downstream_byte_received: Option<Instant>,
    pub first_downstream_byte_sent: Option<Instant>,
    pub last_downstream_byte_sent: Option<Instant>,
    /// Set by [`StreamInfo::finish`].
    pub duration: Option<Duration>,
    /// The downstream peer learnt from headers; else `connection.peer`.
    pub peer: Option<Arc<Peer>>,
    pub is_grpc: bool,
    /// The downstream peer sent its id, and so wants ours.
    pub peer_announced: bool,
    pub is_health_check: bool,
    pub grpc_status: Option<u32>,
    pub request_messages: u64,
    pub response_messages: u64,
    pub trace: Option<TraceContext>,
    /// The attempt under way, or the last, if it has a span of its own.
    pub attempt_span: Option<Box<AttemptSpan>>,
    /// What the proxy at the other end calls this operation.
    pub operation: Option<Box<str>>,
    /// Dynamic metadata: what filters have found out, by namespace.
    pub metadata: Option<Box<meltemi_plan::Metadata>>,
    /// `%FILTER_STATE(key)%`.
    pub state: Vec<(Cow<'static, str>, Cow<'static, str>)>,
}

impl StreamInfo {
    // Inlined, because it is large: built where it is to be, in place of being moved there.
    #[inline]
    pub fn new(connection: Rc<ConnectionInfo>) -> Self {
        let remote = connection.remote.clone();
        Self {
            connection,
            start: Instant::now(),
            start_time: SystemTime::now(),
            protocol: None,
            remote,
            route: None,
            virtual_host: None,
            route_configuration: None,
            weighted: None,
            upstream: UpstreamInfo::default(),
            response_code: None,
            response_code_details: None,
            connection_termination_details: None,
            flags: ResponseFlags::NONE,
            bytes_received: 0,
            bytes_sent: 0,
            request_header_bytes: 0,
            response_header_bytes: 0,
            last_downstream_byte_received: None,
            first_downstream_byte_sent: None,
            last_downstream_byte_sent: None,
            duration: None,
            peer: None,
            is_grpc: false,
            peer_announced: false,
            is_health_check: false,
            grpc_status: None,
            request_messages: 0,
            response_messages: 0,
            trace: None,
            attempt_span: None,
            operation: None,
            metadata: None,
            state: Vec::new(),
        }
    }

    pub fn weighted_cluster(&self) -> Option<&meltemi_plan::route::WeightedCluster> {
        self.weighted.as_ref().and_then(|(all, index)| all.clusters.get(*index))
    }

    /// A filter's overrides: configuration, virtual host, route, weighted cluster.
    pub fn filter_overrides(&self, filter: &str) -> impl DoubleEndedIterator<Item = &meltemi_plan::FilterOverride> {
        let levels = [
            self.route_configuration.as_deref().map(|c| &c.per_filter),
            self.virtual_host.as_deref().map(|v| &v.per_filter),
            self.route.as_deref().map(|r| &r.per_filter),
            self.weighted_cluster().map(|w| &w.per_filter),
        ];
        levels.into_iter().flatten().filter_map(move |level| level.find(filter))
    }

    /// The most specific override of a filter: weighted cluster, route, virtual host, configuration.
    pub fn filter_override(&self, filter: &str) -> Option<&meltemi_plan::FilterOverride> {
        if self.has_overrides() { self.filter_overrides(filter).next_back() } else { None }
    }

    /// Whether there is an override of any filter: asked first, because few routes have one.
    fn has_overrides(&self) -> bool {
        self.route.as_ref().is_some_and(|route| !route.per_filter.0.is_empty())
            || self.virtual_host.as_ref().is_some_and(|host| !host.per_filter.0.is_empty())
            || self.route_configuration.as_ref().is_some_and(|routes| !routes.per_filter.0.is_empty())
            || self.weighted_cluster().is_some_and(|weighted| !weighted.per_filter.0.is_empty())
    }

    /// What a response head says: its status, and a gRPC status sent without a body.
    pub fn observe_response(&mut self, head: &ResponseHead) {
        self.response_code = Some(head.status.as_u16());
        self.observe_grpc_status(&head.headers);
    }

    /// The head as it was sent; `closing`: with `connection: close`.
    pub fn note_response_head(&mut self, head: &ResponseHead, closing: bool) {
        self.response_code = Some(head.status.as_u16());
        let closing = if closing { "connection".len() + "close".len() } else { 0 };
        self.response_header_bytes = (":status200".len() + head.headers.byte_size() + closing) as u64;
    }

    pub fn observe_trailers(&mut self, trailers: &Headers) {
        self.observe_grpc_status(trailers);
    }

    fn observe_grpc_status(&mut self, headers: &Headers) {
        let status = headers.get_str(&meltemi_http::name::GRPC_STATUS).and_then(|v| v.parse().ok());
        self.grpc_status = status.or(self.grpc_status);
    }

    /// Fixes the duration; the first call counts.
    pub fn finish(&mut self) {
        if self.duration.is_none() {
            self.finish_at(Instant::now());
        }
    }

    /// The same for a caller that has just read the clock.
    pub fn finish_at(&mut self, now: Instant) {
        self.duration.get_or_insert_with(|| now.saturating_duration_since(self.start));
    }

    /// From start to now, or to [`StreamInfo::finish`].
    pub fn elapsed(&self) -> Duration {
        self.duration.unwrap_or_else(|| self.start.elapsed())
    }

    /// The first reason given stays: what follows from it is not news.
    pub fn set_details(&mut self, details: impl Into<Cow<'static, str>>) {
        if self.response_code_details.is_none() {
            self.response_code_details = Some(details.into());
        }
    }

    /// What a filter has found out, under a namespace and each key of a path.
    pub fn found<S: AsRef<str>>(&self, namespace: &str, path: &[S]) -> Option<&serde_json::Value> {
        self.metadata.as_ref()?.value(namespace, path)
    }

    /// Adds to a namespace of dynamic metadata; what has a key already is replaced.
    pub fn find_out(&mut self, namespace: &str, fields: serde_json::Map<String, serde_json::Value>) {
        let metadata = self.metadata.get_or_insert_default();
        match metadata.filters.get_mut(namespace) {
            Some(serde_json::Value::Object(known)) => known.extend(fields),
            _ => drop(metadata.filters.insert(namespace.into(), serde_json::Value::Object(fields))),
        }
    }

    pub fn state(&self, key: &str) -> Option<&str> {
        self.state.iter().find(|(k, _)| k == key).map(|(_, v)| &**v)
    }

    pub fn set_state(&mut self, key: impl Into<Cow<'static, str>>, value: impl Into<Cow<'static, str>>) {
        let key = key.into();
        match self.state.iter_mut().find(|(k, _)| *k == key) {
            Some((_, v)) => *v = value.into(),
            None => self.state.push((key, value.into())),
        }
    }

    /// Whoever is downstream, by the best source there is.
    pub fn downstream_peer(&self) -> Option<&Arc<Peer>> {
        self.peer.as_ref().or(self.connection.peer.as_ref())
    }
}
