//! The certificate authority (Citadel's part): roots and their change, signing of workload certificates, and Istio's
//! CertificateService.
//!
//! Owns the signing key. The identity in a certificate comes only from the authenticated caller, never from the request:
//! of a CSR nothing but the public key is used. Must never log keys or tokens. A signature costs one ECDSA operation,
//! some 30 µs; nothing is cached.

mod authenticate;
mod authority;
mod certificate;
mod external;
mod federated;
mod files;
mod former;
mod review;
mod revocation;
mod root;
mod rotation;
mod service;
mod shared;
mod signed;
mod signer;
mod status;
mod svid_key;
#[cfg(test)]
mod testing;
mod token;
mod workload_tokens;

pub use authenticate::{AuthError, Authenticator, Caller, ServiceAccount, TokenAuthority, TokenRefusal};
pub use authority::{Authority, AuthorityError, AuthorityOptions, Issued, ReloadCounters, TrustBundle};
pub use certificate::CaCertificate;
pub use external::{AskedSigner, ExternalAuthority, ExternalRequest, external_server_identity};
pub use federated::{BundleKeys, FederatedKeys};
pub use files::{Files, NEXT_CERTIFICATE};
pub use former::FormerRoot;
pub use review::{Reviews, TokenReviewer};
pub use rotation::{Pace, Progress, Stage};
pub use service::{CertificateCounters, CertificateService, PeerCertificate};
pub use signer::Material;
pub use status::{RootStatus, Status};
pub use token::{TokenError, TokenIssuer, TokenVerifier};
pub use workload_tokens::WorkloadTokens;

/// The audience that Istio's projected tokens carry.
pub const TOKEN_AUDIENCE: &str = "istio-ca";
