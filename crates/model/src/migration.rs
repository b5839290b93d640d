//! PeerAuthentications that turn mTLS on or off, without a connection lost: servers first take connections with and without TLS, then
//! clients change, then servers take only what is declared.
//!
//! Owns what the snapshot remembers of it. Knows no time: who makes snapshots says when proxies have come so far.

use crate::authentication::{AuthenticationIndex, MtlsMode, MtlsPolicy};
use crate::config::ObjectKey;
use std::sync::Arc;

/// How a change of PeerAuthentications goes on. Without any step it is in force everywhere at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MigrationStep {
    /// The change comes with this update.
    Begin,
    /// Servers are known to take both.
    ClientsFollow,
    /// Clients are known to have followed.
    End,
}

/// A change that is not in force everywhere yet.
#[derive(Clone, Debug)]
pub(crate) struct Migration {
    /// What clients had before.
    former: Arc<AuthenticationIndex>,
    /// What changed.
    pub keys: Vec<ObjectKey>,
    clients_follow: bool,
}

impl Migration {
    /// Of a change from one to the other, in the middle of another perhaps; none where nothing turns TLS on or off.
    pub fn begin(
        running: Option<&Self>,
        before: &Arc<AuthenticationIndex>,
        after: &AuthenticationIndex,
        keys: Vec<ObjectKey>,
    ) -> Option<Self> {
        let former = running.filter(|running| !running.clients_follow).map_or(before, |running| &running.former);
        let staged = former.disables() || after.disables();
        staged.then(|| Self { former: former.clone(), keys, clients_follow: false })
    }

    /// Whether this was not so before.
    pub fn clients_follow(&mut self) -> bool {
        !std::mem::replace(&mut self.clients_follow, true)
    }

    /// What clients still take servers to have, if it is not what is declared.
    pub fn of_clients(&self) -> Option<&AuthenticationIndex> {
        (!self.clients_follow).then_some(&self.former)
    }

    /// What a server takes meanwhile; `policy` finds a policy in an index.
    pub fn of_server(&self, declared: MtlsPolicy, policy: impl Fn(&AuthenticationIndex) -> MtlsPolicy) -> MtlsPolicy {
        let former = policy(&self.former);
        let ports = former.ports.keys().chain(declared.ports.keys());
        let ports = ports.map(|port| (*port, between(former.mode_of(*port), declared.mode_of(*port)))).collect();
        MtlsPolicy { mode: between(former.mode, declared.mode), ports }
    }
}

/// Both, where one of the two is without TLS and the other is not.
fn between(former: MtlsMode, declared: MtlsMode) -> MtlsMode {
    match (former == MtlsMode::Disable, declared == MtlsMode::Disable) {
        (true, false) | (false, true) => MtlsMode::Permissive,
        (true, true) | (false, false) => declared,
    }
}

#[cfg(test)]
mod tests;
