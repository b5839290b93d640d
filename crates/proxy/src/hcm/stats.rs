//! A connection manager's statistics, under Envoy's names.

use meltemi_filters::{ResponseFlags, StreamInfo};
use meltemi_http::Protocol;
use meltemi_telemetry::metrics::Scope;
use meltemi_telemetry::{Registry, Spec, stats};

stats! {
    /// Under `http.<stat_prefix>.`. Those of one prefix are one, whatever their listeners and workers.
    pub(super) struct HttpStats {
        downstream_cx_total: Spec::counter("downstream_cx_total"),
        downstream_cx_active: Spec::gauge("downstream_cx_active"),
        downstream_cx_destroy: Spec::counter("downstream_cx_destroy"),
        downstream_cx_http1_total: Spec::counter("downstream_cx_http1_total"),
        downstream_cx_http1_active: Spec::gauge("downstream_cx_http1_active"),
        downstream_cx_http2_total: Spec::counter("downstream_cx_http2_total"),
        downstream_cx_http2_active: Spec::gauge("downstream_cx_http2_active"),
        downstream_cx_http3_total: Spec::counter("downstream_cx_http3_total"),
        downstream_cx_http3_active: Spec::gauge("downstream_cx_http3_active"),
        downstream_cx_ssl_total: Spec::counter("downstream_cx_ssl_total"),
        downstream_cx_ssl_active: Spec::gauge("downstream_cx_ssl_active"),
        downstream_cx_protocol_error: Spec::counter("downstream_cx_protocol_error"),
        downstream_cx_http2_flood: Spec::counter("downstream_cx_http2_flood"),
        downstream_cx_length_ms: Spec::histogram("downstream_cx_length_ms"),
        downstream_rq_total: Spec::counter("downstream_rq_total"),
        downstream_rq_active: Spec::gauge("downstream_rq_active"),
        downstream_rq_http1_total: Spec::counter("downstream_rq_http1_total"),
        downstream_rq_http2_total: Spec::counter("downstream_rq_http2_total"),
        downstream_rq_http3_total: Spec::counter("downstream_rq_http3_total"),
        downstream_rq_rx_reset: Spec::counter("downstream_rq_rx_reset"),
        downstream_rq_idle_timeout: Spec::counter("downstream_rq_idle_timeout"),
        downstream_rq_header_timeout: Spec::counter("downstream_rq_header_timeout"),
        downstream_rq_completed: Spec::counter("downstream_rq_completed"),
        downstream_rq_1xx: Spec::class("downstream_rq_1xx", "downstream_rq_xx", "1"),
        downstream_rq_2xx: Spec::class("downstream_rq_2xx", "downstream_rq_xx", "2"),
        downstream_rq_3xx: Spec::class("downstream_rq_3xx", "downstream_rq_xx", "3"),
        downstream_rq_4xx: Spec::class("downstream_rq_4xx", "downstream_rq_xx", "4"),
        downstream_rq_5xx: Spec::class("downstream_rq_5xx", "downstream_rq_xx", "5"),
        no_route: Spec::counter("no_route"),
        no_cluster: Spec::counter("no_cluster"),
        downstream_rq_time: Spec::histogram("downstream_rq_time"),
    }
}

/// The statistics of a prefix, which every connection manager of that prefix shares.
pub(super) fn of_prefix(registry: &Registry, prefix: &str) -> HttpStats {
    HttpStats::new(registry, Scope::envoy("http", "envoy_http_conn_manager_prefix", prefix))
}

/// Counts a connection while it is open.
pub(super) struct OpenConnection {
    stats: HttpStats,
    protocol: Protocol,
    tls: bool,
    since: std::time::Instant,
}

impl OpenConnection {
    pub fn new(stats: &HttpStats, protocol: Protocol, tls: bool) -> Self {
        stats.downstream_cx_total().inc();
        stats.downstream_cx_active().inc();
        let (total, active) = match protocol {
            Protocol::Http10 | Protocol::Http11 => {
                (stats.downstream_cx_http1_total(), stats.downstream_cx_http1_active())
            }
            Protocol::Http2 => (stats.downstream_cx_http2_total(), stats.downstream_cx_http2_active()),
            Protocol::Http3 => (stats.downstream_cx_http3_total(), stats.downstream_cx_http3_active()),
        };
        total.inc();
        active.inc();
        if tls {
            stats.downstream_cx_ssl_total().inc();
            stats.downstream_cx_ssl_active().inc();
        }
        Self { stats: stats.clone(), protocol, tls, since: std::time::Instant::now() }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let stats = &self.stats;
        stats.downstream_cx_active().dec();
        stats.downstream_cx_destroy().inc();
        match self.protocol {
            Protocol::Http10 | Protocol::Http11 => stats.downstream_cx_http1_active().dec(),
            Protocol::Http2 => stats.downstream_cx_http2_active().dec(),
            Protocol::Http3 => stats.downstream_cx_http3_active().dec(),
        }
        if self.tls {
            stats.downstream_cx_ssl_active().dec();
        }
        stats.downstream_cx_length_ms().record_ms(self.since.elapsed());
    }
}

/// Counts a request while it is served.
pub(super) struct ActiveRequest<'a>(&'a HttpStats);

impl<'a> ActiveRequest<'a> {
    pub fn new(stats: &'a HttpStats, protocol: Protocol) -> Self {
        stats.downstream_rq_total().inc();
        stats.downstream_rq_active().inc();
        match protocol {
            Protocol::Http10 | Protocol::Http11 => stats.downstream_rq_http1_total().inc(),
            Protocol::Http2 => stats.downstream_rq_http2_total().inc(),
            Protocol::Http3 => stats.downstream_rq_http3_total().inc(),
        }
        Self(stats)
    }

    /// Counts how it ended.
    pub fn ended(&self, info: &StreamInfo) {
        let stats = self.0;
        if info.flags.contains(ResponseFlags::NO_ROUTE) {
            stats.no_route().inc();
        }
        if info.flags.contains(ResponseFlags::NO_CLUSTER) {
            stats.no_cluster().inc();
        }
        if info.flags.contains(ResponseFlags::STREAM_IDLE_TIMEOUT) {
            stats.downstream_rq_idle_timeout().inc();
        }
        if info.flags.contains(ResponseFlags::DOWNSTREAM_CONNECTION_TERMINATION) {
            stats.downstream_rq_rx_reset().inc();
        }
        if let Some(duration) = info.duration {
            stats.downstream_rq_time().record_ms(duration);
        }
        let Some(code) = info.response_code.filter(|code| *code > 0) else { return };
        stats.downstream_rq_completed().inc();
        match code / 100 {
            1 => stats.downstream_rq_1xx().inc(),
            2 => stats.downstream_rq_2xx().inc(),
            3 => stats.downstream_rq_3xx().inc(),
            4 => stats.downstream_rq_4xx().inc(),
            5 => stats.downstream_rq_5xx().inc(),
            _ => {}
        }
    }
}

impl Drop for ActiveRequest<'_> {
    fn drop(&mut self) {
        self.0.downstream_rq_active().dec();
    }
}
