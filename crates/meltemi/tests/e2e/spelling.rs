//! Names of HTTP/1 fields as they came, by our proxy and by Envoy under one configuration.

use crate::support::{Process, any, envoy_proxy, free_address, own_proxy};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn head(stream: &mut TcpStream) -> String {
    let (mut head, mut byte) = (String::new(), [0]);
    while !head.ends_with("\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(char::from(byte[0]));
    }
    head
}

/// The names of a head's fields.
fn names(head: &str) -> BTreeSet<String> {
    head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_owned())).collect()
}

fn bootstrap(listen: SocketAddr, host: SocketAddr) -> Value {
    let at =
        |address: SocketAddr| json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } });
    let formatter =
        any("envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig", json!({}));
    let options = json!({ "header_key_format": { "stateful_formatter": { "name": "preserve_case", "typed_config": formatter } } });
    let manager = any(
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        json!({ "stat_prefix": "h", "http_protocol_options": options,
            "upgrade_configs": [{ "upgrade_type": "websocket" }],
            "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
            "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"],
                "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": "c" } }] }] } }),
    );
    let upstream = any(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        json!({ "explicit_http_config": { "http_protocol_options": options } }),
    );
    json!({ "static_resources": {
        "listeners": [{ "name": "l", "address": at(listen), "filter_chains": [{ "filters": [{ "name": "f", "typed_config": manager }] }] }],
        "clusters": [{ "name": "c", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": upstream },
            "load_assignment": { "cluster_name": "c", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(host) } }] }] } }],
    } })
}

/// What the host saw of each request, and the client of each answer.
fn seen(mut command: Command, name: &'static str, dir: &Path) -> Vec<BTreeSet<String>> {
    let (listen, host) = (free_address(), TcpListener::bind("127.0.0.1:0").expect("listen"));
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, bootstrap(listen, host.local_addr().expect("address")).to_string()).expect("write");
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start(name, &mut command, dir);
    proxy.wait_listening(listen);
    let exchanges = [
        (
            "GET / HTTP/1.1\r\nHost: a\r\nX-TraceID: 1\r\nx-traceid: 2\r\nAccept: */*\r\n\r\n",
            "HTTP/1.1 200 OK\r\nX-Answer: 1\r\nDate: x\r\nServer: y\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nhOST: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nTRANSFER-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        ),
    ];
    let mut all = Vec::new();
    for (request, answer) in exchanges {
        let mut client = TcpStream::connect(listen).expect("connect");
        client.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
        client.write_all(request.as_bytes()).expect("write");
        let (mut stream, _) = host.accept().expect("a connection");
        all.push(names(&head(&mut stream)));
        stream.write_all(answer.as_bytes()).expect("write");
        all.push(names(&head(&mut client)));
    }
    all
}

#[test]
fn names_are_spelled_as_they_came_as_envoy_does() {
    let dir = tempfile::tempdir().expect("folder");
    let ours = seen(own_proxy(), "ours", dir.path());
    let has = |names: &BTreeSet<String>, wanted: &[&str]| wanted.iter().all(|name| names.contains(*name));
    assert!(
        has(&ours[0], &["Host", "X-TraceID", "Accept", "x-request-id"]) && !ours[0].contains("x-traceid"),
        "{ours:?}"
    );
    assert!(has(&ours[1], &["X-Answer", "Date", "Server", "Content-Length"]), "{ours:?}");
    assert!(has(&ours[2], &["hOST", "Transfer-Encoding"]), "{ours:?}");
    match envoy_proxy() {
        Ok(command) => assert_eq!(ours, seen(command, "envoy", dir.path())),
        Err(reason) => println!("{reason}"),
    }
}
