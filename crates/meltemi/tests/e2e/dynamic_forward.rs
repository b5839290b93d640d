//! Dynamic forward proxying under a bootstrap, by our proxy and by Envoy: requests and TLS connections go to the host that they
//! name, and what cannot be resolved is answered alike.

use crate::static_proxy::{Proxy, access_log, address, any, http_listener, with_both};
use crate::support::{Backend, exchange, free_address, get};
use serde_json::{Value, json};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// As many names as the first listener's requests have.
fn cache(name: &str) -> Value {
    json!({ "name": name, "dns_lookup_family": "V4_ONLY", "max_hosts": 3, "dns_query_timeout": "3s" })
}

fn cluster(name: &str, cache_name: &str) -> Value {
    let config = any(
        "extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig",
        json!({ "dns_cache_config": cache(cache_name) }),
    );
    json!({ "name": name, "connect_timeout": "5s", "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": { "name": "envoy.clusters.dynamic_forward_proxy", "typed_config": config } })
}

fn to(cluster: &str, log: &Path) -> Value {
    let route = |path: &str, action: Value| json!({ "match": { "prefix": path }, "route": action });
    let routes = [
        route("/rewritten", json!({ "cluster": cluster, "host_rewrite_header": "x-to" })),
        route("/", json!({ "cluster": cluster })),
    ];
    json!({ "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": routes }] },
        "access_log": access_log(log, "%REQ(:PATH)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%") })
}

fn tls_listener(at: SocketAddr, port: u16) -> Value {
    let forward = any(
        "extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig",
        json!({ "port_value": port, "dns_cache_config": cache("tls") }),
    );
    let tcp = any("extensions.filters.network.tcp_proxy.v3.TcpProxy", json!({ "stat_prefix": "t", "cluster": "tls" }));
    let inspector = any("extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({}));
    json!({ "name": "tls", "address": address(at),
        "listener_filters": [{ "name": "i", "typed_config": inspector }],
        "filter_chains": [{ "filters": [{ "name": "s", "typed_config": forward }, { "name": "t", "typed_config": tcp }] }] })
}

/// Counts connections that begin with a TLS record, and closes them.
fn tls_server() -> (SocketAddr, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let (at, count) = (listener.local_addr().expect("address"), Arc::new(AtomicU32::new(0)));
    let counted = count.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut first = [0];
            if stream.read_exact(&mut first).is_ok() && first == [0x16] {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (at, count)
}

fn hosts_are_those_that_requests_name(name: &'static str, dir: &Path) {
    let (backend, (tls, greeted)) = (Backend::start("b"), tls_server());
    let (resolving, bare, by_sni) = (free_address(), free_address(), free_address());
    let log = dir.join("access.log");
    let filter = any(
        "extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
        json!({ "dns_cache_config": cache("http") }),
    );
    let filter = json!({ "name": "envoy.filters.http.dynamic_forward_proxy", "typed_config": filter });
    let listeners = json!([
        http_listener(resolving, &[filter], to("http", &log)),
        http_listener(bare, &[], to("unasked", &log)),
        tls_listener(by_sni, tls.port()),
    ]);
    let clusters = json!([cluster("http", "http"), cluster("unasked", "unasked"), cluster("tls", "tls")]);
    let proxy = Proxy::start(name, dir, listeners, clusters);

    let port = backend.address.port();
    let asks = |at: SocketAddr, host: &str, path: &str| {
        let answer = get(at, host, path).expect("an answer");
        (answer.status, answer.text().lines().next().unwrap_or_default().to_owned())
    };
    let served = (200, "backend b".to_owned());
    let failed = (503, "DNS resolution failure".to_owned());
    for round in 0..2 {
        assert_eq!(asks(resolving, &format!("localhost:{port}"), "/name"), served, "{name} {round}");
        assert_eq!(asks(resolving, &format!("127.0.0.1:{port}"), "/address"), served, "{name} {round}");
        assert_eq!(asks(resolving, "nowhere.invalid", "/nowhere"), failed, "{name} {round}");
    }
    let full = (503, "DNS cache overflow".to_owned());
    assert_eq!(asks(resolving, "more.invalid", "/full"), full, "{name}");
    // Without the filter the cluster resolves by itself, and a failure is that of a cluster without hosts.
    assert_eq!(asks(bare, &format!("localhost:{port}"), "/bare"), served, "{name}");
    assert_eq!(asks(bare, "nowhere.invalid", "/missing"), (503, "no healthy upstream".to_owned()), "{name}");
    let rewritten = format!(
        "GET /rewritten HTTP/1.1\r\nhost: other.invalid\r\nx-to: localhost:{port}\r\nconnection: close\r\n\r\n"
    );
    let answer = exchange(bare, rewritten.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200, "{name}: the host is the one that the server sees: {}", answer.text());
    for (path, expected) in [
        ("/name", "200 - via_upstream"),
        ("/nowhere", "503 DF dns_resolution_failure{"),
        ("/full", "503 - dns_cache_overflow"),
        ("/bare", "200 - via_upstream"),
        ("/missing", "503 UH dns_resolution_failure{"),
    ] {
        proxy.until(path, || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let found = text.lines().any(|line| line.starts_with(&format!("{path} {expected}")));
            if found { Ok(()) } else { Err(format!("{expected:?} is not in\n{text}")) }
        });
    }
    assert_eq!(proxy.stat("dns_cache.http.num_hosts"), 3, "{name}");
    assert_eq!(proxy.stat("dns_cache.http.host_overflow"), 1, "{name}");
    assert_eq!(proxy.stat("dns_cache.http.host_added"), 3, "{name}");

    // No server answers the greeting: curl fails once it has come to the host that it names.
    let to = format!("localhost:443:127.0.0.1:{}", by_sni.port());
    let curl =
        Command::new("curl").args(["-sk", "--max-time", "10", "--connect-to", &to, "https://localhost/"]).output();
    if curl.is_ok() {
        proxy.until("a greeting", || match greeted.load(Ordering::SeqCst) {
            0 => Err("none".to_owned()),
            _ => Ok(()),
        });
    }
}

#[test]
fn requests_go_to_the_host_that_they_name_as_envoys_do() {
    with_both(hosts_are_those_that_requests_name);
}
