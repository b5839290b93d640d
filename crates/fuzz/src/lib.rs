//! One function for each parser of bytes from outside. Each takes any bytes, must never panic, and asserts what must hold of
//! its result.
//!
//! `fuzz/` runs them under libFuzzer (`cargo +nightly fuzz run NAME` there); the test of this crate runs each over its seeds
//! (`seeds/NAME/`) and thousands of mutations of them, on every run of the tests; `MELTEMI_FUZZ_MUTATIONS` makes more.

mod identity;
mod installation;
mod policies;

pub use identity::{der_certificates, former_roots, grpc_authority};
pub use installation::{injection_template, istio_operator};
pub use policies::{path_normalization, rbac_rules};

use meltemi_ca::{Authority, AuthorityOptions, CaCertificate, TokenVerifier};
use meltemi_http::Frame;
use meltemi_http::h1::{Limits, Server};
use meltemi_http::{h2, h3};
use meltemi_net::Stream;
use meltemi_proto::envoy::config::bootstrap::v3::Bootstrap;
use meltemi_proto::envoy::config::cluster::v3::Cluster;
use meltemi_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use meltemi_proto::envoy::config::listener::v3::Listener;
use meltemi_proto::envoy::config::route::v3::RouteConfiguration;
use meltemi_tls::{PeerInfo, SpiffeId, TrustAnchors, TrustDomain};
use meltemi_webhook::admission::AdmissionReview;
use meltemi_webhook::inject::{self, Injector, InjectorConfig, Node, Outcome, Platform, Settings, values};
use meltemi_webhook::validate::admit;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::sync::OnceLock;
use std::time::SystemTime;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// A parser under test.
pub type Target = fn(&[u8]);

/// Name and function of every target.
pub const TARGETS: &[(&str, Target)] = &[
    ("xds", xds),
    ("bootstrap", bootstrap),
    ("http1", http1),
    ("http2", http2),
    ("hpack", hpack),
    ("http3", http3),
    ("client_hello", client_hello),
    ("http_sniff", http_sniff),
    ("proxy_protocol", proxy_protocol),
    ("yaml", yaml),
    ("certificate", certificate),
    ("redis_reply", redis_reply),
    ("spiffe", spiffe),
    ("authority_files", authority_files),
    ("signing_request", signing_request),
    ("jwt", jwt),
    ("jwks", jwks),
    ("cni_network", cni_network),
    ("cni_conflist", cni_conflist),
    ("admission_review", admission_review),
    ("path_normalization", path_normalization),
    ("rbac_rules", rbac_rules),
    ("der_certificates", der_certificates),
    ("grpc_authority", grpc_authority),
    ("former_roots", former_roots),
    ("istio_operator", istio_operator),
    ("injection_template", injection_template),
];

/// Any bytes as any resource: decoded ones become a plan or an error with a path.
pub fn xds(data: &[u8]) {
    if let Ok(message) = meltemi_proto::decode::<Listener>(data) {
        let _ = meltemi_plan::listener(&message);
    }
    if let Ok(message) = meltemi_proto::decode::<RouteConfiguration>(data) {
        let _ = meltemi_plan::route_configuration(&message);
    }
    if let Ok(message) = meltemi_proto::decode::<Cluster>(data) {
        let _ = meltemi_plan::cluster(&message);
    }
    if let Ok(message) = meltemi_proto::decode::<ClusterLoadAssignment>(data) {
        let _ = meltemi_plan::load_assignment(&message);
    }
}

/// What a Redis says. More bytes never change a reply that was complete, or that was refused.
pub fn redis_reply(data: &[u8]) {
    let whole = meltemi_ratelimit::parse_reply(data);
    if let Ok(Some((_, length))) = &whole {
        assert!((1..=data.len()).contains(length), "a reply is some of the bytes");
    }
    let cut = meltemi_ratelimit::parse_reply(&data[..data.len() / 2]);
    assert!(matches!(cut, Ok(None)) || cut == whole, "{cut:?} became {whole:?}");
}

/// A bootstrap document in JSON or YAML.
pub fn bootstrap(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(message) = meltemi_proto::json::from_text::<Bootstrap>(text) {
        let _ = meltemi_plan::bootstrap(&message);
    }
}

/// Bytes of a downstream connection. Cut anywhere, they must give the same requests.
pub fn http1(data: &[u8]) {
    let whole = requests(data, data.len());
    let cut = requests(data, usize::from(data.first().copied().unwrap_or(1)) % 7 + 1);
    assert_eq!(whole, cut, "framing depends on how the bytes arrive");
}

/// Each request line with its body's length, and how the connection ended.
fn requests(data: &[u8], piece: usize) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime without threads needs nothing");
    runtime.block_on(async {
        let (near, mut far) = Stream::pair(data.len().max(1));
        let mut server = Server::new(near, Limits::default());
        let sending = async {
            for part in data.chunks(piece.max(1)) {
                if far.write_all(part).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            drop(far);
        };
        let receiving = async {
            let mut seen = Vec::new();
            loop {
                match poll_fn(|cx| server.poll_request(cx)).await {
                    Ok(Some(head)) => {
                        let mut length = 0;
                        let ended = loop {
                            match poll_fn(|cx| server.poll_frame(cx)).await {
                                Ok(Some(Frame::Data(bytes))) => length += bytes.len(),
                                Ok(Some(Frame::Trailers(_))) => {}
                                Ok(None) => break Ok(()),
                                Err(_) => break Err(()),
                            }
                        };
                        seen.push(format!("{} {length} {}", head.method, ended.is_ok()));
                        if ended.is_err() || seen.len() > 64 {
                            return seen;
                        }
                    }
                    Ok(None) => return seen,
                    Err(_) => {
                        seen.push("refused".to_owned());
                        return seen;
                    }
                }
            }
        };
        let ((), seen) = tokio::join!(sending, receiving);
        seen
    })
}

/// What an HTTP/2 client says first: the preface and empty SETTINGS.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Frames of a downstream connection. Cut anywhere, they must give the same requests.
pub fn http2(data: &[u8]) {
    let whole = streams(data, data.len());
    let cut = streams(data, usize::from(data.first().copied().unwrap_or(1)) % 7 + 1);
    assert_eq!(whole, cut, "frames depend on how the bytes arrive");
}

/// Two header blocks of one connection, the first as long as the first byte says: the second needs the table that the first left.
pub fn hpack(data: &[u8]) {
    let Some((first, blocks)) = data.split_first() else { return };
    let (first, second) = blocks.split_at(usize::from(*first).min(blocks.len()));
    let mut frames = Vec::new();
    for (stream, block) in [(1, first), (3, second)] {
        let block = &block[..block.len().min(16_384)];
        let length = (block.len() as u32).to_be_bytes();
        frames.extend_from_slice(&[length[1], length[2], length[3], 1, 5, 0, 0, 0, stream]);
        frames.extend_from_slice(block);
    }
    streams(&frames, frames.len());
}

/// Each request that was accepted.
fn streams(data: &[u8], piece: usize) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime without threads needs nothing");
    runtime.block_on(async {
        let (near, mut far) = Stream::pair(1 << 20);
        let sending = async {
            if far.write_all(GREETING).await.is_err() {
                return;
            }
            for part in data.chunks(piece.max(1)) {
                if far.write_all(part).await.is_err() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            let _ = far.shutdown().await;
            let mut answer = [0; 4096];
            while matches!(far.read(&mut answer).await, Ok(1..)) {}
        };
        let receiving = async {
            let mut seen = Vec::new();
            let Ok(mut connection) = h2::ServerConnection::handshake(near, &h2::Options::default()).await else {
                return seen;
            };
            let mut held = Vec::new();
            while let Ok(Some(accepted)) = poll_fn(|cx| connection.poll_accept(cx)).await {
                seen.push(format!("{} {} {}", accepted.head.method, accepted.head.path, accepted.head.headers.len()));
                held.push(accepted.stream);
            }
            seen
        };
        let ((), seen) = tokio::join!(sending, receiving);
        seen
    })
}

/// Frames of an HTTP/3 request stream, and the sections in them as heads. Cut anywhere, they must give the same.
pub fn http3(data: &[u8]) {
    let whole = pieces(data, data.len());
    let cut = pieces(data, usize::from(data.first().copied().unwrap_or(1)) % 7 + 1);
    assert_eq!(whole, cut, "frames depend on how the bytes arrive");
}

/// Heads and bodies, and how the stream ends.
fn pieces(data: &[u8], size: usize) -> Vec<String> {
    let options = h3::Options::default();
    let mut frames = h3::Frames::new(4096);
    let mut seen = Vec::new();
    let mut body = 0;
    let mut chunks = data.chunks(size.max(1)).map(bytes::Bytes::copy_from_slice);
    loop {
        let next = match frames.piece() {
            Ok(None) => match chunks.next() {
                Some(chunk) => {
                    frames.give(chunk);
                    continue;
                }
                None => frames.end(),
            },
            Ok(Some(piece)) => Ok(piece),
            Err(fault) => Err(fault),
        };
        match next {
            Ok(h3::Piece::Data(data)) => body += data.len(),
            Ok(h3::Piece::Section(section)) => {
                let head = h3::request_head(&section, &options);
                let words =
                    |head: meltemi_http::RequestHead| format!("{} {} {}", head.method, head.path, head.headers.len());
                seen.push(format!("{body} {:?}", head.map(|head| head.map(words))));
            }
            Ok(h3::Piece::End) => {
                seen.push(format!("{body} end"));
                return seen;
            }
            Err(fault) => {
                seen.push(format!("{body} {fault:?}"));
                return seen;
            }
        }
    }
}

pub fn client_hello(data: &[u8]) {
    let _ = meltemi_net::sniff::client_hello(data);
    let _ = meltemi_net::sniff::handshake_hello(data.get(5..).unwrap_or_default());
}

pub fn http_sniff(data: &[u8]) {
    let _ = meltemi_net::sniff::http(data);
}

/// What parses must be written back to what parses to the same.
pub fn proxy_protocol(data: &[u8]) {
    let _ = meltemi_net::proxy_protocol::parse(data);
}

/// Kubernetes and Istio documents: each becomes an object or an error that names a line.
pub fn yaml(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = meltemi_config::parse_documents("fuzz.yaml", text);
    let _ = meltemi_config::parse_rate_limit_configuration("fuzz.yaml", text);
}

/// A peer's certificate: no name is lost, and what is made of it later never fails.
pub fn certificate(data: &[u8]) {
    let Ok(peer) = PeerInfo::from_certificate(data) else { return };
    let names = peer.uri_sans.len() + peer.dns_sans.len() + peer.ip_sans.len() + peer.email_sans.len();
    assert_eq!(peer.sans().count(), names);
    assert_eq!(peer.spiffe().is_some(), peer.trust_domain().is_some());
    assert_eq!(peer.chain_serials_hex(), std::slice::from_ref(&peer.serial_hex));
    assert!(peer.validity().is_some() && peer.key_sha256_hex().is_some());
    peer.uri_sans.iter().for_each(|uri| spiffe(uri.as_bytes()));
}

/// The name of a workload: what is taken is written as what reads the same.
pub fn spiffe(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(id) = text.parse::<SpiffeId>() else { return };
    let written = id.to_string();
    assert_eq!(written.parse::<SpiffeId>().as_ref(), Ok(&id));
    assert_eq!(written.matches('/').count(), 6, "{written}");
}

/// What an authority reads: bundles of certificates, and the keys of those who issue tokens.
pub fn authority_files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(certificates) = CaCertificate::all("fuzz", text) {
        let again: String = certificates.iter().map(|certificate| &**certificate.pem()).collect();
        assert_eq!(CaCertificate::all("fuzz", &again).ok(), Some(certificates));
    }
    let _ = TokenVerifier::from_jwks(text, "issuer");
}

/// A request for a certificate: whatever it asks for, what is signed is for the caller alone.
pub fn signing_request(data: &[u8]) {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(data) else { return };
    let domain: TrustDomain = "cluster.local".parse().expect("a trust domain");
    let id = SpiffeId::new(domain.clone(), "shop", "catalog").expect("plain words are segments");
    let new = || Authority::self_signed(AuthorityOptions::new(domain)).expect("a new root needs nothing");
    let Ok(issued) = AUTHORITY.get_or_init(new).sign(text, &id, None) else { return };
    let leaf = CaCertificate::all("leaf", &issued.chain[0]).expect_err("a workload is no authority");
    assert!(leaf.to_string().contains("CA:TRUE is missing"), "{leaf}");
    TrustAnchors::from_pem(issued.root.as_bytes(), &[])
        .and_then(|anchors| anchors.verify(issued.chain.concat().as_bytes(), SystemTime::now()))
        .expect("what is signed verifies");
}

/// A token, as text: what is accepted is made of its three parts, and no key but the one that signed it verifies it.
pub fn jwt(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(token) = meltemi_filters::jwt::Token::parse(text) else { return };
    assert_eq!(text.split('.').nth(1), Some(token.encoded_payload()));
    let keys = meltemi_filters::jwt::KeySet::parse(STRANGER).expect("a key of its own");
    assert!(keys.verify(&token).is_err(), "a stranger's key verifies");
}

/// A key whose other half nobody has.
const STRANGER: &[u8] =
    br#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// A set of keys: whatever is taken verifies no token that it did not sign.
pub fn jwks(data: &[u8]) {
    let Ok(keys) = meltemi_filters::jwt::KeySet::parse(data) else { return };
    let forged = "eyJhbGciOiJFUzI1NiJ9.e30.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    let token = meltemi_filters::jwt::Token::parse(forged).expect("a token");
    assert!(keys.verify(&token).is_err(), "zeros are a signature");
}

/// What a container runtime gives the plugin: what is taken has a version that the plugin speaks.
pub fn cni_network(data: &[u8]) {
    if let Ok(network) = meltemi_cni::network::parse(data) {
        assert!(meltemi_cni::network::VERSIONS.contains(&&*network.version), "{}", network.version);
    }
}

/// A file that others wrote: a list with the plugin in it is kept, and without it is in no plugin's way.
pub fn cni_conflist(data: &[u8]) {
    use meltemi_cni::conflist::{Mode, Plan, PluginSettings, Wanted, plan, plugin, removals};
    let Ok(text) = std::str::from_utf8(data) else { return };
    let wanted = Wanted { mode: Mode::Chained, file: None, plugin: plugin(&PluginSettings::default()) };
    for name in ["10-a.conf", "10-a.conflist"] {
        let files = [(name.to_owned(), text.to_owned())].into();
        let Plan::Write { name, text, .. } = plan(&files, &wanted) else { continue };
        let written = [(name.clone(), text)].into();
        assert_eq!(plan(&written, &wanted), Plan::Keep(name.clone()));
        for removal in removals(&written, &wanted) {
            let text = removal.text.expect("a list that others share");
            assert!(removals(&[(name.clone(), text)].into(), &wanted).is_empty());
        }
    }
}

/// What an API server asks: a pod is injected or refused, and the patch applies to what was asked about; any other object is
/// validated.
pub fn admission_review(data: &[u8]) {
    static INJECTOR: OnceLock<Injector> = OnceLock::new();
    let Ok(review) = AdmissionReview::parse(data) else { return };
    let _ = admit(&review.request);
    let injector = INJECTOR.get_or_init(|| {
        let settings = Settings {
            config: InjectorConfig::default(),
            values: values::defaults(),
            mesh: Default::default(),
            revision: String::new(),
            environment: Default::default(),
            compliance_policy: String::new(),
        };
        Injector::new(settings).expect("our own templates")
    });
    let reviewed = injector.review(&review.request, "/inject", Platform::default(), &Nothing);
    if let Ok(Outcome::Injected(patch)) = reviewed {
        let patch: json_patch::Patch = serde_json::from_value(patch).expect("a JSON patch");
        let mut object = review.request.object;
        json_patch::patch(&mut object, &patch).expect("a patch of the object that was asked about");
    }
}

/// A cluster of which nothing is known.
pub(crate) struct Nothing;

impl inject::Cluster for Nothing {
    fn nodes(&self) -> Vec<Node> {
        Vec::new()
    }

    fn namespace_annotations(&self, _: &str) -> Option<BTreeMap<String, String>> {
        None
    }

    fn proxy_configs(&self, _: &str, _: &str, _: &BTreeMap<String, String>) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
