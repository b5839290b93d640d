//! Revocation lists that go out with the roots.
//!
//! Envoy takes a chain only if every authority in it has a list, once there are lists at all (and none that has ended), so
//! what does not cover whoever has signed is not put in force.

#[cfg(test)]
mod tests;

use crate::authority::AuthorityError;
use crate::certificate::encode;
use crate::signer::Signer;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;
use x509_parser::pem::Pem;

/// Lists of one file.
const MAX_LISTS: usize = 32;

/// The lists of some authorities, at most one each.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Revocations(Vec<List>);

#[derive(Clone, PartialEq, Eq)]
struct List {
    /// The authority's name, in DER.
    issuer: Arc<[u8]>,
    pem: Arc<str>,
}

impl Revocations {
    /// Reads a PEM text that holds lists and nothing else, perhaps none.
    pub fn from_pem(pem: &str, now: SystemTime) -> Result<Self, AuthorityError> {
        let wrong = |reason: String| AuthorityError::Certificate { what: "revocation lists", reason };
        let mut lists: Vec<List> = Vec::new();
        for block in Pem::iter_from_buffer(pem.as_bytes()) {
            let block = block.map_err(|e| wrong(format!("malformed PEM: {e}")))?;
            if block.label != "X509 CRL" {
                return Err(wrong(format!("a {} where only revocation lists belong", block.label)));
            }
            let (_, list) = x509_parser::parse_x509_crl(&block.contents).map_err(|e| wrong(e.to_string()))?;
            let end = list.next_update().map(|time| crate::certificate::time(time.timestamp()));
            if end.is_some_and(|end| end <= now) {
                return Err(wrong(format!("that of {:?} has ended", list.issuer().to_string())));
            }
            let issuer: Arc<[u8]> = list.issuer().as_raw().into();
            if lists.len() == MAX_LISTS || lists.iter().any(|known| known.issuer == issuer) {
                return Err(wrong(format!(
                    "more than one of {:?}, or more than {MAX_LISTS}",
                    list.issuer().to_string()
                )));
            }
            lists.push(List { issuer, pem: encode("X509 CRL", &block.contents).into() });
        }
        if lists.is_empty() && !pem.trim().is_empty() {
            return Err(wrong("no list in it".to_owned()));
        }
        Ok(Self(lists))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// These, and those of other authorities that `older` has. Without any there are none at all.
    pub fn with(&self, older: &Self) -> Self {
        if self.is_empty() {
            return Self::default();
        }
        let known = |list: &&List| !self.0.iter().any(|own| own.issuer == list.issuer);
        Self(self.0.iter().chain(older.0.iter().filter(known)).cloned().collect())
    }

    /// Whether every authority of a chain under this signer has a list, if there are lists.
    pub fn cover(&self, signer: &Signer) -> Result<(), AuthorityError> {
        let has = |name: &[u8]| self.0.iter().any(|list| *list.issuer == *name);
        let missing = signer.intermediates().iter().find(|part| !has(part.name()));
        let rooted = signer.anchors().iter().any(|root| has(root.name()));
        match (self.is_empty(), missing.or_else(|| signer.anchors().first().filter(|_| !rooted))) {
            (true, _) | (false, None) => Ok(()),
            (false, Some(authority)) => Err(AuthorityError::Certificate {
                what: "revocation lists",
                reason: format!("there is none of {authority:?}"),
            }),
        }
    }

    pub fn pem(&self) -> Arc<str> {
        self.0.iter().map(|list| &*list.pem).collect::<String>().into()
    }
}

impl fmt::Debug for Revocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Revocations({})", self.0.len())
    }
}
