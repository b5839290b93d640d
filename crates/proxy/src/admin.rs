//! The admin port: Envoy's paths and shapes.
//!
//! Reads what the main thread holds; nothing here is on a request's path. Private keys never leave: dumps are redacted.

mod anomalies;
mod certs;
mod clusters;
mod commands;
mod config_dump;
mod listeners;
mod logging;
mod process;
mod stats;
#[cfg(test)]
mod tests;

pub use listeners::Bound;

use crate::anomalies::Board;
use crate::configurator::Configurator;
use crate::worker::{Phase, Reach};
use axum::Router;
use axum::extract::{Query, State};
use axum::handler::Handler;
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use meltemi_filters::Context;
use meltemi_plan::bootstrap::{Node, RuntimeLayer};
use meltemi_proto::Any;
use meltemi_telemetry::Registry;
use meltemi_telemetry::logging::Logging;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::sync::{mpsc, watch};

/// What the admin port shows and what it may change.
pub struct AdminState {
    pub configurator: Mutex<Configurator>,
    pub bootstrap: Any,
    pub node: Node,
    /// The layers of the bootstrap.
    pub runtime: Vec<RuntimeLayer>,
    /// What filters share, the files of access logs among it.
    pub filters: Arc<Context>,
    /// Where listeners are whose port was left to the system.
    pub bound: Bound,
    /// What anomaly detection has found.
    pub anomalies: Arc<Board>,
    pub registry: Registry,
    pub logging: Option<Arc<Logging>>,
    pub started: SystemTime,
    pub concurrency: usize,
    /// `/healthcheck/fail`
    pub health_failed: AtomicBool,
    /// What the workers are doing.
    pub phase: watch::Sender<Phase>,
    /// How long listeners go on accepting after they were asked to drain gracefully.
    pub drain_time: Duration,
    /// The process is about to end.
    pub ending: AtomicBool,
    /// All first configuration is in force.
    pub initialized: watch::Sender<bool>,
    pub quit: mpsc::Sender<()>,
}

type Parameters = Query<BTreeMap<String, String>>;

impl AdminState {
    /// Enters a later phase; whether it was one.
    pub fn advance(&self, to: Phase) -> bool {
        self.phase.send_if_modified(|phase| {
            let later = to > *phase;
            *phase = if later { to } else { *phase };
            later
        })
    }

    /// Opens the files of the process's log and of access logs anew, after rotation.
    pub fn reopen_logs(&self) {
        if let Some(logging) = &self.logging {
            logging.reopen();
        }
        self.filters.logs.reopen();
    }

    /// Envoy's server states.
    pub fn server_state(&self) -> &'static str {
        if self.ending.load(Ordering::Relaxed) || self.health_failed.load(Ordering::Relaxed) {
            "DRAINING"
        } else if *self.initialized.borrow() {
            "LIVE"
        } else {
            "PRE_INITIALIZING"
        }
    }
}

pub fn router(state: Arc<AdminState>) -> Router {
    let routes = Router::new()
        .route("/", asked(commands::help))
        .route("/help", asked(commands::help))
        .route("/anomalies", asked(anomalies::anomalies))
        .route("/certs", asked(certs::certs))
        .route("/clusters", asked(clusters::clusters))
        .route("/config_dump", asked(config_dump::config_dump))
        .route("/contention", asked(process::contention))
        .route("/hot_restart_version", asked(process::hot_restart_version))
        .route("/init_dump", asked(process::init_dump))
        .route("/listeners", asked(listeners::listeners))
        .route("/memory", asked(process::memory))
        .route("/ready", asked(ready))
        .route("/runtime", asked(process::runtime))
        .route("/server_info", asked(server_info))
        .route("/stats", asked(stats::stats))
        .route("/stats/prometheus", asked(stats::prometheus));
    let told = Router::new()
        .route("/allocprofiler", post(process::no_profiler))
        .route("/cpuprofiler", post(process::no_profiler))
        .route("/drain_listeners", post(drain_listeners))
        .route("/healthcheck/fail", post(fail))
        .route("/healthcheck/ok", post(ok))
        .route("/heapprofiler", post(process::no_profiler))
        .route("/logging", post(logging::set).get(logging::levels))
        .route("/quitquitquit", post(quit))
        .route("/reopen_logs", post(logging::reopen))
        .route("/reset_counters", post(stats::reset_counters))
        .route("/runtime_modify", post(process::runtime_modify));
    routes
        .merge(told)
        .fallback(commands::unknown)
        .method_not_allowed_fallback(commands::wrong_method)
        .layer(middleware::from_fn(commands::with_headers))
        .with_state(state)
}

/// What only tells may be asked by POST as well, as of Envoy.
fn asked<H, T>(handler: H) -> MethodRouter<Arc<AdminState>>
where
    H: Handler<T, Arc<AdminState>>,
    T: 'static,
{
    get(handler.clone()).post(handler)
}

fn text(body: impl Into<String>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], body.into()).into_response()
}

fn pretty(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

/// The question was wrong.
fn refused(reason: impl Into<String>) -> Response {
    (StatusCode::BAD_REQUEST, text(reason)).into_response()
}

/// A regular expression among the parameters.
fn pattern(parameters: &BTreeMap<String, String>, name: &str) -> Result<Option<regex::Regex>, String> {
    let pattern = parameters.get(name).map(|text| regex::Regex::new(text)).transpose();
    pattern.map_err(|error| format!("Invalid regex in {name}: {error}\n"))
}

async fn ready(State(state): State<Arc<AdminState>>) -> Response {
    let name = state.server_state();
    let status = if name == "LIVE" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, text(format!("{name}\n"))).into_response()
}

async fn server_info(State(state): State<Arc<AdminState>>) -> Response {
    let uptime = state.started.elapsed().unwrap_or_default().as_secs();
    pretty(&json!({
        "version": format!("meltemi/{}", env!("CARGO_PKG_VERSION")),
        "state": state.server_state(),
        "uptime_current_epoch": format!("{uptime}s"),
        "uptime_all_epochs": format!("{uptime}s"),
        "command_line_options": { "concurrency": state.concurrency },
        "node": { "id": &*state.node.id, "cluster": &*state.node.cluster, "metadata": state.node.metadata },
    }))
}

/// As Envoy's: `inboundonly` leaves other listeners alone, `graceful` closes them after the drain time, and `skip_exit` with it
/// does not close them at all.
async fn drain_listeners(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let given = |name| parameters.contains_key(name);
    if given("skip_exit") && !given("graceful") {
        return refused("skip_exit requires graceful\n");
    }
    let reach = if given("inboundonly") { Reach::Inbound } else { Reach::All };
    if !given("graceful") {
        state.advance(Phase::Closed(reach));
    } else if state.advance(Phase::Leaving(reach)) && !given("skip_exit") {
        tokio::spawn(async move {
            tokio::time::sleep(state.drain_time).await;
            state.advance(Phase::Closed(reach));
        });
    }
    text("OK\n")
}

async fn fail(State(state): State<Arc<AdminState>>) -> Response {
    state.health_failed.store(true, Ordering::Relaxed);
    text("OK\n")
}

async fn ok(State(state): State<Arc<AdminState>>) -> Response {
    state.health_failed.store(false, Ordering::Relaxed);
    text("OK\n")
}

async fn quit(State(state): State<Arc<AdminState>>) -> Response {
    // A full channel means that the end is already asked for.
    let _ = state.quit.try_send(());
    text("OK\n")
}
