//! Real xDS clients under our discovery: Envoy as a gateway on delta and state-of-the-world ADS, grpcio and grpc-js
//! proxyless.

use crate::support::{Backend, DEADLINE, Process, cache, envoy_proxy, exchange, free_address, get, meltemi, own_proxy};
use serde_json::json;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// Discovery over a folder, on ports of its own.
pub struct Discovery {
    pub process: Process,
    pub grpc: SocketAddr,
    pub http: SocketAddr,
    pub folder: PathBuf,
    arguments: Vec<OsString>,
}

impl Discovery {
    pub fn start(dir: &Path, files: &[(&str, String)]) -> Self {
        Self::start_with(dir, files, &[])
    }

    pub fn start_with(dir: &Path, files: &[(&str, String)], more: &[&str]) -> Self {
        let folder = dir.join("config");
        std::fs::create_dir_all(&folder).expect("folder");
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("write");
        }
        let (grpc, secure, http, monitoring) = (free_address(), free_address(), free_address(), free_address());
        // Nothing here serves secrets, and an Envoy whose clusters may ask for one waits for it before it listens.
        let mesh = dir.join("mesh.yaml");
        std::fs::write(&mesh, "enableAutoMtls: false\n").expect("write");
        let mut arguments =
            vec!["discovery".into(), "--httpsAddr=".into(), "--meshConfig".into(), mesh.into_os_string()];
        arguments.extend(["--configDir".into(), folder.clone().into_os_string()]);
        let ports = [
            ("--grpcAddr", grpc),
            ("--secureGRPCAddr", secure),
            ("--httpAddr", http),
            ("--monitoringAddr", monitoring),
        ];
        arguments.extend(ports.into_iter().flat_map(|(name, address)| [name.into(), address.to_string().into()]));
        arguments.extend(more.iter().map(OsString::from));
        let process = Self::launch(&arguments, dir);
        let mut discovery = Self { process, grpc, http, folder, arguments };
        discovery.wait();
        discovery
    }

    fn launch(arguments: &[OsString], dir: &Path) -> Process {
        Process::start("discovery", meltemi().args(arguments), dir)
    }

    fn wait(&mut self) {
        self.process.wait_listening(self.grpc);
        self.process.wait_listening(self.http);
    }

    /// Kills it, does something while there is none, and starts it again on the same ports.
    pub fn kill_and_restart(&mut self, dir: &Path, meanwhile: impl FnOnce(&Self)) {
        self.process.signal("KILL");
        self.process.wait(DEADLINE);
        meanwhile(self);
        self.process = Self::launch(&self.arguments, dir);
        self.wait();
    }

    /// Replaces a file as an editor or a Kubernetes volume does: beside it, then moved, so that nobody reads half of it.
    pub fn write(&self, name: &str, text: &str) {
        let part = self.folder.join(format!(".{name}.part"));
        std::fs::write(&part, text).expect("write");
        std::fs::rename(part, self.folder.join(name)).expect("rename");
    }
}

/// A Service with endpoints on loopback, in Kubernetes' form.
pub fn service(name: &str, port_name: &str, port: u16, endpoints: &[(SocketAddr, &str)]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec:\n  clusterIP: 10.96.0.{}\n  selector: {{app: {name}}}\n  ports: [{{name: {port_name}, port: {port}}}]\n",
        10 + name.bytes().map(u32::from).sum::<u32>() % 200
    );
    for (number, (address, version)) in endpoints.iter().enumerate() {
        let pod = format!("{name}-{version}-{number}");
        // Several endpoints share a loopback address, so each port has a slice and each pod an address of its own.
        text += &format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {pod}\n  namespace: default\n  labels: {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: [{{name: {port_name}, port: {}}}]\nendpoints:\n- addresses: [{}]\n  conditions: {{ready: true}}\n  targetRef: {{kind: Pod, name: {pod}, namespace: default}}\n",
            address.port(),
            address.ip()
        );
        text += &format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata:\n  name: {pod}\n  namespace: default\n  labels: {{app: {name}, version: {version}}}\nspec: {{serviceAccountName: {name}, containers: [{{name: c, image: c}}]}}\nstatus: {{podIP: {}, phase: Running, conditions: [{{type: Ready, status: \"True\"}}]}}\n",
            address.ip()
        );
    }
    text
}

/// A Gateway on this port and the documents given.
pub fn gateway(port: u16, virtual_service: &str) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: gw, namespace: istio-system}}\nspec:\n  selector: {{istio: ingressgateway}}\n  servers:\n  - port: {{number: {port}, name: http, protocol: HTTP}}\n    hosts: [\"*\"]\n---\n{virtual_service}"
    )
}

const ROUTES: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: shop, namespace: default}
spec:
  host: shop
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: shop, namespace: default}
spec:
  hosts: [shop.example]
  gateways: [istio-system/gw]
  http:
  - match: [{headers: {x-user: {exact: tester}}}]
    route: [{destination: {host: shop, subset: v2}}]
  - match: [{uri: {prefix: /old}}]
    rewrite: {uri: /new}
    route: [{destination: {host: shop, subset: v1}}]
  - match: [{uri: {exact: /moved}}]
    redirect: {uri: /here, authority: there.example}
  - match: [{uri: {prefix: /fixed}}]
    directResponse: {status: 203, body: {string: fixed}}
  - match: [{uri: {prefix: /broken}}]
    fault: {abort: {httpStatus: 418, percentage: {value: 100}}}
    route: [{destination: {host: shop, subset: v1}}]
  - match: [{uri: {prefix: /headers}}]
    headers: {request: {set: {x-set: here}, remove: [x-gone]}, response: {add: {x-answer: "yes"}}}
    route: [{destination: {host: shop, subset: v1}}]
  - match: [{uri: {prefix: /slow}}]
    timeout: 0.2s
    route: [{destination: {host: shop, subset: v1}}]
  - match: [{uri: {prefix: /retried}}]
    retries: {attempts: 3, retryOn: 5xx}
    route: [{destination: {host: shop, subset: v1}}]
  - route:
    - {destination: {host: shop, subset: v1}, weight: 90}
    - {destination: {host: shop, subset: v2}, weight: 10}
"#;

/// What runs behind the gateway's port; an Envoy with the variant of ADS that it speaks.
#[derive(Clone, Copy, Debug)]
pub enum Gateway {
    Envoy(&'static str),
    Ours,
}

pub fn start_gateway(kind: Gateway, discovery: SocketAddr, dir: &Path) -> Result<Process, String> {
    let api_type = if let Gateway::Envoy(api) = kind { api } else { "DELTA_GRPC" };
    let dialect = if matches!(kind, Gateway::Ours) { "istio-proxy" } else { "envoy" };
    let ads = json!({ "ads": {}, "resource_api_version": "V3" });
    let bootstrap = json!({
        "node": {
            "id": "router~127.0.0.1~gw-1.istio-system~istio-system.svc.cluster.local",
            "cluster": "gw.istio-system",
            "locality": { "region": "here", "zone": "a" },
            "metadata": { "NAMESPACE": "istio-system", "LABELS": { "istio": "ingressgateway" }, "DIALECT": dialect },
        },
        "dynamic_resources": {
            "lds_config": ads, "cds_config": ads,
            "ads_config": { "api_type": api_type, "transport_api_version": "V3",
                "grpc_services": [{ "envoy_grpc": { "cluster_name": "xds" } }] },
        },
        "static_resources": { "clusters": [{
            "name": "xds", "type": "STATIC", "connect_timeout": "1s",
            "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": { "http2_protocol_options": {} } } },
            "load_assignment": { "cluster_name": "xds", "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": {
                "socket_address": { "address": "127.0.0.1", "port_value": discovery.port() } } } }] }] },
        }] },
    });
    let file = dir.join("bootstrap.json");
    std::fs::write(&file, bootstrap.to_string()).expect("write");
    let (name, mut command) = match kind {
        Gateway::Envoy(_) => ("envoy", envoy_proxy()?),
        Gateway::Ours => ("meltemi", own_proxy()),
    };
    command.arg("-c").arg(&file).args(["--concurrency", "1"]);
    Ok(Process::start(name, &mut command, dir))
}

/// Our proxy as the gateway.
pub fn start_own_gateway(discovery: SocketAddr, dir: &Path) -> Process {
    start_gateway(Gateway::Ours, discovery, dir).expect("our proxy is always there")
}

/// A real Envoy as the gateway, or the reason why there is none.
pub fn start_envoy_gateway(discovery: SocketAddr, dir: &Path) -> Result<Process, String> {
    start_gateway(Gateway::Envoy("DELTA_GRPC"), discovery, dir)
}

/// Asks until the answer satisfies, since configuration takes a moment.
pub fn eventually(what: &str, mut holds: impl FnMut() -> Result<(), String>) {
    let end = Instant::now() + DEADLINE;
    loop {
        match holds() {
            Ok(()) => return,
            Err(reason) if Instant::now() > end => panic!("{what}: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn request(address: SocketAddr, path: &str, headers: &str) -> crate::support::Answer {
    let text = format!("GET {path} HTTP/1.1\r\nhost: shop.example\r\n{headers}connection: close\r\n\r\n");
    exchange(address, text.as_bytes()).expect(path)
}

fn every_route_serves(gateway: SocketAddr) {
    let served = |answer: &crate::support::Answer| answer.text().lines().next().unwrap_or_default().to_owned();
    assert_eq!(served(&request(gateway, "/", "x-user: tester\r\n")), "backend v2");
    let rewritten = request(gateway, "/old/thing", "");
    assert!(rewritten.text().contains("GET /new/thing"), "{}", rewritten.text());
    let moved = request(gateway, "/moved", "");
    assert_eq!((moved.status, moved.header("location")), (301, Some("http://there.example/here")));
    let fixed = request(gateway, "/fixed", "");
    assert_eq!((fixed.status, fixed.text().as_str()), (203, "fixed"));
    assert_eq!(request(gateway, "/broken", "").status, 418);
    let headers = request(gateway, "/headers", "x-gone: 1\r\n");
    assert!(headers.text().contains("x-set: here") && !headers.text().contains("x-gone"), "{}", headers.text());
    assert_eq!(headers.header("x-answer"), Some("yes"));
    assert_eq!(request(gateway, "/slow", "x-want-delay-ms: 800\r\n").status, 504);
    let id = format!("retried-{gateway}");
    let retried = request(gateway, "/retried", &format!("x-test-id: {id}\r\nx-fail-first: 2\r\n"));
    assert_eq!(retried.status, 200, "{}", retried.text());
    let mut counts = BTreeMap::new();
    for _ in 0..300 {
        *counts.entry(served(&request(gateway, "/", ""))).or_insert(0u32) += 1;
    }
    let second = counts.get("backend v2").copied().unwrap_or(0);
    // 30 expected of 300 at one in ten; outside of this by chance less than once in a million runs.
    assert!((6..=64).contains(&second), "{counts:?}");
}

fn gateway_serves_and_follows_changes(kind: Gateway) -> Result<(), String> {
    let dir = tempfile::tempdir().expect("folder");
    let (v1, v2) = (Backend::start("v1"), Backend::start("v2"));
    let port = free_address();
    let discovery = Discovery::start(
        dir.path(),
        &[
            ("services.yaml", service("shop", "http", 80, &[(v1.address, "v1"), (at("127.0.0.2", &v2), "v2")])),
            ("routes.yaml", gateway(port.port(), ROUTES)),
        ],
    );
    let relay = relay_to("127.0.0.2", v2.address);
    let mut proxy = start_gateway(kind, discovery.grpc, dir.path())?;
    proxy.wait_listening(port);
    eventually("first answer", || match get(port, "shop.example", "/") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}\n{}\n{}", proxy.output(), discovery.process.output())),
    });
    every_route_serves(port);
    let changed = ROUTES.replace("status: 203", "status: 208");
    discovery.write("routes.yaml", &gateway(port.port(), &changed));
    let status = || get(port, "shop.example", "/fixed").map(|answer| answer.status);
    eventually("a changed route", || if status() == Ok(208) { Ok(()) } else { Err(format!("{:?}", status())) });
    // A broken document leaves the last good configuration serving.
    discovery.write("routes.yaml", &gateway(port.port(), &changed).replace("directResponse", "directRespons"));
    eventually("the mistake is told", || {
        let told = discovery.process.output().contains("directRespons:");
        if told { Ok(()) } else { Err(discovery.process.output()) }
    });
    assert_eq!(status(), Ok(208));
    drop(relay);
    Ok(())
}

/// The same port on another loopback address, so that two endpoints have two addresses.
fn at(ip: &str, backend: &Backend) -> SocketAddr {
    SocketAddr::new(ip.parse().expect("an address"), backend.address.port())
}

/// Listens on `ip` at the target's port and copies to it. Lives as long as the value.
struct Relay(#[allow(dead_code, reason = "held for its listener")] std::net::TcpListener);

fn relay_to(ip: &str, target: SocketAddr) -> Relay {
    let listener = std::net::TcpListener::bind((ip, target.port())).expect("bind");
    let accepting = listener.try_clone().expect("clone");
    std::thread::spawn(move || {
        for client in accepting.incoming().map_while(Result::ok) {
            let Ok(server) = std::net::TcpStream::connect(target) else { continue };
            for (mut from, mut to) in
                [(client.try_clone().expect("clone"), server.try_clone().expect("clone")), (server, client)]
            {
                std::thread::spawn(move || {
                    // The copy ends with either side.
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    Relay(listener)
}

#[test]
fn envoy_obeys_our_discovery_on_delta_ads() {
    if let Err(reason) = gateway_serves_and_follows_changes(Gateway::Envoy("DELTA_GRPC")) {
        println!("{reason}");
    }
}

#[test]
fn envoy_obeys_our_discovery_on_state_of_the_world_ads() {
    if let Err(reason) = gateway_serves_and_follows_changes(Gateway::Envoy("GRPC")) {
        println!("{reason}");
    }
}

#[test]
fn our_proxy_obeys_our_discovery() {
    gateway_serves_and_follows_changes(Gateway::Ours).expect("our proxy is always there");
}

/// Python with grpcio, or the reason why there is none.
pub fn python() -> Result<PathBuf, String> {
    let path = cache().join("venv/bin/python");
    if path.exists() {
        Ok(path)
    } else {
        Err("skipped: no grpcio; scripts/install-test-deps.sh installs it".to_owned())
    }
}

const SPLIT: &str = r#"
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: echo, namespace: default}
spec:
  host: echo
  subsets:
  - {name: v1, labels: {version: v1}}
  - {name: v2, labels: {version: v2}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: echo, namespace: default}
spec:
  hosts: [echo.default.svc.cluster.local]
  http:
  - route:
    - {destination: {host: echo, subset: v1}, weight: 90}
    - {destination: {host: echo, subset: v2}, weight: 10}
"#;

/// Runs a proxyless client against discovery and checks the 90/10 split.
fn proxyless_client_follows_the_split(client: &mut Command) -> Result<(), String> {
    let python = python()?;
    let dir = tempfile::tempdir().expect("folder");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/peers.py");
    let mut servers = Vec::new();
    let mut endpoints = Vec::new();
    for (version, ip) in [("v1", "127.0.0.1"), ("v2", "127.0.0.2")] {
        let address = free_address();
        let mut command = Command::new(&python);
        command.args([script, "grpc-server", version, &address.port().to_string()]);
        let mut process =
            Process::start(if version == "v1" { "server-v1" } else { "server-v2" }, &mut command, dir.path());
        process.wait_listening(address);
        servers.push(process);
        endpoints.push((SocketAddr::new(ip.parse().expect("an address"), address.port()), version));
    }
    let second = SocketAddr::new("127.0.0.1".parse().expect("an address"), endpoints[1].0.port());
    let _relay = relay_to("127.0.0.2", second);
    let services = service("echo", "grpc", 7070, &endpoints);
    let discovery = Discovery::start(dir.path(), &[("services.yaml", services), ("routes.yaml", SPLIT.to_owned())]);
    let bootstrap = json!({
        "xds_servers": [{ "server_uri": discovery.grpc.to_string(), "channel_creds": [{ "type": "insecure" }],
            "server_features": ["xds_v3"] }],
        "node": { "id": "sidecar~127.0.0.1~client-1.default~default.svc.cluster.local", "cluster": "c",
            "locality": { "region": "r", "zone": "z" }, "metadata": { "GENERATOR": "grpc", "NAMESPACE": "default" } },
    });
    let file = dir.path().join("grpc.json");
    std::fs::write(&file, bootstrap.to_string()).expect("write");
    let output = client
        .args(["xds:///echo.default.svc.cluster.local:7070", "300"])
        .env("GRPC_XDS_BOOTSTRAP", &file)
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}\n{}", discovery.process.output());
    let counts: BTreeMap<String, u32> = serde_json::from_str(text.trim()).expect("counts");
    println!("300 calls: {counts:?}");
    let second = counts.get("v2").copied().unwrap_or(0);
    assert!(counts.values().sum::<u32>() == 300 && (6..=64).contains(&second), "{counts:?}");
    Ok(())
}

#[test]
fn grpcio_follows_a_split_from_our_discovery() {
    let result = python().and_then(|python| {
        let mut client = Command::new(python);
        client.args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/peers.py"), "grpc-client"]);
        proxyless_client_follows_the_split(&mut client)
    });
    if let Err(reason) = result {
        println!("{reason}");
    }
}

#[test]
fn grpc_js_follows_a_split_from_our_discovery() {
    let modules = cache().join("node/node_modules");
    if !modules.join("@grpc/grpc-js-xds").exists() {
        return println!("skipped: no grpc-js; scripts/install-test-deps.sh installs it");
    }
    let mut client = Command::new("node");
    client.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/client.js")).env("NODE_PATH", modules);
    if let Err(reason) = proxyless_client_follows_the_split(&mut client) {
        println!("{reason}");
    }
}

#[test]
fn discovery_answers_its_debug_and_metrics_paths() {
    let dir = tempfile::tempdir().expect("folder");
    let backend = Backend::start("v1");
    let services = service("shop", "http", 80, &[(backend.address, "v1")]);
    let discovery = Discovery::start(dir.path(), &[("services.yaml", services)]);
    for (path, text) in [
        ("/ready", ""),
        ("/debug/registryz", "shop.default.svc.cluster.local"),
        ("/debug/endpointz", "127.0.0.1"),
        ("/debug/syncz", ""),
        ("/metrics", "pilot_services"),
    ] {
        eventually(path, || match get(discovery.http, "debug", path) {
            Ok(answer) if answer.status == 200 && answer.text().contains(text) => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }
}

#[test]
fn a_file_that_is_not_utf_8_is_a_wrong_input_with_its_line() {
    let dir = tempfile::tempdir().expect("folder");
    let file = dir.path().join("a.yaml");
    std::fs::write(&file, b"apiVersion: v1\nkind: Namespace\nmetadata: {name: \xff}\n").expect("write");
    let output = crate::support::meltemi().args(["validate", "-f"]).arg(dir.path()).output().expect("meltemi");
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(65), "{said}");
    assert!(said.contains(&format!("{}:3: error: not UTF-8: a byte 0xff\n", file.display())), "{said}");
}
