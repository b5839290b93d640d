//! CONNECT: tunnels that the proxy ends, and tunnels that its TCP proxy opens, by curl through our proxy and through Envoy under one
//! configuration.

use crate::support::{Backend, Process, any, envoy_proxy, free_address, own_proxy, proxies};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

fn at(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } })
}

/// A listener that ends tunnels, except those to `refused.example:80`.
fn terminator(listen: SocketAddr) -> Value {
    let tunnel = json!([{ "upgrade_type": "CONNECT", "connect_config": {} }]);
    let manager = any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({
            "stat_prefix": "tunnels",
            "http2_protocol_options": { "allow_connect": true },
            "upgrade_configs": [{ "upgrade_type": "CONNECT" }],
            "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [
                { "match": { "connect_matcher": {}, "headers": [{ "name": ":authority", "string_match": { "exact": "refused.example:80" } }] },
                  "direct_response": { "status": 403 } },
                { "match": { "connect_matcher": {} }, "route": { "cluster": "backend", "upgrade_configs": tunnel } },
                { "match": { "prefix": "/" }, "direct_response": { "status": 204 } },
            ] }] },
        }),
    );
    listener("l", listen, &manager)
}

fn listener(name: &str, listen: SocketAddr, filter: &Value) -> Value {
    json!({ "name": name, "address": at(listen), "filter_chains": [{ "filters": [{ "name": "f", "typed_config": filter }] }] })
}

fn cluster(name: &str, host: SocketAddr, http2: bool) -> Value {
    let mut cluster = json!({ "name": name, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {
        "cluster_name": name, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(host) } }] }] } });
    if http2 {
        let options = any(
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            json!({ "explicit_http_config": { "http2_protocol_options": { "allow_connect": true } } }),
        );
        cluster["typed_extension_protocol_options"] =
            json!({ "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options });
    }
    cluster
}

fn bootstrap(listen: SocketAddr, backend: SocketAddr) -> Value {
    json!({ "static_resources": { "listeners": [terminator(listen)], "clusters": [cluster("backend", backend, false)] } })
}

fn a_tunnel_leads_to_the_backend(mut command: Command, name: &'static str, dir: &Path) {
    let (listen, backend) = (free_address(), Backend::start("behind"));
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, bootstrap(listen, backend.address).to_string()).expect("write");
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start(name, &mut command, dir);
    proxy.wait_listening(listen);
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "10", "-w", "\n%{http_connect} %{http_code}"]).args(arguments);
        let output = command.output().expect("curl");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let via = format!("http://{listen}");
    // Two requests over one tunnel, then a body that needs it to carry both ways.
    let two = curl(&["-p", "-x", &via, "http://far.example/one", "http://far.example/two"]);
    assert!(two.contains("GET /one") && two.contains("GET /two") && two.contains("200 200"), "{name}: {two}");
    let long = "x".repeat(100_000);
    let post = curl(&["-p", "-x", &via, "-d", &long, "http://far.example/long"]);
    assert!(
        post.contains("POST /long") && post.ends_with("200 200"),
        "{name}: {}",
        &post[post.len().saturating_sub(200)..]
    );
    let refused = curl(&["-p", "-x", &via, "http://refused.example/"]);
    assert!(refused.contains("403"), "{name}: {refused}");
    let plain = curl(&[&via]);
    assert!(plain.ends_with("000 204"), "{name}: {plain}");
}

#[test]
fn connect_is_terminated_as_envoy_does() {
    if Command::new("curl").arg("--version").output().is_err() {
        return println!("skipped: no curl; scripts/install-test-deps.sh installs it");
    }
    let dir = tempfile::tempdir().expect("folder");
    proxies().into_iter().for_each(|(name, command)| a_tunnel_leads_to_the_backend(command, name, dir.path()));
}

/// A TCP proxy that opens tunnels; it logs flags and byte counts.
fn opener(name: &str, listen: SocketAddr, log: &Path, (cluster, mut tunnel): (&str, Value)) -> Value {
    tunnel["headers_to_add"] =
        json!([{ "header": { "key": "x-from", "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%" } }]);
    let format = format!("{name} %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %UPSTREAM_CLUSTER%\n");
    let log = any(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        json!({ "path": log, "log_format": { "text_format_source": { "inline_string": format } } }),
    );
    let proxy = any(
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        json!({ "stat_prefix": name, "cluster": cluster, "tunneling_config": tunnel, "max_connect_attempts": 2,
            "access_log": [{ "name": "file", "typed_config": log }] }),
    );
    listener(name, listen, &proxy)
}

/// What comes back until the other side closes, or says nothing more. (Envoy ends a tunnel over HTTP/1 when its client closes one
/// direction, and leaves the client waiting when the host does.)
fn talk(to: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).expect("the listener");
    stream.set_read_timeout(Some(Duration::from_secs(1))).expect("timeout");
    let mut got = Vec::new();
    // A refused tunnel is a reset, which any of these may meet.
    let _ = stream.write_all(sent);
    let _ = stream.read_to_end(&mut got);
    got
}

/// The lines of an access log, once there are as many as `count`: a line is written when a connection has ended, which may be after
/// the next one has.
fn lines_of(log: &Path, count: usize) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let lines: Vec<String> = std::fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect();
        if lines.len() >= count || Instant::now() > until {
            return lines;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The access log of what happened, in order.
fn a_connection_goes_through_tunnels(mut command: Command, name: &'static str, dir: &Path) -> Vec<String> {
    let (end, backend) = (free_address(), Backend::start("behind"));
    let (h1, h2, refused) = (free_address(), free_address(), free_address());
    let log = dir.join(format!("{name}-opened.log"));
    let connect = json!({ "hostname": "far.example:80" });
    let listeners = [
        opener("h1", h1, &log, ("h1", connect.clone())),
        opener("h2", h2, &log, ("h2", connect)),
        opener("refused", refused, &log, ("h2", json!({ "hostname": "refused.example:80" }))),
        // The last: that it listens says that all do, without a connection through any of them.
        terminator(end),
    ];
    let clusters = [cluster("backend", backend.address, false), cluster("h1", end, false), cluster("h2", end, true)];
    let file = dir.join(format!("{name}-opened.json"));
    let document = json!({ "static_resources": { "listeners": listeners, "clusters": clusters } });
    std::fs::write(&file, document.to_string()).expect("write");
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start(name, &mut command, dir);
    proxy.wait_listening(end);
    for (done, entry) in [h1, h2].into_iter().enumerate() {
        let request = b"GET /one HTTP/1.1\r\nhost: far.example\r\nconnection: close\r\n\r\n";
        let answer = String::from_utf8_lossy(&talk(entry, request)).into_owned();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("GET /one"), "{name}: {answer}");
        lines_of(&log, done + 1);
    }
    let long = format!(
        "POST /long HTTP/1.1\r\nhost: far.example\r\nconnection: close\r\ncontent-length: 300000\r\n\r\n{}",
        "x".repeat(300_000)
    );
    let answer = String::from_utf8_lossy(&talk(h2, long.as_bytes())).into_owned();
    assert!(answer.contains("POST /long"), "{name}: {}", &answer[..answer.len().min(200)]);
    lines_of(&log, 3);
    assert_eq!(talk(refused, b"unheard"), b"", "{name}");
    lines_of(&log, 4)
}

#[test]
fn a_tcp_proxy_opens_tunnels_as_envoys_does() {
    let dir = tempfile::tempdir().expect("folder");
    let logged = a_connection_goes_through_tunnels(own_proxy(), "ours", dir.path());
    let flags: Vec<&str> = logged.iter().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(flags, ["-", "-", "-", "URX,UF"], "{logged:?}");
    match envoy_proxy() {
        Ok(mut command) => {
            command.args(["--file-flush-interval-msec", "100"]);
            let theirs = a_connection_goes_through_tunnels(command, "envoy", dir.path());
            // Envoy writes flags in the order in which they were set, we in that of its router.
            let theirs: Vec<String> = theirs.iter().map(|line| line.replace("UF,URX", "URX,UF")).collect();
            assert_eq!(logged, theirs);
        }
        Err(reason) => println!("{reason}"),
    }
}
