//! The HTTP connection manager: connections to exchanges.
//!
//! Owns what Envoy does to every request and response whatever its route: forwarding headers, request ids, normalisation, local
//! replies, timeouts of connections, drain. An HTTP/1 connection and all its exchanges are one task; an HTTP/2 or HTTP/3 connection
//! is one task and one for each stream in progress. Must never choose a host.

mod early;
mod exchange;
mod http1;
pub(crate) mod http2;
#[cfg(feature = "h3")]
pub(crate) mod http3;
mod local_reply;
mod path;
mod reply;
mod request;
mod response;
mod seats;
mod stats;

use std::{cell::OnceCell, rc::Rc, sync::Arc};

use meltemi_filters::{
    AccessLogs, ChainScope, ConnectionInfo, Direction, FilterChain, StreamInfo, Tracer,
    format::{Missing, Scope},
};
use meltemi_http::{HeaderValue, Protocol, RequestHead};
use meltemi_net::{Stream, sniff};
use meltemi_plan::{Format, Hcm, HttpFilterConfig, hcm::Codec};

pub use exchange::{Exchange, StreamParts};
pub use path::{Normalized, normalize};

use crate::worker::{ConnectionHandle, Worker};

/// A connection manager as one worker runs it.
pub struct LiveHttp {
    pub plan: Arc<Hcm>,
    pub filters: Arc<FilterChain>,
    pub logs: AccessLogs,
    pub tracer: Option<Tracer>,
    /// Values of headers that every message gets, made once.
    server: Option<HeaderValue>,
    via: Option<HeaderValue>,
    suppress_envoy_headers: bool,
    filters_context: Arc<meltemi_filters::Context>,
    /// Made by the first connection: most listeners of a sidecar never see one.
    stats: OnceCell<stats::HttpStats>,
}

impl LiveHttp {
    pub fn new(plan: &Arc<Hcm>, direction: Direction, context: &Arc<meltemi_filters::Context>) -> Self {
        let scope = ChainScope { stat_prefix: Arc::clone(&plan.stat_prefix), direction };
        let suppress_envoy_headers = plan.http_filters.iter().any(|filter| match &filter.config {
            HttpFilterConfig::Router(router) => router.suppress_envoy_headers,
            _ => false,
        });
        Self {
            plan: Arc::clone(plan),
            filters: FilterChain::new(&plan.http_filters, &scope, context),
            logs: AccessLogs::new(&plan.access_logs, &context.logs),
            // Without anywhere to send spans to, the trace context passes through as it came.
            tracer: plan
                .tracing
                .as_ref()
                .filter(|config| config.provider.is_some())
                .map(|config| Tracer::new(&Arc::new(config.clone()), direction, context)),
            server: HeaderValue::from_str(&plan.server_name).ok(),
            via: plan.via.as_ref().and_then(|via| HeaderValue::from_str(via).ok()),
            suppress_envoy_headers,
            filters_context: Arc::clone(context),
            stats: OnceCell::new(),
        }
    }

    fn stats(&self) -> &stats::HttpStats {
        self.stats.get_or_init(|| stats::of_prefix(&self.filters_context.registry, &self.plan.stat_prefix))
    }

    /// The router is told not to add `x-envoy-*` of its own.
    pub fn suppress_envoy_headers(&self) -> bool {
        self.suppress_envoy_headers
    }
}

/// The text of a command string for a request that has no response yet.
pub(crate) fn text(format: &Format, request: &RequestHead, info: &StreamInfo) -> String {
    let mut out = Vec::new();
    let scope = Scope { request: Some(request), ..Scope::new(info) };
    meltemi_filters::format::write(format, &scope, Missing::Empty, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// What all exchanges of a connection share.
pub struct Context {
    pub worker: Rc<Worker>,
    pub http: Rc<LiveHttp>,
    pub connection: Rc<ConnectionInfo>,
    pub handle: ConnectionHandle,
}

/// A connection whose protocol is known.
pub struct Connection {
    context: Rc<Context>,
    stream: Stream,
    is_h2: bool,
}

impl Context {
    /// Counts the connection until what is returned is dropped.
    fn count(&self, protocol: Protocol) -> stats::OpenConnection {
        stats::OpenConnection::new(self.http.stats(), protocol, self.connection.tls.is_some())
    }
}

impl Connection {
    /// Finds out what the client speaks; `None` if it left without a word.
    pub async fn open(
        worker: Rc<Worker>,
        http: Rc<LiveHttp>,
        mut stream: Stream,
        connection: Rc<ConnectionInfo>,
        handle: ConnectionHandle,
    ) -> Option<Self> {
        let codec = http.plan.codec;
        let context = Rc::new(Context { worker, http, connection, handle });
        let is_h2 = match (codec, stream.alpn()) {
            (Codec::Http1, _) => false,
            (Codec::Http2, _) => true,
            // Of QUIC listeners alone, whose clients do not come as streams of bytes.
            (Codec::Http3, _) => return None,
            (Codec::Auto, Some(alpn)) => alpn == b"h2",
            (Codec::Auto, None) => sniff_preface(&context, &mut stream).await?,
        };
        Some(Self { context, stream, is_h2 })
    }

    /// Serves it to its end.
    pub async fn serve(self) {
        let Self { context, stream, is_h2 } = self;
        if is_h2 {
            // Boxed: an HTTP/1 connection, of which there are many, need not be as large.
            Box::pin(http2::serve(context, stream)).await;
        } else {
            http1::serve(context, stream).await;
        }
    }
}

/// Whether the client begins with the HTTP/2 preface; `None` if it closed, or said nothing in time.
async fn sniff_preface(context: &Context, stream: &mut Stream) -> Option<bool> {
    let mut buffer = bytes::BytesMut::new();
    let read = async {
        loop {
            let n = std::future::poll_fn(|cx| {
                meltemi_net::buffers::poll_fill(stream, cx, &mut buffer, meltemi_net::buffers::SMALL)
            });
            if n.await.ok()? == 0 {
                return None;
            }
            let n = buffer.len().min(sniff::H2_PREFACE.len());
            if buffer[..n] != sniff::H2_PREFACE[..n] {
                return Some(false);
            }
            if n == sniff::H2_PREFACE.len() {
                return Some(true);
            }
        }
    };
    let found = match context.http.plan.idle_timeout {
        Some(limit) => tokio::time::timeout(limit, read).await.ok().flatten(),
        None => read.await,
    };
    stream.unread(buffer.freeze());
    found
}

#[cfg(test)]
mod tests;
