//! What a listener on the wire between two pods sees: TLS where the mesh encrypts, the very words where it does not.

use crate::mesh::{Mesh, Pod, Workload, can_run, service, settles};
use crate::support::Process;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A word that appears in requests, and so on the wire where that is plain.
const MARKER: &str = "speak-friend-and-enter";

fn python() -> Result<PathBuf, String> {
    let path = crate::support::cache().join("venv/bin/python");
    if path.exists() {
        Ok(path)
    } else {
        Err("skipped: no Python; scripts/install-test-deps.sh installs it".to_owned())
    }
}

/// A reader of the raw packets on a pod's link.
struct Wire {
    file: PathBuf,
    _process: Process,
}

impl Wire {
    fn watch(pod: &Pod, python: &Path, dir: &Path) -> Self {
        let file = dir.join("wire.txt");
        let mut command = pod.command(python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/wire.py")).arg(&file);
        let mut process = Process::start("wire", &mut command, dir);
        let end = Instant::now() + Duration::from_secs(10);
        while !process.output().contains("watching") {
            assert!(process.is_running() && Instant::now() < end, "no listener on the wire:\n{}", process.output());
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { file, _process: process }
    }

    /// The payloads from an address to a port, in order.
    fn sent(&self, from: &str, port: u16) -> Vec<Vec<u8>> {
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        let lines = text.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|parts| parts.len() == 3);
        let towards = format!(":{port}");
        let wanted = lines.filter(|parts| parts[0].starts_with(&format!("{from}:")) && parts[1].ends_with(&towards));
        let unhex = |hex: &str| {
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            (0..hex.len() / 2 * 2).step_by(2).map(byte).collect()
        };
        wanted.map(|parts| unhex(parts[2])).collect()
    }
}

fn contains(payloads: &[Vec<u8>], word: &str) -> bool {
    payloads.concat().windows(word.len()).any(|window| window == word.as_bytes())
}

/// A handshake record of TLS with a ClientHello in it.
fn begins_tls(payload: &[u8]) -> bool {
    payload.len() > 5 && payload[0] == 0x16 && payload[1] == 0x03 && payload[5] == 0x01
}

fn manifests() -> String {
    let mut text = String::from(
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: legacy, labels: {istio-injection: disabled}}\n---\n",
    );
    text += &Workload { name: "client", labels: "app: client", account: "client", ..Workload::default() }.yaml();
    let args = "[echo, --http, '8080', --tcp, '9000']";
    let web =
        Workload { name: "web", labels: "app: web", account: "web", args, ports: &[8080, 9000], ..Workload::default() };
    text += &web.yaml();
    text += &Workload { namespace: "legacy", name: "plain", labels: "app: plain", ..Workload::default() }.yaml();
    text + &service("app", "web", "selector: {app: web}, ports: [{name: http, port: 8080}, {name: tcp, port: 9000}]")
}

fn authentication(mode: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {{name: default, namespace: app}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
    )
}

#[test]
fn the_wire_between_two_pods_shows_only_tls_and_plain_text_is_refused_under_strict() {
    let python = match can_run().and_then(|()| python()) {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let dir = tempfile::tempdir().expect("folder");
    let manifests = manifests();
    let files = [("pods.yaml", manifests.as_str()), ("mode.yaml", &authentication("PERMISSIVE"))];
    let mesh = Mesh::start(dir.path(), &files, &[]);
    let (client, web, plain) = (mesh.pod("client"), mesh.pod("web"), mesh.pod("plain"));
    let (client_at, plain_at) = (client.address().to_string(), plain.address().to_string());
    let wire = Wire::watch(&web, &python, dir.path());
    let ask = |pod: &Pod| pod.curl(&format!("-H x-marker:{MARKER} http://web.app:8080/{MARKER}"));
    let report = |answer: crate::support::Answer| serde_json::from_slice::<Value>(&answer.body).expect("JSON");

    // Without a sidecar: the words are on the wire, which also shows that we see it.
    let open = report(ask(&plain).expect("PERMISSIVE takes plain text"));
    assert_eq!(open["security"]["mutualTls"], false, "{open}");
    settles(|| if contains(&wire.sent(&plain_at, 8080), MARKER) { Ok(()) } else { Err("nothing seen".to_owned()) })
        .expect("plain text is seen");

    // With sidecars: a TLS handshake, and nowhere the words, in either direction, for HTTP and for TCP.
    let secured = report(ask(&client).expect("an answer"));
    assert_eq!(secured["security"]["peer"], "spiffe://cluster.local/ns/app/sa/client", "{secured}");
    let tcp = client.curl(&format!("'http://localhost:8080/call?url=tcp://web:9000/{MARKER}'")).expect("an answer");
    assert!(tcp.text().contains(&format!("web v1 {}: {MARKER}", web.name)), "{}", tcp.text());
    for port in [8080, 9000] {
        let sent = settles(|| if wire.sent(&client_at, port).len() > 1 { Ok(()) } else { Err(String::new()) });
        assert!(sent.is_ok(), "nothing seen to {port}");
        let sent = wire.sent(&client_at, port);
        assert!(begins_tls(&sent[0]), "{:02x?}", &sent[0][..sent[0].len().min(16)]);
        // The handshake of TLS 1.3 offers the mesh's protocols in the clear: that is how the other side knows the mesh.
        assert!(contains(&sent[..1], "istio"), "ALPN");
        assert!(!contains(&sent, MARKER), "plain text to {port}");
    }
    let all = std::fs::read_to_string(dir.path().join("wire.txt")).expect("text");
    let answered: Vec<_> = all
        .lines()
        .filter(|line| line.split(' ').nth(1).is_some_and(|to| to.starts_with(&format!("{client_at}:"))))
        .collect();
    let hex: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!answered.is_empty() && !answered.iter().any(|line| line.contains(&hex)), "an answer in plain text");

    // STRICT: what speaks no TLS gets nothing, the mesh goes on.
    mesh.write("mode.yaml", &authentication("STRICT"));
    settles(|| match ask(&plain) {
        Err(refused) => {
            if refused.contains("(52)") || refused.contains("(56)") {
                Ok(())
            } else {
                Err(refused)
            }
        }
        Ok(answer) => Err(format!("{answer:?}")),
    })
    .expect("plain text is refused");
    let strict = report(ask(&client).expect("an answer"));
    assert_eq!(strict["security"]["self"], "spiffe://cluster.local/ns/app/sa/web", "{strict}");
    // A client that speaks TLS but has no certificate of the mesh is refused too.
    let output = plain.run("curl", &["-sSk", "--max-time", "5", "https://web.app:8080/"]);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    println!("seen on the wire: {} segments", all.lines().count());
}
