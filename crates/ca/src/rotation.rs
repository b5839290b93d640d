//! A change of roots in stages, so that at each moment any two workloads trust each other: a new root is first distributed,
//! then signs, and the old one is trusted for as long as a certificate that it signed may be alive.
//!
//! Pure: time and what proxies hold are told to it. Owns which roots are trusted and who signs; reads and writes nothing.
//! Several changes may overlap: each root and each former signer has its own time.

#[cfg(test)]
mod tests;

use crate::authority::AuthorityError;
use crate::certificate::CaCertificate;
use crate::former::FormerRoot;
use crate::revocation::Revocations;
use crate::signer::{CLOCK_SKEW, SharedSigner};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Roots trusted at once, and former signers waited for.
const MOST: usize = 16;

/// When a root counts as distributed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// False: what the files hold is in force at once.
    pub staged: bool,
    /// Not before this, even if every connected proxy has it: others may be away for a moment.
    pub least: Duration,
    /// After this in any case: each workload has had a new certificate, and the bundle with it.
    pub longest: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { staged: true, least: Duration::from_secs(60), longest: Duration::from_secs(24 * 3600) }
    }
}

impl Pace {
    fn is_distributed(self, age: Duration, progress: Progress) -> bool {
        !self.staged || age >= self.longest || age >= self.least && progress.is_complete()
    }
}

/// How many connected proxies have acknowledged the bundle in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub connected: usize,
    pub holding: usize,
}

impl Progress {
    fn is_complete(self) -> bool {
        self.holding >= self.connected
    }
}

/// Where the authority is in a change of roots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// One set of roots, trusted by all.
    Single,
    /// A new root is trusted, the old signer signs.
    Distributing,
    /// The new signer signs, the old root is trusted.
    Signing,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Distributing => "distributing",
            Self::Signing => "signing",
        }
    }
}

/// What an authority is to come to.
pub(crate) struct Held {
    pub signer: SharedSigner,
    pub roots: Vec<CaCertificate>,
    /// Lists that cover the signer, or none.
    pub revocations: Revocations,
}

#[derive(Clone, Debug)]
pub(crate) struct Trusted {
    pub root: CaCertificate,
    pub since: SystemTime,
    pub distributed: bool,
}

pub(crate) struct Former {
    pub signer: SharedSigner,
    since: SystemTime,
}

impl Former {
    /// When the last of its certificates ends, on the slowest clock of the mesh.
    pub fn until(&self) -> SystemTime {
        self.signer.issued_until().max(self.since) + CLOCK_SKEW
    }
}

pub(crate) struct Rotation {
    pace: Pace,
    signer: SharedSigner,
    /// Signs as soon as a root of its own is distributed.
    next: Option<SharedSigner>,
    former: Vec<Former>,
    wanted: Vec<CaCertificate>,
    trusted: Vec<Trusted>,
    /// Of another life, or of another replica.
    remembered: Vec<FormerRoot>,
    wanted_revocations: Revocations,
    /// With those of former signers, while certificates of theirs may live.
    revocations: Revocations,
}

impl Rotation {
    /// At the start everybody is to learn what is held; nothing is to be waited for.
    pub fn new(held: Held, pace: Pace, now: SystemTime) -> Self {
        let trusted = held.roots.iter().map(|root| Trusted { root: root.clone(), since: now, distributed: true });
        let trusted = trusted.collect();
        let Held { signer, roots: wanted, revocations } = held;
        let wanted_revocations = revocations.clone();
        let (former, remembered) = (Vec::new(), Vec::new());
        Self { pace, signer, next: None, former, wanted, trusted, remembered, wanted_revocations, revocations }
    }

    /// Trusts what was trusted before, or elsewhere, for as long as it says.
    pub fn remember(&mut self, former: &[FormerRoot], now: SystemTime) -> Result<(), AuthorityError> {
        let remembered = FormerRoot::union(&self.remembered, former, now);
        let new = remembered.iter().map(|former| &former.root).filter(|root| !self.trusts(root));
        let new: Vec<Trusted> = new.map(|root| Trusted { root: root.clone(), since: now, distributed: true }).collect();
        if self.trusted.len() + new.len() > MOST {
            return Err(AuthorityError::Crowded);
        }
        self.trusted.extend(new);
        self.remembered = remembered;
        Ok(())
    }

    /// What is trusted although it is not held, and until when.
    pub fn former_roots(&self) -> Vec<FormerRoot> {
        let unwanted = self.trusted.iter().map(|trusted| &trusted.root).filter(|root| !self.is_wanted(root));
        let former = unwanted.filter_map(|root| {
            let signed = self.former.iter().filter(|former| former.signer.anchors().contains(root)).map(Former::until);
            let signs = self.signer.anchors().contains(root).then(|| self.signer.issued_until() + CLOCK_SKEW);
            let remembered = self.remembered.iter().filter(|former| former.root == *root).map(|former| former.until);
            Some(FormerRoot::new(root.clone(), signed.chain(signs).chain(remembered).max()?))
        });
        former.collect()
    }

    /// Takes what is to be in force; refused where too many changes overlap.
    pub fn follow(&mut self, held: Held, now: SystemTime) -> Result<(), AuthorityError> {
        let new: Vec<&CaCertificate> = held.roots.iter().filter(|root| !self.trusts(root)).collect();
        if self.trusted.len() + new.len() > MOST || self.former.len() >= MOST {
            return Err(AuthorityError::Crowded);
        }
        let revocations = held.revocations.with(&self.revocations);
        if self.pace.staged {
            let living = self.former.iter().map(|former| &former.signer).chain([&self.signer]);
            living.into_iter().try_for_each(|signer| revocations.cover(signer))?;
        }
        let new = new.into_iter().map(|root| Trusted { root: root.clone(), since: now, distributed: false });
        self.trusted.extend(new.collect::<Vec<_>>());
        self.next = if held.signer.is_same(&self.signer) {
            // Its roots may be others than before.
            held.signer.continue_from(&self.signer);
            self.signer = held.signer;
            None
        } else {
            Some(held.signer)
        };
        (self.wanted, self.wanted_revocations, self.revocations) = (held.roots, held.revocations, revocations);
        self.advance(now, Progress { connected: 1, holding: 0 });
        Ok(())
    }

    /// Goes as far as time and proxies allow; whether anything is in force that was not.
    pub fn advance(&mut self, now: SystemTime, progress: Progress) -> bool {
        let before = (self.signer.clone(), self.trusted.len(), self.undistributed());
        for trusted in &mut self.trusted {
            let age = now.duration_since(trusted.since).unwrap_or_default();
            trusted.distributed |= self.pace.is_distributed(age, progress);
        }
        if let Some(next) = self.next.take_if(|next| is_distributed(&self.trusted, next)) {
            let signer = std::mem::replace(&mut self.signer, next);
            self.former.push(Former { signer, since: now });
        }
        let staged = self.pace.staged;
        self.former.retain(|former| staged && former.until() > now);
        if self.former.is_empty() && self.next.is_none() {
            self.revocations = self.wanted_revocations.clone();
        }
        let signers: Vec<_> = self.former.iter().map(|former| &former.signer).chain([&self.signer]).collect();
        let needed = |root: &CaCertificate| signers.iter().any(|signer| signer.anchors().contains(root));
        self.remembered.retain(|former| former.until > now && former.root.not_after > now);
        let remembered = |root: &CaCertificate| self.remembered.iter().any(|former| former.root == *root);
        self.trusted.retain(|trusted| {
            self.wanted.contains(&trusted.root) || needed(&trusted.root) || remembered(&trusted.root)
        });
        !Arc::ptr_eq(&before.0, &self.signer) || before.1 != self.trusted.len() || before.2 != self.undistributed()
    }

    fn trusts(&self, root: &CaCertificate) -> bool {
        self.trusted.iter().any(|trusted| trusted.root == *root)
    }

    fn undistributed(&self) -> usize {
        self.trusted.iter().filter(|trusted| !trusted.distributed).count()
    }

    pub fn stage(&self) -> Stage {
        let other = |former: &Former| !former.signer.anchors().iter().any(|root| self.signer.anchors().contains(root));
        if self.undistributed() > 0 {
            Stage::Distributing
        } else if self.former.iter().any(other) {
            Stage::Signing
        } else {
            Stage::Single
        }
    }

    pub fn signer(&self) -> &SharedSigner {
        &self.signer
    }

    pub fn next(&self) -> Option<&SharedSigner> {
        self.next.as_ref()
    }

    pub fn former(&self) -> &[Former] {
        &self.former
    }

    pub fn trusted(&self) -> &[Trusted] {
        &self.trusted
    }

    pub fn is_wanted(&self, root: &CaCertificate) -> bool {
        self.wanted.contains(root)
    }

    /// Roots in the order in which they came, the signer's first of all: clients that take one root take that.
    pub fn roots(&self) -> Vec<CaCertificate> {
        let roots = || self.trusted.iter().map(|trusted| &trusted.root);
        let own = roots().filter(|root| self.signer.anchors().contains(root));
        own.chain(roots().filter(|root| !self.signer.anchors().contains(root))).cloned().collect()
    }

    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }
}

/// Whether a peer that has only what is distributed verifies what this one signs.
fn is_distributed(trusted: &[Trusted], signer: &SharedSigner) -> bool {
    trusted.iter().any(|trusted| trusted.distributed && signer.anchors().contains(&trusted.root))
}
