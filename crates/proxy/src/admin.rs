//! The admin port: Envoy's paths and shapes.
//!
//! Reads what the main thread holds; nothing here is on a request's path. Private keys never leave: dumps are redacted.

mod clusters;
mod config_dump;
mod stats;

use crate::configurator::Configurator;
use crate::worker::{Phase, Reach};
use axum::Router;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use meltemi_plan::bootstrap::Node;
use meltemi_proto::Any;
use meltemi_telemetry::Registry;
use meltemi_telemetry::logging::Logging;
use parking_lot::Mutex;
use serde_json::json;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

/// What the admin port shows and what it may change.
pub struct AdminState {
    pub configurator: Mutex<Configurator>,
    pub bootstrap: Any,
    pub node: Node,
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

const PATHS: &[(&str, &str)] = &[
    ("/certs", "certificates in use"),
    ("/clusters", "upstream cluster status (?format=json)"),
    ("/config_dump", "accepted configuration (?resource=, ?mask=, ?name_regex=, ?include_eds)"),
    ("/drain_listeners", "drain listeners (POST)"),
    ("/healthcheck/fail", "fail readiness (POST)"),
    ("/healthcheck/ok", "undo /healthcheck/fail (POST)"),
    ("/help", "this list"),
    ("/listeners", "listener addresses (?format=json)"),
    ("/logging", "log levels (POST ?level=LEVEL or ?COMPONENT=LEVEL)"),
    ("/quitquitquit", "end the process (POST)"),
    ("/ready", "200 LIVE once configuration is in force"),
    ("/server_info", "version and state"),
    ("/stats", "metrics (?filter=REGEX, ?usedonly, ?format=json|prometheus)"),
    ("/stats/prometheus", "metrics in Prometheus text"),
];

pub fn router(state: Arc<AdminState>) -> Router {
    Router::new()
        .route("/", get(help))
        .route("/help", get(help))
        .route("/certs", get(certs))
        .route("/clusters", get(clusters::clusters))
        .route("/config_dump", get(config_dump::config_dump))
        .route("/drain_listeners", post(drain_listeners))
        .route("/healthcheck/fail", post(fail))
        .route("/healthcheck/ok", post(ok))
        .route("/listeners", get(listeners))
        .route("/logging", get(logging).post(set_logging))
        .route("/quitquitquit", post(quit))
        .route("/ready", get(ready))
        .route("/server_info", get(server_info))
        .route("/stats", get(stats::stats))
        .route("/stats/prometheus", get(stats::prometheus))
        .with_state(state)
}

pub async fn serve(listener: TcpListener, state: Arc<AdminState>) -> io::Result<()> {
    axum::serve(listener, router(state)).await
}

fn text(body: impl Into<String>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=UTF-8")], body.into()).into_response()
}

fn pretty(value: &serde_json::Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], format!("{value:#}\n")).into_response()
}

async fn help() -> Response {
    let lines: Vec<String> = PATHS.iter().map(|(path, what)| format!("  {path}: {what}\n")).collect();
    text(format!("admin commands are:\n{}", lines.concat()))
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

async fn listeners(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let configurator = state.configurator.lock();
    let held: Vec<_> = configurator.held_listeners().map(|(held, _)| held.plan.clone()).collect();
    drop(configurator);
    if parameters.get("format").map(String::as_str) == Some("json") {
        let statuses: Vec<_> = held
            .iter()
            .map(|plan| json!({ "name": &*plan.name, "local_address": config_dump::address(&plan.address) }))
            .collect();
        return pretty(&json!({ "listener_statuses": statuses }));
    }
    text(held.iter().map(|plan| format!("{}::{}\n", plan.name, plan.address)).collect::<String>())
}

async fn certs(State(state): State<Arc<AdminState>>) -> Response {
    let configurator = state.configurator.lock();
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let certificates: Vec<_> = configurator
        .secrets
        .certificates()
        .into_iter()
        .map(|(name, identity)| {
            let info = identity.info();
            let left = info.not_after.duration_since(SystemTime::now()).unwrap_or_default().as_secs();
            let uris = info.uri_sans.iter().map(|uri| json!({ "uri": uri }));
            let names: Vec<_> = uris.chain(info.dns_sans.iter().map(|dns| json!({ "dns": dns }))).collect();
            json!({ "ca_cert": [], "cert_chain": [{
                "path": format!("<inline> {name}"),
                "serial_number": info.serial_hex,
                "subject_alt_names": names,
                "days_until_expiration": (left / 86400).to_string(),
                "valid_from_seconds": seconds(info.not_before),
                "expiration_seconds": seconds(info.not_after),
            }] })
        })
        .collect();
    pretty(&json!({ "certificates": certificates }))
}

async fn logging(State(state): State<Arc<AdminState>>) -> Response {
    match &state.logging {
        Some(logging) => text(stats::levels(logging)),
        None => (StatusCode::NOT_FOUND, "logging is not ours\n").into_response(),
    }
}

async fn set_logging(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let Some(logging) = &state.logging else { return (StatusCode::NOT_FOUND, "logging is not ours\n").into_response() };
    match stats::set_levels(logging, &parameters) {
        Ok(()) => text(stats::levels(logging)),
        Err(reason) => (StatusCode::BAD_REQUEST, format!("{reason}\n")).into_response(),
    }
}

/// As Envoy's: `inboundonly` leaves other listeners alone, `graceful` closes them after the drain time, and `skip_exit` with it
/// does not close them at all.
async fn drain_listeners(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let given = |name| parameters.contains_key(name);
    if given("skip_exit") && !given("graceful") {
        return (StatusCode::BAD_REQUEST, "skip_exit requires graceful\n").into_response();
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
