//! IPv6: listeners and hosts of both families under one bootstrap, by our proxy and by Envoy; and the original destination of a
//! connection that rules of the other family captured.

use crate::static_proxy::{Proxy, access_log, address, any, cluster, http_listener, with_both};
use crate::support::{Backend, free_address, get, meltemi};
use serde_json::{Value, json};
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

fn has_ipv6() -> bool {
    TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok()
}

/// The same port on the other loopback.
fn v6(at: SocketAddr) -> SocketAddr {
    SocketAddr::from((Ipv6Addr::LOCALHOST, at.port()))
}

/// One listener on both loopbacks, whose chains tell by which a connection came.
fn dual_listener(at: SocketAddr, log: &Path) -> Value {
    let to = |cluster: &str| {
        let route = json!({ "match": { "prefix": "/" }, "route": { "cluster": cluster } });
        json!({ "route_config": { "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] },
            "access_log": access_log(log, "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% %DOWNSTREAM_LOCAL_ADDRESS% %UPSTREAM_HOST%") })
    };
    let chain = |name: &str, prefix: &str, length: u32| {
        let mut chain = http_listener(at, &[], to(name))["filter_chains"][0].take();
        chain["filter_chain_match"] = json!({ "prefix_ranges": [{ "address_prefix": prefix, "prefix_len": length }] });
        chain
    };
    json!({ "name": "dual", "address": address(v6(at)),
        "additional_addresses": [{ "address": address(at) }],
        "filter_chains": [chain("six", "::1", 128), chain("four", "127.0.0.1", 32)] })
}

fn both_families_are_served(name: &'static str, dir: &Path) {
    let (six, four) = (Backend::start_at("six", "[::1]:0"), Backend::start("four"));
    let (listen, log) = (free_address(), dir.join("access.log"));
    let tcp_listen = v6(free_address());
    let tcp = any("extensions.filters.network.tcp_proxy.v3.TcpProxy", json!({ "stat_prefix": "t", "cluster": "six" }));
    let tcp = json!({ "name": "tcp", "address": address(tcp_listen),
        "filter_chains": [{ "filters": [{ "name": "t", "typed_config": tcp }] }] });
    let clusters = json!([cluster("six", six.address, json!({})), cluster("four", four.address, json!({}))]);
    let proxy = Proxy::start(name, dir, json!([dual_listener(listen, &log), tcp]), clusters);
    for (at, backend, remote) in [(v6(listen), &six, "::1"), (listen, &four, "127.0.0.1")] {
        let answer = get(at, &at.to_string(), "/").expect("an answer");
        let expected = if remote == "::1" { "backend six" } else { "backend four" };
        assert_eq!((answer.status, answer.text().lines().next()), (200, Some(expected)), "{name} {at}");
        assert!(answer.text().contains(&format!("host: {at}")), "{name}: {}", answer.text());
        let line = format!("{remote} {at} {}", backend.address);
        proxy.until("access log", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            if text.lines().any(|found| found == line) { Ok(()) } else { Err(format!("{line:?} is not in\n{text}")) }
        });
    }
    let answer = get(tcp_listen, "a", "/").expect("an answer over TCP");
    assert_eq!(answer.text().lines().next(), Some("backend six"), "{name}");
}

#[test]
fn both_families_are_served_as_by_envoy() {
    if !has_ipv6() {
        return println!("skipped: no IPv6 here");
    }
    with_both(both_families_are_served);
}

/// In a network of its own: a client of `[fd00::2]:8080` is captured, and led to port 9090 of the address that it asked for.
const CAPTURE: &str = r"
set -e
ip link set lo up
ip -6 addr add fd00::2/128 dev lo nodad
ip6tables -t nat -A OUTPUT -p tcp -d fd00::2 --dport 8080 -j REDIRECT --to-ports 15001
echo ready >&2
$MELTEMI echo --address fd00::2 --http 9090 >&2 &
$MELTEMI proxy -c $BOOTSTRAP --concurrency 1 >&2 &
tries=0
until curl -g -s -o /dev/null 'http://[::1]:15000/ready' && curl -g -s -o /dev/null 'http://[fd00::2]:9090/'; do
  tries=$((tries + 1)); [ $tries -lt 200 ] || exit 3
  sleep 0.1
done
curl -g -sS -i --max-time 10 'http://[fd00::2]:8080/'
";

fn capturing_bootstrap() -> Value {
    let to = |port: u16| address(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    let tcp =
        any("extensions.filters.network.tcp_proxy.v3.TcpProxy", json!({ "stat_prefix": "t", "cluster": "original" }));
    let original = any("extensions.filters.listener.original_dst.v3.OriginalDst", json!({}));
    json!({
        "admin": { "address": address(SocketAddr::from((Ipv6Addr::LOCALHOST, 15000))) },
        "static_resources": {
            "listeners": [{ "name": "l", "address": to(15001),
                "listener_filters": [{ "name": "o", "typed_config": original }],
                "filter_chains": [{ "filters": [{ "name": "t", "typed_config": tcp }] }] }],
            "clusters": [{ "name": "original", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED",
                "connect_timeout": "5s", "original_dst_lb_config": { "upstream_port_override": 9090 } }],
        },
    })
}

#[test]
fn a_captured_connection_keeps_its_ipv6_destination() {
    if !has_ipv6() {
        return println!("skipped: no IPv6 here");
    }
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("bootstrap.json");
    std::fs::write(&file, capturing_bootstrap().to_string()).expect("write");
    let mut command = Command::new("unshare");
    // What is left when the script ends ends with its process namespace.
    command.args(["--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "sh", "-c", CAPTURE]);
    command.env("MELTEMI", meltemi().get_program()).env("BOOTSTRAP", &file);
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => return println!("skipped: unshare: {error}"),
    };
    let (out, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !errors.contains("ready\n") {
        return println!("skipped: no network namespace with ip6tables here: {errors}");
    }
    assert!(output.status.success() && out.starts_with("HTTP/1.1 200"), "{}: {out}\n{errors}", output.status);
    assert!(out.contains("[fd00::2]:8080"), "the authority is the client's: {out}");
}
