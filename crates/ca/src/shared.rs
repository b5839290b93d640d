//! A self-signed root that several replicas share, such as the one in Istio's Secret `istio-ca-secret`: when another takes its
//! place, and how they come to that together.
//!
//! Pure: what is kept is given, and what is to be kept is the answer. One replica, the leader, takes the steps: the next root is
//! made and kept beside the one that signs, all replicas give it to their proxies, and once none of them waits any longer it
//! becomes the one that signs. Whoever reads only Istio's names sees one whole authority at each step.

#[cfg(test)]
mod tests;

use crate::authority::AuthorityError;
use crate::certificate::{CaCertificate, bundle};
use crate::files::{Files, KEY, NEXT_CERTIFICATE, NEXT_KEY, ROOTS, SIGNING_CERTIFICATE};
use crate::signer::Material;
use zeroize::Zeroizing;

/// What a replica knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct View {
    /// The root that signs is near its end, and it is time to look at that.
    pub is_due: bool,
    /// Every proxy of this replica that must have the next root has it.
    pub is_distributed: bool,
    /// Another replica has said that proxies of its own lack it.
    pub is_awaited: bool,
}

/// The files as they are to be kept from now on; nothing where they are to stay.
pub(crate) fn step(
    files: &Files,
    view: View,
    make: impl FnOnce() -> Result<Material, AuthorityError>,
) -> Result<Option<Files>, AuthorityError> {
    let kept = Material::from_files(files)?;
    match kept.next {
        None if view.is_due && is_self_signed(&kept)? => Ok(Some(begin(files, &kept, &make()?))),
        None => Ok(None),
        Some(_) if !view.is_distributed || view.is_awaited => Ok(None),
        Some(_) => promote(files, &kept).map(Some),
    }
}

/// An intermediate's end is not ours to mend.
fn is_self_signed(kept: &Material) -> Result<bool, AuthorityError> {
    let own = CaCertificate::all(SIGNING_CERTIFICATE, &kept.certificate)?;
    let roots = CaCertificate::all(ROOTS, &kept.roots)?;
    Ok(own.iter().all(|certificate| roots.contains(certificate)))
}

fn file(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.as_bytes().to_vec())
}

fn begin(files: &Files, kept: &Material, next: &Material) -> Files {
    let mut files = files.clone();
    files.insert(NEXT_CERTIFICATE.to_owned(), file(&next.certificate));
    files.insert(NEXT_KEY.to_owned(), file(&next.key));
    files.insert(ROOTS.to_owned(), file(&format!("{}\n{}", kept.roots.trim_end(), next.certificate)));
    files
}

/// The root that signed is no longer held: each replica trusts it for as long as certificates need it. What others added stays.
fn promote(files: &Files, kept: &Material) -> Result<Files, AuthorityError> {
    let mut files = files.clone();
    let missing = |missing, present| AuthorityError::Half { missing, present };
    let certificate = files.remove(NEXT_CERTIFICATE).ok_or_else(|| missing(NEXT_CERTIFICATE, NEXT_KEY))?;
    let key = files.remove(NEXT_KEY).ok_or_else(|| missing(NEXT_KEY, NEXT_CERTIFICATE))?;
    let old = CaCertificate::all(SIGNING_CERTIFICATE, &kept.certificate)?;
    let roots = CaCertificate::all(ROOTS, &kept.roots)?;
    let staying = roots.iter().filter(|root| !old.contains(root));
    files.insert(ROOTS.to_owned(), file(&bundle(staying)));
    files.insert(SIGNING_CERTIFICATE.to_owned(), certificate);
    files.insert(KEY.to_owned(), key);
    Ok(files)
}
