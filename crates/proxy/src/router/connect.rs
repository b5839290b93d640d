//! Connections to hosts: from the pool, or new under the circuit breakers.

use std::{any::Any, rc::Rc, sync::Arc};

use meltemi_filters::TlsInfo;
use meltemi_http::{
    ClientStream, Protocol, ResetReason, h1,
    pool::{ConnectError, Connected, End, Guard, Key, Mode, Options, Pool},
};
use meltemi_net::{Address, ConnectOptions, Keepalive, Stream};
use meltemi_plan::{self as plan, cluster::UpstreamProtocol, common::Metadata, hcm::HeaderCase};
use meltemi_tls::ClientTls;
use meltemi_upstream::{
    ActiveConnection, Cluster, Endpoint, Outcome, Permit, Resource, RoutingPriority, TrafficStats, Transport,
};
use tokio::io::AsyncWriteExt;

use super::{failure::Failure, preface::Preface};
use crate::{chain, hcm::http2, worker::Worker};

/// Where a stream is to go.
pub struct Destination {
    pub cluster: Arc<Cluster>,
    pub endpoint: Arc<Endpoint>,
    pub priority: RoutingPriority,
    pub mode: Mode,
    pub tls: Option<Arc<ClientTls>>,
    pub preface: Option<Preface>,
    /// Tells connections apart that must not be shared.
    pub transport: u64,
}

/// What a request says about the protocol to speak.
pub(crate) fn mode(cluster: &plan::Cluster, downstream: Protocol) -> Mode {
    match cluster.http.protocol {
        UpstreamProtocol::Http1 => Mode::Http1,
        UpstreamProtocol::Http2 => Mode::Http2,
        // What came over HTTP/3 can be told in HTTP/2 without loss.
        UpstreamProtocol::Downstream if matches!(downstream, Protocol::Http2 | Protocol::Http3) => Mode::Http2,
        UpstreamProtocol::Downstream => Mode::Http1,
        UpstreamProtocol::Auto => Mode::Alpn,
    }
}

impl Destination {
    fn pool(&self, worker: &Worker) -> Rc<Pool> {
        let transport = self.transport
            ^ self.cluster.plan.fingerprint.rotate_left(8)
            ^ (self.endpoint.transport as u64) << 32
            ^ self.preface.as_ref().map_or(0, Preface::key);
        let key = Key { endpoint: self.endpoint.id, transport, mode: self.mode };
        worker.pools.pool(key, || Rc::new(options(&self.cluster.plan)))
    }

    /// A stream that exists already. The happy path: no wait, no allocation but the stream itself.
    pub(crate) fn try_stream(&self, worker: &Worker) -> (Rc<Pool>, Option<ClientStream>) {
        let pool = self.pool(worker);
        let stream = pool.try_stream();
        (pool, stream)
    }

    /// A stream on a new connection, or on the next that comes free.
    pub(crate) async fn wait_for_stream(&self, pool: &Rc<Pool>) -> Result<ClientStream, Failure> {
        let traffic = &self.cluster.stats.traffic;
        let breakers = &self.cluster.breakers;
        let Some(permit) = breakers.acquire(self.priority, Resource::Pending) else {
            traffic.upstream_rq_pending_overflow().inc();
            return Err(Failure::Overflow);
        };
        traffic.upstream_rq_pending_total().inc();
        let _pending = Pending::new(traffic, permit);
        let mut gone = 0;
        loop {
            let permit = match breakers.acquire(self.priority, Resource::Connection) {
                Some(permit) => Some(permit),
                None if pool.connections() == 0 => {
                    Some(breakers.acquire_unchecked(self.priority, Resource::Connection))
                }
                None => None,
            };
            match permit {
                Some(permit) => {
                    let ends = (Arc::clone(&self.cluster), Arc::clone(&self.endpoint));
                    let connect = connect(ends, self.tls.clone(), self.preface, permit);
                    if let Some(stream) = pool.open(connect).await.map_err(Failure::Connect)? {
                        return Ok(stream);
                    }
                    // All streams of it may have been taken by others who waited; or it is gone.
                    gone += u32::from(pool.connections() == 0);
                    if gone == MOST_GONE {
                        return Err(Failure::Reset(ResetReason::Refused));
                    }
                }
                None => {
                    traffic.upstream_cx_overflow().inc();
                    pool.wait().await.map_err(Failure::Connect)?;
                }
            }
            if let Some(stream) = pool.try_stream() {
                return Ok(stream);
            }
        }
    }
}

fn options(plan: &plan::Cluster) -> Options {
    let http = &plan.http;
    Options {
        h1: h1::Limits {
            head_bytes: http.max_response_headers_bytes as usize,
            fields: http.max_headers_count as usize,
            trailers: http.http1.enable_trailers,
            spelling: http.http1.header_case == HeaderCase::Preserve,
            ..h1::Limits::default()
        },
        h2: http2::options(&http.http2, http.max_response_headers_bytes, http.max_headers_count),
        idle_timeout: http.idle_timeout,
        max_connection_duration: http.max_connection_duration,
        max_requests_per_connection: u64::from(http.max_requests_per_connection),
    }
}

/// Connections that a request opens and finds gone before it takes itself for refused.
const MOST_GONE: u32 = 3;

/// A request that waits for a connection.
struct Pending<'a> {
    traffic: &'a TrafficStats,
    _permit: Permit,
}

impl<'a> Pending<'a> {
    fn new(traffic: &'a TrafficStats, permit: Permit) -> Self {
        traffic.upstream_rq_pending_active().inc();
        Self { traffic, _permit: permit }
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.traffic.upstream_rq_pending_active().dec();
    }
}

/// Counts a connection for as long as it lives.
struct Counted {
    cluster: Arc<Cluster>,
    opened: tokio::time::Instant,
    _active: ActiveConnection,
    _permit: Permit,
}

impl Guard for Counted {
    fn speaks(&self, protocol: Protocol) {
        let traffic = &self.cluster.stats.traffic;
        match protocol {
            Protocol::Http2 => traffic.upstream_cx_http2_total().inc(),
            Protocol::Http10 | Protocol::Http11 | Protocol::Http3 => traffic.upstream_cx_http1_total().inc(),
        }
    }

    fn ends(&self, end: End, busy: bool) {
        let traffic = &self.cluster.stats.traffic;
        match end {
            End::Remote | End::Local => {}
            End::CloseAnnounced => traffic.upstream_cx_close_notify().inc(),
            End::IdleTimeout => traffic.upstream_cx_idle_timeout().inc(),
            End::MaxDuration => traffic.upstream_cx_max_duration_reached().inc(),
            End::MaxRequests => traffic.upstream_cx_max_requests().inc(),
            End::Protocol => traffic.upstream_cx_protocol_error().inc(),
        }
        let remote = end == End::Remote;
        if remote { traffic.upstream_cx_destroy_remote() } else { traffic.upstream_cx_destroy_local() }.inc();
        if busy {
            traffic.upstream_cx_destroy_with_active_rq().inc();
            match remote {
                true => traffic.upstream_cx_destroy_remote_with_active_rq().inc(),
                false => traffic.upstream_cx_destroy_local_with_active_rq().inc(),
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let traffic = &self.cluster.stats.traffic;
        traffic.upstream_cx_active().dec();
        traffic.upstream_cx_destroy().inc();
        traffic.upstream_cx_length_ms().record_ms(self.opened.elapsed());
    }
}

/// Opens a connection that counts as one of its cluster's until its guard is dropped.
pub(super) async fn connect(
    (cluster, endpoint): (Arc<Cluster>, Arc<Endpoint>),
    tls: Option<Arc<ClientTls>>,
    preface: Option<Preface>,
    permit: Permit,
) -> Result<Connected, ConnectError> {
    let started = tokio::time::Instant::now();
    let active = endpoint.begin_connection();
    let traffic = &cluster.stats.traffic;
    traffic.upstream_cx_total().inc();
    traffic.upstream_cx_active().inc();
    let counted = Counted { cluster: Arc::clone(&cluster), opened: started, _active: active, _permit: permit };
    let opened = open(&cluster.plan, &endpoint.address, tls.as_deref(), preface.as_ref()).await;
    let stream = opened.inspect_err(|error| {
        traffic.upstream_cx_connect_fail().inc();
        let outcome = match error {
            ConnectError::Timeout => {
                traffic.upstream_cx_connect_timeout().inc();
                Outcome::ConnectTimeout
            }
            ConnectError::Transport(_) | ConnectError::Io(_) => Outcome::ConnectFailed,
        };
        cluster.report(&endpoint, outcome);
    })?;
    traffic.upstream_cx_connect_ms().record_ms(started.elapsed());
    let note = chain::upstream_tls_info(&stream, tls.as_deref()).map(|info| Rc::new(info) as Rc<dyn Any>);
    Ok(Connected { stream, guard: Box::new(counted), note })
}

/// What the note of a connection says of its TLS session.
pub(crate) fn tls_of(stream: &ClientStream) -> Option<TlsInfo> {
    stream.facts().note.as_ref()?.downcast_ref::<TlsInfo>().cloned()
}

/// Opens a transport to an address as the cluster says: TCP, PROXY protocol, then TLS, within its connect timeout.
pub async fn open(
    plan: &plan::Cluster,
    address: &Address,
    tls: Option<&ClientTls>,
    preface: Option<&Preface>,
) -> Result<Stream, ConnectError> {
    let broken = |error| ConnectError::Io(io_text(&error));
    let whole = async {
        let options = connect_options(plan, address);
        let mut stream = meltemi_net::connect(address, &options).await.map_err(broken)?;
        if let Some(preface) = preface {
            stream.write_all(&preface.encode(&stream)).await.map_err(broken)?;
        }
        let Some(tls) = tls else { return Ok(stream) };
        let connected = meltemi_net::tls::connect(tls.config(), tls.server_name(), stream).await;
        connected.map_err(|error| ConnectError::Transport(format!("TLS_error:|{error}:TLS_error_end")))
    };
    tokio::time::timeout(plan.connect_timeout, whole).await.unwrap_or(Err(ConnectError::Timeout))
}

fn connect_options(plan: &plan::Cluster, address: &Address) -> ConnectOptions {
    let mut options = ConnectOptions {
        keepalive: plan.keepalive.map(|k| Keepalive { probes: k.probes, time: k.time, interval: k.interval }),
        ..ConnectOptions::default()
    };
    if let (Some(bind), Some(address)) = (&plan.bind, address.socket()) {
        options.source = bind.source_for(address.ip());
        options.transparent = bind.freebind;
    }
    options
}

/// The errno's own words, as Envoy shows them.
fn io_text(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    }
}

/// Whether a cluster's TLS is not the mesh's: Istio says so in its metadata, and a sidecar would take its names for the mesh's.
fn keeps_alpn(metadata: &Metadata) -> bool {
    metadata.value("istio", &["alpn_override"]).and_then(serde_json::Value::as_str) == Some("false")
}

/// The TLS context for a request to an endpoint, and what tells its connections apart.
pub(crate) fn tls_context(
    worker: &Worker,
    cluster: &Cluster,
    endpoint: &Endpoint,
    mode: Mode,
    (alpn, authority): (Option<&meltemi_filters::AlpnOverrides>, &str),
) -> (Option<Arc<ClientTls>>, u64) {
    let Transport::Tls(base) = cluster.transport(endpoint) else { return (None, 0) };
    let protocol = if mode == Mode::Http2 { Protocol::Http2 } else { Protocol::Http11 };
    let alpn = alpn.filter(|_| !keeps_alpn(&cluster.plan.metadata)).and_then(|overrides| overrides.offered(protocol));
    let sni = cluster.plan.http.auto_sni.then(|| plan::route::find::without_port(authority));
    // An address is no server name (RFC 6066 section 3): the configured one stays, unless the certificate must show the address.
    let is_address = |sni: &str| sni.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
    let sni = sni.filter(|sni| !sni.is_empty() && (cluster.plan.http.auto_san_validation || !is_address(sni)));
    let (tls, id) = worker.transports.tls(base, mode, alpn, sni);
    (Some(tls), id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_mesh_are_not_offered_where_the_cluster_says_that_its_tls_is_another() {
        let of = |value: serde_json::Value| Metadata { filters: [("istio".into(), value)].into() };
        assert!(keeps_alpn(&of(serde_json::json!({ "alpn_override": "false" }))));
        assert!(!keeps_alpn(&of(serde_json::json!({ "alpn_override": "true" }))));
        assert!(!keeps_alpn(&of(serde_json::json!({}))) && !keeps_alpn(&Metadata::default()));
    }
}
