//! A certificate with its key, and what others' certificates are verified by. The key is cleared from memory with its last
//! owner and is never shown.

use meltemi_tls::{CertError, TrustAnchors};
use std::collections::BTreeMap;
use std::fmt;
use std::time::SystemTime;
use zeroize::Zeroizing;

const END: &str = "-----END CERTIFICATE-----";

/// Roots and revocation lists, in PEM; the lists may be none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustBundle {
    /// Of the mesh's own trust domain.
    pub roots_pem: String,
    pub crl_pem: String,
    /// By trust domain, the own among them, where others have roots of theirs; else none.
    pub domains: BTreeMap<String, String>,
}

impl TrustBundle {
    pub(super) fn anchors(&self) -> Result<TrustAnchors, CertError> {
        let of = |roots: &str| TrustAnchors::from_pem(roots.as_bytes(), self.crl_pem.as_bytes());
        let domains = self.domains.iter().map(|(name, roots)| Ok((Box::from(name.as_str()), of(roots)?)));
        match TrustAnchors::of_trust_domains(domains.collect::<Result<Vec<_>, CertError>>()?) {
            Some(anchors) => Ok(anchors),
            None => of(&self.roots_pem),
        }
    }
}

/// A certificate with its key and the mesh's roots, in PEM.
pub struct WorkloadSecret {
    pub chain_pem: String,
    pub key_pem: Zeroizing<String>,
    pub bundle: TrustBundle,
    pub not_after: SystemTime,
}

impl fmt::Debug for WorkloadSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkloadSecret").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

/// The certificates of both PEM texts, each once.
pub(super) fn union(first: &str, second: &str) -> String {
    let mut blocks: Vec<&str> = Vec::new();
    for block in first.split_inclusive(END).chain(second.split_inclusive(END)).map(str::trim) {
        if block.ends_with(END) && !blocks.contains(&block) {
            blocks.push(block);
        }
    }
    blocks.iter().map(|block| format!("{block}\n")).collect()
}
