//! Clients that keep their host in a cookie or a header.

use super::client::{Action, Probe};
use super::random::Random;
use super::{Plan, manager, socket};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meltemi_proto::session::SessionCookie;
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};

const PROBES: usize = 30;

fn state(random: &mut Random) -> Value {
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.http.stateful_session.{name}");
    if random.chance(30) {
        let config = json!({ "@type": kind("header.v3.HeaderBasedSessionState"), "name": "x-mine" });
        return json!({ "name": "envoy.http.stateful_session.header", "typed_config": config });
    }
    let mut cookie = json!({ "name": "mine", "path": random.pick(&["/", "", "/a", "/a/"]) });
    if random.chance(30) {
        cookie["attributes"] = json!([{ "name": "SameSite", "value": "Strict" }, { "name": "Secure" }]);
    }
    let config = json!({ "@type": kind("cookie.v3.CookieBasedSessionState"), "cookie": cookie });
    json!({ "name": "envoy.http.stateful_session.cookie", "typed_config": config })
}

fn session(random: &mut Random, with_state: usize) -> Value {
    let mut session = json!({ "strict": random.chance(30) });
    if random.chance(with_state) {
        session["session_state"] = state(random);
    }
    session
}

fn typed(mut config: Value, message: &str) -> Value {
    config["@type"] = json!(format!("type.googleapis.com/envoy.extensions.filters.http.stateful_session.v3.{message}"));
    config
}

fn per_route(random: &mut Random) -> Value {
    let own = if random.chance(25) {
        json!({ "disabled": true })
    } else {
        json!({ "stateful_session": session(random, 85) })
    };
    json!({ "envoy.filters.http.stateful_session": typed(own, "StatefulSessionPerRoute") })
}

fn add_cluster(plan: &mut Plan<'_>, random: &mut Random) {
    let statuses = ["HEALTHY", "HEALTHY", "HEALTHY", "UNHEALTHY", "DRAINING", "UNHEALTHY"];
    let endpoint = |(address, status): (&SocketAddr, &str)| json!({ "endpoint": { "address": socket(*address) }, "health_status": status });
    let endpoints: Vec<Value> = plan.setup.backends.plain.iter().zip(statuses).map(endpoint).collect();
    let mut common = json!({ "healthy_panic_threshold": { "value": 0 } });
    if random.chance(60) {
        let all = ["HEALTHY", "UNHEALTHY", "DRAINING", "DEGRADED"];
        common["override_host_status"] = json!({ "statuses": random.some(&all, 60) });
    }
    plan.cluster(json!({
        "name": "sessions", "type": "STATIC", "circuit_breakers": { "thresholds": [{ "max_retries": 1000 }] }, "connect_timeout": "2s", "lb_policy": "MAGLEV", "common_lb_config": common,
        "load_assignment": { "cluster_name": "sessions", "endpoints": [{ "lb_endpoints": endpoints }] },
    }));
}

/// What a client may have kept: of a member, of nobody, or nonsense.
fn kept(random: &mut Random, plan: &Plan<'_>) -> String {
    let backends = &plan.setup.backends;
    let address = match random.below(8) {
        0 => backends.refused.to_string(),
        1 => "nonsense".to_owned(),
        n => backends.plain[n - 2].to_string(),
    };
    match random.below(6) {
        0 => STANDARD.encode(address),
        1 => "????".to_owned(),
        _ => STANDARD.encode(meltemi_proto::encode(&SessionCookie { address, expires: 0 })),
    }
}

fn request(random: &mut Random, plan: &Plan<'_>) -> String {
    let path = random.pick(&["/a", "/a/b", "/ab?x=1", "/b", "/own"]);
    let mut text = format!("GET {path} HTTP/1.1\r\nhost: sessions.example\r\nx-test-id: @ID@\r\n");
    text += &format!("x-key: {}\r\n", random.below(20));
    if random.chance(70) {
        text += &format!("cookie: other=1; mine={}\r\n", kept(random, plan));
    }
    if random.chance(50) {
        let address = random.pick(&[&plan.setup.backends.plain[1], &plan.setup.backends.plain[4]]);
        text += &format!("x-mine: {}\r\n", STANDARD.encode(address.to_string()));
    }
    text += random.pick(&["", "", "x-want: fail=1\r\n", "x-want: cookie\r\n"]);
    text + "\r\n"
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let action = json!({ "cluster": "sessions", "hash_policy": [{ "header": { "header_name": "x-key" } }],
        "retry_policy": { "retry_on": "5xx", "num_retries": 1,
            "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.005s" } } });
    let mut own = json!({ "name": "own", "match": { "prefix": "/own" }, "route": action });
    own["typed_per_filter_config"] = per_route(random);
    let mut host = json!({ "name": "all", "domains": ["*"],
        "routes": [own, { "name": "rest", "match": { "prefix": "/" }, "route": action }] });
    if random.chance(40) {
        host["typed_per_filter_config"] = per_route(random);
    }
    let filter = typed(session(random, 70), "StatefulSession");
    let manager = manager::manager(json!([host]), manager::filters(vec![("stateful_session", filter)]), json!({}));
    let listener = plan.listener(manager::listener(manager));
    add_cluster(plan, random);
    for _ in 0..PROBES {
        let bytes = request(random, plan);
        plan.probe(Probe::new("sessions", listener, Ipv4Addr::LOCALHOST, Action::Http1 { bytes, answers: 1 }), 0);
    }
}
