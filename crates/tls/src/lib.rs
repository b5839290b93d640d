//! Identities and TLS: SPIFFE ids, certificates that rotate in place, trust that rotates in place, and the rustls
//! configurations built over them.
//!
//! Owns every `rustls` configuration of the project; there is one crypto provider, aws-lc-rs. Must never log or print a
//! private key: [`Identity`] has no `Debug` of its key, whose text is cleared from memory once it is read. A rotation replaces one `Arc` in a slot, so no listener, pool or
//! connection is rebuilt, and new handshakes use the new certificate at once.

mod certificate;
mod client;
mod compliance;
mod direct;
mod peer;
mod server;
mod sessions;
mod spiffe;
mod svid;
mod trust;
mod verified;

pub use certificate::{CertError, CertInfo, CertSlot, Identity};
pub use client::{ClientOptions, ClientTls};
pub use peer::{PeerInfo, San, url_encoded_pem};
pub use server::{ServerOptions, ServerTls};
pub use spiffe::{SpiffeError, SpiffeId, TrustDomain};
pub use trust::{SanMatcher, TrustAnchors, TrustSlot, Validation};

use meltemi_base::Compliance;
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

static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
static COMPLIANCE: OnceLock<Compliance> = OnceLock::new();

/// The one crypto provider, aws-lc-rs.
pub fn provider() -> Arc<CryptoProvider> {
    let make = || {
        let mut whole = rustls::crypto::aws_lc_rs::default_provider();
        whole.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !is_aes_128(suite.suite())));
        Arc::new(match COMPLIANCE.get() {
            Some(policy) => compliance::restricted(whole, *policy),
            None => whole,
        })
    };
    PROVIDER.get_or_init(make).clone()
}

/// Suites that come first, as BoringSSL and Go have it where the processor does AES: their hash is SHA-256, which it does too,
/// while the SHA-384 of the others costs 30 µs of a handshake.
fn is_aes_128(suite: rustls::CipherSuite) -> bool {
    use rustls::CipherSuite as S;
    matches!(
        suite,
        S::TLS13_AES_128_GCM_SHA256
            | S::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
            | S::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    )
}

/// Holds all TLS of this process to a policy, that of libraries too. For its start; once there has been TLS it is too late.
pub fn comply(policy: Compliance) -> Result<(), TooLate> {
    if PROVIDER.get().is_some() {
        return Err(TooLate);
    }
    COMPLIANCE.set(policy).map_err(|_| TooLate)?;
    (*provider()).clone().install_default().map_err(|_| TooLate)
}

/// The policy of this process.
pub fn compliance() -> Option<Compliance> {
    COMPLIANCE.get().copied()
}

/// Whether this build's cryptography is the validated module (feature `fips`).
pub fn is_validated_module() -> bool {
    provider().fips()
}

/// TLS was in use before its policy was known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("TLS is in use already")]
pub struct TooLate;

/// What of a connection's cryptography its configuration chooses.
#[derive(Clone, Debug, Default)]
struct Choice<'a> {
    /// OpenSSL names, as Envoy takes them, in order of preference; empty: the provider's defaults. TLS 1.3 suites are always kept,
    /// since Envoy's list does not govern them.
    cipher_suites: &'a [String],
    /// In order of preference; empty: the provider's.
    curves: &'a [Curve],
    /// Over the other two.
    compliance: Option<Compliance>,
}

/// The provider restricted to a choice; of what a policy forbids nothing is chosen. Unknown names are returned as the error.
fn provider_with(choice: &Choice<'_>) -> Result<Arc<CryptoProvider>, CertError> {
    let Choice { cipher_suites, curves, compliance } = *choice;
    if cipher_suites.is_empty() && curves.is_empty() && compliance.is_none() {
        return Ok(provider());
    }
    let mut wanted = Vec::new();
    for name in cipher_suites {
        wanted.push(suite_by_openssl_name(name).ok_or_else(|| CertError::CipherSuite(name.clone()))?);
    }
    let mut base = (*provider()).clone();
    if let Some(policy) = compliance {
        base = compliance::restricted(base, policy);
    }
    let governed = compliance.is_some() || COMPLIANCE.get().is_some();
    let mut suites = base.cipher_suites.clone();
    suites.retain(|suite| wanted.is_empty() || suite.tls13().is_some() || wanted.contains(&suite.suite()));
    suites.sort_by_key(|suite| wanted.iter().position(|wanted| *wanted == suite.suite()));
    if !governed || !suites.is_empty() {
        base.cipher_suites = suites;
    }
    let mut groups: Vec<_> = curves.iter().map(|curve| group(*curve)).collect();
    if governed {
        groups.retain(|group| base.kx_groups.iter().any(|known| known.name() == group.name()));
    }
    if !groups.is_empty() {
        base.kx_groups = groups;
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
