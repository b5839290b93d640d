//! What an authority tells of itself: no keys, only names and times.

use crate::certificate::CaCertificate;
use crate::rotation::{Rotation, Stage};
use std::time::SystemTime;

/// A snapshot of an authority.
#[derive(Clone, Debug)]
pub struct Status {
    pub stage: Stage,
    pub signer: CaCertificate,
    /// Signs once one of its roots is distributed.
    pub next: Option<CaCertificate>,
    pub roots: Vec<RootStatus>,
    /// Signed before; with when the last of their certificates ends.
    pub former: Vec<(CaCertificate, SystemTime)>,
    /// Why the newest files are not in force, if they are not.
    pub refused: Option<String>,
}

#[derive(Clone, Debug)]
pub struct RootStatus {
    pub certificate: CaCertificate,
    pub since: SystemTime,
    pub distributed: bool,
    /// False: trusted only for as long as certificates need it; the files no longer hold it.
    pub in_files: bool,
}

impl Status {
    pub(crate) fn new(rotation: &Rotation, refused: Option<String>) -> Self {
        let roots = rotation.trusted().iter().map(|trusted| RootStatus {
            certificate: trusted.root.clone(),
            since: trusted.since,
            distributed: trusted.distributed,
            in_files: rotation.is_wanted(&trusted.root),
        });
        Self {
            stage: rotation.stage(),
            signer: rotation.signer().certificate().clone(),
            next: rotation.next().map(|next| next.certificate().clone()),
            roots: roots.collect(),
            former: rotation.former().iter().map(|f| (f.signer.certificate().clone(), f.until())).collect(),
            refused,
        }
    }
}
