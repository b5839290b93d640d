//! TLS contexts and secrets.

use crate::common::{ConfigSource, DataSource};
use meltemi_base::Compliance;
use meltemi_matchers::StringMatcher;
use std::sync::Arc;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TlsVersion {
    V1_2,
    V1_3,
}

/// A key exchange group of `TlsParameters.ecdh_curves`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Curve {
    X25519,
    P256,
    P384,
    X25519MlKem768,
}

/// A secret given in place, or the name of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef<T> {
    Inline(Arc<T>),
    /// No source: a static secret of the bootstrap.
    Sds {
        name: Arc<str>,
        source: Option<ConfigSource>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCommon {
    pub min_version: TlsVersion,
    pub max_version: TlsVersion,
    /// IANA or OpenSSL names, in order; all of the provider's if empty. TLS 1.3 suites are not configurable.
    pub cipher_suites: Vec<Arc<str>>,
    /// In order of preference; the provider's own if empty.
    pub curves: Vec<Curve>,
    /// Over the versions, suites and curves.
    pub compliance: Option<Compliance>,
    pub alpn: Vec<Arc<str>>,
    pub certificates: Vec<SecretRef<TlsCertificate>>,
    pub validation: Validation,
}

/// How the peer is verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Validation {
    /// Not at all.
    None,
    Static(Arc<ValidationContext>),
    Sds {
        name: Arc<str>,
        source: Option<ConfigSource>,
    },
    /// The subscribed context's fields replace or extend the default's.
    Combined {
        default: Arc<ValidationContext>,
        name: Arc<str>,
        source: Option<ConfigSource>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownstreamTls {
    pub common: TlsCommon,
    pub require_client_certificate: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    pub common: TlsCommon,
    /// Empty: none sent, unless `auto_host_sni`.
    pub sni: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsCertificate {
    pub chain: DataSource,
    pub key: DataSource,
    pub password: Option<DataSource>,
    pub ocsp_staple: Option<DataSource>,
    pub watched_directory: Option<Arc<std::path::Path>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SanKind {
    /// Any kind (deprecated `match_subject_alt_names`).
    Any,
    Email,
    Dns,
    Uri,
    IpAddress,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SanMatcher {
    pub kind: SanKind,
    pub matcher: StringMatcher,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValidationContext {
    pub trusted_ca: Option<DataSource>,
    pub system_roots: bool,
    pub watched_directory: Option<Arc<std::path::Path>>,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub spki: Vec<[u8; 32]>,
    /// SHA-256 of the leaf certificate. A leaf is pinned by one of these or of `spki`.
    pub hashes: Vec<[u8; 32]>,
    /// Any of them; no demand if empty.
    pub sans: Vec<SanMatcher>,
    pub crl: Option<DataSource>,
    pub accept_untrusted: bool,
    /// SPIFFE's validator: a peer is verified by the roots of its trust domain, and `trusted_ca` says nothing. Empty: there is
    /// no such validator.
    pub trust_domains: Vec<TrustDomain>,
}

/// `SPIFFECertValidatorConfig.TrustDomain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustDomain {
    pub name: Arc<str>,
    /// Roots, and perhaps revocation lists, in PEM.
    pub bundle: DataSource,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub name: Arc<str>,
    pub kind: SecretKind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretKind {
    Certificate(Arc<TlsCertificate>),
    Validation(Arc<ValidationContext>),
    Generic(Option<DataSource>),
}
