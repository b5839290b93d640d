//! What somebody else signed, judged before a workload gets it: it is for the key and the names that were asked for, lives no
//! longer than it may, and leads to the roots by which the mesh will verify it.
//!
//! Owns that judgement. A signer is not trusted to have done what it was asked: one that gave a workload another's name would
//! make it the other.

#[cfg(test)]
mod tests;

use crate::authority::{AuthorityError, Issued};
use crate::certificate::time;
use crate::signer::CLOCK_SKEW;
use meltemi_tls::{SpiffeId, TrustAnchors};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer as _;

/// What was asked of a signer.
pub(crate) struct Asked<'a> {
    /// SubjectPublicKeyInfo, in DER.
    pub key: &'a [u8],
    pub id: &'a SpiffeId,
    /// Of a server of ours; a workload has none.
    pub dns_names: &'a [String],
    /// The longest that it may live.
    pub longest: Duration,
}

/// Whether a workload may have what was signed.
pub(crate) fn check(issued: &Issued, asked: &Asked<'_>, now: SystemTime) -> Result<(), AuthorityError> {
    let chain = issued.chain.concat();
    let wrong = |reason: String| AuthorityError::External(format!("what it signed is not used: {reason}"));
    let (_, block) =
        x509_parser::pem::parse_x509_pem(chain.as_bytes()).map_err(|e| wrong(format!("malformed PEM: {e}")))?;
    let (_, leaf) =
        X509Certificate::from_der(&block.contents).map_err(|e| wrong(format!("malformed certificate: {e}")))?;
    check_leaf(&leaf, asked, now).map_err(wrong)?;
    let anchors = TrustAnchors::from_pem(issued.root.as_bytes(), &[]).map_err(|e| wrong(e.to_string()))?;
    anchors
        .verify(chain.as_bytes(), now)
        .map_err(|e| wrong(format!("it does not verify against the roots of the mesh configuration: {e}")))
}

fn check_leaf(leaf: &X509Certificate<'_>, asked: &Asked<'_>, now: SystemTime) -> Result<(), String> {
    if leaf.public_key().raw != asked.key {
        return Err("it is for another key".to_owned());
    }
    if leaf.is_ca() {
        return Err("it is an authority's".to_owned());
    }
    check_names(leaf, asked)?;
    let (start, end) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    if time(start) > now + CLOCK_SKEW {
        return Err("it is not valid yet".to_owned());
    }
    if time(end) > now + asked.longest + CLOCK_SKEW {
        let life = time(end).duration_since(now).unwrap_or_default();
        return Err(format!("it lives for {} s, and {} s is the longest", life.as_secs(), asked.longest.as_secs()));
    }
    Ok(())
}

/// Its names are those asked for and no others.
fn check_names(leaf: &X509Certificate<'_>, asked: &Asked<'_>) -> Result<(), String> {
    let names = leaf.subject_alternative_name().map_err(|e| e.to_string())?;
    let id = asked.id.to_string();
    let (mut ids, mut dns) = (0, BTreeSet::new());
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::URI(uri) if *uri == id => ids += 1,
            GeneralName::DNSName(name) => drop(dns.insert(*name)),
            other => return Err(format!("it has the name {other}, which nobody asked for")),
        }
    }
    if ids != 1 {
        return Err(format!("it has the name {id} {ids} times"));
    }
    let wanted: BTreeSet<&str> = asked.dns_names.iter().map(String::as_str).collect();
    match dns.symmetric_difference(&wanted).next() {
        Some(name) if wanted.contains(name) => Err(format!("it lacks the name {name}")),
        Some(name) => Err(format!("it has the name {name}, which nobody asked for")),
        None => Ok(()),
    }
}
