//! The agent's HTTP ports: readiness on 15021 and 15020, and Prometheus text on 15020 and 15090.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use tokio::net::TcpListener;

pub type Told<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the proxy beside this agent tells of itself.
pub trait ProxyState: Send + Sync + 'static {
    /// Whether configuration has arrived and listeners serve; the reason otherwise.
    fn ready(&self) -> Told<'_, Result<(), String>>;
    /// Prometheus text.
    fn metrics(&self) -> Told<'_, String>;
}

async fn ready(State(state): State<Arc<dyn ProxyState>>) -> Response {
    match state.ready().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn metrics(State(state): State<Arc<dyn ProxyState>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], state.metrics().await).into_response()
}

/// The routes of every status port; a port serves those that Istio has there and more does no harm.
pub fn router(state: Arc<dyn ProxyState>) -> Router {
    Router::new()
        .route("/healthz/ready", get(ready))
        .route("/stats/prometheus", get(metrics))
        .route("/metrics", get(metrics))
        .with_state(state)
}

/// Serves the status routes on `address` until the task is dropped.
pub async fn serve(address: SocketAddr, state: Arc<dyn ProxyState>) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router(state)).await
}
