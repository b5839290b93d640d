//! What a node's daemon tells of itself: that it is alive, whether it is ready, and what it did.
//!
//! Owns: `/healthz`, `/readyz` and `/metrics`, and the counters behind them, under Istio's names.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use meltemi_telemetry::metrics::{Counter, Filter, Labels, Registry};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(crate) struct Stats {
    registry: Registry,
    /// By result: `SUCCESS`, `WAITING`, `FAILURE`.
    installs: [(&'static str, Counter); 3],
    /// By what is done about a broken pod, and whether it could be.
    repairs: Vec<(&'static str, bool, Counter)>,
}

impl Stats {
    pub fn new() -> Self {
        let registry = Registry::new();
        let installs = ["SUCCESS", "WAITING", "FAILURE"]
            .map(|result| (result, registry.counter("istio_cni_installs_total", Labels::new([("result", result)]))));
        let mut repairs = Vec::new();
        for kind in ["delete", "label", "repair"] {
            for (done, result) in [(true, "SUCCESS"), (false, "FAIL")] {
                let labels = Labels::new([("result", result), ("type", kind)]);
                repairs.push((kind, done, registry.counter("istio_cni_repair_pods_repaired_total", labels)));
            }
        }
        Stats { registry, installs, repairs }
    }

    /// A look at the CNI folders.
    pub fn looked(&self, result: &str) {
        self.installs.iter().filter(|(of, _)| *of == result).for_each(|(_, counter)| counter.inc());
    }

    /// A broken pod, by what was done about it.
    pub fn repaired(&self, kind: &str, done: bool) {
        let counters = self.repairs.iter().filter(|(of, how, _)| *of == kind && *how == done);
        counters.for_each(|(_, _, counter)| counter.inc());
    }
}

/// Serves both ports for ever.
pub(crate) async fn serve(health: TcpListener, metrics: TcpListener, ready: watch::Receiver<bool>, stats: Arc<Stats>) {
    let state = move || {
        let code = if *ready.borrow() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        async move { code }
    };
    let health_routes = Router::new().route("/healthz", get(|| async { StatusCode::OK })).route("/readyz", get(state));
    let text = move || {
        let text = stats.registry.prometheus(&Filter::default());
        async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    let metrics_routes = Router::new().route("/metrics", get(text));
    let of = |listener, routes| meltemi_pages::serve(listener, routes, |_, peer| peer, std::future::pending());
    tokio::join!(of(health, health_routes), of(metrics, metrics_routes));
}
