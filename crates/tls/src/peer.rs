//! What a peer's certificate says of it, and how digests, names and PEM are written for logs and headers. Whether it is to be
//! believed is for `trust` to say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::hash::Hash;
use std::sync::Arc;
use std::time::SystemTime;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Characters of a line (RFC 7468 section 2).
const PEM_LINE: usize = 64;

/// One subject alternative name of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum San<'a> {
    Uri(&'a str),
    Dns(&'a str),
    Email(&'a str),
    Ip(std::net::IpAddr),
}

/// What a peer's certificate says of it. Computed once a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerInfo {
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    pub ip_sans: Vec<std::net::IpAddr>,
    pub email_sans: Vec<String>,
    /// RFC 2253, as in Envoy's `%DOWNSTREAM_PEER_SUBJECT%`.
    pub subject: String,
    pub issuer: String,
    pub serial_hex: String,
    /// The certificate itself, for digests and the `Cert` part of XFCC.
    pub der: Arc<[u8]>,
    /// What it showed after its own certificate, if anything.
    pub issuers: Vec<Arc<[u8]>>,
}

impl PeerInfo {
    pub fn from_certificate(der: &[u8]) -> Result<Self, String> {
        let (_, certificate) = x509_parser::certificate::X509Certificate::from_der(der).map_err(|e| e.to_string())?;
        let mut info = Self {
            subject: rfc2253(certificate.subject()),
            issuer: rfc2253(certificate.issuer()),
            serial_hex: serial_hex(certificate.raw_serial()),
            der: der.into(),
            ..Self::default()
        };
        if let Some(names) = certificate.subject_alternative_name().map_err(|e| e.to_string())? {
            for name in &names.value.general_names {
                info.add(name);
            }
        }
        Ok(info)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::URI(uri) => self.uri_sans.push((*uri).to_owned()),
            GeneralName::DNSName(dns) => self.dns_sans.push((*dns).to_owned()),
            GeneralName::RFC822Name(email) => self.email_sans.push((*email).to_owned()),
            GeneralName::IPAddress(bytes) => {
                if let Ok(v4) = <[u8; 4]>::try_from(*bytes) {
                    self.ip_sans.push(v4.into());
                } else if let Ok(v6) = <[u8; 16]>::try_from(*bytes) {
                    self.ip_sans.push(v6.into());
                }
            }
            // Other kinds of name have no place in a mesh and match nothing.
            _ => {}
        }
    }

    pub fn sans(&self) -> impl Iterator<Item = San<'_>> {
        let uris = self.uri_sans.iter().map(|s| San::Uri(s));
        let dns = self.dns_sans.iter().map(|s| San::Dns(s));
        let emails = self.email_sans.iter().map(|s| San::Email(s));
        uris.chain(dns).chain(emails).chain(self.ip_sans.iter().map(|ip| San::Ip(*ip)))
    }

    /// The peer's SPIFFE URI, if it has one.
    pub fn spiffe(&self) -> Option<&str> {
        self.uri_sans.iter().map(String::as_str).find(|uri| uri.starts_with("spiffe://"))
    }

    /// The trust domain of that URI.
    pub fn trust_domain(&self) -> Option<&str> {
        self.spiffe()?.strip_prefix("spiffe://")?.split('/').next()
    }

    /// The whole chain that it showed, its own certificate first.
    fn chain(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(&*self.der).chain(self.issuers.iter().map(|issuer| &**issuer))
    }

    /// From when and until when its own certificate is valid.
    pub fn validity(&self) -> Option<(SystemTime, SystemTime)> {
        crate::certificate::validity(&self.der).ok()
    }

    /// SHA-256 of each certificate of the chain.
    pub fn chain_sha256_hex(&self) -> Vec<String> {
        self.chain().map(sha256_hex).collect()
    }

    /// Serial numbers of the chain.
    pub fn chain_serials_hex(&self) -> Vec<String> {
        let parsed = self.chain().filter_map(|der| x509_parser::parse_x509_certificate(der).ok());
        parsed.map(|(_, certificate)| serial_hex(certificate.raw_serial())).collect()
    }

    /// SHA-256 of its public key (SubjectPublicKeyInfo) in lower-case hex.
    pub fn key_sha256_hex(&self) -> Option<String> {
        let (_, certificate) = x509_parser::parse_x509_certificate(&self.der).ok()?;
        Some(sha256_hex(certificate.public_key().raw))
    }

    /// Its own certificate in PEM, in which what a URL may not hold is escaped: the `Cert` part of XFCC, as Envoy and NGINX print it.
    pub fn url_encoded_pem(&self) -> String {
        let mut out = String::new();
        url_encoded_pem(&mut out, &self.der);
        out
    }

    /// The same of the chain that it showed, its own certificate first: the `Chain` part of XFCC.
    pub fn url_encoded_chain(&self) -> String {
        let mut out = String::new();
        self.chain().for_each(|der| url_encoded_pem(&mut out, der));
        out
    }

    /// SHA-256 of the certificate in lower-case hex, the `Hash` part of XFCC.
    pub fn sha256_hex(&self) -> String {
        sha256_hex(&self.der)
    }
}

/// Appends a certificate as PEM that is encoded as a URL would have it, as XFCC and `ext_authz` carry it.
pub fn url_encoded_pem(out: &mut String, der: &[u8]) {
    let body = STANDARD.encode(der);
    out.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for (at, character) in body.chars().enumerate() {
        if at > 0 && at % PEM_LINE == 0 {
            out.push_str("%0A");
        }
        match character {
            '+' => out.push_str("%2B"),
            '/' => out.push_str("%2F"),
            '=' => out.push_str("%3D"),
            other => out.push(other),
        }
    }
    out.push_str("%0A-----END%20CERTIFICATE-----%0A");
}

/// SHA-256, whatever suites a policy leaves.
pub(crate) fn sha256() -> &'static dyn Hash {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a suite of TLS 1.3, by its name");
    suite.common.hash_provider
}

fn sha256_hex(der: &[u8]) -> String {
    hex(sha256().hash(der).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// As Envoy prints it: without the zero byte that keeps a number from being negative.
fn serial_hex(serial: &[u8]) -> String {
    match serial {
        [0, rest @ ..] if !rest.is_empty() => hex(rest),
        whole => hex(whole),
    }
}

fn rfc2253(name: &x509_parser::x509::X509Name<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    let mut parts: Vec<String> = name
        .iter_attributes()
        .map(|attribute| {
            let key = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry)
                .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            format!("{key}={}", escape_rfc2253(attribute.as_str().unwrap_or_default()))
        })
        .collect();
    parts.reverse();
    parts.join(",")
}

fn escape_rfc2253(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        if matches!(c, ',' | '+' | '"' | '\\' | '<' | '>' | ';') || (i == 0 && matches!(c, '#' | ' ')) {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
