//! Pages of health, metrics and debugging over HTTP/1.1, for whoever reaches their port.
//!
//! Owns how much a stranger can make such a port hold: connections, heads that do not end, answers that nobody reads. Knows nothing of
//! what the pages say, and opens no port. Costs a task a connection.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Of one port at once: probes, scrapers and people have a few. Those beyond are closed at once.
pub const MAX_CONNECTIONS: usize = 256;
/// The longest that the head of a request may take, and that a connection may rest before it.
const HEAD: Duration = Duration::from_secs(30);
/// After so long a connection takes no further request,
const LIFE: Duration = Duration::from_secs(5 * 60);
/// and after so much more it is cut, whoever still reads.
const LAST_ANSWER: Duration = Duration::from_secs(60);
/// After a failed accept, which is mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `stop` is done and the requests under way are answered. What `ends` makes of a connection is its [`ConnectInfo`].
pub async fn serve<E: Clone + Send + Sync + 'static>(
    listener: TcpListener,
    routes: Router,
    ends: impl Fn(&TcpStream, SocketAddr) -> E,
    stop: impl Future<Output = ()>,
) {
    let limit = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let (leave, leaving) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stop.as_mut() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "pages: accepting");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = limit.clone().try_acquire_owned() else {
            tracing::debug!(%peer, limit = MAX_CONNECTIONS, "pages: a connection too many");
            continue;
        };
        let (routes, leaving) = (routes.clone().layer(Extension(ConnectInfo(ends(&stream, peer)))), leaving.clone());
        connections.spawn(async move {
            connection(stream, routes, leaving).await;
            drop(permit);
        });
    }
    drop(listener);
    leave.send_replace(true);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, routes: Router, mut leaving: watch::Receiver<bool>) {
    // An answer in two pieces would wait for the peer's acknowledgement of the first.
    let _ = stream.set_nodelay(true);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD);
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    let end = async {
        tokio::select! {
            _ = leaving.wait_for(|leaving| *leaving) => {}
            () = sleep(LIFE) => {}
        }
    };
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = end => None,
    };
    let ended = match ended {
        Some(ended) => Ok(ended),
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(LAST_ANSWER, connection).await
        }
    };
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "pages: connection"),
        Err(_) => tracing::debug!("pages: a connection whose answer nobody reads is cut"),
    }
}

#[cfg(test)]
mod tests;
