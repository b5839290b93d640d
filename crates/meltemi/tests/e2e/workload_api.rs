//! SPIFFE's Workload API with foreigners on both sides: a server of grpcio gives our agent its certificate and replaces it; the proxy
//! serves with it, ours or an Envoy that the agent supervises; and the package `spiffe` takes it from our agent as an application
//! would.

use crate::control_plane::{Discovery, python};
use crate::openssl::s_client_by;
use crate::support::{Process, envoy, free_address, meltemi};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const ID: &str = "spiffe://spire.example/ns/istio-system/sa/gw";
const PATIENCE: Duration = Duration::from_secs(30);
const PEER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/workload.py");

/// A server that shows the workload's own certificate.
const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - {port: {number: @PORT@, name: mutual, protocol: HTTPS}, hosts: ['*'], tls: {mode: ISTIO_MUTUAL}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: all, namespace: istio-system}
spec: {hosts: ['*'], gateways: [gw], http: [{directResponse: {status: 200}}]}
";

/// An authority, by which the other agent's certificates are.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: Vec<u8>,
    /// Of another trust domain.
    other: Vec<u8>,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "spire.example");
        let root = params.self_signed(&key).expect("a root").der().to_vec();
        let other = params.self_signed(&KeyPair::generate().expect("a key")).expect("a root").der().to_vec();
        Self { issuer: Issuer::new(params, key), root, other }
    }

    /// Has the other agent give a new certificate; its lines in PEM.
    fn issue(&self, folder: &Path, number: u64) -> String {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(ID.try_into().expect("a URI"))];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.serial_number = Some(number.into());
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        let part = folder.join("part");
        std::fs::create_dir_all(&part).expect("folder");
        let files: [(&str, &[u8]); 5] = [
            ("id", ID.as_bytes()),
            ("svid.der", leaf.der()),
            ("key.der", &key.serialize_der()),
            ("bundle.der", &self.root),
            ("other.der", &self.other),
        ];
        for (name, bytes) in files {
            std::fs::write(part.join(name), bytes).expect("write");
        }
        let served = folder.join("served");
        std::fs::create_dir_all(&served).expect("folder");
        std::fs::rename(part, served.join(number.to_string())).expect("rename");
        leaf.pem()
    }
}

/// The lines that a process printed as JSON, once there are so many.
fn lines(process: &mut Process, count: usize) -> Vec<Value> {
    let end = Instant::now() + PATIENCE;
    loop {
        let output = process.output();
        let lines: Vec<Value> = output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if lines.len() >= count {
            return lines;
        }
        assert!(Instant::now() < end, "{} lines of {count}:\n{output}", lines.len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until the port shows this certificate.
fn shows(proxy: &Process, port: SocketAddr, roots: &Path, certificate: &str) {
    let end = Instant::now() + PATIENCE;
    let wanted = certificate.lines().nth(1).expect("a line");
    loop {
        let seen = s_client_by(Command::new("timeout"), &port.to_string(), roots, &["-alpn", "istio"], "\n");
        if seen.contains(wanted) {
            return;
        }
        assert!(Instant::now() < end, "{} does not show it:\n{seen}\n{}", proxy.name, proxy.output());
        std::thread::sleep(Duration::from_millis(50));
    }
}

struct Bench<'a> {
    dir: &'a Path,
    python: PathBuf,
    port: SocketAddr,
    discovery: Discovery,
}

impl Bench<'_> {
    /// The gateway's agent, with these arguments more and sockets below this folder.
    fn agent(&self, name: &'static str, arguments: &[&str], their: &Path, our: &Path) -> Process {
        let ports: [u16; 4] = std::array::from_fn(|_| free_address().port());
        let config = json!({ "discoveryAddress": self.discovery.grpc.to_string(), "controlPlaneAuthPolicy": "NONE",
            "proxyAdminPort": ports[0], "statusPort": ports[1], "concurrency": 1 });
        let mut command = meltemi();
        command.args(["proxy", "router"]).args(arguments).current_dir(self.dir);
        if nix::unistd::geteuid().is_root() {
            // The sockets lie in a folder that is root's alone.
            command.args(["--user", "0"]);
        }
        for (key, value) in [
            ("POD_NAME", "gw-1".to_owned()),
            ("POD_NAMESPACE", "istio-system".to_owned()),
            ("SERVICE_ACCOUNT", "gw".to_owned()),
            ("TRUST_DOMAIN", "spire.example".to_owned()),
            ("INSTANCE_IP", "127.0.0.1".to_owned()),
            ("ISTIO_METAJSON_LABELS", "{\"istio\":\"ingressgateway\"}".to_owned()),
            ("PROXY_CONFIG", config.to_string()),
            ("ENVOY_STATUS_PORT", ports[2].to_string()),
            ("ENVOY_PROMETHEUS_PORT", ports[3].to_string()),
            ("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", their.display())),
            ("MELTEMI_WORKLOAD_API_SOCKET", our.display().to_string()),
        ] {
            command.env(key, value);
        }
        Process::start(name, &mut command, self.dir)
    }

    fn the_certificate_passes_through(&self, name: &'static str, arguments: &[&str]) {
        let (authority, folder) = (Authority::new(), self.dir.join(name));
        let [their, our] = ["their", "our"].map(|whose| folder.join(format!("{whose}.sock")));
        let first = authority.issue(&folder, 1);
        let roots = folder.join("root.pem");
        std::fs::write(&roots, &first).expect("write");
        let mut server = Command::new(&self.python);
        server.arg(PEER).arg("server").arg(&their).arg(folder.join("served"));
        let server = Process::start("workload-server", &mut server, &folder);
        let proxy = self.agent(name, arguments, &their, &our);
        shows(&proxy, self.port, &roots, &first);

        let mut client = Command::new(&self.python);
        client.arg(PEER).arg("client").arg(&our).arg("2");
        let mut client = Process::start("workload-client", &mut client, &folder);
        let told = lines(&mut client, 2);
        let bundles = json!({ "spire.example": 1, "other.example": 1 });
        assert_eq!(told[0], json!({ "bundles": bundles }), "{name}");
        assert_eq!(told[1], json!({ "id": ID, "chain": 1, "serial": "1", "bundles": bundles }), "{name}");

        let second = authority.issue(&folder, 2);
        assert_eq!(
            lines(&mut client, 3)[2],
            json!({ "id": ID, "chain": 1, "serial": "2", "bundles": bundles }),
            "{name}"
        );
        shows(&proxy, self.port, &roots, &second);
        let sent = server.output();
        assert!(sent.contains("sent 1") && sent.contains("sent 2"), "{sent}");
    }
}

#[test]
fn a_certificate_comes_and_goes_by_the_workload_api_of_others() {
    let python = match python() {
        Ok(python) => python,
        Err(reason) => return println!("{reason}"),
    };
    let asked = Command::new(&python).args(["-c", "import spiffe"]).output().expect("python");
    if !asked.status.success() || Command::new("openssl").arg("version").output().is_err() {
        return println!("skipped: no package spiffe, or no openssl; scripts/install-test-deps.sh installs them");
    }
    let dir = tempfile::tempdir().expect("folder");
    let port = free_address();
    let gateway = GATEWAY.replace("@PORT@", &port.port().to_string());
    let discovery = Discovery::start(dir.path(), &[("gateway.yaml", gateway)]);
    let bench = Bench { dir: dir.path(), python, port, discovery };
    bench.the_certificate_passes_through("ours", &[]);
    match envoy() {
        Ok(envoy) => bench.the_certificate_passes_through("envoy", &["--envoy", &envoy.display().to_string()]),
        Err(reason) => println!("{reason}"),
    }
}
