//! Identities and TLS: SPIFFE ids, certificates that rotate in place, trust that rotates in place, and the rustls
//! configurations built over them.
//!
//! Owns every `rustls` configuration of the project; there is one crypto provider, aws-lc-rs. Must never log or print a
//! private key: [`Identity`] has no `Debug` of its key, whose text is cleared from memory once it is read. A rotation replaces one `Arc` in a slot, so no listener, pool or
//! connection is rebuilt, and new handshakes use the new certificate at once.

mod certificate;
mod client;
mod direct;
mod peer;
mod server;
mod spiffe;
mod svid;
mod trust;

pub use certificate::{CertError, CertInfo, CertSlot, Identity};
pub use client::{ClientOptions, ClientTls};
pub use peer::{PeerInfo, San};
pub use server::{ServerOptions, ServerTls};
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
pub use trust::{SanMatcher, TrustAnchors, TrustSlot, Validation};

use rustls::crypto::CryptoProvider;
use std::sync::{Arc, OnceLock};

/// TLS protocol version limits, as Envoy's `TlsParameters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

/// A key exchange group, of those that the provider has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    X25519,
    P256,
    P384,
    X25519MlKem768,
}

/// The one crypto provider, aws-lc-rs.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())).clone()
}

/// Makes aws-lc-rs the process default, for libraries that ask rustls for one. Idempotent.
pub fn install_default_provider() {
    // An error means that a default is already installed, which is the wanted state.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The provider restricted to the named cipher suites (OpenSSL names as Envoy takes them) and to these curves, where any are
/// given. Unknown names are returned as the error. TLS 1.3 suites are always kept, since Envoy's list does not govern them.
fn provider_with(cipher_suites: &[String], curves: &[Curve]) -> Result<Arc<CryptoProvider>, CertError> {
    if cipher_suites.is_empty() && curves.is_empty() {
        return Ok(provider());
    }
    let mut wanted = Vec::new();
    for name in cipher_suites {
        wanted.push(suite_by_openssl_name(name).ok_or_else(|| CertError::CipherSuite(name.clone()))?);
    }
    let mut base = (*provider()).clone();
    if !wanted.is_empty() {
        base.cipher_suites.retain(|suite| suite.tls13().is_some() || wanted.contains(&suite.suite()));
    }
    if !curves.is_empty() {
        base.kx_groups = curves.iter().map(|curve| group(*curve)).collect();
    }
    Ok(Arc::new(base))
}

fn group(curve: Curve) -> &'static dyn rustls::crypto::SupportedKxGroup {
    use rustls::crypto::aws_lc_rs::kx_group;
    match curve {
        Curve::X25519 => kx_group::X25519,
        Curve::P256 => kx_group::SECP256R1,
        Curve::P384 => kx_group::SECP384R1,
        Curve::X25519MlKem768 => kx_group::X25519MLKEM768,
    }
}

fn suite_by_openssl_name(name: &str) -> Option<rustls::CipherSuite> {
    use rustls::CipherSuite as S;
    Some(match name {
        "ECDHE-ECDSA-AES128-GCM-SHA256" => S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES256-GCM-SHA384" => S::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-CHACHA20-POLY1305" => S::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256" => S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES256-GCM-SHA384" => S::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-CHACHA20-POLY1305" => S::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        // Without forward secrecy and therefore not in rustls; Istio's default list names them as the last resort.
        "AES128-GCM-SHA256" => S::TLS_RSA_WITH_AES_128_GCM_SHA256,
        "AES256-GCM-SHA384" => S::TLS_RSA_WITH_AES_256_GCM_SHA384,
        _ => return None,
    })
}

type Versions = &'static [&'static rustls::SupportedProtocolVersion];

static TLS12_ONLY: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS12];
static TLS13_ONLY: [&rustls::SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

fn versions(min: TlsVersion, max: TlsVersion) -> Versions {
    match (min, max) {
        (TlsVersion::Tls12, TlsVersion::Tls13) => rustls::ALL_VERSIONS,
        (TlsVersion::Tls13, _) => &TLS13_ONLY,
        (TlsVersion::Tls12, TlsVersion::Tls12) => &TLS12_ONLY,
    }
}

#[cfg(test)]
mod tests;
