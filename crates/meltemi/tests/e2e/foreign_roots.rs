//! A mesh whose trust domain alias has roots of its own: workloads of another mesh, played by openssl, call ours and are called,
//! each verified by the roots of its own trust domain and by no other. Sidecars are ours and, where there is one, Envoy. The roots
//! stand in the mesh configuration at first and then where it says that they are found (`spiffeBundleUrl`).

use crate::mesh::{Mesh, Pod, Workload, can_run, service, settles};
use crate::openssl::{Session, s_client_by};
use crate::support::{Process, envoy, meltemi};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Workloads of the other mesh, as this one knows them: an endpoint has an account, which is of either trust domain.
const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: app}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: app}
spec: {action: DENY, rules: [{from: [{source: {principals: [cluster.local/ns/app/sa/denied]}}]}]}
---
";

/// Ports of the other mesh's servers.
const HONEST: u16 = 9443;
const POSING: u16 = 9444;
const BUNDLES: u16 = 9445;

/// An authority with the certificates that it gave, in files.
struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
    pem: String,
}

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().expect("a key"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, name);
        let root = params.self_signed(&key).expect("a root");
        let (der, pem) = (root.der().to_vec(), root.pem());
        Self { folder: folder.join(name), issuer: Issuer::new(params, key), der, pem }
    }

    /// The files of a certificate with this name, and of its key.
    fn issue(&self, name: &str, san: SanType) -> [String; 2] {
        let (mut params, key) = (CertificateParams::default(), KeyPair::generate().expect("a key"));
        params.subject_alt_names = vec![san];
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::create_dir_all(&self.folder).expect("folder");
        let files = [("pem", leaf.pem()), ("key", key.serialize_pem())];
        files.map(|(end, text)| {
            let file = self.folder.join(format!("{name}.{end}"));
            std::fs::write(&file, text).expect("write");
            file.display().to_string()
        })
    }

    fn workload(&self, domain: &str, account: &str) -> [String; 2] {
        let uri = format!("spiffe://{domain}/ns/app/sa/{account}");
        self.issue(&format!("{domain}-{account}"), SanType::URI(uri.try_into().expect("a URI")))
    }
}

/// The mesh configuration with an alias; `roots` is one entry of `caCertificates`.
fn settings(roots: &serde_json::Value) -> String {
    let mut roots = roots.clone();
    roots["trustDomains"] = json!(["mesh.two"]);
    json!({ "trustDomainAliases": ["mesh.two"], "caCertificates": [roots] }).to_string()
}

/// Whom a ServiceEntry says to be at an address.
fn foreign(name: &str, pod: &Pod, port: u16) -> String {
    format!(
        "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: app}}\nspec:\n  \
         hosts: [{name}.two.example]\n  location: MESH_INTERNAL\n  resolution: STATIC\n  \
         ports: [{{number: 80, name: http, protocol: HTTP, targetPort: {port}}}]\n  endpoints:\n  \
         - {{address: {}, serviceAccount: friend, labels: {{security.istio.io/tlsMode: istio}}}}\n---\n",
        pod.address()
    )
}

/// The mesh, and the kinds of its sidecars.
fn start(dir: &Path, roots: &str) -> (Mesh, Vec<&'static str>) {
    let mut town =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: two, labels: {istio-injection: disabled}}\n---\n".to_owned();
    let mut command = meltemi();
    let file = dir.join("settings.yaml");
    std::fs::write(&file, settings(&json!({ "pem": roots }))).expect("write");
    // What discovery trusts of servers of bundles.
    command.arg("--mesh-config").arg(&file).env("SSL_CERT_FILE", dir.join("web.pem"));
    let mut kinds = vec!["ours"];
    if let Ok(envoy) = envoy() {
        command.arg("--image").arg(format!("envoy={}", envoy.display()));
        kinds.push("theirs");
    }
    for kind in &kinds {
        let annotations = if *kind == "ours" { "" } else { "sidecar.istio.io/proxyImage: envoy" };
        let (name, labels) = (format!("web-{kind}"), format!("app: web-{kind}"));
        town += &Workload { name: &name, labels: &labels, annotations, account: "web", ..Workload::default() }.yaml();
        town += &service("app", &name, &format!("selector: {{{labels}}}, ports: [{{name: http, port: 8080}}]"));
    }
    town += &Workload { namespace: "two", name: "plain", labels: "app: plain", ..Workload::default() }.yaml();
    (Mesh::start_by(command, dir, &[("town.yaml", &town), ("policies.yaml", POLICIES)]), kinds)
}

/// The roots of the mesh itself.
fn own_roots(dir: &Path) -> PathBuf {
    let runs = std::fs::read_dir(dir.join("tmp")).expect("folder").flatten();
    let mut roots = runs.map(|run| run.path().join("ca/root-cert.pem")).filter(|file| file.exists());
    roots.next().expect("an authority")
}

/// A server of the other mesh, which takes only clients of ours.
fn serve(pod: &Pod, port: u16, [chain, key]: &[String; 2], words: &[&str], dir: &Path) -> Process {
    let mut command = pod.command("openssl");
    command.args(["s_server", "-quiet", "-accept", &port.to_string(), "-cert", chain, "-key", key]).args(words);
    Process::start("s_server", &mut command, dir)
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: web.example\r\nconnection: close\r\n\r\n";

/// What the sidecar of a server answers to a client of the other mesh; nothing where it refuses it.
fn knock(plain: &Pod, server: &Pod, roots: &Path, [chain, key]: &[String; 2]) -> String {
    let words = ["-ign_eof", "-cert", chain, "-key", key, "-alpn", "istio"];
    let at = format!("{}:8080", server.address());
    Session::of(&s_client_by(plain.command("timeout"), &at, roots, &words, REQUEST)).status
}

fn expect(what: &str, expected: &str, ask: impl Fn() -> String) {
    settles(|| match ask() {
        status if status == expected => Ok(()),
        status => Err(format!("{what}: {status:?} and not {expected:?}")),
    })
    .unwrap_or_else(|reason| panic!("{reason}"));
}

#[test]
fn each_trust_domain_is_verified_by_its_own_roots_in_both_directions() {
    if let Err(reason) = can_run() {
        return println!("{reason}");
    }
    if Command::new("openssl").arg("version").output().is_err() {
        return println!("skipped: no openssl; scripts/install-test-deps.sh installs it");
    }
    let folder = tempfile::tempdir().expect("folder");
    let dir = folder.path();
    let [two, later, web] = ["two", "later", "web"].map(|name| Authority::new(dir, name));
    std::fs::write(dir.join("web.pem"), &web.pem).expect("write");
    let (mesh, kinds) = start(dir, &two.pem);
    let (plain, roots) = (mesh.pod("plain"), own_roots(dir));
    mesh.write("foreign.yaml", &(foreign("honest", &plain, HONEST) + &foreign("posing", &plain, POSING)));
    let clients = ["-www", "-Verify", "2", "-verify_return_error", "-CAfile", &roots.display().to_string()];
    let _honest = serve(&plain, HONEST, &two.workload("mesh.two", "friend"), &clients, dir);
    // It says that it is of our own trust domain, which its root cannot vouch for.
    let _posing = serve(&plain, POSING, &two.workload("cluster.local", "friend"), &clients, dir);
    let friend = two.workload("mesh.two", "friend");
    for kind in &kinds {
        let server = mesh.pod(&format!("web-{kind}"));
        let status = |identity: &[String; 2]| knock(&plain, &server, &roots, identity);
        expect(&format!("{kind}: a friend"), "200", || status(&friend));
        assert_eq!(status(&two.workload("mesh.two", "denied")), "403", "{kind}: a policy is for aliases, too");
        assert_eq!(status(&two.workload("cluster.local", "friend")), "", "{kind}: in the name of our own trust domain");
        assert_eq!(status(&two.workload("mesh.three", "friend")), "", "{kind}: in a name that nobody trusts");
        assert_eq!(status(&later.workload("mesh.two", "friend")), "", "{kind}: another root");
        let call = |host: &str| match server.curl(&format!("http://{host}.two.example/")) {
            Ok(answer) => answer.status.to_string(),
            Err(reason) => reason,
        };
        expect(&format!("{kind} calls a friend"), "200", || call("honest"));
        assert_eq!(call("posing"), "503", "{kind} calls one who poses");
    }

    // The other mesh has another root, and says so where it is asked.
    let address = plain.address();
    let bundle = json!({ "keys": [{ "use": "x509-svid", "kty": "EC", "x5c": [STANDARD.encode(&later.der)] }] });
    std::fs::write(dir.join("bundle.json"), bundle.to_string()).expect("write");
    let name = web.issue("bundles", SanType::IpAddress(address.into()));
    let _bundles = serve(&plain, BUNDLES, &name, &["-WWW"], dir);
    let url = format!("https://{address}:{BUNDLES}{}", dir.join("bundle.json").display());
    std::fs::write(dir.join("settings.part"), settings(&json!({ "spiffeBundleUrl": url }))).expect("write");
    std::fs::rename(dir.join("settings.part"), dir.join("settings.yaml")).expect("rename");
    let known = later.workload("mesh.two", "friend");
    for kind in &kinds {
        let server = mesh.pod(&format!("web-{kind}"));
        expect(&format!("{kind}: the later root"), "200", || knock(&plain, &server, &roots, &known));
        expect(&format!("{kind}: the root of before"), "", || knock(&plain, &server, &roots, &friend));
    }
}
