//! The TCP proxy: a connection's bytes to a host of a cluster.

mod tunnel;

use std::{net::SocketAddr, pin::pin, rc::Rc, sync::Arc, time::Duration};

use meltemi_filters::{ConnectionInfo, LogType, ResponseFlags, Scope, StreamInfo, TcpReport, TcpStats};
use meltemi_http::pool::{ConnectError, Mode};
use meltemi_net::{Copied, CopyEnd, Stream, copy_bidirectional};
use meltemi_plan::{TcpProxy, cluster::UpstreamFilter, common::Value};
use meltemi_upstream::{Cluster, Endpoint, Outcome, PickContext, Resource, RoutingPriority, TrafficStats, Unresolved};

use crate::{
    chain,
    demand::Need,
    router::{self, Failure, Preface},
    worker::{ConnectionHandle, LiveChain, LiveTcp, Worker},
};

/// Serves a connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    (chain, proxy): (&LiveChain, &Arc<TcpProxy>),
    stream: Stream,
    connection: Rc<ConnectionInfo>,
    handle: ConnectionHandle,
) {
    let mut info = StreamInfo::new(connection);
    let live = &chain.tcp;
    let mut reports: Vec<TcpReport> = live.stats.iter().map(|_| TcpReport::default()).collect();
    let relay = relay(&worker, (live, proxy), stream, &mut info, &mut reports);
    match proxy.max_downstream_duration {
        Some(limit) => {
            if tokio::time::timeout(limit, relay).await.is_err() {
                info.flags |= ResponseFlags::DURATION_TIMEOUT;
            }
        }
        None => relay.await,
    }
    drop(handle);
    info.finish();
    for (stats, report) in live.stats.iter().zip(&mut reports) {
        stats.end(report, &info);
    }
    live.logs.log(&Scope { log_type: LogType::TcpConnectionEnd, ..Scope::new(&info) });
}

async fn relay(
    worker: &Rc<Worker>,
    (live, proxy): (&LiveTcp, &TcpProxy),
    mut near: Stream,
    info: &mut StreamInfo,
    reports: &mut [TcpReport],
) {
    let (name, of_cluster) = proxy.cluster.pick(worker.random());
    let metadata = of_cluster.or(proxy.metadata_match.as_ref());
    let Some(cluster) = find_cluster(worker, proxy, name).await else {
        info.flags |= ResponseFlags::NO_CLUSTER;
        return;
    };
    info.upstream.cluster = Some(Arc::clone(&cluster.plan));
    let Some(permit) = cluster.breakers.acquire(RoutingPriority::Default, Resource::Connection) else {
        info.flags |= ResponseFlags::UPSTREAM_OVERFLOW;
        cluster.stats.traffic.upstream_cx_overflow().inc();
        return;
    };
    let destination = destination(live, &cluster, info).await;
    // A tunnel's connection is the pool's, which counts it itself.
    let _permit = if proxy.tunnel.is_none() { Some(permit) } else { None };
    let (endpoint, far) = match connect(worker, (proxy, metadata, destination), &cluster, info).await {
        Ok(connected) => connected,
        Err(failure) => {
            info.flags |= failure.flags();
            if !matches!(failure, Failure::NoHealthyHost) {
                near.reset_on_close();
            }
            return;
        }
    };
    let traffic = &cluster.stats.traffic;
    let copied = Copied::default();
    let end = match far {
        Far::Own(mut far) => {
            let _active = endpoint.begin_connection();
            let _counted = Counted::begin(traffic);
            introduce(&mut far, (&cluster, &endpoint), live, info).await;
            let tally = Tally { traffic, copied: &copied, info };
            let relay = copy_bidirectional(&mut near, &mut far, proxy.idle_timeout, &copied);
            watch(relay, tally, (&live.stats, reports)).await
        }
        Far::Tunnel(mut tunnel) => {
            info.upstream.local = Some(tunnel.stream.facts().local.clone());
            info.upstream.tls = router::tls_of(&tunnel.stream);
            let tally = Tally { traffic, copied: &copied, info };
            let relay = tunnel::copy(&mut near, &mut tunnel.stream, proxy.idle_timeout, &copied);
            watch(Box::pin(relay), tally, (&live.stats, reports)).await
        }
    };
    info.flags |= flags_of(&end);
}

/// Where the connection was going; for a dynamic forward proxy, where the host is that its TLS greeting names.
async fn destination(live: &LiveTcp, cluster: &Cluster, info: &mut StreamInfo) -> Option<SocketAddr> {
    let Some(cache) = cluster.dns_cache() else { return info.connection.local.socket() };
    let forward = live.sni_forward.as_ref().filter(|forward| *forward.cache.name == *cache.settings().name)?;
    let name = info.connection.requested_server_name.clone()?;
    match cache.address(&name, forward.port).await {
        Ok(address) => Some(address),
        Err(unresolved) => {
            if matches!(unresolved, Unresolved::Failed(_)) {
                info.flags |= ResponseFlags::DNS_FAILURE;
            }
            None
        }
    }
}

/// How the bytes reach the host.
enum Far {
    /// On a connection of their own.
    Own(Stream),
    Tunnel(Box<tunnel::Tunnel>),
}

/// Notes what is known of a new connection, and exchanges metadata with its peer where the cluster says so.
async fn introduce(
    far: &mut Stream,
    (cluster, endpoint): (&Cluster, &Endpoint),
    live: &LiveTcp,
    info: &mut StreamInfo,
) {
    info.upstream.local = Some(far.local_addr());
    info.upstream.tls = chain::upstream_tls_info(far, cluster.transport(endpoint).tls());
    let exchanges = cluster.plan.filters.iter().any(|f| matches!(f, UpstreamFilter::MetadataExchange(_)));
    if exchanges && let Ok(peer) = chain::introduce(far, &live.introduction).await {
        info.upstream.peer = peer;
    }
}

/// The cluster by its name, after waiting for it where the proxy may.
async fn find_cluster(worker: &Worker, proxy: &TcpProxy, name: &Arc<str>) -> Option<Arc<Cluster>> {
    let found = worker.world().clusters.get(name).cloned();
    let (None, Some(waits)) = (&found, proxy.on_demand) else { return found };
    let world = worker.ask(Need::Cluster(Arc::clone(name)), waits.timeout).await?;
    world.clusters.get(name).cloned()
}

/// Envoy has no flag for an idle TCP connection.
fn flags_of(end: &CopyEnd) -> ResponseFlags {
    match end {
        CopyEnd::Finished | CopyEnd::A(_) | CopyEnd::Idle => ResponseFlags::NONE,
        CopyEnd::B(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
            ResponseFlags::UPSTREAM_REMOTE_RESET
        }
        CopyEnd::B(_) => ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
    }
}

/// What was relayed, which counts also when the relay is dropped before its end.
struct Tally<'a> {
    traffic: &'a TrafficStats,
    copied: &'a Copied,
    info: &'a mut StreamInfo,
}

impl Tally<'_> {
    fn take(&mut self) -> &StreamInfo {
        self.info.bytes_received = self.copied.a_to_b.get();
        self.info.bytes_sent = self.copied.b_to_a.get();
        self.info
    }
}

impl Drop for Tally<'_> {
    fn drop(&mut self) {
        self.take();
        self.traffic.upstream_cx_tx_bytes_total().add(self.info.bytes_received);
        self.traffic.upstream_cx_rx_bytes_total().add(self.info.bytes_sent);
    }
}

/// A connection of a cluster that is open.
struct Counted<'a>(&'a TrafficStats);

impl<'a> Counted<'a> {
    fn begin(traffic: &'a TrafficStats) -> Self {
        traffic.upstream_cx_total().inc();
        traffic.upstream_cx_active().inc();
        Self(traffic)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.upstream_cx_active().dec();
    }
}

/// Relays, reporting to the metrics from time to time.
async fn watch(
    relay: impl Future<Output = CopyEnd>,
    mut tally: Tally<'_>,
    (stats, reports): (&[TcpStats], &mut [TcpReport]),
) -> CopyEnd {
    let mut relay = pin!(relay);
    let Some(interval) = stats.iter().map(|stats| stats.interval).min() else { return relay.await };
    loop {
        for (stats, report) in stats.iter().zip(&mut *reports) {
            stats.tick(report, tally.take());
        }
        if let Ok(end) = tokio::time::timeout(interval, relay.as_mut()).await {
            return end;
        }
    }
}

/// Connects, to another host after each failure, as often as the proxy may.
async fn connect(
    worker: &Rc<Worker>,
    (proxy, metadata, destination): (&TcpProxy, Option<&Value>, Option<SocketAddr>),
    cluster: &Arc<Cluster>,
    info: &mut StreamInfo,
) -> Result<(Arc<Endpoint>, Far), Failure> {
    let (base, longest) = proxy.backoff.unwrap_or((Duration::ZERO, Duration::ZERO));
    let mut wait = base;
    let mut last = Failure::NoHealthyHost;
    let mut tried = Vec::new();
    for attempt in 0..proxy.max_connect_attempts.max(1) {
        if attempt > 0 && !wait.is_zero() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
        let hash = proxy.hash_source_ip.then(|| info.connection.remote.socket()).flatten();
        let context = PickContext {
            hash: hash.map(|address| xxhash_rust::xxh64::xxh64(address.ip().to_string().as_bytes(), 0)),
            original_dst: destination,
            previous: &tried,
            metadata,
            reselect: tried.len(),
            ..PickContext::default()
        };
        let endpoint = worker.pick(cluster, &context).map_err(|_| Failure::NoHealthyHost)?;
        info.upstream.attempts += 1;
        info.upstream.host = Some(endpoint.address.clone());
        match open(worker, proxy, (cluster, &endpoint), info).await {
            Ok(far) => {
                cluster.report(&endpoint, Outcome::Connected);
                return Ok((endpoint, far));
            }
            Err(failure) => {
                tried.push(endpoint.id);
                info.upstream.transport_failure = failure.transport_failure().map(Into::into);
                last = failure;
            }
        }
    }
    cluster.stats.traffic.upstream_cx_connect_attempts_exceeded().inc();
    // As Envoy has it, also where a single attempt was allowed.
    info.flags |= ResponseFlags::UPSTREAM_RETRY_LIMIT_EXCEEDED;
    Err(last)
}

async fn open(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    (cluster, endpoint): (&Arc<Cluster>, &Arc<Endpoint>),
    info: &StreamInfo,
) -> Result<Far, Failure> {
    if let Some(plan) = &proxy.tunnel {
        let tunnel = Box::pin(tunnel::open(worker, plan, (cluster, endpoint), info)).await?;
        return Ok(Far::Tunnel(Box::new(tunnel)));
    }
    let sni = info.connection.requested_server_name.clone().unwrap_or_default();
    let (tls, _) = router::tls_context(worker, cluster, endpoint, Mode::Http1, (None, &sni));
    let preface = Preface::of(cluster, endpoint, Some(&info.connection));
    let opened = router::open(&cluster.plan, &endpoint.address, tls.as_deref(), preface.as_ref()).await;
    opened.map(Far::Own).map_err(|error| {
        let outcome = match &error {
            ConnectError::Timeout => Outcome::ConnectTimeout,
            ConnectError::Transport(_) | ConnectError::Io(_) => Outcome::ConnectFailed,
        };
        cluster.report(endpoint, outcome);
        cluster.stats.traffic.upstream_cx_connect_fail().inc();
        Failure::Connect(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    #[test]
    fn a_hosts_reset_is_told_from_a_broken_connection_and_idleness_has_no_flag() {
        let broken = |kind| flags_of(&CopyEnd::B(Error::from(kind)));
        assert_eq!(broken(ErrorKind::ConnectionReset), ResponseFlags::UPSTREAM_REMOTE_RESET);
        assert_eq!(broken(ErrorKind::BrokenPipe), ResponseFlags::UPSTREAM_CONNECTION_TERMINATION);
        assert_eq!(flags_of(&CopyEnd::Idle), ResponseFlags::NONE);
    }
}
