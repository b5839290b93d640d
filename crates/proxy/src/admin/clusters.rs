//! `/clusters` in Envoy's text and JSON.

use super::{AdminState, Parameters, config_dump, pretty, refused, text};
use axum::extract::{Query, State};
use axum::response::Response;
use meltemi_upstream::{Cluster, Endpoint, Fault};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub async fn clusters(State(state): State<Arc<AdminState>>, Query(parameters): Parameters) -> Response {
    let pattern = match super::pattern(&parameters, "filter") {
        Ok(pattern) => pattern,
        Err(reason) => return refused(reason),
    };
    let configurator = state.configurator.lock();
    let world = configurator.world();
    let fixed: BTreeSet<Arc<str>> = configurator
        .held_clusters()
        .filter(|(held, _)| held.source.fixed)
        .map(|(held, _)| held.plan.name.clone())
        .collect();
    drop(configurator);
    let mut clusters: Vec<Arc<Cluster>> = world.clusters.iter().cloned().collect();
    clusters.retain(|cluster| pattern.as_ref().is_none_or(|pattern| pattern.is_match(&cluster.plan.name)));
    clusters.sort_by(|a, b| a.plan.name.cmp(&b.plan.name));
    if parameters.get("format").map(String::as_str) == Some("json") {
        return pretty(&json!({ "cluster_statuses": clusters
            .iter()
            .map(|cluster| status(cluster, !fixed.contains(&cluster.plan.name)))
            .collect::<Vec<_>>() }));
    }
    text(clusters.iter().map(|cluster| lines(cluster, !fixed.contains(&cluster.plan.name))).collect::<String>())
}

fn thresholds(cluster: &Cluster) -> [(&'static str, &meltemi_plan::cluster::Thresholds); 2] {
    let breakers = &cluster.plan.breakers;
    [("default", &breakers.default), ("high", &breakers.high)]
}

/// Averages of success rates are not kept, which `-1` says.
const OUTLIER_LINES: [&str; 4] = [
    "success_rate_average",
    "success_rate_ejection_threshold",
    "local_origin_success_rate_average",
    "local_origin_success_rate_ejection_threshold",
];

fn lines(cluster: &Cluster, added_via_api: bool) -> String {
    let name = &cluster.plan.name;
    let mut out = format!("{name}::observability_name::{}\n", cluster.plan.stat_name);
    if cluster.plan.outlier.is_some() {
        for what in OUTLIER_LINES {
            let _ = writeln!(out, "{name}::outlier::{what}::-1");
        }
    }
    for (priority, t) in thresholds(cluster) {
        for (what, value) in [
            ("max_connections", t.max_connections),
            ("max_pending_requests", t.max_pending_requests),
            ("max_requests", t.max_requests),
            ("max_retries", t.max_retries),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{name}::{priority}_priority::{what}::{value}");
        }
    }
    let _ = writeln!(out, "{name}::added_via_api::{added_via_api}");
    for host in cluster.hosts() {
        for (what, value) in counters(&host) {
            let _ = writeln!(out, "{name}::{}::{what}::{value}", host.address);
        }
        let locality = &host.locality;
        for (what, value) in [
            ("hostname", host.hostname.to_string()),
            ("health_flags", host.state.health_text()),
            ("weight", host.weight.to_string()),
            ("region", locality.region.to_string()),
            ("zone", locality.zone.to_string()),
            ("sub_zone", locality.sub_zone.to_string()),
            ("canary", is_canary(&host).to_string()),
            ("priority", host.priority.to_string()),
            ("success_rate", "-1".to_owned()),
            ("local_origin_success_rate", "-1".to_owned()),
        ] {
            let _ = writeln!(out, "{name}::{}::{what}::{value}", host.address);
        }
    }
    out
}

/// As Envoy reads it of a host's metadata.
fn is_canary(host: &Endpoint) -> bool {
    let metadata = host.metadata.as_ref();
    metadata.and_then(|metadata| metadata.value("envoy.lb", &["canary"])).and_then(Value::as_bool).unwrap_or(false)
}

fn counters(host: &Endpoint) -> [(&'static str, u64); 8] {
    let stats = &host.state.stats;
    [
        ("cx_active", stats.cx_active.load(Relaxed).into()),
        ("cx_connect_fail", stats.cx_connect_fail.load(Relaxed)),
        ("cx_total", stats.cx_total.load(Relaxed)),
        ("rq_active", stats.rq_active.load(Relaxed).into()),
        ("rq_error", stats.rq_error.load(Relaxed)),
        ("rq_success", stats.rq_success.load(Relaxed)),
        ("rq_timeout", stats.rq_timeout.load(Relaxed)),
        ("rq_total", stats.rq_total.load(Relaxed)),
    ]
}

fn status(cluster: &Cluster, added_via_api: bool) -> Value {
    let hosts: Vec<Value> = cluster.hosts().iter().map(|host| host_status(host)).collect();
    let thresholds: Vec<Value> = thresholds(cluster)
        .into_iter()
        .map(|(priority, t)| {
            json!({ "priority": priority.to_uppercase(), "max_connections": t.max_connections,
                "max_pending_requests": t.max_pending_requests, "max_requests": t.max_requests, "max_retries": t.max_retries })
        })
        .collect();
    let mut status = json!({
        "name": &*cluster.plan.name,
        "observability_name": &*cluster.plan.stat_name,
        "circuit_breakers": { "thresholds": thresholds },
        "host_statuses": hosts,
    });
    if added_via_api {
        status["added_via_api"] = true.into();
    }
    status
}

fn host_status(host: &Endpoint) -> Value {
    let mut health = serde_json::Map::new();
    for (fault, name) in Fault::NAMES.into_iter().filter(|(fault, _)| host.state.has(*fault)) {
        if !matches!(fault, Fault::Eds | Fault::EdsDegraded) {
            health.insert(name.to_owned(), json!(true));
        }
    }
    let eds = match (host.state.has(Fault::Eds), host.state.has(Fault::EdsDegraded)) {
        (true, _) => "UNHEALTHY",
        (false, true) => "DEGRADED",
        (false, false) => "HEALTHY",
    };
    health.insert("eds_health_status".to_owned(), json!(eds));
    let gauge = |name: &str| name.ends_with("_active");
    let stats: Vec<Value> = counters(host)
        .into_iter()
        .map(|(name, value)| {
            let kind = if gauge(name) { json!({ "name": name, "type": "GAUGE" }) } else { json!({ "name": name }) };
            let mut kind = kind;
            if value > 0 {
                // As protobuf prints 64-bit numbers.
                kind["value"] = json!(value.to_string());
            }
            kind
        })
        .collect();
    json!({
        "address": config_dump::host_address(&host.address),
        "stats": stats,
        "health_status": health,
        "weight": host.weight,
        "hostname": &*host.hostname,
        "priority": host.priority,
        "locality": { "region": &*host.locality.region, "zone": &*host.locality.zone, "sub_zone": &*host.locality.sub_zone },
    })
}
