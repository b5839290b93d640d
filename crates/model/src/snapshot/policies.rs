//! AuthorizationPolicies, RequestAuthentications and the keys that these need, and RateLimitPolicies.

use super::{Snapshot, note};
use crate::change::{Change, Changes, Update};
use crate::config::ConfigRef;
use crate::node::Node;
use crate::policy::{ByNamespace, Selective};
use meltemi_config::Kind;
use meltemi_config::rate_limit::RateLimitPolicy;
use meltemi_config::security::{AuthorizationPolicy, RequestAuthentication};
use std::sync::Arc;

impl Snapshot {
    pub(super) fn take_policies(&mut self, update: &Update, change: &mut Change) {
        take(Kind::AuthorizationPolicy, &mut self.authorization, &update.authorization_policies, change);
        take(Kind::RequestAuthentication, &mut self.request_authentication, &update.request_authentications, change);
        take(Kind::RateLimitPolicy, &mut self.rate_limits, &update.rate_limit_policies, change);
        for (source, keys) in &update.key_sets {
            if self.key_sets.get(source) == keys.as_ref() {
                continue;
            }
            let sets = Arc::make_mut(&mut self.key_sets);
            match keys {
                Some(keys) => drop(sets.insert(source.clone(), keys.clone())),
                None => drop(sets.remove(source)),
            }
            let users = self.request_authentication.iter().filter(|policy| source.serves(policy));
            change.selections.extend(users.map(selection));
        }
    }

    /// The AuthorizationPolicies of a node: the root namespace's first, then the oldest first.
    pub fn authorization_policies(&self, node: &Node) -> Vec<ConfigRef<AuthorizationPolicy>> {
        let root = self.root_namespace();
        self.authorization.selecting(node, root, [root, &node.namespace])
    }

    /// The RequestAuthentications of a node: those of its own namespace first, then the oldest first.
    pub fn request_authentications(&self, node: &Node) -> Vec<ConfigRef<RequestAuthentication>> {
        let root = self.root_namespace();
        self.request_authentication.selecting(node, root, [&node.namespace, root])
    }

    /// The RateLimitPolicies of a node: the root namespace's first, then the oldest first.
    pub fn rate_limit_policies(&self, node: &Node) -> Vec<ConfigRef<RateLimitPolicy>> {
        let root = self.root_namespace();
        self.rate_limits.selecting(node, root, [root, &node.namespace])
    }
}

fn selection<T: Selective>(policy: &ConfigRef<T>) -> crate::policy::Selection {
    T::selection(&policy.namespace, &policy.spec)
}

fn take<T: Selective + PartialEq>(
    kind: Kind,
    index: &mut Arc<ByNamespace<T>>,
    update: &Changes<T>,
    change: &mut Change,
) {
    let changes: Vec<_> = update.iter().filter(|(key, new)| index.get(key) != new.as_ref()).cloned().collect();
    if changes.is_empty() {
        return;
    }
    for (key, new) in &changes {
        change.selections.extend([index.get(key), new.as_ref()].into_iter().flatten().map(selection));
    }
    Arc::make_mut(index).update(&changes);
    note(kind, changes.iter().map(|(key, _)| key), change);
}
