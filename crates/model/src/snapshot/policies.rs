//! AuthorizationPolicies, RequestAuthentications and the keys that these need, and RateLimitPolicies.

use super::{Snapshot, note};
use crate::change::{Change, Changes, Update};
use crate::config::{ConfigRef, ObjectKey};
use crate::node::Node;
use crate::policy::{ByNamespace, Selection, Selective, Workload};
use crate::semantics;
use meltemi_config::Kind;
use meltemi_config::rate_limit::RateLimitPolicy;
use meltemi_config::security::{AuthorizationPolicy, RequestAuthentication};
use meltemi_config::wire::Str;
use std::sync::Arc;

impl Snapshot {
    pub(super) fn take_policies(&mut self, update: &Update, change: &mut Change) {
        take(Kind::AuthorizationPolicy, &mut self.authorization, &update.authorization_policies, change);
        take(Kind::RequestAuthentication, &mut self.request_authentication, &update.request_authentications, change);
        take(Kind::RateLimitPolicy, &mut self.rate_limits, &update.rate_limit_policies, change);
        self.take_quotas(update, change);
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

    /// A node as policies select it. Proxies that serve a Gateway of the Gateway API are its instances, whether their labels say
    /// so or not.
    pub fn workload<'a>(&self, node: &'a Node) -> Workload<'a> {
        let mut workload = Workload::new(&node.namespace, &node.labels);
        if node.is_router() {
            let own = self.gateways_for(node).into_iter().filter(|gateway| gateway.namespace == node.namespace);
            workload.gateways.extend(own.filter_map(|gateway| semantics::gateway_of(&gateway).map(Str::from)));
        }
        workload
    }

    /// The AuthorizationPolicies of a workload: the root namespace's first, then the oldest first.
    pub fn authorization_policies(&self, workload: &Workload<'_>) -> Vec<ConfigRef<AuthorizationPolicy>> {
        self.authorization.selecting(workload, self.root_namespace(), true)
    }

    /// The RequestAuthentications of a workload: those of its own namespace first, then the oldest first.
    pub fn request_authentications(&self, workload: &Workload<'_>) -> Vec<ConfigRef<RequestAuthentication>> {
        self.request_authentication.selecting(workload, self.root_namespace(), false)
    }

    /// A quota says what a memquota counts by, so each shows only through the other: both concern their whole namespace.
    fn take_quotas(&mut self, update: &Update, change: &mut Change) {
        let limits: Vec<_> = changed(&update.mem_quotas, |key| self.quotas.mem_quota(key));
        let quotas: Vec<_> = changed(&update.quotas, |key| self.quotas.quota(key));
        let keys = limits.iter().map(|(key, _)| key).chain(quotas.iter().map(|(key, _)| key));
        change.selections.extend(keys.map(|key| Selection::of_namespace(&key.namespace)));
        note(Kind::MemQuota, limits.iter().map(|(key, _)| key), change);
        note(Kind::Quota, quotas.iter().map(|(key, _)| key), change);
        if !limits.is_empty() || !quotas.is_empty() {
            Arc::make_mut(&mut self.quotas).update(&limits, &quotas);
        }
    }

    /// The RateLimitPolicies of a workload: the root namespace's first, then the oldest first. What memquotas come to is last.
    pub fn rate_limit_policies(&self, workload: &Workload<'_>) -> Vec<ConfigRef<RateLimitPolicy>> {
        let root = self.root_namespace();
        let mut policies = self.rate_limits.selecting(workload, root, true);
        policies.extend(self.quotas.selecting(workload, root));
        policies
    }
}

fn selection<T: Selective>(policy: &ConfigRef<T>) -> crate::policy::Selection {
    T::selection(&policy.namespace, &policy.spec)
}

/// What differs of these.
fn changed<'a, T: PartialEq + 'a>(
    update: &Changes<T>,
    known: impl Fn(&ObjectKey) -> Option<&'a ConfigRef<T>>,
) -> Changes<T> {
    update.iter().filter(|(key, new)| known(key) != new.as_ref()).cloned().collect()
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
