//! Chains that anchors have verified, so that the next connection of a peer costs a look-up in place of signatures.
//!
//! What is kept is webpki's answer to the very same question: the same certificates in the same order, for the same use, by
//! the same anchors, who own what is kept, so that others begin with nothing. Only the time differs, and an answer is good from
//! when it was given until the first certificate of the chain ends. Where a revocation list is asked, nothing is kept. Never
//! kept: that a peer has the key of its certificate, and whether its names are admitted.
//!
//! A hit costs a SHA-256 of the chain (some 700 bytes) and an uncontended lock; it saves 50 µs of 420 of a mutual handshake.

use crate::certificate::validity;
use crate::direct::Peer;
use crate::peer::{PeerInfo, sha256};
use rustls::pki_types::{CertificateDer, UnixTime};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

/// Chains kept; beyond it those that have ended go, else all.
const CHAINS: usize = 512;

/// Longest chain that is kept, in certificates and in bytes.
const CERTIFICATES: usize = 4;
const BYTES: usize = 8 * 1024;

/// What is asked: a chain, for one use.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Question([u8; 32]);

impl Question {
    /// `None` for a chain that is too long to keep.
    pub(crate) fn new(leaf: &CertificateDer<'_>, rest: &[CertificateDer<'_>], peer: Peer) -> Option<Self> {
        let chain = || std::iter::once(leaf).chain(rest);
        if rest.len() >= CERTIFICATES || chain().map(|certificate| certificate.len()).sum::<usize>() > BYTES {
            return None;
        }
        let mut hash = sha256().start();
        hash.update(if peer == Peer::Server { b"server" } else { b"client" });
        for certificate in chain() {
            hash.update(&u32::try_from(certificate.len()).ok()?.to_be_bytes());
            hash.update(certificate);
        }
        hash.finish().as_ref().try_into().ok().map(Self)
    }
}

struct Known {
    since: UnixTime,
    until: UnixTime,
    peer: Arc<PeerInfo>,
}

/// The chains that one set of anchors has verified.
#[derive(Default)]
pub(crate) struct Verified(Mutex<HashMap<Question, Known>>);

impl Verified {
    /// What the leaf says, if the chain has been verified and still holds.
    pub(crate) fn find(&self, question: &Question, now: UnixTime) -> Option<Arc<PeerInfo>> {
        let chains = self.lock();
        let known = chains.get(question)?;
        (known.since <= now && now <= known.until).then(|| known.peer.clone())
    }

    /// What the leaf of a chain says that was verified when its connection began.
    pub(crate) fn peer(&self, question: &Question) -> Option<Arc<PeerInfo>> {
        self.lock().get(question).map(|known| known.peer.clone())
    }

    /// Keeps a chain that was verified just now.
    pub(crate) fn keep(&self, question: Question, chain: &[&CertificateDer<'_>], now: UnixTime, peer: &Arc<PeerInfo>) {
        let Some(until) = end(chain).filter(|until| now <= *until) else { return };
        let mut chains = self.lock();
        if chains.len() >= CHAINS {
            chains.retain(|_, known| now <= known.until);
        }
        if chains.len() >= CHAINS {
            chains.clear();
        }
        chains.insert(question, Known { since: now, until, peer: peer.clone() });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Question, Known>> {
        // Each change of the map is whole before anything else can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When the first of the certificates ends; `None` where one cannot be read.
fn end(chain: &[&CertificateDer<'_>]) -> Option<UnixTime> {
    let ends = chain.iter().map(|certificate| validity(certificate).map(|(_, until)| until));
    let first = ends.collect::<Result<Vec<_>, _>>().ok()?.into_iter().min()?;
    let seconds = first.duration_since(UNIX_EPOCH).ok()?.as_secs();
    Some(UnixTime::since_unix_epoch(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests;
