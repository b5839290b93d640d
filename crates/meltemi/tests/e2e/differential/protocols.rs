//! HTTP/1 and HTTP/2 in all combinations: trailers, gRPC, 100-continue, HEAD, resets.

use super::client::{Action, Call, Probe};
use super::random::Random;
use super::{Plan, cluster, manager, tls};
use serde_json::{Value, json};
use std::net::Ipv4Addr;

const PROBES: usize = 44;

const CLUSTERS: &[&str] = &["http1", "http2", "downstream", "refused", "empty"];

fn retry(random: &mut Random) -> Value {
    json!({
        "retry_on": random.pick(&[
            "5xx", "reset", "refused-stream", "cancelled,unavailable", "internal", "resource-exhausted",
            "deadline-exceeded", "reset-before-request", "retriable-headers", "connect-failure", "gateway-error",
            "envoy-ratelimited",
        ]),
        "num_retries": 1 + random.below(2),
        "retry_back_off": { "base_interval": "0.001s", "max_interval": "0.005s" },
        "retriable_headers": [{ "name": "x-odd_name", "present_match": true }],
    })
}

fn route(random: &mut Random, cluster: &str) -> Value {
    let mut action =
        json!({ "cluster": format!("protocols-{cluster}"), "timeout": random.pick(&["0.500s", "0s", "15s"]) });
    if random.chance(50) {
        action["retry_policy"] = retry(random);
        if random.chance(25) {
            action["retry_policy"]["per_try_timeout"] = json!("0.150s");
        }
    }
    if random.chance(20) {
        action["idle_timeout"] = json!("0.250s");
    }
    let mut matched = json!({ "prefix": format!("/{cluster}") });
    if random.chance(15) {
        matched["grpc"] = json!({});
    }
    json!({ "name": cluster, "match": matched, "route": action })
}

fn settings(random: &mut Random) -> Value {
    json!({
        "proxy_100_continue": random.chance(40),
        "http_protocol_options": { "enable_trailers": random.chance(50) },
        "stream_idle_timeout": random.pick(&["0s", "0.500s"]),
    })
}

/// How the backend answers.
fn wanted(random: &mut Random) -> Option<String> {
    Some(match random.below(16) {
        0 => "reset".to_owned(),
        1 => "reset-first=1".to_owned(),
        2 => "refuse=1".to_owned(),
        3 => format!("status={}", random.pick(&["204", "304", "404", "500", "503", "599"])),
        4 => format!("grpc={}", random.below(17)),
        5 => format!("grpc-now={}", random.pick(&["0", "1", "4", "8", "13", "14", "99"])),
        6 => "trailers".to_owned(),
        7 => "chunked,trailers".to_owned(),
        8 => "close".to_owned(),
        9 => "chunked".to_owned(),
        10 => "grpc=0".to_owned(),
        11 => "delay=700".to_owned(),
        12 => "header-bytes=3000".to_owned(),
        13 => "headers=20".to_owned(),
        14 => random
            .pick(&["cookie", "x-odd_name,fail=1", "x-envoy-ratelimited,status=429", "x-envoy-overloaded,fail=9"])
            .to_owned(),
        _ => return None,
    })
}

fn headers(random: &mut Random) -> Vec<(String, String)> {
    let mut headers = vec![("x-test-id", "@ID@".to_owned())];
    if let Some(wanted) = wanted(random) {
        headers.push(("x-want", wanted));
    }
    if random.chance(25) {
        headers.push((
            "content-type",
            random.pick(&["application/grpc", "application/grpc+proto", "application/grpc-web", "text/x"]).to_owned(),
        ));
    }
    if random.chance(20) {
        headers.push(("te", random.pick(&["trailers", "gzip", "trailers, deflate"]).to_owned()));
    }
    if random.chance(15) {
        headers.push(("grpc-timeout", random.pick(&["100m", "2S", "1H", "bad", "100"]).to_owned()));
    }
    if random.chance(15) {
        let (name, value) = *random.pick(&[
            &("x-envoy-upstream-rq-timeout-ms", "200"),
            &("x-envoy-upstream-rq-per-try-timeout-ms", "100"),
            &("x-envoy-retry-on", "5xx"),
            &("x-envoy-retry-grpc-on", "unavailable"),
            &("x-envoy-max-retries", "2"),
            &("x-envoy-retriable-status-codes", "404,500"),
            &("x-envoy-expected-rq-timeout-ms", "300"),
        ]);
        headers.push((name, value.to_owned()));
    }
    headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn http1(random: &mut Random, path: &str) -> Action {
    let method = random.pick(&["GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "PATCH"]);
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: protocols.example\r\n");
    for (name, value) in headers(random) {
        text += &format!("{name}: {value}\r\n");
    }
    match random.below(8) {
        0 => text += "connection: keep-alive, te\r\n",
        1 => text += "connection: close\r\n",
        _ => {}
    }
    if matches!(method, "POST" | "PUT" | "PATCH") {
        text += match random.below(4) {
            0 if random.chance(40) => "expect: 100-continue\r\ncontent-length: 5\r\n\r\nhello",
            0 => "content-length: 5\r\n\r\nhello",
            1 => "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            2 => "transfer-encoding: chunked\r\ntrailer: x-t\r\n\r\n5\r\nhello\r\n0\r\nx-t: 1\r\n\r\n",
            _ => "content-length: 0\r\n\r\n",
        };
    } else {
        text += "\r\n";
    }
    Action::Http1 { bytes: text, answers: 1 }
}

fn http2(random: &mut Random, path: &str) -> Action {
    let method = random.pick(&["GET", "GET", "POST", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH"]);
    let mut call = Call::get("protocols.example", path);
    call.method = method.to_owned();
    call.headers = headers(random);
    if random.chance(10) {
        call.scheme = "https".to_owned();
    }
    if random.chance(10) {
        call.headers.push(("host".to_owned(), random.pick(&["protocols.example", "other.example"]).to_owned()));
    }
    if random.chance(15) {
        call.headers.push(("cookie".to_owned(), "a=1".to_owned()));
        call.headers.push(("cookie".to_owned(), "b=2".to_owned()));
    }
    if matches!(method, "POST" | "PUT" | "PATCH") {
        call.body = Some("hello".to_owned());
        if random.chance(25) {
            call.headers.push(("content-length".to_owned(), "5".to_owned()));
        }
        if random.chance(30) {
            call.trailers = vec![("x-request-trailer".to_owned(), "end".to_owned())];
        }
    }
    Action::Http2(call)
}

pub fn add(plan: &mut Plan<'_>, random: &mut Random) {
    let routes: Vec<Value> = CLUSTERS.iter().map(|cluster| route(random, cluster)).collect();
    let mut host = json!({ "name": "all", "domains": ["*"], "routes": routes });
    if random.chance(40) {
        host["include_request_attempt_count"] = json!(true);
        host["include_attempt_count_in_response"] = json!(true);
    }
    let manager = manager::manager(json!([host]), manager::filters(Vec::new()), settings(random));
    let listener = plan.listener(manager::listener(manager));
    let backends = &plan.setup.backends;
    let options = |kind| json!({ "typed_extension_protocol_options": tls::protocol(kind, json!({})) });
    let clusters = [
        cluster("protocols-http1", &[backends.plain[0]], options("http1")),
        cluster("protocols-http2", &[backends.plain[1]], options("http2")),
        cluster("protocols-downstream", &[backends.plain[2]], options("downstream")),
        cluster("protocols-refused", &[backends.refused], options("http2")),
        cluster("protocols-empty", &[], options("http1")),
    ];
    clusters.into_iter().for_each(|cluster| plan.cluster(cluster));
    for _ in 0..PROBES {
        let path = format!("/{}", CLUSTERS[random.below(CLUSTERS.len()).min(random.below(9))]);
        let action = if random.chance(50) { http1(random, &path) } else { http2(random, &path) };
        plan.probe(Probe::new("protocols", listener, Ipv4Addr::LOCALHOST, action), 0);
    }
}
