//! The certificate authority (Citadel's part): a root, signing of workload certificates, and Istio's CertificateService.
//!
//! Owns the signing key. The identity in a certificate comes only from the authenticated caller, never from the request:
//! of a CSR nothing but the public key is used. Must never log keys or tokens. A signature costs one ECDSA operation,
//! some 30 µs; nothing is cached.

mod authority;
mod service;
mod token;

pub use authority::{Authority, AuthorityError, AuthorityOptions, Issued};
pub use service::{AuthError, Authenticator, Caller, CertificateCounters, CertificateService, PeerCertificate};
pub use token::{TokenError, TokenIssuer, TokenVerifier};

/// The audience that Istio's projected tokens carry.
pub const TOKEN_AUDIENCE: &str = "istio-ca";
