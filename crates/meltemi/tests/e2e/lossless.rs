//! No request is lost while the mesh changes under load: routes flip a thousand times, endpoints come and go, certificates rotate.

use crate::control_plane::{Discovery, eventually, gateway, service, start_own_gateway};
use crate::mesh::{Mesh, Pod, Workload, can_run};
use crate::support::{Answer, Backend, get, read_answer};
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const FLIPS: usize = 1000;
const CLIENTS: usize = 2;

/// Clients that keep their connections and count what is not 200.
pub struct Load {
    stop: Arc<AtomicBool>,
    pub sent: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    pub fn start(target: SocketAddr) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = |_| {
            let (stop, sent) = (stop.clone(), sent.clone());
            std::thread::spawn(move || run_client(target, &stop, &sent))
        };
        Self { clients: (0..CLIENTS).map(client).collect(), stop, sent }
    }

    /// How many requests there were, and those that failed.
    pub fn finish(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect();
        (self.sent.load(Ordering::Relaxed), failures)
    }
}

fn run_client(target: SocketAddr, stop: &AtomicBool, sent: &AtomicU64) -> Vec<String> {
    let mut failures = Vec::new();
    let mut connection: Option<BufReader<TcpStream>> = None;
    while !stop.load(Ordering::Relaxed) {
        let mut reader =
            connection.take().unwrap_or_else(|| BufReader::new(TcpStream::connect(target).expect("connect")));
        sent.fetch_add(1, Ordering::Relaxed);
        match ask(&mut reader) {
            Ok(answer) if answer.status == 200 => {
                if answer.header("connection") != Some("close") {
                    connection = Some(reader);
                }
            }
            Ok(answer) => failures.push(format!("{} {}", answer.status, answer.text())),
            Err(reason) => failures.push(reason),
        }
    }
    failures
}

fn ask(reader: &mut BufReader<TcpStream>) -> Result<Answer, String> {
    let request = b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    reader.get_mut().write_all(request).map_err(|e| format!("write: {e}"))?;
    read_answer(reader, false)
}

/// A VirtualService before its subset, by turns to one of five subsets that are made and dropped with it. Its answers tell which
/// flip they belong to.
fn route(flip: usize) -> String {
    let subset = format!("a{}", flip % 5);
    format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: shop, namespace: default}}\nspec:\n  hosts: [shop.example]\n  gateways: [istio-system/gw]\n  http: [{{headers: {{response: {{set: {{x-flip: '{flip}'}}}}}}, route: [{{destination: {{host: shop, subset: {subset}}}}}]}}]\n---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: shop, namespace: default}}\nspec:\n  host: shop\n  subsets: [{{name: {subset}, labels: {{app: shop}}}}]\n"
    )
}

#[test]
fn no_request_is_lost_while_routes_flip_a_thousand_times_and_endpoints_come_and_go() {
    let dir = tempfile::tempdir().expect("folder");
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let port = crate::support::free_address();
    let both = service("shop", "http", 80, &[(one.address, "v1"), (two.address, "v2")]);
    let only = service("shop", "http", 80, &[(one.address, "v1")]);
    let files = [("services.yaml", both.clone()), ("routes.yaml", gateway(port.port(), &route(0)))];
    // Many changes, so that each is pushed soon.
    let discovery = Discovery::start_with(dir.path(), &files, &["--debounceAfter", "5ms"]);
    let mut proxy = start_own_gateway(discovery.grpc, dir.path());
    proxy.wait_listening(port);
    eventually("first answer", || match get(port, "shop.example", "/") {
        Ok(answer) if answer.status == 200 => Ok(()),
        other => Err(format!("{other:?}")),
    });
    let load = Load::start(port);
    for flip in 1..=FLIPS {
        discovery.write("services.yaml", if flip % 2 == 0 { &only } else { &both });
        discovery.write("routes.yaml", &gateway(port.port(), &route(flip)));
        // Once it is in force, so that every flip is a push of its own.
        let end = Instant::now() + Duration::from_secs(30);
        let flip = flip.to_string();
        while get(port, "shop.example", "/").ok().as_ref().and_then(|answer| answer.header("x-flip")) != Some(&flip) {
            assert!(Instant::now() < end, "flip {flip} is not in force");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let (sent, failures) = load.finish();
    println!("{sent} requests during {FLIPS} flips, {} failed", failures.len());
    assert!(sent > 1000, "{sent}");
    assert!(failures.is_empty(), "{} of {sent}: {:#?}", failures.len(), &failures[..failures.len().min(5)]);
}

const ROTATIONS: usize = 4;

/// The serial number of a proxy's own certificate.
fn certificate(pod: &Pod) -> Result<String, String> {
    let answer = pod.curl("http://127.0.0.1:15000/certs")?;
    let all: serde_json::Value = serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {}", answer.text()))?;
    let serial = all["certificates"][0]["cert_chain"][0]["serial_number"].as_str().map(str::to_owned);
    serial.ok_or_else(|| all.to_string())
}

#[test]
fn no_request_is_lost_while_certificates_rotate_and_connections_outlive_them() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    // A certificate lives six seconds, so it is replaced each three.
    let annotations = "proxy.istio.io/config: '{concurrency: 1, proxyMetadata: {SECRET_TTL: 6s}}'";
    let args = "[echo, --http, '8080', --tcp, '9000']";
    let client =
        Workload { name: "client", labels: "app: client", account: "client", annotations, ..Workload::default() };
    let ports = &[8080, 9000];
    let web =
        Workload { name: "web", labels: "app: web", account: "web", annotations, args, ports, ..Workload::default() };
    let spec = "selector: {app: web}, ports: [{name: http, port: 8080}, {name: tcp, port: 9000}]";
    // New connections all the time, so that there are handshakes with every certificate.
    let rule = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: app}\nspec: {host: web, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 3}}}}\n---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: app}\nspec: {mtls: {mode: STRICT}}\n";
    let text = client.yaml() + &web.yaml() + &crate::mesh::service("app", "web", spec) + rule;
    let mesh = Mesh::start(dir.path(), &[("pods.yaml", &text)], &[]);
    let (client, web) = (mesh.pod("client"), mesh.pod("web"));
    let before = certificate(&web).expect("a certificate");
    // One connection that is as old as the test, a line each tenth of a second, until its file is there.
    let stop = dir.path().join("stop");
    let script = format!(
        "exec 3<>/dev/tcp/web.app/9000; while [ ! -e {} ]; do echo word >&3; read -t 5 line <&3 || exit 1; echo \"$line\"; sleep 0.1; done",
        stop.display()
    );
    let mut old = client.command("bash");
    let old = old.args(["-c", &script]).stdout(std::process::Stdio::piped()).spawn().expect("nsenter");
    let load = {
        let (client, stop) = (client.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut counts = std::collections::BTreeMap::new();
            while !stop.exists() {
                for (by, count) in client.served_by("'http://web.app:8080/?n=[1-300]'").expect("curl") {
                    *counts.entry(by).or_insert(0u32) += count;
                }
            }
            counts
        })
    };
    let mut serials = std::collections::BTreeSet::from([before]);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
    while serials.len() <= ROTATIONS {
        assert!(std::time::Instant::now() < end, "{serials:?}\n{}", mesh.process.output());
        serials.insert(certificate(&web).expect("a certificate"));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    std::fs::write(&stop, "").expect("write");
    let counts = load.join().expect("no panic");
    let old = old.wait_with_output().expect("output");
    let lines = String::from_utf8_lossy(&old.stdout).lines().filter(|line| line.ends_with(": word")).count();
    let total: u32 = counts.values().sum();
    println!("{total} requests and a connection of {lines} lines during {ROTATIONS} rotations: {counts:?}");
    assert!(old.status.success() && lines > 20, "the old connection: {lines} lines, {}", old.status);
    assert!(counts.keys().all(|by| by.starts_with("web-")) && total >= 300, "{counts:?}");
}
