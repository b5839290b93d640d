//! Health, metrics and debug pages.
//!
//! Debug pages show the whole mesh, so they are for clients on this machine only. Secrets are never shown.

mod debug;
mod dump;

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::extract::{ConnectInfo, Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use meltemi_telemetry::Registry;
use meltemi_telemetry::metrics::Filter;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::State;

pub(crate) async fn serve(listener: TcpListener, state: Arc<State>, mut stopped: watch::Receiver<bool>) -> Result<()> {
    let service = router(state).into_make_service_with_connect_info::<SocketAddr>();
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
        .route("/debug/endpointz", get(debug::endpointz))
        .route("/debug/endpointShardz", get(debug::endpointz))
        .route("/debug/configz", get(debug::configz))
        .route("/debug/mesh", get(debug::mesh))
        .route("/debug/push_status", get(debug::push_status))
        .layer(axum::middleware::from_fn(local_only));
    Router::new()
        .route("/ready", get(|| async { "" }))
        .route("/healthz/ready", get(|| async { "" }))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .route("/stats/prometheus", get(metrics))
        .merge(debug)
        .with_state(state)
}

async fn local_only(ConnectInfo(peer): ConnectInfo<SocketAddr>, request: Request, next: Next) -> Response {
    if !peer.ip().to_canonical().is_loopback() {
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

async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let registry: &Registry = &state.stats.registry;
    let mut text = registry.prometheus(&Filter::default());
    let counters = &state.certificates;
    for (name, value) in [
        ("citadel_server_csr_count", &counters.requests),
        ("citadel_server_authentication_failure_count", &counters.authentication_failures),
        ("citadel_server_csr_sign_err_count", &counters.signing_failures),
        ("citadel_server_success_cert_issuance_count", &counters.issued),
    ] {
        let value = value.load(std::sync::atomic::Ordering::Relaxed);
        text.push_str(&format!("# TYPE {name} counter\n{name} {value}\n"));
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
