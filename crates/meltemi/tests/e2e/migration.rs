//! A namespace that goes from no mutual TLS to STRICT and back while its workloads call each other, HTTP and TCP, each time on
//! connections of their own: none fails. Beside proxies of ours there are Envoys, where there is one.

use crate::mesh::{Mesh, Pod, Workload, can_run, service};
use crate::support::envoy;
use serde_json::Value;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a mode may take to be in force everywhere, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rounds of each client in each mode, once it is in force.
const ROUNDS: usize = 5;
/// To STRICT and back.
const CYCLES: usize = 2;

/// Each request on a connection of its own.
const CONNECTIONS: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: servers, namespace: app}
spec:
  host: '*.app.svc.cluster.local'
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
---
";

/// No retries, which would hide what is lost.
const ROUTE: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: @NAME@, namespace: app}
spec:
  hosts: [@NAME@]
  http: [{retries: {attempts: 0}, route: [{destination: {host: @NAME@}}]}]
---
";

fn mode(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: app}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

/// A client and a server of each kind; the names of the kinds.
fn start(dir: &Path) -> (Mesh, Vec<&'static str>) {
    let mut town =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: legacy, labels: {istio-injection: disabled}}\n---\n"
            .to_owned();
    town += &Workload { namespace: "legacy", name: "plain", labels: "app: plain", ..Workload::default() }.yaml();
    let mut kinds = vec![("ours", "")];
    let mut arguments = Vec::new();
    if let Ok(envoy) = envoy() {
        kinds.push(("theirs", "sidecar.istio.io/proxyImage: envoy"));
        arguments.extend(["--image".to_owned(), format!("envoy={}", envoy.display())]);
    }
    for (kind, annotations) in &kinds {
        for role in ["client", "server"] {
            let (name, labels) = (format!("{role}-{kind}"), format!("app: {role}-{kind}"));
            let (args, ports): (_, &[u16]) = ("[echo, --http, '8080', --tcp, '9000']", &[8080, 9000]);
            town += &Workload { name: &name, labels: &labels, annotations, args, ports, ..Workload::default() }.yaml();
            let ports = "ports: [{name: http, port: 8080}, {name: tcp, port: 9000}]";
            town += &service("app", &name, &format!("selector: {{{labels}}}, {ports}"));
        }
    }
    let routes: String = kinds.iter().map(|(kind, _)| ROUTE.replace("@NAME@", &format!("server-{kind}"))).collect();
    let rules = CONNECTIONS.to_owned() + &routes;
    let files = [("town.yaml", town.as_str()), ("rules.yaml", &rules), ("mode.yaml", &mode("DISABLE"))];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    (Mesh::start(dir, &files, &arguments), kinds.into_iter().map(|(kind, _)| kind).collect())
}

/// How often an application asks each server by each protocol in one go.
const TIMES: usize = 4;

/// A client's application asks a server some times, by HTTP and by TCP: whether HTTP came by mutual TLS the last time, and all that
/// failed.
fn call(client: &Pod, server: &str, times: usize) -> (bool, Vec<String>) {
    let urls = vec![format!("url=http://{server}:8080/&url=tcp://{server}:9000/word"); times].join("&");
    let answer = client.curl(&format!("'http://localhost:8080/call?{urls}'"));
    let report: Value = match answer.map(|answer| serde_json::from_slice(&answer.body).map_err(|e| e.to_string())) {
        Ok(Ok(report)) => report,
        Ok(Err(reason)) | Err(reason) => return (false, vec![reason]),
    };
    let calls = report["calls"].as_array().cloned().unwrap_or_default();
    let failed = |call: &&Value| match call["url"].as_str().unwrap_or_default().starts_with("tcp") {
        true => !call["body"].as_str().is_some_and(|line| line.ends_with(": word")),
        false => call["status"] != 200,
    };
    let wrong = calls.iter().filter(failed).map(|call| format!("{} to {server}: {call}", client.name)).collect();
    let last = calls.iter().rev().find_map(|call| call["body"]["security"]["mutualTls"].as_bool());
    assert_eq!(calls.len(), 2 * times, "{report}");
    (last.unwrap_or_default(), wrong)
}

/// What all clients count together.
#[derive(Default)]
struct Count {
    served: AtomicUsize,
    failed: Mutex<Vec<String>>,
    mode: Mutex<String>,
}

struct Load {
    count: Arc<Count>,
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(clients: &[Pod], servers: &[String]) -> Self {
        let (count, stop): (Arc<Count>, Arc<AtomicBool>) = Default::default();
        let client = |client: &Pod| {
            let (client, servers, count, stop) = (client.clone(), servers.to_vec(), count.clone(), stop.clone());
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    for server in &servers {
                        let (_, wrong) = call(&client, server, TIMES);
                        count.served.fetch_add(2 * TIMES - wrong.len(), Ordering::Relaxed);
                        let mode = count.mode.lock().expect("no panic").clone();
                        let wrong = wrong.into_iter().map(|reason| format!("{mode}: {reason}"));
                        count.failed.lock().expect("no panic").extend(wrong);
                    }
                }
            })
        };
        let running = clients.iter().map(client).collect();
        Self { count, stop, running }
    }

    fn go_on(&self, count: usize) {
        let (wanted, end) = (self.count.served.load(Ordering::Relaxed) + count, Instant::now() + PATIENCE);
        while self.count.served.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < end, "nothing is served: {:?}", self.count.failed.lock().expect("no panic"));
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many were served, and which failed.
    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.running.into_iter().for_each(|client| client.join().expect("no panic"));
        let failed = self.count.failed.lock().expect("no panic").clone();
        (self.count.served.load(Ordering::Relaxed), failed)
    }
}

/// Waits until the mode is in force for every client and server.
fn in_force(mode: &str, clients: &[Pod], servers: &[String], plain: &Pod) -> Result<(), String> {
    let end = Instant::now() + PATIENCE;
    let holds = || {
        for (client, server) in clients.iter().flat_map(|client| servers.iter().map(move |server| (client, server))) {
            let (mutual, wrong) = call(client, server, 1);
            if mutual != (mode != "DISABLE") || !wrong.is_empty() {
                return Err(format!("{} to {server}: mutual TLS {mutual}, {wrong:?}", client.name));
            }
        }
        for server in servers {
            let open = plain.curl(&format!("http://{server}.app:8080/")).is_ok_and(|answer| answer.status == 200);
            if open == (mode == "STRICT") {
                return Err(format!("plain text to {server}: {open}"));
            }
        }
        Ok(())
    };
    loop {
        match holds() {
            Ok(()) => return Ok(()),
            Err(reason) if Instant::now() > end => return Err(format!("{mode}: {reason}")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

#[test]
fn a_namespace_goes_to_strict_and_back_under_load_and_no_request_fails() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let (mesh, kinds) = start(dir.path());
    let clients: Vec<Pod> = kinds.iter().map(|kind| mesh.pod(&format!("client-{kind}"))).collect();
    let servers: Vec<String> = kinds.iter().map(|kind| format!("server-{kind}")).collect();
    let plain = mesh.pod("plain");
    let reached = |wanted: &str| {
        in_force(wanted, &clients, &servers, &plain).unwrap_or_else(|e| panic!("{e}\n{}", mesh.process.output()));
    };
    reached("DISABLE");
    let load = Load::start(&clients, &servers);
    let mut before = "DISABLE";
    for wanted in ["PERMISSIVE", "STRICT", "PERMISSIVE", "DISABLE"].repeat(CYCLES) {
        *load.count.mode.lock().expect("no panic") = format!("{before} to {wanted}");
        mesh.write("mode.yaml", &mode(wanted));
        reached(wanted);
        load.go_on(ROUNDS * clients.len() * servers.len() * 2 * TIMES);
        before = wanted;
    }
    let (served, failed) = load.end();
    println!("{served} calls served, {} failed", failed.len());
    assert!(failed.is_empty(), "{served} served, {} failed:\n{}", failed.len(), failed.join("\n"));
}
