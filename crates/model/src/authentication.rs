//! PeerAuthentication: which mTLS mode a workload's port has.
//!
//! Owns precedence: workload policy over namespace over root namespace, a port's mode over the workload's; among equals the
//! oldest wins. Default PERMISSIVE. In the root namespace a policy with a selector is nobody's, as it is for Istio.

use crate::config::{ConfigRef, ObjectKey};
use crate::labels::{Labels, selects};
use crate::policy::PeerAuthentications;
use meltemi_config::security::{MutualTlsMode, PeerAuthentication};
use std::collections::BTreeMap;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MtlsMode {
    Disable,
    #[default]
    Permissive,
    Strict,
}

impl MtlsMode {
    fn of(mode: MutualTlsMode) -> Option<Self> {
        match mode {
            MutualTlsMode::Unset => None,
            MutualTlsMode::Disable => Some(Self::Disable),
            MutualTlsMode::Permissive => Some(Self::Permissive),
            MutualTlsMode::Strict => Some(Self::Strict),
        }
    }
}

/// The effective modes of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MtlsPolicy {
    pub mode: MtlsMode,
    /// By workload port, where a policy names the port.
    pub ports: BTreeMap<u32, MtlsMode>,
}

impl MtlsPolicy {
    pub fn mode_of(&self, port: u32) -> MtlsMode {
        self.ports.get(&port).copied().unwrap_or(self.mode)
    }
}

#[derive(Clone, Debug, Default)]
pub struct AuthenticationIndex(PeerAuthentications);

impl AuthenticationIndex {
    pub(crate) fn update(&mut self, changes: &[(ObjectKey, Option<ConfigRef<PeerAuthentication>>)]) {
        self.0.update(changes);
    }

    fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &ConfigRef<PeerAuthentication>> {
        self.0.in_namespace(namespace)
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&ConfigRef<PeerAuthentication>> {
        self.0.get(key)
    }

    pub fn iter(&self) -> impl Iterator<Item = &ConfigRef<PeerAuthentication>> {
        self.0.iter()
    }

    /// The oldest policy for a whole namespace.
    fn namespace_wide(&self, namespace: &str) -> Option<&ConfigRef<PeerAuthentication>> {
        self.in_namespace(namespace).find(|policy| !has_selector(policy))
    }

    /// The mode declared for a namespace, by itself or by the root namespace.
    pub fn namespace_mode(&self, namespace: &str, root: &str) -> MtlsMode {
        let mode = |policy: Option<&ConfigRef<PeerAuthentication>>| {
            policy.and_then(|policy| policy.spec.mtls.as_ref()).and_then(|mtls| MtlsMode::of(mtls.mode))
        };
        let own = if namespace == root { None } else { mode(self.namespace_wide(namespace)) };
        own.or_else(|| mode(self.namespace_wide(root))).unwrap_or_default()
    }

    /// Whether any policy turns mTLS off.
    pub(crate) fn disables(&self) -> bool {
        self.iter().any(turns_off)
    }

    /// False when no policy that could apply in `namespace` turns mTLS off: spares looking at each workload.
    pub fn may_disable(&self, namespace: &str, root: &str) -> bool {
        self.in_namespace(namespace).chain(self.in_namespace(root)).any(turns_off)
    }

    /// The modes of a workload with these labels.
    pub fn workload_policy(&self, namespace: &str, root: &str, labels: &Labels) -> MtlsPolicy {
        let mut policy = MtlsPolicy { mode: self.namespace_mode(namespace, root), ports: BTreeMap::new() };
        let mut own = self.in_namespace(namespace).filter(|_| namespace != root);
        let Some(own) = own.find(|policy| has_selector(policy) && selects_workload(policy, labels)) else {
            return policy;
        };
        if let Some(mode) = own.spec.mtls.as_ref().and_then(|mtls| MtlsMode::of(mtls.mode)) {
            policy.mode = mode;
        }
        for (port, mtls) in &own.spec.port_level_mtls {
            policy.ports.insert(*port, MtlsMode::of(mtls.mode).unwrap_or(policy.mode));
        }
        policy
    }
}

fn turns_off(policy: &ConfigRef<PeerAuthentication>) -> bool {
    let ports = policy.spec.port_level_mtls.values();
    policy.spec.mtls.iter().chain(ports).any(|mtls| mtls.mode == MutualTlsMode::Disable)
}

fn has_selector(policy: &ConfigRef<PeerAuthentication>) -> bool {
    policy.spec.selector.as_ref().is_some_and(|selector| !selector.match_labels.is_empty())
}

fn selects_workload(policy: &ConfigRef<PeerAuthentication>, labels: &Labels) -> bool {
    policy
        .spec
        .selector
        .as_ref()
        .is_some_and(|selector| selects(selector.match_labels.iter().map(|(key, value)| (&**key, &**value)), labels))
}

#[cfg(test)]
mod tests;
