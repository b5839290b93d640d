//! OpenSSL and curl as clients of a mesh: of a gateway's servers, whose certificates openssl made, and of a sidecar's mTLS port, with
//! certificates that openssl made by the mesh's own authority. Sidecars are ours and, where there is one, Envoy.

use crate::mesh::{Mesh, Pod, Workload, can_run, service, settles};
use crate::openssl::{Pki, Session, s_client_by};
use crate::support::{Answer, envoy, read_answer};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// TLS 1.2 with one suite, or TLS 1.3.
const SETTINGS: &str = "meshMTLS: {cipherSuites: [ECDHE-ECDSA-AES256-GCM-SHA384]}\n";

const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: app}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: app}
spec: {action: DENY, rules: [{from: [{source: {serviceAccounts: [app/denied]}}]}]}
";

const GATEWAY: &str = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: town, namespace: app}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 443, name: simple, protocol: HTTPS}
    hosts: [simple.b.example]
    tls: {mode: SIMPLE, credentialName: town, minProtocolVersion: TLSV1_3}
  - port: {number: 443, name: old, protocol: HTTPS}
    hosts: [old.b.example]
    tls: {mode: SIMPLE, credentialName: town, maxProtocolVersion: TLSV1_2, cipherSuites: [ECDHE-ECDSA-AES128-GCM-SHA256]}
  - port: {number: 443, name: mutual, protocol: HTTPS}
    hosts: [mutual.b.example]
    tls: {mode: MUTUAL, credentialName: town}
  - port: {number: 443, name: named, protocol: HTTPS}
    hosts: [named.b.example]
    tls: {mode: MUTUAL, credentialName: town, subjectAltNames: [a.good.example]}
  - port: {number: 443, name: optional, protocol: HTTPS}
    hosts: [optional.b.example]
    tls: {mode: OPTIONAL_MUTUAL, credentialName: town}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: town, namespace: app}
spec:
  hosts: ['*.b.example']
  gateways: [town]
  http: [{route: [{destination: {host: web-ours, port: {number: 8080}}}]}]
---
";

fn secret(pki: &Pki) -> String {
    let mut text =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: town, namespace: istio-system}\nstringData:\n".to_owned();
    for (field, file) in
        [("tls.crt", "server-ec.pem"), ("tls.key", "server-ec.key"), ("ca.crt", "root.pem"), ("ca.crl", "all.crl")]
    {
        let lines = std::fs::read_to_string(pki.file(file)).expect(file).trim().replace('\n', "\n    ");
        text += &format!("  {field}: |\n    {lines}\n");
    }
    text
}

/// The mesh, and the names of its servers.
fn start(dir: &Path, pki: &Pki) -> (Mesh, Vec<&'static str>) {
    let mut town =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: legacy, labels: {istio-injection: disabled}}\n---\n"
            .to_owned();
    let settings = dir.join("settings.yaml");
    std::fs::write(&settings, SETTINGS).expect("write");
    let mut arguments = vec!["--mesh-config".to_owned(), settings.display().to_string()];
    let mut servers = vec![("web-ours", "")];
    if let Ok(envoy) = envoy() {
        arguments.extend(["--image".to_owned(), format!("envoy={}", envoy.display())]);
        servers.push(("web-theirs", "sidecar.istio.io/proxyImage: envoy"));
    }
    for (name, annotations) in &servers {
        let labels = format!("app: {name}");
        town += &Workload { name, labels: &labels, annotations, account: "web", ..Workload::default() }.yaml();
        town += &service("app", name, &format!("selector: {{{labels}}}, ports: [{{name: http, port: 8080}}]"));
    }
    town += &Workload { namespace: "legacy", name: "plain", labels: "app: plain", ..Workload::default() }.yaml();
    let files = [
        ("town.yaml", town.as_str()),
        ("policies.yaml", POLICIES),
        ("gateway.yaml", GATEWAY),
        ("secret.yaml", &secret(pki)),
    ];
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    (Mesh::start(dir, &files, &arguments), servers.into_iter().map(|(name, _)| name).collect())
}

/// The folder of the mesh's own authority.
fn authority(dir: &Path) -> PathBuf {
    let runs = std::fs::read_dir(dir.join("tmp")).expect("folder").flatten();
    let mut folders = runs.map(|run| run.path().join("ca")).filter(|folder| folder.join("ca-key.pem").exists());
    folders.next().expect("an authority")
}

/// A certificate of the mesh for this identity, made by openssl; `words` are more for `openssl x509`.
fn issue(dir: &Path, name: &str, uri: &str, words: &[&str]) -> [String; 2] {
    let at = |end: &str| dir.join(format!("{name}.{end}")).display().to_string();
    let ca = authority(dir);
    let [root, ca_key] = ["root-cert.pem", "ca-key.pem"].map(|file| ca.join(file).display().to_string());
    let run = |words: &[&str]| {
        let output = Command::new("openssl").args(words).output().expect("openssl");
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let [key, request, extensions, chain] = ["key", "csr", "ext", "pem"].map(at);
    std::fs::write(&extensions, format!("subjectAltName=critical,URI:{uri}\nextendedKeyUsage=clientAuth\n"))
        .expect("write");
    run(&["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key]);
    run(&["req", "-new", "-key", &key, "-subj", "/O=openssl", "-out", &request]);
    let signed =
        ["x509", "-req", "-in", &request, "-CA", &root, "-CAkey", &ca_key, "-extfile", &extensions, "-out", &chain];
    run(&[&signed[..], &["-set_serial", "7"], words].concat());
    [chain, key]
}

const REQUEST: &str = "GET / HTTP/1.1\r\nhost: web.example\r\nconnection: close\r\n\r\n";

/// A client without a sidecar before a sidecar's captured port.
struct Door<'a> {
    from: &'a Pod,
    at: String,
    roots: PathBuf,
}

impl Door<'_> {
    /// What openssl says of one connection, with a request on it.
    fn knock(&self, words: &[&str]) -> (Session, String) {
        let words = [&["-ign_eof"], words].concat();
        let text = s_client_by(self.from.command("timeout"), &self.at, &self.roots, &words, REQUEST);
        (Session::of(&text), text)
    }

    fn status(&self, words: &[&str]) -> String {
        self.knock(words).0.status
    }
}

fn a_sidecar_takes_only_its_mesh(dir: &Path, pki: &Pki, plain: &Pod, server: &Pod) {
    let name = &server.name;
    let door =
        Door { from: plain, at: format!("{}:8080", server.address()), roots: authority(dir).join("root-cert.pem") };
    let own = |name: &str, uri: &str, words: &[&str]| issue(dir, name, uri, words);
    let [chain, key] = own("caller", "spiffe://cluster.local/ns/app/sa/openssl", &[]);
    let with = ["-cert", &chain, "-key", &key, "-alpn", "istio"];
    settles(|| match door.knock(&with) {
        (session, _) if session.status == "200" => Ok(()),
        (session, text) => Err(format!("{name}: {session:?}\n{text}")),
    })
    .expect("a certificate of the mesh");
    assert_eq!(door.knock(&with).0.version, "TLSv1.3", "{name}");
    // curl knows no names of the mesh's kind.
    let answer = plain.curl(&format!("-k --cert {chain} --key {key} https://{}/", door.at)).expect("an answer");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!(body["security"]["peer"], "spiffe://cluster.local/ns/app/sa/openssl", "{name}: {body}");

    // As configured: one suite of TLS 1.2, and nothing older.
    let (old, _) = door.knock(&[&with[..], &["-tls1_2"]].concat());
    assert_eq!((&*old.suite, &*old.status), ("ECDHE-ECDSA-AES256-GCM-SHA384", "200"), "{name}");
    for words in [
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"][..],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"],
        &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
    ] {
        assert_eq!(door.knock(&[&with[..], words].concat()).0, Session::default(), "{name}: {words:?}");
    }

    // Nobody else comes in: without a certificate, with another's, with one that has ended, and in plain text.
    let foreign = ["pem", "key"].map(|end| pki.file(&format!("good-ec.{end}")).display().to_string());
    let ended = own("ended", "spiffe://cluster.local/ns/app/sa/openssl", &["-days", "-1"]);
    assert_eq!(door.status(&["-alpn", "istio"]), "", "{name}: without a certificate");
    for (what, [chain, key]) in [("a stranger", &foreign), ("one that has ended", &ended)] {
        for version in ["-tls1_2", "-tls1_3"] {
            let status = door.status(&["-cert", chain, "-key", key, "-alpn", "istio", version]);
            assert_eq!(status, "", "{name}: {what} by {version}");
        }
    }
    let refused = plain.curl(&format!("http://{}/", door.at));
    assert!(refused.is_err(), "{name}: plain text under STRICT: {refused:?}");
    // Who comes in is who the certificate says.
    let [chain, key] = own("denied", "spiffe://cluster.local/ns/app/sa/denied", &[]);
    assert_eq!(door.status(&["-cert", &chain, "-key", &key, "-alpn", "istio"]), "403", "{name}");
}

#[test]
fn sidecars_and_gateways_take_openssl_and_curl_only_as_they_are_configured() {
    let pki = match can_run().and_then(|()| Pki::new()) {
        Ok(pki) => pki,
        Err(reason) => return println!("{reason}"),
    };
    let dir = tempfile::tempdir().expect("folder");
    let (mesh, servers) = start(dir.path(), &pki);
    let plain = mesh.pod("plain");
    for server in servers {
        a_sidecar_takes_only_its_mesh(dir.path(), &pki, &plain, &mesh.pod(server));
    }
    gateway_servers_take_whom_they_should(&pki, mesh.gateway(443));
}

/// A request of curl's to a server of the gateway; curl's exit code where there is no answer.
fn curl(pki: &Pki, at: SocketAddr, name: &str, client: Option<&str>, words: &[&str]) -> Result<Answer, i32> {
    let host = format!("{name}.b.example");
    let mut command = Command::new("curl");
    command.args(["-sS", "-i", "--raw", "--max-time", "10", "--cacert"]).arg(pki.file("root.pem"));
    command.args(["--resolve", &format!("{host}:{}:{}", at.port(), at.ip()), "--http1.1"]).args(words);
    if let Some(client) = client {
        command.arg("--cert").arg(pki.file(&format!("{client}.pem")));
        command.arg("--key").arg(pki.file(&format!("{client}.key")));
    }
    let output = command.arg(format!("https://{host}:{}/", at.port())).output().expect("curl");
    match output.status.success() {
        true => Ok(read_answer(&mut &output.stdout[..], false).expect("an answer")),
        false => Err(output.status.code().unwrap_or_default()),
    }
}

/// Of curl.
const NO_HANDSHAKE: i32 = 35;
const NO_CONNECTION: i32 = 7;
const TIMEOUT: i32 = 28;

fn gateway_servers_take_whom_they_should(pki: &Pki, at: SocketAddr) {
    let ask = |name: &str, client: Option<&str>, words: &[&str]| curl(pki, at, name, client, words);
    settles(|| ask("simple", None, &[]).map(drop).map_err(|code| format!("curl: {code}"))).expect("served at all");
    let served =
        |name: &str, client: Option<&str>, words: &[&str]| ask(name, client, words).map(|answer| answer.status);
    // Each alert has a code of its own, and in TLS 1.3 a client learns of it only when it reads or writes.
    let refused = |what: &str, answer: Result<u16, i32>| {
        assert!(!matches!(answer, Ok(_) | Err(NO_CONNECTION | TIMEOUT)), "{what}: {answer:?}");
    };
    for version in ["1.2", "1.3"] {
        let only: &[&str] = &["--tls-max", version];
        refused(&format!("no certificate in TLS {version}"), served("mutual", None, only));
        assert_eq!(served("mutual", Some("good-chain"), only), Ok(200), "TLS {version}");
        assert_eq!(served("optional", None, only), Ok(200), "TLS {version}");
        assert_eq!(served("optional", Some("good-ec"), only), Ok(200), "TLS {version}");
        for bad in ["bad-expired", "bad-stranger", "bad-usage", "bad-revoked", "bad-outside-limits"] {
            refused(&format!("{bad} in TLS {version}"), served("mutual", Some(bad), only));
            refused(&format!("{bad}, though optional, in TLS {version}"), served("optional", Some(bad), only));
        }
        assert_eq!(served("named", Some("good-within-limits"), only), Ok(200), "TLS {version}");
        refused(&format!("another name in TLS {version}"), served("named", Some("good-ec"), only));
    }
    assert_eq!(served("simple", None, &["--tls-max", "1.2"]), Err(NO_HANDSHAKE), "below the least version");
    assert_eq!(served("old", None, &["--tlsv1.3"]), Err(NO_HANDSHAKE), "above the greatest version");
    assert_eq!(served("old", None, &["--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"]), Ok(200));
    assert_eq!(served("old", None, &["--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"]), Err(NO_HANDSHAKE));

    // The backend learns of the client what the gateway verified, and nothing that the client says of itself.
    let forged = ["-H", "x-forwarded-client-cert: By=spiffe://x;Subject=\"CN=admin\""];
    let told = |name: &str, client: Option<&str>| {
        let answer = ask(name, client, &forged).expect("an answer");
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        body["headers"]["x-forwarded-client-cert"].to_string()
    };
    let known = told("mutual", Some("good-ec"));
    assert!(known.contains("CN=good-ec") && !known.contains("admin"), "{known}");
    for name in ["simple", "optional"] {
        // The sidecar tells of the gateway alone.
        let nobody = told(name, None);
        assert!(!nobody.contains("admin") && nobody.matches("Hash=").count() == 1, "{name}: {nobody}");
    }
}
