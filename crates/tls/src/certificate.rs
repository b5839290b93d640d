//! Certificates with their keys, and the slots that hold the current one.

use crate::peer::PeerInfo;
use arc_swap::ArcSwapOption;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use zeroize::Zeroize as _;

#[derive(Debug, thiserror::Error)]
pub enum CertError {
    #[error("no certificate in the PEM text")]
    NoCertificate,
    #[error("malformed PEM: {0}")]
    Pem(String),
    #[error("malformed certificate: {0}")]
    Certificate(String),
    #[error("private key: {0}")]
    Key(String),
    #[error("the private key does not belong to the certificate")]
    Mismatch,
    #[error("unknown cipher suite {0:?}")]
    CipherSuite(String),
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    #[error("certificate revocation list: {0}")]
    Crl(String),
}

/// What an operator may see of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertInfo {
    pub serial_hex: String,
    pub not_before: SystemTime,
    pub not_after: SystemTime,
    pub subject: String,
    pub uri_sans: Vec<String>,
    pub dns_sans: Vec<String>,
    pub ip_sans: Vec<IpAddr>,
}

/// A certificate chain with its private key.
#[derive(Clone)]
pub struct Identity {
    certified: Arc<CertifiedKey>,
    info: CertInfo,
}

impl Identity {
    /// Parses PEM, leaf first, and checks that key and leaf belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, CertError> {
        let chain = certificates_from_pem(chain)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| CertError::Key(e.to_string()))?;
        Self::new(chain, key)
    }

    pub fn new(chain: Vec<CertificateDer<'static>>, mut key: PrivateKeyDer<'static>) -> Result<Self, CertError> {
        // Not by the provider, which would leave the text of the key in memory.
        let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key);
        key.zeroize();
        let signer = signer.map_err(|e| CertError::Key(e.to_string()))?;
        let leaf = chain.first().ok_or(CertError::NoCertificate)?;
        let info = cert_info(leaf)?;
        // Not by `keys_match`, whose parser refuses version 1, which may well be presented.
        let (_, parsed) =
            x509_parser::parse_x509_certificate(leaf).map_err(|e| CertError::Certificate(e.to_string()))?;
        if signer.public_key().is_some_and(|key| *key != *parsed.public_key().raw) {
            return Err(CertError::Mismatch);
        }
        Ok(Self { certified: Arc::new(CertifiedKey::new(chain, signer)), info })
    }

    pub fn info(&self) -> &CertInfo {
        &self.info
    }

    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.certified.cert
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("info", &self.info).finish_non_exhaustive()
    }
}

/// All certificates of a PEM text; an error if there is none.
pub(crate) fn certificates_from_pem(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertError> {
    let chain = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| CertError::Pem(e.to_string()))?;
    if chain.is_empty() { Err(CertError::NoCertificate) } else { Ok(chain) }
}

/// From when and until when a certificate is valid.
pub(crate) fn validity(der: &[u8]) -> Result<(SystemTime, SystemTime), String> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).map_err(|e| e.to_string())?;
    let time = |t: x509_parser::time::ASN1Time| {
        u64::try_from(t.timestamp()).map_or(UNIX_EPOCH, |seconds| UNIX_EPOCH + Duration::from_secs(seconds))
    };
    Ok((time(parsed.validity().not_before), time(parsed.validity().not_after)))
}

pub(crate) fn cert_info(leaf: &CertificateDer<'_>) -> Result<CertInfo, CertError> {
    let (not_before, not_after) = validity(leaf).map_err(CertError::Certificate)?;
    let peer = PeerInfo::from_certificate(leaf).map_err(CertError::Certificate)?;
    Ok(CertInfo {
        serial_hex: peer.serial_hex,
        not_before,
        not_after,
        subject: peer.subject,
        uri_sans: peer.uri_sans,
        dns_sans: peer.dns_sans,
        ip_sans: peer.ip_sans,
    })
}

/// Holds the current [`Identity`] of one secret; empty until the first arrives. Handshakes read it without a lock.
#[derive(Default)]
pub struct CertSlot(ArcSwapOption<Identity>);

impl CertSlot {
    pub fn new(identity: Identity) -> Arc<Self> {
        Arc::new(Self(ArcSwapOption::from_pointee(identity)))
    }

    pub fn empty() -> Arc<Self> {
        Arc::default()
    }

    pub fn set(&self, identity: Identity) {
        self.0.store(Some(Arc::new(identity)));
    }

    pub fn current(&self) -> Option<Arc<Identity>> {
        self.0.load_full()
    }

    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        self.0.load().as_ref().map(|identity| identity.certified.clone())
    }
}

impl fmt::Debug for CertSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CertSlot").field(&self.0.load()).finish()
    }
}

/// Picks, among the slots of a listener, the first whose key suits the client's signature schemes and whose DNS names
/// cover the server name; else the first that suits at all.
#[derive(Debug)]
pub(crate) struct ServerCerts(pub(crate) Vec<Arc<CertSlot>>);

impl ResolvesServerCert for ServerCerts {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let [only] = &self.0[..] {
            return only.certified();
        }
        let suits = |identity: &Identity| identity.certified.key.choose_scheme(hello.signature_schemes()).is_some();
        choose(&self.0, hello.server_name(), suits).map(|identity| identity.certified.clone())
    }
}

/// The first that is good for the name asked for, else the first.
pub(crate) fn choose(
    slots: &[Arc<CertSlot>],
    name: Option<&str>,
    suits: impl Fn(&Identity) -> bool,
) -> Option<Arc<Identity>> {
    let current: Vec<Arc<Identity>> =
        slots.iter().filter_map(|slot| slot.current()).filter(|identity| suits(identity)).collect();
    let named = name.and_then(|name| current.iter().find(|identity| covers(&identity.info, name)));
    named.or(current.first()).cloned()
}

fn covers(info: &CertInfo, name: &str) -> bool {
    info.dns_sans.iter().any(|san| match san.strip_prefix("*.") {
        Some(parent) => name.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => san.eq_ignore_ascii_case(name),
    })
}

/// The client side of a slot.
#[derive(Debug)]
pub(crate) struct ClientCert(pub(crate) Arc<CertSlot>);

impl ResolvesClientCert for ClientCert {
    fn resolve(&self, _root_hints: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let certified = self.0.certified()?;
        certified.key.choose_scheme(schemes)?;
        Some(certified)
    }

    fn has_certs(&self) -> bool {
        self.0.current().is_some()
    }
}

impl Identity {
    /// The key's algorithm, for display.
    pub fn key_algorithm(&self) -> SignatureAlgorithm {
        self.certified.key.algorithm()
    }
}
