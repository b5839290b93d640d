//! Our rate limit server with a client that is not ours: grpcio with PyPI's xds-protos.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Process, cache, free_address, get, meltemi};

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
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &port, "--save", ""]).current_dir(dir.path());
    if Command::new("redis-server").arg("--version").output().is_err() {
        return println!("skipped: redis-server is not on this machine");
    }
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
