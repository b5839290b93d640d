//! A gateway's certificate replaced while clients come: no handshake and no request fails, and the new one is served. Once as a
//! Secret, which discovery serves, and once as files, which the gateway's agent reads.

use crate::mesh::{Mesh, Workload, can_run, service, settles};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

const ROTATIONS: usize = 3;
/// Of each name.
const CLIENTS: usize = 2;

const ROUTING: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: town, namespace: app}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: 443, name: secret, protocol: HTTPS}, hosts: [secret.example], tls: {mode: SIMPLE, credentialName: shop}}
  - {port: {number: 8446, name: files, protocol: HTTPS}, hosts: [files.example], tls: {mode: SIMPLE, serverCertificate: FOLDER/cert.pem, privateKey: FOLDER/key.pem}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: app}
spec:
  hosts: [secret.example, files.example]
  gateways: [town]
  http: [{route: [{destination: {host: web, port: {number: 8080}}}]}]
---
";

/// A certificate for both names by an authority of its own.
struct Certificate {
    authority: String,
    chain: String,
    key: String,
}

impl Certificate {
    fn new(number: usize) -> Self {
        use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
        let key = KeyPair::generate().expect("key");
        let mut authority = CertificateParams::new(Vec::new()).expect("names");
        authority.distinguished_name.push(rcgen::DnType::CommonName, format!("root {number} of this test"));
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = authority.self_signed(&key).expect("root").pem();
        let issuer = Issuer::new(authority, key);
        let own = KeyPair::generate().expect("key");
        let names = ["secret.example", "files.example"].map(str::to_owned).to_vec();
        let leaf = CertificateParams::new(names).expect("names").signed_by(&own, &issuer).expect("certificate");
        Self { authority: root, chain: leaf.pem(), key: own.serialize_pem() }
    }

    fn secret(&self) -> String {
        let block = |pem: &str| pem.trim().replace('\n', "\n    ");
        format!(
            "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: shop, namespace: istio-system}}\nstringData:\n  tls.crt: |\n    {}\n  tls.key: |\n    {}\n---\n",
            block(&self.chain),
            block(&self.key)
        )
    }

    /// As a mounted Secret is replaced: each file at once.
    fn write(&self, folder: &Path) {
        for (name, text) in [("cert.pem", &self.chain), ("key.pem", &self.key)] {
            let part = folder.join(format!(".{name}.part"));
            std::fs::write(&part, text).expect("write");
            std::fs::rename(part, folder.join(name)).expect("rename");
        }
    }
}

/// A request on a connection of its own, which trusts what is in a file.
fn ask(at: SocketAddr, name: &str, roots: &Path) -> Output {
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail", "--max-time", "20", "-o", "/dev/null", "--cacert"]).arg(roots);
    command.arg("--resolve").arg(format!("{name}:{}:{}", at.port(), at.ip()));
    command.arg(format!("https://{name}:{}/", at.port())).output().expect("curl")
}

fn served(at: SocketAddr, name: &str, roots: &Path) -> Result<(), String> {
    let output = ask(at, name, roots);
    if output.status.success() { Ok(()) } else { Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr))) }
}

/// Clients that come one after the other until they are told to stop; how many came, and why one failed.
fn clients(
    at: SocketAddr,
    name: &'static str,
    roots: &Path,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<Result<usize, String>>> {
    let client = |_| {
        let (roots, stop): (PathBuf, _) = (roots.to_owned(), stop.clone());
        std::thread::spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                served(at, name, &roots)?;
                count += 1;
            }
            Ok(count)
        })
    };
    (0..CLIENTS).map(client).collect()
}

#[test]
fn a_gateways_certificate_is_replaced_without_a_failure() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    let dir = tempfile::tempdir().expect("folder");
    let certificates: Vec<Certificate> = (0..=ROTATIONS).map(Certificate::new).collect();
    let all: String = certificates.iter().map(|certificate| certificate.authority.as_str()).collect();
    let trusted = dir.path().join("all.pem");
    std::fs::write(&trusted, all).expect("write");
    certificates[0].write(dir.path());
    let web = Workload { name: "web", labels: "app: web", ..Workload::default() };
    let town = web.yaml() + &service("app", "web", "selector: {app: web}, ports: [{name: http, port: 8080}]");
    let routing = ROUTING.replace("FOLDER", &dir.path().display().to_string());
    let files = [("town.yaml", &*town), ("routing.yaml", &routing), ("secret.yaml", &certificates[0].secret())];
    let mesh = Mesh::start(dir.path(), &files, &[]);
    let gateways = [("secret.example", mesh.gateway(443)), ("files.example", mesh.gateway(8446))];
    for (name, at) in gateways {
        let outcome = settles(|| served(at, name, &trusted));
        assert!(outcome.is_ok(), "{outcome:?}\n{}", mesh.process.output());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let running: Vec<_> = gateways.iter().flat_map(|(name, at)| clients(*at, name, &trusted, &stop)).collect();
    for certificate in &certificates[1..] {
        mesh.write("secret.yaml", &certificate.secret());
        certificate.write(dir.path());
        let only = dir.path().join("only.pem");
        std::fs::write(&only, &certificate.authority).expect("write");
        for (name, at) in gateways {
            let outcome = settles(|| served(at, name, &only));
            assert!(outcome.is_ok(), "the new certificate: {outcome:?}\n{}", mesh.process.output());
        }
    }
    stop.store(true, Ordering::Relaxed);
    for client in running {
        let count = client.join().expect("no panic").expect("no failure");
        assert!(count >= ROTATIONS, "{count} requests in all that time");
    }
}
