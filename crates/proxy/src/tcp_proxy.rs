//! The TCP proxy: a connection's bytes to a host of a cluster.

use std::{rc::Rc, sync::Arc, time::Duration};

use meltemi_filters::{ConnectionInfo, ResponseFlags, StreamInfo};
use meltemi_http::pool::{ConnectError, Mode};
use meltemi_net::{Copied, CopyEnd, Stream, copy_bidirectional};
use meltemi_plan::TcpProxy;
use meltemi_upstream::{Cluster, Endpoint, Outcome, PickContext, Resource, RoutingPriority};

use crate::{
    router::{self, Failure},
    worker::{ConnectionHandle, Worker},
};

/// Serves a connection to its end. Its record is returned complete, for the access log.
pub async fn serve(
    worker: Rc<Worker>,
    proxy: &Arc<TcpProxy>,
    stream: Stream,
    connection: Rc<ConnectionInfo>,
    handle: ConnectionHandle,
) -> StreamInfo {
    let mut info = StreamInfo::new(connection);
    let relay = relay(&worker, proxy, stream, &mut info);
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
    info
}

async fn relay(worker: &Rc<Worker>, proxy: &TcpProxy, mut near: Stream, info: &mut StreamInfo) {
    let random = worker.random();
    let (name, _) = proxy.cluster.pick(random);
    let world = worker.world();
    let Some(cluster) = world.clusters.get(name).cloned() else {
        info.flags |= ResponseFlags::NO_CLUSTER;
        info.set_details("cluster_not_found");
        return;
    };
    drop(world);
    info.upstream.cluster = Some(Arc::clone(&cluster.plan));
    let (endpoint, mut far) = match connect(worker, proxy, &cluster, info).await {
        Ok(connected) => connected,
        Err(failure) => {
            info.flags |= failure.flags();
            return near.reset_on_close();
        }
    };
    let Some(_permit) = cluster.breakers.acquire(RoutingPriority::Default, Resource::Connection) else {
        info.flags |= ResponseFlags::UPSTREAM_OVERFLOW;
        cluster.stats.traffic.upstream_cx_overflow().inc();
        return;
    };
    let _active = endpoint.begin_connection();
    let traffic = &cluster.stats.traffic;
    traffic.upstream_cx_total().inc();
    traffic.upstream_cx_active().inc();
    info.upstream.local = Some(far.local_addr());
    let copied = Copied::default();
    let end = copy_bidirectional(&mut near, &mut far, proxy.idle_timeout, &copied).await;
    traffic.upstream_cx_active().dec();
    traffic.upstream_cx_tx_bytes_total().add(copied.a_to_b.get());
    traffic.upstream_cx_rx_bytes_total().add(copied.b_to_a.get());
    info.bytes_received = copied.a_to_b.get();
    info.bytes_sent = copied.b_to_a.get();
    match end {
        CopyEnd::Finished | CopyEnd::A(_) => {}
        CopyEnd::Idle => info.flags |= ResponseFlags::STREAM_IDLE_TIMEOUT,
        CopyEnd::B(_) => info.flags |= ResponseFlags::UPSTREAM_CONNECTION_TERMINATION,
    }
}

/// Connects, to another host after each failure, as often as the proxy may.
async fn connect(
    worker: &Rc<Worker>,
    proxy: &TcpProxy,
    cluster: &Arc<Cluster>,
    info: &mut StreamInfo,
) -> Result<(Arc<Endpoint>, Stream), Failure> {
    let (base, longest) = proxy.backoff.unwrap_or((Duration::ZERO, Duration::ZERO));
    let mut wait = base;
    let mut last = Failure::NoHealthyHost;
    let mut tried = Vec::new();
    for attempt in 0..proxy.max_connect_attempts.max(1) {
        if attempt > 0 && !wait.is_zero() {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(longest);
        }
        info.upstream.attempts += 1;
        let hash = proxy.hash_source_ip.then(|| info.connection.remote.socket()).flatten();
        let context = PickContext {
            hash: hash.map(|address| xxhash_rust::xxh64::xxh64(address.ip().to_string().as_bytes(), 0)),
            original_dst: info.connection.local.socket(),
            previous: &tried,
            reselect: tried.len(),
            ..PickContext::default()
        };
        let endpoint = worker.pick(cluster, &context).map_err(|_| Failure::NoHealthyHost)?;
        info.upstream.host = Some(endpoint.address.clone());
        let sni = info.connection.requested_server_name.clone().unwrap_or_default();
        let (tls, _) = router::tls_context(worker, cluster, &endpoint, Mode::Http1, (None, &sni));
        match router::open(&cluster.plan, &endpoint.address, tls.as_deref()).await {
            Ok(stream) => {
                cluster.report(&endpoint, Outcome::Connected);
                return Ok((endpoint, stream));
            }
            Err(error) => {
                let outcome = match &error {
                    ConnectError::Timeout => Outcome::ConnectTimeout,
                    ConnectError::Transport(_) | ConnectError::Io(_) => Outcome::ConnectFailed,
                };
                cluster.report(&endpoint, outcome);
                cluster.stats.traffic.upstream_cx_connect_fail().inc();
                info.upstream.transport_failure = Some(error.to_string().into());
                tried.push(endpoint.id);
                last = Failure::Connect(error);
            }
        }
    }
    cluster.stats.traffic.upstream_cx_connect_attempts_exceeded().inc();
    Err(last)
}
