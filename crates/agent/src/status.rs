//! The agent's HTTP ports: readiness on 15021, 15020 and 15090, Prometheus text on 15020 and 15090, and on 15020 alone
//! what the kubelet asks of the application, the application's metrics, and orders to end.
//!
//! Anybody may ask; orders are taken from this pod alone.

use crate::app_metrics::AppMetrics;
use crate::app_probes::AppProbes;
use crate::call::{self, Caller};
use crate::environment::Settings;
use crate::termination::Termination;
use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get, post};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::net::TcpListener;

#[cfg(test)]
mod tests;

pub type Told<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the proxy beside this agent tells of itself, and takes.
pub trait ProxyState: Send + Sync + 'static {
    /// Whether configuration has arrived and listeners serve; the reason otherwise.
    fn ready(&self) -> Told<'_, Result<(), String>>;
    /// Prometheus text.
    fn metrics(&self) -> Told<'_, String>;
    /// How many clients are connected, those of the agent's and the proxy's own ports not counted.
    fn connections(&self) -> Told<'_, Result<u64, String>>;
    /// Asks clients to go, and goes on serving.
    fn drain(&self) -> Told<'_, ()>;
    /// The proxy will end: it is not ready any more.
    fn ending(&self);
}

/// What the status port serves beside readiness and the proxy's metrics.
pub struct Status {
    pub proxy: Arc<dyn ProxyState>,
    pub termination: Arc<Termination>,
    caller: Caller,
    probes: AppProbes,
    metrics: Option<AppMetrics>,
    scrapes: AtomicU64,
    port: u16,
}

impl Status {
    pub fn new(proxy: Arc<dyn ProxyState>, settings: &Settings) -> Arc<Self> {
        Arc::new(Self {
            termination: Termination::new(Arc::clone(&proxy), settings),
            proxy,
            caller: Caller::new(settings),
            probes: settings.app_probes.clone(),
            metrics: settings.app_metrics.clone(),
            scrapes: AtomicU64::new(0),
            port: settings.status_port,
        })
    }

    /// As istio-agent counts.
    fn own_metrics(&self) -> String {
        let scrapes = self.scrapes.load(Ordering::Relaxed);
        let failures = self.metrics.as_ref().map_or(0, AppMetrics::failures);
        format!(
            "# TYPE istio_agent_scrapes_total counter\nistio_agent_scrapes_total {scrapes}\n\
             # TYPE istio_agent_scrape_failures_total counter\n\
             istio_agent_scrape_failures_total{{type=\"application\"}} {failures}\n"
        )
    }
}

async fn ready(State(proxy): State<Arc<dyn ProxyState>>) -> Response {
    match proxy.ready().await {
        Ok(()) => StatusCode::OK.into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn metrics(State(proxy): State<Arc<dyn ProxyState>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], proxy.metrics().await).into_response()
}

async fn all_metrics(State(status): State<Arc<Status>>, asked: HeaderMap) -> Response {
    status.scrapes.fetch_add(1, Ordering::Relaxed);
    let own = status.own_metrics() + &status.proxy.metrics().await;
    match &status.metrics {
        Some(application) => {
            let (media, text) = application.merge(&status.caller, &asked, own).await;
            ([(header::CONTENT_TYPE, media)], text).into_response()
        }
        None => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], own).into_response(),
    }
}

async fn probe(State(status): State<Arc<Status>>, uri: Uri, asked: HeaderMap) -> Response {
    status.probes.ask(&status.caller, uri.path(), &asked, status.port).await.into_response()
}

/// Whether an order from this address is one of this pod. What a proxy passes on comes from loopback, too.
fn may_order(peer: IpAddr) -> bool {
    peer.to_canonical().is_loopback() && !call::is_passed_on(peer)
}

async fn drain(State(status): State<Arc<Status>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    if !may_order(peer.ip()) {
        return (StatusCode::FORBIDDEN, "orders are taken from localhost alone\n").into_response();
    }
    status.termination.drain().await;
    "OK".into_response()
}

async fn quit(State(status): State<Arc<Status>>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    if !may_order(peer.ip()) {
        return (StatusCode::FORBIDDEN, "orders are taken from localhost alone\n").into_response();
    }
    status.termination.quit();
    "OK".into_response()
}

/// What every port serves.
fn proxys_own(proxy: Arc<dyn ProxyState>) -> Router {
    Router::new()
        .route("/healthz/ready", get(ready))
        .route("/stats/prometheus", get(metrics))
        .route("/metrics", get(metrics))
        .with_state(proxy)
}

fn all(status: Arc<Status>) -> Router {
    let proxy = Arc::clone(&status.proxy);
    Router::new()
        .route("/stats/prometheus", get(all_metrics))
        .route("/metrics", get(all_metrics))
        .route("/app-health/{*probe}", any(probe))
        .route("/app-lifecycle/{*handler}", any(probe))
        .route("/drain", post(drain))
        .route("/quitquitquit", post(quit))
        .with_state(status)
        .merge(Router::new().route("/healthz/ready", get(ready)).with_state(proxy))
}

/// Listens on both families where there are both.
async fn listen(port: u16) -> std::io::Result<TcpListener> {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => Ok(listener),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
    }
}

/// Serves a port until the task is dropped.
pub async fn serve(port: u16, status: Arc<Status>) -> std::io::Result<()> {
    let routes = if port == status.port { all(status) } else { proxys_own(Arc::clone(&status.proxy)) };
    meltemi_pages::serve(listen(port).await?, routes, |_, peer| peer, std::future::pending()).await;
    Ok(())
}
