//! Identities of workloads as SPIFFE writes them, in Istio's form alone, and the trust domains that they are of.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Longest URI that SPIFFE allows, in bytes (SPIFFE-ID section 2.3).
const MAX_URI_BYTES: usize = 2048;
const MAX_TRUST_DOMAIN_BYTES: usize = 255;

/// The name of a root of trust, such as `cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Arc<str>);

impl TrustDomain {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = SpiffeError;

    fn from_str(text: &str) -> Result<Self, SpiffeError> {
        // Istio writes `@` in trust domains taken from e-mail addresses as `.`.
        let name = text.replace('@', ".");
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if name.is_empty() || name.len() > MAX_TRUST_DOMAIN_BYTES || !name.bytes().all(legal) {
            return Err(SpiffeError::TrustDomain(text.to_owned()));
        }
        Ok(Self(name.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A workload's identity in Istio's form: `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    pub trust_domain: TrustDomain,
    pub namespace: Arc<str>,
    pub service_account: Arc<str>,
}

impl SpiffeId {
    pub fn new(trust_domain: TrustDomain, namespace: &str, service_account: &str) -> Result<Self, SpiffeError> {
        for segment in [namespace, service_account] {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if segment.is_empty() || matches!(segment, "." | "..") || !segment.bytes().all(legal) {
                return Err(SpiffeError::Segment(segment.to_owned()));
            }
        }
        Ok(Self { trust_domain, namespace: namespace.into(), service_account: service_account.into() })
    }
}

impl FromStr for SpiffeId {
    type Err = SpiffeError;

    fn from_str(uri: &str) -> Result<Self, SpiffeError> {
        let not_istio = || SpiffeError::Form(uri.chars().take(128).collect());
        if uri.len() > MAX_URI_BYTES {
            return Err(not_istio());
        }
        let rest = uri.strip_prefix("spiffe://").ok_or_else(not_istio)?;
        let parts: Vec<&str> = rest.split('/').collect();
        let [trust_domain, "ns", namespace, "sa", service_account] = parts[..] else { return Err(not_istio()) };
        Self::new(trust_domain.parse()?, namespace, service_account)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeError {
    #[error("invalid trust domain {0:?}")]
    TrustDomain(String),
    #[error("invalid path segment {0:?} in a SPIFFE id")]
    Segment(String),
    #[error("{0:?} is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
    Form(String),
}
