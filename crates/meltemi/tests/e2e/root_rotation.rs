//! The mesh's root replaced while workloads call each other under STRICT mTLS, each request on a connection of its own: none
//! fails, neither while the new root is distributed nor once it signs.

use crate::mesh::{Mesh, Pod, Workload, can_run, service};
use crate::support::{get, meltemi};
use serde_json::Value;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: server, namespace: app}
spec:
  host: server
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}
";

struct Discovery(SocketAddr);

impl Discovery {
    fn of(mesh: &Mesh) -> Self {
        let output = mesh.process.output();
        let page = output.lines().find_map(|line| line.trim().strip_prefix("control plane: http://"));
        Self(page.and_then(|page| page.strip_suffix("/debug/syncz")?.parse().ok()).expect("an address"))
    }

    fn authority(&self) -> Value {
        let answer = get(self.0, "istiod", "/debug/authorityz").expect("an answer");
        serde_json::from_slice(&answer.body).expect("JSON")
    }

    /// Certificates issued so far.
    fn issued(&self) -> u64 {
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

fn served(client: &Pod) -> Result<(), String> {
    match client.curl("http://server:8080/") {
        Ok(answer) if answer.status == 200 => Ok(()),
        Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
        Err(error) => Err(error),
    }
}

#[test]
fn the_mesh_changes_its_root_under_load_and_no_request_fails() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let workload = |name, labels| Workload { name, labels, ..Workload::default() }.yaml();
    let town = workload("client", "app: client")
        + &workload("server", "app: server")
        + &service("app", "server", "selector: {app: server}, ports: [{name: http, port: 8080}]");
    let mut command = meltemi();
    // The first root is near its end from the start, and workloads renew their certificates every ten seconds.
    for (name, value) in [
        ("CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE", "100"),
        ("CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", "10s"),
        ("ROOT_DISTRIBUTION_MIN", "3s"),
        ("SECRET_TTL", "20s"),
    ] {
        command.env(name, value);
    }
    let mesh = Mesh::start_by(command, dir.path(), &[("town.yaml", &town), ("policy.yaml", POLICY)]);
    let (discovery, client) = (Discovery::of(&mesh), mesh.pod("client"));
    crate::mesh::settles(|| served(&client)).expect("served at all");
    let first = discovery.authority()["roots"][0]["serialNumber"].clone();
    let stop = Arc::new(AtomicBool::new(false));
    let running = std::thread::spawn({
        let stop = stop.clone();
        move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                served(&client)?;
                count += 1;
            }
            Ok::<usize, String>(count)
        }
    });
    discovery.until("a new root signs", |discovery| discovery.authority()["stage"] == "signing");
    let status = discovery.authority();
    assert_ne!(status["signer"]["serialNumber"], first);
    assert_eq!(status["former"][0]["serialNumber"], first);
    // Each workload in turn presents a certificate of the new root.
    let before = discovery.issued();
    discovery.until("certificates of the new root", |discovery| discovery.issued() >= before + 4);
    stop.store(true, Ordering::Relaxed);
    let count = running.join().expect("no panic").unwrap_or_else(|error| panic!("{error}\n{}", mesh.process.output()));
    assert!(count > 10, "{count} requests in all that time");
}
