//! Our rate limit server with clients that are not ours: grpcio with PyPI's xds-protos, and Envoy as the gateway of a mesh whose
//! RateLimitPolicies both read.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::control_plane::{Discovery, eventually, gateway, service, start_envoy_gateway, start_own_gateway};
use crate::support::{Answer, Backend, Process, cache, exchange, free_address, get, meltemi};

const LIMITS: &str = "
domain: shop
descriptors:
- key: user
  rate_limit: {unit: year, requests_per_unit: 3}
- key: user
  value: guest
  shadow_mode: true
  rate_limit: {unit: year, requests_per_unit: 1}
- key: path
  descriptors:
  - key: method
    value: POST
    rate_limit: {name: posts, unit: year, requests_per_unit: 100}
";

struct Server {
    _process: Process,
    grpc: SocketAddr,
    http: SocketAddr,
}

fn server(dir: &Path, more: &[&str]) -> Server {
    let (grpc, http) = (free_address(), free_address());
    let file = dir.join("limits.yaml");
    std::fs::write(&file, LIMITS).expect("write");
    let mut command = meltemi();
    command.args(["ratelimit", "--listen", &grpc.to_string(), "--http", &http.to_string(), "--config"]).arg(file);
    let mut process = Process::start("ratelimit", command.args(more), dir);
    process.wait_listening(grpc);
    Server { _process: process, grpc, http }
}

fn request(entries: &[(&str, &str)], hits: u32) -> Value {
    let entries: Vec<_> = entries.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
    json!({ "domain": "shop", "hits_addend": hits, "descriptors": [{ "entries": entries }] })
}

/// The answers of a foreign client; or why there is none.
fn ask(server: SocketAddr, requests: &[Value], dir: &Path) -> Result<Vec<Value>, String> {
    let python = cache().join("venv/bin/python");
    if !python.exists() {
        return Err("skipped: no xds-protos; scripts/install-test-deps.sh installs it".to_owned());
    }
    let file = dir.join("requests.json");
    std::fs::write(&file, Value::from(requests.to_vec()).to_string()).expect("write");
    let mut command = Command::new(python);
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/peers.py"));
    let output = command.args(["ratelimit-client", &server.to_string()]).arg(file).output().expect("python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout).expect("JSON"))
}

fn code(answer: &Value) -> &str {
    answer["overallCode"].as_str().unwrap_or_default()
}

#[test]
fn a_foreign_client_is_limited_as_the_documents_say() {
    let dir = tempfile::tempdir().expect("folder");
    let server = server(dir.path(), &["--response-headers"]);
    let ann = request(&[("user", "ann")], 0);
    let mut requests = vec![ann; 4];
    requests.extend([
        request(&[("user", "guest")], 5),
        request(&[("path", "/a"), ("method", "POST")], 10),
        request(&[("path", "/a"), ("method", "GET")], 10),
    ]);
    let answers = match ask(server.grpc, &requests, dir.path()) {
        Ok(answers) => answers,
        Err(skipped) => return println!("{skipped}"),
    };
    let codes: Vec<_> = answers.iter().map(code).collect();
    assert_eq!(codes, ["OK", "OK", "OK", "OVER_LIMIT", "OK", "OK", "OK"]);
    let first = &answers[0]["statuses"][0];
    assert_eq!(first["currentLimit"], json!({ "requestsPerUnit": 3, "unit": "YEAR" }));
    assert_eq!(first["limitRemaining"], 2);
    assert!(first["durationUntilReset"].as_str().is_some_and(|text| text.ends_with('s')), "{first}");
    assert_eq!(answers[3]["responseHeadersToAdd"][1], json!({ "key": "RateLimit-Remaining", "value": "0" }));
    let posts = &answers[5]["statuses"][0];
    assert_eq!((&posts["limitRemaining"], &posts["currentLimit"]["name"]), (&json!(90), &json!("posts")));
    assert!(answers[6]["statuses"][0].get("currentLimit").is_none(), "no limit is for it");

    let metrics = get(server.http, "localhost", "/metrics").expect("metrics").text();
    for line in [
        "ratelimit_service_rate_limit_total_hits{domain=\"shop\",key1=\"user\"} 4",
        "ratelimit_service_rate_limit_over_limit{domain=\"shop\",key1=\"user\"} 1",
        "ratelimit_service_rate_limit_shadow_mode{domain=\"shop\",key1=\"user_guest\"} 4",
        "ratelimit_service_rate_limit_within_limit{domain=\"shop\",key1=\"path\",key2=\"method_POST\"} 10",
    ] {
        assert!(metrics.contains(line), "{line} in\n{metrics}");
    }
}

#[test]
fn servers_that_share_a_redis_share_the_count() {
    let dir = tempfile::tempdir().expect("folder");
    let redis = free_address();
    let port = redis.port().to_string();
    let program = cache().join("redis/redis-server");
    if !program.exists() {
        return println!("skipped: no Redis; scripts/install-test-deps.sh installs it");
    }
    let mut command = Command::new(program);
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]).current_dir(dir.path());
    let mut redis_server = Process::start("redis", &mut command, dir.path());
    redis_server.wait_listening(redis);
    let address = redis.to_string();
    let more = ["--redis", &address, "--redis-timeout", "5s"];
    let (one, two) = (server(dir.path(), &more), server(dir.path(), &more));
    let ann = [request(&[("user", "ann")], 2)];
    let first = match ask(one.grpc, &ann, dir.path()) {
        Ok(answers) => answers,
        Err(skipped) => return println!("{skipped}"),
    };
    let second = ask(two.grpc, &ann, dir.path()).expect("as before");
    assert_eq!((code(&first[0]), code(&second[0])), ("OK", "OVER_LIMIT"));
}

/// Local limits by header and by path, and one that is counted by a server.
fn policy(paths_dry_run: bool) -> String {
    format!(
        "apiVersion: meltemi.io/v1alpha1
kind: RateLimitPolicy
metadata: {{name: edge, namespace: istio-system}}
spec:
  selector: {{matchLabels: {{istio: ingressgateway}}}}
  rules:
  - name: users
    match: {{paths: [/users/*]}}
    by: [{{header: x-user}}]
    limit: {{requests: 2, unit: DAY}}
    response: {{headers: {{retry-after: '60'}}}}
  - name: paths
    match: {{paths: [/paths/*]}}
    by: [{{path: true}}]
    limit: {{requests: 1, unit: DAY}}
    dryRun: {paths_dry_run}
  - name: writes
    match: {{methods: [POST]}}
    scope: GLOBAL
    provider: {{address: 'ratelimit.default.svc.cluster.local:9000', failOpen: false, timeout: 5s}}
    limit: {{requests: 1, unit: YEAR}}
    response: {{status: 503}}
"
    )
}

fn ask_gateway(gateway: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: shop.example\r\n{headers}content-length: 0\r\nconnection: close\r\n\r\n"
    );
    exchange(gateway, request.as_bytes()).expect(path)
}

const ROUTE: &str = "apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec: {hosts: [shop.example], gateways: [istio-system/gw], http: [{route: [{destination: {host: shop}}]}]}
";

fn a_gateway_limits_as_the_policy_says(start: fn(SocketAddr, &Path) -> Result<Process, String>) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("folder");
    let backend = Backend::start("shop");
    let (port, grpc, http) = (free_address(), free_address(), free_address());
    let discovery = Discovery::start(
        dir.path(),
        &[
            ("shop.yaml", service("shop", "http", 80, &[(backend.address, "v1")])),
            ("ratelimit.yaml", service("ratelimit", "grpc", 9000, &[(grpc, "v1")])),
            ("routes.yaml", gateway(port.port(), ROUTE)),
            ("policy.yaml", policy(false)),
        ],
    );
    let mut command = meltemi();
    command.args(["ratelimit", "--listen", &grpc.to_string(), "--http", &http.to_string(), "--policies"]);
    let mut limiter = Process::start("ratelimit", command.arg(&discovery.folder), dir.path());
    limiter.wait_listening(grpc);
    let mut proxy = start(discovery.grpc, dir.path())?;
    proxy.wait_listening(port);
    eventually("first answer", || match ask_gateway(port, "GET", "/", "").status {
        200 => Ok(()),
        status => Err(format!("{status}\n{}\n{}", proxy.output(), discovery.process.output())),
    });

    let statuses = |method: &str, path: &str, headers: &str, count: usize| -> Vec<u16> {
        (0..count).map(|_| ask_gateway(port, method, path, headers).status).collect()
    };
    assert_eq!(statuses("GET", "/users/a", "x-user: ann\r\n", 2), [200, 200]);
    let refused = ask_gateway(port, "GET", "/users/b", "x-user: ann\r\n");
    assert_eq!((refused.status, refused.header("retry-after")), (429, Some("60")));
    assert_eq!(statuses("GET", "/users/a", "x-user: bob\r\n", 3), [200, 200, 429], "each value has its count");
    assert_eq!(statuses("GET", "/users/a", "", 4), [200; 4], "what lacks the header is not counted");
    assert_eq!(statuses("GET", "/other", "x-user: ann\r\n", 4), [200; 4], "what does not match is not limited");

    assert_eq!(statuses("GET", "/paths/a", "", 1), [200]);
    let forged = "x-meltemi-rate-limit-path: /paths/other\r\n";
    assert_eq!(statuses("GET", "/paths/a?more", forged, 1), [429], "neither a query nor a header makes another path");
    let other = ask_gateway(port, "GET", "/paths/b", "");
    assert!(other.status == 200 && !other.text().contains("x-meltemi"), "{}", other.text());

    assert_eq!(statuses("POST", "/any", "", 3), [200, 503, 503], "counted by the server");
    let metrics = get(http, "localhost", "/metrics").expect("metrics").text();
    let key = "{domain=\"meltemi\",key1=\"rule_istio-system/edge/writes\"}";
    assert!(metrics.contains(&format!("ratelimit_service_rate_limit_over_limit{key} 2")), "{metrics}");

    discovery.write("policy.yaml", &policy(true));
    eventually("a dry run", || match statuses("GET", "/paths/a", "", 2)[..] {
        [200, 200] => Ok(()),
        ref other => Err(format!("{other:?}")),
    });
    drop(limiter);
    assert_eq!(statuses("POST", "/any", "", 1), [500], "closed, as the policy says");
    assert_eq!(statuses("GET", "/any", "", 1), [200]);
    Ok(())
}

#[test]
fn envoy_limits_as_the_policy_says() {
    if let Err(skipped) = a_gateway_limits_as_the_policy_says(start_envoy_gateway) {
        println!("{skipped}");
    }
}

#[test]
fn our_proxy_limits_as_the_policy_says() {
    a_gateway_limits_as_the_policy_says(|discovery, dir| Ok(start_own_gateway(discovery, dir))).expect("it is there");
}
