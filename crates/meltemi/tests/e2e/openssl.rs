//! OpenSSL as the other side: certificates that it made, good and bad in every way, and `openssl s_client` and `curl` as clients of
//! our proxy and of Envoy under one configuration.

use crate::static_proxy::{Proxy, any, cluster, http_listener, routes, with_both};
use crate::support::{Backend, free_address};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A folder of certificates that `peers/pki.sh` made.
pub struct Pki(tempfile::TempDir);

impl Pki {
    /// The reason where there is no openssl or no curl.
    pub fn new() -> Result<Self, String> {
        for tool in ["openssl", "curl"] {
            if Command::new(tool).arg("--version").output().is_err() {
                return Err(format!("skipped: no {tool}; scripts/install-test-deps.sh installs it"));
            }
        }
        let folder = tempfile::tempdir().expect("folder");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/peers/pki.sh");
        let made = Command::new("bash").arg(script).arg(folder.path()).output().expect("bash");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Ok(Self(folder))
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The names of the client certificates.
    fn clients(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.path()).expect("folder").flatten();
        let names = entries.filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".key").map(str::to_owned));
        let others = ["root", "stranger", "middle", "limited", "low", "below", "server-ec", "server-rsa"];
        let mut names: Vec<String> = names.filter(|name| !others.contains(&&**name)).collect();
        names.sort();
        names
    }

    fn certificate(&self, name: &str) -> Value {
        let file = |end: &str| json!({ "filename": self.file(&format!("{name}.{end}")) });
        json!({ "certificate_chain": file("pem"), "private_key": file("key") })
    }

    /// Of a server that shows this certificate, with these fields of the common context beside.
    fn server(&self, name: &str, rest: Value) -> Value {
        let mut common = json!({ "tls_certificates": [self.certificate(name)] });
        let Value::Object(rest) = rest else { panic!("an object") };
        common.as_object_mut().expect("an object").extend(rest);
        json!({ "common_tls_context": common })
    }

    /// One that demands a certificate of the root's, and looks at this revocation list if it is given.
    fn demanding(&self, list: Option<&str>) -> Value {
        let mut validation = json!({ "trusted_ca": { "filename": self.file("root.pem") } });
        if let Some(list) = list {
            validation["crl"] = json!({ "filename": self.file(list) });
        }
        let mut context = self.server("server-ec", json!({ "validation_context": validation }));
        context["require_client_certificate"] = json!(true);
        context
    }
}

/// A listener for `/b` whose chains have these contexts, by name; the first is for all other names, too.
fn listener(at: SocketAddr, chains: &[(&str, Value)]) -> Value {
    let mut listener = http_listener(at, &[], json!({ "route_config": routes(&["b"]) }));
    let filters = listener["filter_chains"][0]["filters"].clone();
    let chain = |name: &str, context: &Value| {
        let context = any("extensions.transport_sockets.tls.v3.DownstreamTlsContext", context.clone());
        let mut chain = json!({ "name": name, "filters": filters,
            "transport_socket": { "name": "envoy.transport_sockets.tls", "typed_config": context } });
        if !name.is_empty() {
            chain["filter_chain_match"] = json!({ "server_names": [name] });
        }
        chain
    };
    listener["filter_chains"] = chains.iter().map(|(name, context)| chain(name, context)).collect();
    let inspector = any("extensions.filters.listener.tls_inspector.v3.TlsInspector", json!({}));
    listener["listener_filters"] =
        json!([{ "name": "envoy.filters.listener.tls_inspector", "typed_config": inspector }]);
    listener
}

fn start(name: &'static str, dir: &Path, listeners: &[Value]) -> Proxy {
    let backend = Backend::start("b").address;
    Proxy::start(name, dir, json!(listeners), json!([cluster("b", backend, json!({}))]))
}

/// Asks for `/b` of `a.example`; the status, or 0 where there was no answer.
fn curl(at: SocketAddr, pki: &Pki, words: &[&str]) -> u16 {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "10", "--cacert"])
        .arg(pki.file("root.pem"));
    command.args(["--resolve", &format!("a.example:{}:127.0.0.1", at.port())]);
    let output = command.args(words).arg(format!("https://a.example:{}/b", at.port())).output().expect("curl");
    String::from_utf8_lossy(&output.stdout).parse().expect("a status")
}

/// Whether we let a client in; none where it is only to be as with Envoy.
fn expected(client: &str, list: Option<&str>) -> Option<bool> {
    let behind_another = ["good-chain", "good-within-limits"].contains(&client);
    match (client, list) {
        ("bad-revoked", list) => Some(list.is_none()),
        (client, _) if client.starts_with("bad") => Some(false),
        // Once there are lists, each authority of a chain needs one that has not ended.
        (_, Some("ended.crl")) => Some(false),
        (_, Some("root.crl")) if behind_another => Some(false),
        ("version-1", list) => Some(list.is_none()),
        (client, _) => (client.starts_with("good") || client == "ed25519").then_some(true),
    }
}

/// Where Envoy is not the measure. BoringSSL takes no Ed25519 unless told to; a leaf of X.509 version 1 is beyond webpki, and beside
/// revocation lists it is left to that.
fn differs(client: &str, list: Option<&str>) -> bool {
    client == "ed25519" || client == "version-1" && list.is_some()
}

#[test]
fn certificates_of_clients_made_by_openssl_are_judged_as_by_envoy() {
    let pki = match Pki::new() {
        Ok(pki) => pki,
        Err(reason) => return println!("{reason}"),
    };
    let verdicts: RefCell<BTreeMap<String, bool>> = RefCell::default();
    let wrong: RefCell<Vec<String>> = RefCell::default();
    with_both(|name, dir| {
        let lists = [None, Some("all.crl"), Some("root.crl"), Some("ended.crl")];
        let places = lists.map(|list| (list, free_address()));
        let listeners = places.map(|(list, at)| listener(at, &[("", pki.demanding(list))]));
        let _proxy = start(name, dir, &listeners);
        assert_eq!(curl(places[0].1, &pki, &[]), 0, "{name}: without a certificate");
        for client in pki.clients() {
            let [chain, key] = ["pem", "key"].map(|end| pki.file(&format!("{client}.{end}")).display().to_string());
            for ((list, at), version) in places.iter().flat_map(|place| [(place, "1.2"), (place, "1.3")]) {
                // At OpenSSL's lowest level it sends what it would not take itself.
                let words = ["--ciphers", "DEFAULT@SECLEVEL=0", "--tls-max", version, "--cert", &chain, "--key", &key];
                let accepted = curl(*at, &pki, &words) == 200;
                let what = format!("{client} by {} in TLS {version}", list.unwrap_or("no list"));
                let first = *verdicts.borrow_mut().entry(what.clone()).or_insert(accepted);
                let wanted = expected(&client, *list).unwrap_or(first);
                if accepted != wanted && !(name == "envoy" && differs(&client, *list)) {
                    wrong.borrow_mut().push(format!("{name}: {what}: {accepted}, not {wanted}"));
                }
            }
        }
    });
    assert!(wrong.borrow().is_empty(), "{}", wrong.borrow().join("\n"));
    println!("{} handshakes each", verdicts.borrow().len());
}

/// What `openssl s_client` tells of a connection, after a request for `/b`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Such as `TLSv1.3`; empty where there is no connection.
    pub version: String,
    pub suite: String,
    reused: bool,
    /// The protocol that was agreed on by ALPN.
    protocol: String,
    /// The common name of the server's certificate.
    server: String,
    pub verified: bool,
    compressed: bool,
    safe_renegotiation: bool,
    /// The status of the response.
    pub status: String,
}

/// Seconds that a connection may take.
const PATIENCE: &str = "5";
const REQUEST: &str = "GET /b HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n";

/// `openssl s_client` with these words and this input, until one of both closes; all that it says.
fn s_client(at: SocketAddr, pki: &Pki, words: &[&str], input: &str) -> String {
    s_client_by(Command::new("timeout"), &at.to_string(), &pki.file("root.pem"), words, input)
}

/// The same where `timeout` is to run, by those who trust these roots.
pub fn s_client_by(mut timeout: Command, at: &str, roots: &Path, words: &[&str], input: &str) -> String {
    timeout.args([PATIENCE, "openssl", "s_client", "-connect", at, "-CAfile"]).arg(roots).args(words);
    timeout.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = timeout.spawn().expect("openssl");
    let mut writer = running.stdin.take().expect("a pipe");
    // It may have ended before it read.
    let _ = writer.write_all(input.as_bytes());
    let output = running.wait_with_output().expect("openssl");
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

impl Session {
    fn open(at: SocketAddr, pki: &Pki, words: &[&str]) -> Self {
        // Or it would take letters of the request for commands.
        Self::of(&s_client(at, pki, &[&["-ign_eof"], words].concat(), REQUEST))
    }

    pub fn of(text: &str) -> Self {
        let after = |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).unwrap_or_default();
        let (reused, agreed) = match (after("New, "), after("Reused, ")) {
            ("", agreed) => (true, agreed),
            (agreed, _) => (false, agreed),
        };
        let (version, suite) = agreed.split_once(", Cipher is ").unwrap_or_default();
        if suite.is_empty() || suite == "(NONE)" {
            return Self::default();
        }
        Self {
            version: version.to_owned(),
            suite: suite.to_owned(),
            reused,
            protocol: after("ALPN protocol: ").to_owned(),
            server: after("subject=").rsplit("CN = ").next().unwrap_or_default().to_owned(),
            verified: after("Verification: ") == "OK",
            compressed: !matches!(after("Compression: "), "NONE" | ""),
            safe_renegotiation: after("Secure Renegotiation IS ") == "supported",
            // It may stand behind what openssl says of tickets that came.
            status: text.split("HTTP/1.1 ").nth(1).unwrap_or_default().chars().take(3).collect(),
        }
    }
}

/// Listeners that differ in what they speak, by name.
const PLACES: [&str; 4] = ["any", "new", "old", "narrow"];

fn place(name: &str, at: SocketAddr, pki: &Pki) -> Value {
    let parameters = match name {
        "new" => json!({ "tls_minimum_protocol_version": "TLSv1_3" }),
        "old" => json!({ "tls_maximum_protocol_version": "TLSv1_2" }),
        "narrow" => json!({ "tls_maximum_protocol_version": "TLSv1_2", "ecdh_curves": ["P-256"],
            "cipher_suites": ["ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-CHACHA20-POLY1305"] }),
        _ => json!({}),
    };
    let server = |certificate: &str| {
        pki.server(certificate, json!({ "alpn_protocols": ["h2", "http/1.1"], "tls_params": parameters }))
    };
    listener(at, &[("", server("server-ec")), ("rsa.example", server("server-rsa"))])
}

/// A place, what the client says, and the version with which they meet; empty if they do not.
const PROBES: &[(&str, &[&str], &str)] = &[
    ("any", &[], "TLSv1.3"),
    ("any", &["-tls1_2"], "TLSv1.2"),
    ("any", &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], ""),
    ("any", &["-tls1", "-cipher", "DEFAULT@SECLEVEL=0"], ""),
    ("new", &["-tls1_3"], "TLSv1.3"),
    ("new", &["-tls1_2"], ""),
    ("old", &[], "TLSv1.2"),
    ("old", &["-tls1_3"], ""),
    ("narrow", &[], "TLSv1.2"),
    ("narrow", &["-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384"], "TLSv1.2"),
    ("narrow", &["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"], ""),
    ("narrow", &["-cipher", "ECDHE-RSA-CHACHA20-POLY1305", "-servername", "rsa.example"], "TLSv1.2"),
    ("narrow", &["-cipher", "ECDHE-RSA-AES256-GCM-SHA384", "-servername", "rsa.example"], ""),
    ("narrow", &["-curves", "X25519"], ""),
    ("narrow", &["-curves", "X25519:P-256"], "TLSv1.2"),
    // Suites without forward secrecy, without authentication or without a good cipher, and long gone ones.
    ("any", &["-tls1_2", "-servername", "rsa.example", "-cipher", "AES128-SHA:AES256-SHA@SECLEVEL=0"], ""),
    ("any", &["-tls1_2", "-cipher", "aNULL:eNULL@SECLEVEL=0"], ""),
    ("any", &["-tls1_2", "-cipher", "3DES:RC4:IDEA:SEED@SECLEVEL=0"], ""),
    ("any", &["-tls1_2", "-servername", "rsa.example", "-cipher", "kDHE@SECLEVEL=0"], ""),
    ("any", &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"], "TLSv1.3"),
    ("any", &["-tls1_3", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"], "TLSv1.3"),
    ("any", &["-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256"], ""),
    ("any", &["-alpn", "http/1.1"], "TLSv1.3"),
    ("any", &["-alpn", "http/1.1", "-tls1_2"], "TLSv1.2"),
    ("any", &["-alpn", "spdy/1,http/1.1"], "TLSv1.3"),
    ("any", &["-servername", "rsa.example"], "TLSv1.3"),
    ("any", &["-servername", "RSA.EXAMPLE"], "TLSv1.3"),
    ("any", &["-servername", "other.example"], "TLSv1.3"),
    ("any", &["-noservername"], "TLSv1.3"),
    ("any", &["-sigalgs", "ECDSA+SHA256"], "TLSv1.3"),
    ("any", &["-tls1_2", "-legacy_renegotiation"], "TLSv1.2"),
    ("any", &["-tls1_2", "-comp"], "TLSv1.2"),
    ("any", &["-no_ticket"], "TLSv1.3"),
    ("any", &["-status"], "TLSv1.3"),
];

/// Sessions of the first connection are offered by the second.
fn resumes(at: SocketAddr, pki: &Pki, version: &str, dir: &Path) -> Session {
    let file = dir.join(format!("session{version}-{}", at.port())).display().to_string();
    let first = Session::open(at, pki, &[version, "-sess_out", &file]);
    assert!(!first.reused && first.status == "200", "{first:?}");
    Session::open(at, pki, &[version, "-sess_in", &file])
}

#[test]
fn openssl_meets_the_same_server_in_ours_as_in_envoy() {
    let pki = match Pki::new() {
        Ok(pki) => pki,
        Err(reason) => return println!("{reason}"),
    };
    let seen: RefCell<BTreeMap<String, Session>> = RefCell::default();
    let wrong: RefCell<Vec<String>> = RefCell::default();
    let compare = |name: &str, what: String, session: Session, version: &str| {
        // Of suites that nobody listed Envoy has what the client likes best, we the lightest; all that either takes are good.
        let suite = if what.starts_with("narrow") { session.suite } else { String::new() };
        let session = Session { suite, ..session };
        let first = seen.borrow_mut().entry(what.clone()).or_insert_with(|| session.clone()).clone();
        let sound = session.version == version
            && !session.compressed
            && session.status == if version.is_empty() { "" } else { "200" };
        if !sound || session != first {
            wrong.borrow_mut().push(format!("{name}: {what}: {session:?}, the first {first:?}"));
        }
    };
    with_both(|name, dir| {
        let places = PLACES.map(|place| (place, free_address()));
        let _proxy = start(name, dir, &places.map(|(name, at)| place(name, at, &pki)));
        let at = |wanted: &str| places.iter().find(|(name, _)| *name == wanted).expect("a place").1;
        for (place, words, version) in PROBES {
            compare(name, format!("{place} {}", words.join(" ")), Session::open(at(place), &pki, words), version);
        }
        for (option, version) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
            let again = resumes(at("any"), &pki, option, dir);
            assert!(again.reused, "{name}: {again:?}");
            compare(name, format!("again {option}"), again, version);
        }
    });
    assert!(wrong.borrow().is_empty(), "{}", wrong.borrow().join("\n"));
    println!("{} connections each", seen.borrow().len());
}

#[test]
fn nobody_renegotiates_or_sends_data_early() {
    let pki = match Pki::new() {
        Ok(pki) => pki,
        Err(reason) => return println!("{reason}"),
    };
    with_both(|name, dir| {
        let at = free_address();
        let _proxy = start(name, dir, &[place("any", at, &pki)]);
        // Envoy says no and closes; our no goes out with what is written next. A second handshake would show the server's
        // certificate again.
        let text = s_client(at, &pki, &["-tls1_2", "-alpn", "http/1.1"], "R\n");
        let handshakes = text.matches("depth=0").count();
        assert!(text.contains("RENEGOTIATING") && handshakes == 1, "{name}: {handshakes} handshakes\n{text}");
        let request = dir.join("request").display().to_string();
        std::fs::write(&request, REQUEST).expect("write");
        let file = dir.join("session").display().to_string();
        assert_eq!(Session::open(at, &pki, &["-tls1_3", "-sess_out", &file]).status, "200");
        let early = s_client(at, &pki, &["-ign_eof", "-tls1_3", "-sess_in", &file, "-early_data", &request], REQUEST);
        assert!(
            early.contains("Early data was not sent") || early.contains("Early data was rejected"),
            "{name}: {early}"
        );
        assert_eq!(Session::of(&early).status, "200", "{name}: {early}");
    });
}
