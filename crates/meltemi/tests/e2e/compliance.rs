//! `COMPLIANCE_POLICY` in a proxy that says nothing of versions and groups: clients that keep the policy are served, others are not.

use crate::static_proxy::{any, http_listener};
use crate::support::{Process, free_address, meltemi};
use rustls::crypto::{SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, SupportedProtocolVersion, version};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;

struct Bench {
    _process: Process,
    at: SocketAddr,
    certificate: String,
}

fn listener(at: SocketAddr, certificate: &str, key: &str) -> Value {
    let route = json!({ "match": { "prefix": "/" }, "direct_response": { "status": 211 } });
    let hosts = json!({ "virtual_hosts": [{ "name": "all", "domains": ["*"], "routes": [route] }] });
    let mut listener = http_listener(at, &[], json!({ "route_config": hosts }));
    let certificate =
        json!({ "certificate_chain": { "inline_string": certificate }, "private_key": { "inline_string": key } });
    let tls = any(
        "extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        json!({ "common_tls_context": { "tls_certificates": [certificate] } }),
    );
    listener["filter_chains"][0]["transport_socket"] = json!({ "name": "tls", "typed_config": tls });
    listener
}

impl Bench {
    fn start(policy: &str, dir: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).expect("a certificate");
        let (at, certificate) = (free_address(), made.cert.pem());
        let document = json!({ "static_resources": { "listeners": [listener(at, &certificate, &made.signing_key.serialize_pem())] } });
        let file = dir.join(format!("{policy}.json"));
        std::fs::write(&file, document.to_string()).expect("write");
        let mut command = meltemi();
        command.args(["proxy", "-c"]).arg(file).env("COMPLIANCE_POLICY", policy);
        let mut process = Process::start("meltemi", &mut command, dir);
        process.wait_listening(at);
        Self { _process: process, at, certificate }
    }

    /// Whether a client with this version and group alone is served.
    fn serves(&self, version: &'static SupportedProtocolVersion, group: &'static dyn SupportedKxGroup) -> bool {
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = vec![group];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("PEM")).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[version])
            .expect("a version")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("a.test").expect("a name");
        let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut stream = StreamOwned::new(connection, TcpStream::connect(self.at).expect("connect"));
        let asked = stream.write_all(b"GET / HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n");
        let mut answer = [0; 12];
        asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer == *b"HTTP/1.1 211"
    }
}

#[test]
fn a_policy_holds_for_what_says_nothing_of_it() {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    let dir = tempfile::tempdir().expect("folder");
    let (old, new) = (&version::TLS12, &version::TLS13);
    for (policy, served, refused) in [
        ("fips-140-2", vec![(old, SECP256R1)], vec![(new, SECP256R1), (old, SECP384R1), (old, X25519)]),
        ("fips-140-3", vec![(old, SECP256R1), (new, SECP384R1)], vec![(new, X25519)]),
        ("pqc", vec![(new, X25519MLKEM768)], vec![(new, X25519), (old, SECP256R1)]),
    ] {
        let bench = Bench::start(policy, dir.path());
        for (version, group) in served {
            assert!(bench.serves(version, group), "{policy}: {version:?} {group:?}");
        }
        for (version, group) in refused {
            assert!(!bench.serves(version, group), "{policy}: {version:?} {group:?}");
        }
    }
}

#[test]
fn an_unknown_policy_is_a_wrong_usage() {
    let output = meltemi().arg("version").env("COMPLIANCE_POLICY", "fips-140-1").output().expect("our program");
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{told}");
    assert!(told.contains("COMPLIANCE_POLICY: \"fips-140-1\" is none of fips-140-2, fips-140-3, pqc"), "{told}");
}
