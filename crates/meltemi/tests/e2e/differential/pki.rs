//! Certificates of the test: two authorities with a trust domain each, servers to choose from by name, clients to accept and to refuse.

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use std::sync::Arc;

/// A certificate with its key.
pub struct Pair {
    pub name: &'static str,
    pub certificate: String,
    pub key: String,
    der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Pair {
    /// As `verify_certificate_hash` has it.
    pub fn hash(&self) -> String {
        self.info().sha256_hex()
    }

    /// As `verify_certificate_spki` has it.
    pub fn key_hash(&self) -> String {
        let hex = self.info().key_sha256_hex().expect("a key");
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        base64::engine::general_purpose::STANDARD.encode(bytes)
    }

    fn info(&self) -> meltemi_tls::PeerInfo {
        meltemi_tls::PeerInfo::from_certificate(&self.der).expect("a certificate")
    }

    fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key_der.clone()).expect("a key")
    }
}

pub struct Pki {
    pub authority: Pair,
    pub stranger: Pair,
    /// By name: see [`Pki::new`].
    pub pairs: Vec<Pair>,
}

fn authority(name: &'static str) -> (Pair, Issuer<'static, KeyPair>) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).expect("a certificate");
    let pair = Pair {
        name,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        der: certificate.der().clone(),
        key_der: key.serialize_der(),
    };
    (pair, Issuer::new(params, key))
}

fn leaf(issuer: &Issuer<'static, KeyPair>, name: &'static str, dns: &[&str], uris: &[&str]) -> Pair {
    let key = KeyPair::generate().expect("a key");
    let dns: Vec<String> = dns.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(dns).expect("parameters");
    params.distinguished_name.push(DnType::OrganizationName, "Test, Inc");
    params.distinguished_name.push(DnType::CommonName, name);
    for uri in uris {
        params.subject_alt_names.push(SanType::URI((*uri).try_into().expect("ASCII")));
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    // Without it a certificate is no SVID to Envoy; nor is one of two URIs to us.
    if name != "second" {
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    }
    if name == "expired" {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    }
    let certificate = params.signed_by(&key, issuer).expect("a certificate");
    Pair {
        name,
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        der: certificate.der().clone(),
        key_der: key.serialize_der(),
    }
}

impl Pki {
    pub fn new() -> Self {
        let (authority, issuer) = self::authority("authority");
        let (stranger, foreign) = self::authority("stranger");
        let pairs = vec![
            leaf(&issuer, "default", &["default.example"], &[]),
            leaf(&issuer, "exact", &["a.example", "api.b.example"], &[]),
            leaf(&issuer, "wild", &["*.b.example"], &["spiffe://td/ns/x/sa/server"]),
            leaf(&issuer, "backend", &["backend.example", "*.back.example"], &["spiffe://td/ns/x/sa/backend"]),
            leaf(&issuer, "client", &["client.example"], &["spiffe://td/ns/x/sa/client"]),
            leaf(&issuer, "second", &["two.example", "second.example"], &["spiffe://td/ns/y/sa/second", "urn:x"]),
            leaf(&issuer, "nameless", &[], &[]),
            leaf(&issuer, "expired", &["client.example"], &["spiffe://td/ns/x/sa/client"]),
            leaf(&foreign, "foreign", &["client.example"], &["spiffe://td/ns/x/sa/client"]),
            leaf(&foreign, "other", &["client.example"], &["spiffe://other/ns/x/sa/client"]),
            leaf(&issuer, "claimed", &["client.example"], &["spiffe://other/ns/x/sa/client"]),
        ];
        Self { authority, stranger, pairs }
    }

    pub fn pair(&self, name: &str) -> &Pair {
        self.pairs.iter().find(|pair| pair.name == name).expect("a known certificate")
    }

    /// The backends': asks for a client certificate and takes it if there is one.
    pub fn backend_config(&self) -> Arc<ServerConfig> {
        let pair = self.pair("backend");
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der.clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), default_provider().into())
            .allow_unauthenticated()
            .build()
            .expect("a verifier");
        let mut config = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![pair.der.clone()], pair.key())
            .expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.into()
    }

    /// A client that takes any server certificate.
    pub fn client_config(&self, alpn: &[String], certificate: Option<&str>, version: Version) -> Arc<ClientConfig> {
        let versions: &[&rustls::SupportedProtocolVersion] = match version {
            Version::Any => &[&rustls::version::TLS13, &rustls::version::TLS12],
            Version::Tls12 => &[&rustls::version::TLS12],
            Version::Tls13 => &[&rustls::version::TLS13],
        };
        let builder = ClientConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(versions)
            .expect("versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Any));
        let mut config = match certificate.map(|name| self.pair(name)) {
            Some(pair) => builder.with_client_auth_cert(vec![pair.der.clone()], pair.key()).expect("a certificate"),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        config.into()
    }

    /// Which of ours a peer showed.
    pub fn shown(&self, certificate: Option<&CertificateDer<'_>>) -> &'static str {
        let pair = self.pairs.iter().find(|pair| Some(&pair.der) == certificate);
        pair.map_or("unknown", |pair| pair.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Any,
    Tls12,
    Tls13,
}

/// What a backend says of the session that a request came over.
pub fn session_lines(session: &rustls::ServerConnection) -> Vec<String> {
    let text = |bytes: Option<&[u8]>| bytes.map_or("none".to_owned(), |b| String::from_utf8_lossy(b).into_owned());
    let client = session.peer_certificates().and_then(|chain| chain.first());
    vec![
        format!("tls sni {}", session.server_name().unwrap_or("none")),
        format!("tls alpn {}", text(session.alpn_protocol())),
        format!("tls version {:?}", session.protocol_version()),
        format!("tls client certificate of {} bytes", client.map_or(0, |der| der.len())),
    ]
}

#[derive(Debug)]
struct Any;

impl ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}
