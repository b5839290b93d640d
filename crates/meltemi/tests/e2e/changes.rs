//! Changes under load that come in pieces, and processes that are replaced under it: no request fails that the configuration before or
//! the one after would have served.

use crate::control_plane::{Discovery, eventually, gateway, service, start_own_gateway};
use crate::lossless::Load;
use crate::support::{Backend, Process, free_address, get, meltemi};
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

/// A gateway under load whose configuration changes piece by piece. A second host tells when a piece is in force.
struct Gateway {
    discovery: Discovery,
    port: SocketAddr,
    proxy: Process,
    pieces: usize,
}

const OTHER: &str = "other.yaml";

fn virtual_service(name: &str, gateway: &str, route: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: default}}\nspec: {{hosts: [{name}.example], gateways: [{gateway}], http: [{route}]}}\n"
    )
}

/// A route of the shop whose answers tell which it is.
fn to(mark: &str, destination: &str) -> String {
    let route =
        format!("{{headers: {{response: {{set: {{x-mark: {mark}}}}}}}, route: [{{destination: {{{destination}}}}}]}}");
    virtual_service("shop", "istio-system/gw", &route)
}

fn subsets(names: &[&str]) -> String {
    let subsets: Vec<String> = names.iter().map(|name| format!("{{name: {name}, labels: {{app: shop}}}}")).collect();
    format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop, namespace: default}}\nspec: {{host: shop, subsets: [{}]}}\n",
        subsets.join(", ")
    )
}

impl Gateway {
    fn start(dir: &Path, files: &[(&str, String)]) -> Self {
        let port = free_address();
        let mut all = vec![("gateway.yaml", gateway(port.port(), "")), (OTHER, Self::other(0))];
        all.extend(files.iter().cloned());
        let discovery = Discovery::start(dir, &all);
        let mut proxy = start_own_gateway(discovery.grpc, dir);
        proxy.wait_listening(port);
        let gateway = Self { discovery, port, proxy, pieces: 0 };
        gateway.serves("shop.example", |answer| answer.status == 200);
        gateway
    }

    fn other(piece: usize) -> String {
        virtual_service(
            "other",
            "istio-system/gw",
            &format!("{{directResponse: {{status: 200, body: {{string: '{piece}'}}}}}}"),
        )
    }

    fn serves(&self, host: &str, is: impl Fn(&crate::support::Answer) -> bool) {
        eventually(host, || match get(self.port, host, "/") {
            Ok(answer) if is(&answer) => Ok(()),
            other => Err(format!("{other:?}\n{}", self.proxy.output())),
        });
    }

    /// Writes a piece, and waits until it is in force.
    fn write(&mut self, name: &str, text: &str) {
        self.pieces += 1;
        self.discovery.write(name, text);
        self.discovery.write(OTHER, &Self::other(self.pieces));
        let piece = self.pieces.to_string();
        self.serves("other.example", |answer| answer.text() == piece);
    }

    fn marked(&self, mark: &str) {
        self.serves("shop.example", |answer| answer.header("x-mark") == Some(mark));
    }
}

fn none_failed(load: Load, least: u64) {
    let (sent, failures) = load.finish();
    println!("{sent} requests, {} failed", failures.len());
    assert!(sent > least, "{sent}");
    assert!(failures.is_empty(), "{} of {sent}: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
}

#[test]
fn no_request_fails_while_a_change_comes_in_pieces() {
    let dir = tempfile::tempdir().expect("folder");
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let services = service("shop", "http", 80, &[(one.address, "v1")]);
    let files = [
        ("services.yaml", services.clone()),
        ("rule.yaml", subsets(&["a"])),
        ("route.yaml", to("first", "host: shop, subset: a")),
    ];
    let mut gateway = Gateway::start(dir.path(), &files);
    let load = Load::start(gateway.port);
    // A VirtualService before its subset.
    gateway.write("route.yaml", &to("before-its-subset", "host: shop, subset: b"));
    gateway.marked("first");
    gateway.write("rule.yaml", &subsets(&["a", "b"]));
    gateway.marked("before-its-subset");
    // A subset that is renamed under the rule that names it.
    gateway.write("rule.yaml", &subsets(&["c"]));
    gateway.marked("before-its-subset");
    gateway.write("route.yaml", &to("renamed", "host: shop, subset: c"));
    gateway.marked("renamed");
    // A service that is deleted and made again, with another endpoint.
    gateway.write("services.yaml", "");
    gateway.marked("renamed");
    gateway.write("services.yaml", &service("shop", "http", 80, &[(two.address, "v1")]));
    gateway.serves("shop.example", |answer| answer.text().starts_with("backend two"));
    // A host that moves to another Gateway of the same port.
    let moved = crate::control_plane::gateway(gateway.port.port(), "").replace("name: gw,", "name: moved,");
    gateway.write("gateway.yaml", &(crate::control_plane::gateway(gateway.port.port(), "") + &moved));
    gateway.write("route.yaml", &to("moved", "host: shop, subset: c").replace("system/gw", "system/moved"));
    gateway.marked("moved");
    none_failed(load, 100);
}

#[test]
fn no_request_fails_while_discovery_is_killed_and_comes_again() {
    let dir = tempfile::tempdir().expect("folder");
    let backend = Backend::start("one");
    let files = [
        ("services.yaml", service("shop", "http", 80, &[(backend.address, "v1")])),
        ("route.yaml", to("first", "host: shop")),
    ];
    let mut gateway = Gateway::start(dir.path(), &files);
    let load = Load::start(gateway.port);
    for mark in ["second", "third"] {
        let sent = load.sent.load(std::sync::atomic::Ordering::Relaxed);
        gateway.discovery.kill_and_restart(dir.path(), |discovery| {
            eventually("requests without discovery", || {
                let now = load.sent.load(std::sync::atomic::Ordering::Relaxed);
                if now > sent + 100 { Ok(()) } else { Err(format!("{now} requests")) }
            });
            // What has changed meanwhile is in force once it is back.
            discovery.write("route.yaml", &to(mark, "host: shop"));
        });
        gateway.marked(mark);
    }
    none_failed(load, 200);
}

#[test]
fn no_request_fails_while_every_endpoint_is_restarted() {
    const ENDPOINTS: usize = 3;
    let dir = tempfile::tempdir().expect("folder");
    let start = || {
        let address = free_address();
        let mut command = meltemi();
        command.args(["echo", "--http", &address.port().to_string(), "--address", "127.0.0.1", "--linger", "2s"]);
        let mut process = Process::start("echo", &mut command, dir.path());
        process.wait_listening(address);
        (process, address)
    };
    let mut endpoints: Vec<_> = std::iter::repeat_with(start).take(ENDPOINTS).collect();
    let services = |endpoints: &[(Process, SocketAddr)]| {
        let all: Vec<_> = endpoints.iter().map(|(_, address)| (*address, "v1")).collect();
        service("shop", "http", 80, &all)
    };
    let files = [("services.yaml", services(&endpoints)), ("route.yaml", to("first", "host: shop"))];
    let mut gateway = Gateway::start(dir.path(), &files);
    let load = Load::start(gateway.port);
    for _ in 0..2 * ENDPOINTS {
        // As a rolling update does: the successor is ready first, and the end is told while the endpoint is still known.
        endpoints.push(start());
        gateway.write("services.yaml", &services(&endpoints));
        let (mut old, _) = endpoints.remove(0);
        old.signal("TERM");
        gateway.write("services.yaml", &services(&endpoints));
        assert_eq!(old.wait(Duration::from_secs(30)).code(), Some(0), "{}", old.output());
    }
    none_failed(load, 500);
}
