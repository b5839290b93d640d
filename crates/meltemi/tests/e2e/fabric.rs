//! `meltemi up`: the sample on the one-machine fabric, from outside.

use crate::control_plane::eventually;
use crate::support::{Process, get, meltemi};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const SAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../samples/shop");
const START: Duration = Duration::from_secs(60);

/// Whether this machine lets us make namespaces and rules; the reason otherwise.
fn can_run() -> Result<(), String> {
    for tool in ["ip", "iptables-restore"] {
        let found = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].iter().any(|dir| Path::new(dir).join(tool).exists());
        if !found {
            return Err(format!("skipped: no {tool}; scripts/install-test-deps.sh installs it"));
        }
    }
    let unshare = Command::new("unshare").args(["--user", "--map-root-user", "--net", "true"]).output();
    match unshare {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("skipped: user namespaces are forbidden here".to_owned()),
    }
}

struct Mesh {
    process: Process,
    ingress: SocketAddr,
}

impl Mesh {
    /// Starts the mesh over a folder and waits for its line.
    fn start(manifests: &Path, dir: &Path) -> Self {
        let mut command = meltemi();
        command.arg("up").arg("-f").arg(manifests).args(["--port", "0"]).env("XDG_RUNTIME_DIR", dir);
        let mut process = Process::start("up", &mut command, dir);
        let end = Instant::now() + START;
        loop {
            let output = process.output();
            if let Some(url) = output.lines().find_map(|line| line.trim().strip_prefix("ready: http://")) {
                return Self { process, ingress: url.trim_end_matches('/').parse().expect("an address") };
            }
            assert!(process.is_running() && Instant::now() < end, "no mesh:\n{output}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copy");
    }
}

#[test]
fn the_sample_serves_over_mutual_tls_and_follows_its_files() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let manifests = dir.path().join("shop");
    copy(Path::new(SAMPLES), &manifests);
    let mesh = Mesh::start(&manifests, dir.path());
    let answer = get(mesh.ingress, "shop.example", "/").expect("an answer");
    assert_eq!(answer.status, 200, "{}\n{}", answer.text(), mesh.process.output());
    // A route written while the mesh runs takes effect.
    let route = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: probe, namespace: istio-system}\nspec:\n  hosts: [probe.example]\n  gateways: [GATEWAY]\n  http:\n  - directResponse: {status: 218, body: {string: written}}\n";
    let gateway = gateway_of(&manifests);
    std::fs::write(manifests.join("probe.yaml"), route.replace("GATEWAY", &gateway)).expect("write");
    eventually("a new route", || match get(mesh.ingress, "probe.example", "/") {
        Ok(answer) if answer.status == 218 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

/// `namespace/name` of the folder's Gateway.
fn gateway_of(manifests: &Path) -> String {
    for entry in std::fs::read_dir(manifests).expect("folder") {
        let text = std::fs::read_to_string(entry.expect("entry").path()).expect("text");
        for document in text.split("\n---") {
            if !document.contains("kind: Gateway") {
                continue;
            }
            let field = |key: &str| {
                document.lines().find_map(|line| line.trim().strip_prefix(key)).map(|value| value.trim().to_owned())
            };
            return format!(
                "{}/{}",
                field("namespace:").unwrap_or_else(|| "default".to_owned()),
                field("name:").expect("a name")
            );
        }
    }
    panic!("the sample has no Gateway");
}

#[test]
fn what_is_wrong_is_said_before_anything_starts() {
    let dir = tempfile::tempdir().expect("folder");
    let broken = "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  http:\n  - rout: []\n";
    std::fs::write(dir.path().join("broken.yaml"), broken).expect("write");
    let output = meltemi().args(["up", "-f"]).arg(dir.path()).output().expect("output");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for part in ["broken.yaml:7", "rout", "route"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
