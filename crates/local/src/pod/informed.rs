//! Whether a replica's proxy has what it must before the mesh is announced: the endpoints of every service that it knows.
//!
//! Runs in the replica's network namespace, asks the proxy's own admin port, and only until the mesh is announced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::pod::probe::proxy_is_ready;

#[cfg(test)]
mod tests;

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);
const PAUSE: Duration = Duration::from_millis(25);
const PATIENCE: Duration = Duration::from_secs(2);
const MAX_BYTES: usize = 64 << 20;
const ANSWERS: usize = 8;

/// What proxies should come to know, as of one change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    pub generation: u64,
    /// Cluster name to the endpoints that it must have at least; a proxy may know less clusters.
    pub clusters: BTreeMap<String, BTreeSet<SocketAddr>>,
}

#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<ClusterStatus>,
}

#[derive(Deserialize)]
struct ClusterStatus {
    name: String,
    #[serde(default)]
    host_statuses: Vec<HostStatus>,
}

#[derive(Deserialize)]
struct HostStatus {
    address: HostAddress,
    #[serde(default)]
    health_status: HealthStatus,
}

#[derive(Default, Deserialize)]
struct HealthStatus {
    /// What discovery says of the host; without a word it serves.
    eds_health_status: Option<String>,
}

impl HostStatus {
    fn serves(&self) -> bool {
        matches!(self.health_status.eds_health_status.as_deref(), None | Some("HEALTHY" | "UNKNOWN"))
    }
}

#[derive(Deserialize)]
struct HostAddress {
    socket_address: Option<SocketAddress>,
}

#[derive(Deserialize)]
struct SocketAddress {
    address: String,
    port_value: u16,
}

impl Clusters {
    fn have(&self, expected: &Expected) -> bool {
        self.cluster_statuses.iter().all(|status| {
            let Some(wanted) = expected.clusters.get(&status.name) else { return true };
            let serving = status.host_statuses.iter().filter(|host| host.serves());
            let known = serving.filter_map(|host| host.address.socket_address.as_ref());
            let known: BTreeSet<_> =
                known.filter_map(|at| Some(SocketAddr::new(at.address.parse().ok()?, at.port_value))).collect();
            wanted.is_subset(&known)
        })
    }
}

/// Tells the newest generation that the proxy has in full, until nobody expects anything any more.
pub(crate) async fn watch(mut expected: watch::Receiver<Expected>, tell: impl Fn(u64) -> bool) {
    loop {
        let wanted = expected.borrow_and_update().clone();
        let has = tokio::time::timeout(PATIENCE, clusters()).await.ok().flatten();
        let has = has.is_some_and(|clusters| clusters.have(&wanted)) && workers_answer().await;
        let told = has && tell(wanted.generation);
        let changed = async { expected.changed().await.is_err() };
        let over = if told { changed.await } else { tokio::time::timeout(PAUSE, changed).await.unwrap_or(false) };
        if over {
            return;
        }
    }
}

/// Envoy tells of what its main thread knows. Readiness is answered by a worker, which takes what it was told between two answers;
/// several ask several workers.
async fn workers_answer() -> bool {
    for _ in 0..ANSWERS {
        if !proxy_is_ready().await {
            return false;
        }
    }
    true
}

async fn clusters() -> Option<Clusters> {
    let stream = TcpStream::connect(ADMIN).await.ok()?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
    // Once this is done its sender is gone, and with it the connection.
    let ask = async move {
        let request = Request::get("/clusters?format=json").header("host", "admin").body(Empty::<Bytes>::new()).ok()?;
        let response = sender.send_request(request).await.ok()?;
        let body = Limited::new(response.into_body(), MAX_BYTES).collect().await.ok()?;
        serde_json::from_slice(&body.to_bytes()).ok()
    };
    tokio::join!(ask, connection).0
}
