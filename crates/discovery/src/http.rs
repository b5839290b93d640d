//! Health, metrics and debug pages.
//!
//! Debug pages show the whole mesh, so they are for clients on this machine only, by whichever of its addresses.
//! Secrets are never shown.

mod debug;
mod dump;
mod metrics;
mod registry;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::IncomingStream;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::State;

pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) -> Result<()> {
    let service = router(state).into_make_service_with_connect_info::<Ends>();
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await) };
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    Ok(())
}

fn router(state: Arc<State>) -> Router {
    let debug = Router::new()
        .route("/debug/syncz", get(debug::syncz))
        .route("/debug/adsz", get(debug::adsz))
        .route("/debug/connections", get(debug::adsz))
        .route("/debug/config_dump", get(debug::config_dump))
        .route("/debug/registryz", get(debug::registryz))
        .route("/debug/endpointz", get(debug::endpoint_shardz))
        .route("/debug/endpointShardz", get(debug::endpoint_shardz))
        .route("/debug/configz", get(debug::configz))
        .route("/debug/authorizationz", get(debug::authorizationz))
        .route("/debug/mesh", get(debug::mesh))
        .route("/debug/authorityz", get(debug::authority))
        .route("/debug/push_status", get(debug::push_status))
        .layer(axum::middleware::from_fn(local_only));
    Router::new()
        .route("/ready", get(|| async { "" }))
        .route("/healthz/ready", get(|| async { "" }))
        .route("/version", get(version))
        .route("/metrics", get(prometheus))
        .route("/stats/prometheus", get(prometheus))
        .merge(debug)
        .with_state(state)
}

/// The two ends of a connection.
#[derive(Debug, Clone, Copy)]
struct Ends {
    peer: SocketAddr,
    own: Option<SocketAddr>,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { peer: *stream.remote_addr(), own: stream.io().local_addr().ok() }
    }
}

impl Ends {
    /// The client is on this machine: a connection to an address of one's own comes from that address.
    fn is_local(self) -> bool {
        let peer = self.peer.ip().to_canonical();
        peer.is_loopback() || self.own.is_some_and(|own| own.ip().to_canonical() == peer)
    }
}

async fn local_only(ConnectInfo(ends): ConnectInfo<Ends>, request: Request, next: Next) -> Response {
    if !ends.is_local() {
        return (StatusCode::FORBIDDEN, "debug pages are for local clients").into_response();
    }
    next.run(request).await
}

async fn version() -> Json<serde_json::Value> {
    Json(serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "revision": "",
        "status": "Clean",
        "tag": env!("CARGO_PKG_VERSION"),
        "product": "meltemi",
    }))
}

async fn prometheus(Shared(state): Shared<Arc<State>>) -> Response {
    let text = metrics::text(&state);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_local_by_loopback_or_by_an_address_of_this_machine() {
        for (peer, own, expected) in [
            ("127.0.0.1:1", "127.0.0.1:8080", true),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:8080", true),
            ("10.244.0.1:1", "10.244.0.1:8080", true),
            ("[::ffff:10.244.0.1]:1", "10.244.0.1:8080", true),
            ("10.244.0.7:1", "10.244.0.1:8080", false),
        ] {
            let ends = Ends { peer: peer.parse().unwrap(), own: Some(own.parse().unwrap()) };
            assert_eq!(ends.is_local(), expected, "{peer} to {own}");
        }
        assert!(!Ends { peer: "10.244.0.1:1".parse().unwrap(), own: None }.is_local());
    }
}
