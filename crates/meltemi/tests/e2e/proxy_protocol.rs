//! PROXY protocol upstream: what hosts are told of a connection's client, by our proxy and by Envoy under one configuration.

use crate::support::{Process, any, free_address, proxies};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

fn at(address: SocketAddr) -> Value {
    json!({ "socket_address": { "address": "127.0.0.1", "port_value": address.port() } })
}

fn cluster(version: &str, host: SocketAddr) -> Value {
    let raw = any("envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer", json!({}));
    let socket = any(
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        json!({ "config": { "version": version }, "transport_socket": { "name": "raw", "typed_config": raw } }),
    );
    json!({ "name": version, "type": "STATIC", "connect_timeout": "1s",
        "transport_socket": { "name": "proxy", "typed_config": socket },
        "load_assignment": { "cluster_name": version, "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": at(host) } }] }] } })
}

fn listener(version: &str, listen: SocketAddr, http: bool) -> Value {
    let filter = match http {
        true => any(
            "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            json!({ "stat_prefix": "h",
                "http_filters": [{ "name": "router", "typed_config": any("envoy.extensions.filters.http.router.v3.Router", json!({})) }],
                "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"],
                    "routes": [{ "match": { "prefix": "/" }, "route": { "cluster": version } }] }] } }),
        ),
        false => any(
            "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            json!({ "stat_prefix": "t", "cluster": version }),
        ),
    };
    json!({ "name": format!("{version}-{http}"), "address": at(listen), "filter_chains": [{ "filters": [{ "name": "f", "typed_config": filter }] }] })
}

/// Answers each request with its number on the connection and the header that the connection began with.
fn serve(mut stream: TcpStream) -> std::io::Result<()> {
    let mut header = vec![0];
    stream.read_exact(&mut header)?;
    let is_whole = |header: &[u8]| if header[0] == b'P' { header.ends_with(b"\n") } else { header.len() == 28 };
    let mut byte = [0];
    while !is_whole(&header) {
        stream.read_exact(&mut byte)?;
        header.push(byte[0]);
    }
    for served in 1.. {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            request.push(byte[0]);
        }
        let body = format!("{served} {}", header.escape_ascii());
        write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
    }
    Ok(())
}

fn host() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

/// The body of the answer to a request on this connection.
fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").expect("write");
    let (mut text, mut byte) = (String::new(), [0]);
    loop {
        stream.read_exact(&mut byte).expect("an answer");
        text.push(char::from(byte[0]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        if Some(body.len()) == length {
            return body.to_owned();
        }
    }
}

fn hosts_hear_of_the_client(mut command: Command, name: &'static str, dir: &Path) {
    let entries: Vec<(&str, bool, SocketAddr)> =
        [("V1", true), ("V1", false), ("V2", true), ("V2", false)].map(|(v, http)| (v, http, free_address())).into();
    let host = host();
    let listeners: Vec<Value> = entries.iter().map(|(version, http, at)| listener(version, *at, *http)).collect();
    let document = json!({ "static_resources": { "listeners": listeners, "clusters": [cluster("V1", host), cluster("V2", host)] } });
    let file = dir.join(format!("{name}.json"));
    std::fs::write(&file, document.to_string()).expect("write");
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    let mut proxy = Process::start(name, &mut command, dir);
    proxy.wait_listening(entries[3].2);
    for (version, http, address) in entries {
        let client = || {
            let stream = TcpStream::connect(address).expect("connect");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("timeout");
            stream
        };
        let (mut one, mut two) = (client(), client());
        for served in 1..=2 {
            for client in [&mut one, &mut two] {
                let (from, to) = (client.local_addr().expect("address").port(), address.port());
                let mut header = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n").into_bytes();
                if version == "V2" {
                    header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\x01\x7f\0\0\x01".to_vec();
                    header.extend_from_slice(&from.to_be_bytes());
                    header.extend_from_slice(&to.to_be_bytes());
                }
                let expected = format!("{served} {}", header.escape_ascii());
                assert_eq!(ask(client), expected, "{name} {version} {http}");
            }
        }
    }
}

#[test]
fn hosts_hear_of_the_client_as_envoys_do() {
    let dir = tempfile::tempdir().expect("folder");
    proxies().into_iter().for_each(|(name, command)| hosts_hear_of_the_client(command, name, dir.path()));
}
