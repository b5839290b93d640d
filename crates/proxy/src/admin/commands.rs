//! The list of commands, and what is answered to those that there are not.

use super::text;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// Paths with what they do.
const COMMANDS: &[(&str, &str)] = &[
    ("/anomalies", "print what anomaly detection has found"),
    ("/certs", "print certificates in use"),
    ("/clusters", "upstream cluster status (?format=json, ?filter=REGEX)"),
    ("/config_dump", "dump accepted configuration (?resource=, ?mask=, ?name_regex=, ?include_eds)"),
    ("/contention", "lock contention, which is not traced"),
    ("/drain_listeners (POST)", "drain listeners (?inboundonly, ?graceful, ?skip_exit)"),
    ("/healthcheck/fail (POST)", "cause the server to fail health checks"),
    ("/healthcheck/ok (POST)", "cause the server to pass health checks"),
    ("/help", "print out list of admin commands"),
    ("/hot_restart_version", "hot restart, which there is not"),
    ("/init_dump", "what the first configuration still waits for"),
    ("/listeners", "print listener addresses (?format=json)"),
    ("/logging (POST)", "query/change log levels (?level=LEVEL, ?COMPONENT=LEVEL, ?paths=COMPONENT:LEVEL,...)"),
    ("/memory", "print current memory usage"),
    ("/quitquitquit (POST)", "exit the server"),
    ("/ready", "print server state, return 200 if LIVE, otherwise return 503"),
    ("/reopen_logs (POST)", "reopen access logs"),
    ("/reset_counters (POST)", "reset all counters to zero"),
    ("/runtime", "print runtime values"),
    ("/server_info", "print server version/status information"),
    (
        "/stats",
        "print metrics (?filter=REGEX, ?invert_filter, ?usedonly, ?type=, ?format=json|prometheus|text, ?histogram_buckets=)",
    ),
    ("/stats/prometheus", "print metrics in Prometheus text"),
];

fn listed() -> String {
    let lines: String = COMMANDS.iter().map(|(path, what)| format!("  {path}: {what}\n")).collect();
    format!("admin commands are:\n{lines}")
}

pub async fn help() -> Response {
    text(listed())
}

pub async fn unknown() -> Response {
    (StatusCode::NOT_FOUND, text(format!("invalid path. {}", listed()))).into_response()
}

/// A command that changes something was asked by GET.
pub async fn wrong_method(method: Method) -> Response {
    (StatusCode::METHOD_NOT_ALLOWED, text(format!("Method {method} not allowed, POST required."))).into_response()
}

/// As Envoy has them on every answer.
pub async fn with_headers(request: Request, next: axum::middleware::Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, max-age=0"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::SERVER, HeaderValue::from_static("envoy"));
    response
}
