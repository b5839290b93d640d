//! The mesh's root replaced while workloads call each other under STRICT mTLS, each request on a connection of its own: none
//! fails, neither while the new root is distributed nor once it signs. Beside proxies of ours there are Envoys, where there is one.

use crate::mesh::{Mesh, Pod, Workload, can_run, service, settles};
use crate::support::{envoy, get, meltemi};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// mTLS alone, and each request on a connection of its own.
pub const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: servers, namespace: app}
spec:
  host: '*.app.svc.cluster.local'
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
";

pub struct Authority(SocketAddr);

impl Authority {
    pub fn of(mesh: &Mesh) -> Self {
        let output = mesh.process.output();
        let page = output.lines().find_map(|line| line.trim().strip_prefix("control plane: http://"));
        Self(page.and_then(|page| page.strip_suffix("/debug/syncz")?.parse().ok()).expect("an address"))
    }

    fn authority(&self) -> Value {
        let answer = get(self.0, "istiod", "/debug/authorityz").expect("an answer");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Certificates issued so far.
    pub fn issued(&self) -> u64 {
        let text = get(self.0, "istiod", "/metrics").expect("an answer").text();
        let line = |line: &str| line.strip_prefix("citadel_server_success_cert_issuance_count ")?.parse().ok();
        text.lines().find_map(line).expect("a count")
    }

    fn until(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !condition(self) {
            assert!(Instant::now() < end, "{what}: {}", self.authority());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// One request to each server.
pub fn served(client: &Pod, servers: &[String]) -> Result<(), String> {
    for server in servers {
        let answer = client.curl(&format!("http://{server}:8080/"))?;
        if answer.status != 200 {
            return Err(format!("{} to {server}: {} {}", client.name, answer.status, answer.text()));
        }
    }
    Ok(())
}

/// Requests one after the other until told to stop; how many rounds there were, or why one failed.
fn call(client: Pod, servers: Vec<String>, stop: Arc<AtomicBool>) -> JoinHandle<Result<usize, String>> {
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Relaxed) {
            served(&client, &servers)?;
            count += 1;
        }
        Ok(count)
    })
}

/// Starts a client and a server of each kind; the names of the clients and of the servers.
fn start(dir: &Path) -> (Mesh, Vec<String>, Vec<String>) {
    let envoy = envoy().ok();
    let (mut town, mut clients, mut servers) = (String::new(), Vec::new(), Vec::new());
    for kind in ["ours", "theirs"].iter().take(1 + usize::from(envoy.is_some())) {
        let annotations = if *kind == "ours" { "" } else { "sidecar.istio.io/proxyImage: envoy" };
        for (role, names) in [("client", &mut clients), ("server", &mut servers)] {
            let (name, labels) = (format!("{role}-{kind}"), format!("app: {role}-{kind}"));
            town += &Workload { name: &name, labels: &labels, annotations, ..Workload::default() }.yaml();
            town += &service("app", &name, &format!("selector: {{{labels}}}, ports: [{{name: http, port: 8080}}]"));
            names.push(name);
        }
    }
    let mut command = meltemi();
    if let Some(envoy) = envoy {
        command.arg("--image").arg(format!("envoy={}", envoy.display()));
    }
    // The first root is near its end from the start, and workloads renew their certificates every ten seconds.
    for (name, value) in [
        ("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE", "100"),
        ("CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", "20s"),
        ("ROOT_DISTRIBUTION_MIN", "3s"),
        ("SECRET_TTL", "20s"),
    ] {
        command.env(name, value);
    }
    (Mesh::start_by(command, dir, &[("town.yaml", &town), ("policy.yaml", POLICY)]), clients, servers)
}

#[test]
fn the_mesh_changes_its_root_under_load_and_no_request_fails() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let (mesh, clients, servers) = start(dir.path());
    let discovery = Authority::of(&mesh);
    let first = discovery.authority()["roots"][0]["serialNumber"].clone();
    let clients: Vec<Pod> = clients.iter().map(|client| mesh.pod(client)).collect();
    for client in &clients {
        settles(|| served(client, &servers)).expect("served at all");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let running: Vec<_> = clients.into_iter().map(|client| call(client, servers.clone(), stop.clone())).collect();
    discovery.until("a new root signs", |discovery| discovery.authority()["stage"] == "signing");
    let status = discovery.authority();
    assert_ne!(status["signer"]["serialNumber"], first);
    assert_eq!(status["former"][0]["serialNumber"], first);
    // Each workload in turn presents a certificate of the new root.
    let before = discovery.issued();
    let workloads = 2 * servers.len() as u64 + 1;
    discovery.until("certificates of the new root", |discovery| discovery.issued() >= before + 2 * workloads);
    stop.store(true, Ordering::Relaxed);
    for client in running {
        let count = client.join().expect("no panic").unwrap_or_else(|e| panic!("{e}\n{}", mesh.process.output()));
        assert!(count > 10, "{count} rounds in all that time");
    }
}
