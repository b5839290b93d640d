//! Mixer's memquotas as RateLimitPolicies: which one a workload has.
//!
//! Owns that the first override that matches has effect in the place of the rest, which a policy cannot say. Policies are made
//! when documents change; looking up walks those of two namespaces.

use crate::config::{Config, ConfigRef, ObjectKey};
use crate::labels::selects;
use crate::policy::Workload;
use crate::shared::Shared;
use meltemi_config::mixer::{MemQuota, Quota, WorkloadLimit};
use meltemi_config::rate_limit::RateLimitPolicy;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The limits of one quota, of which a workload has the first that is for it.
type Choices = Vec<(WorkloadLimit, ConfigRef<RateLimitPolicy>)>;

#[derive(Clone, Debug, Default)]
pub struct QuotaIndex {
    mem_quotas: BTreeMap<ObjectKey, ConfigRef<MemQuota>>,
    quotas: BTreeMap<ObjectKey, ConfigRef<Quota>>,
    namespaces: BTreeMap<Arc<str>, Arc<Vec<Choices>>>,
}

impl QuotaIndex {
    pub(crate) fn mem_quota(&self, key: &ObjectKey) -> Option<&ConfigRef<MemQuota>> {
        self.mem_quotas.get(key)
    }

    pub(crate) fn quota(&self, key: &ObjectKey) -> Option<&ConfigRef<Quota>> {
        self.quotas.get(key)
    }

    pub(crate) fn update(
        &mut self,
        mem_quotas: &[(ObjectKey, Option<ConfigRef<MemQuota>>)],
        quotas: &[(ObjectKey, Option<ConfigRef<Quota>>)],
    ) {
        apply(&mut self.mem_quotas, mem_quotas);
        apply(&mut self.quotas, quotas);
        let mut namespaces: BTreeMap<Arc<str>, Vec<Choices>> = BTreeMap::new();
        for own in self.mem_quotas.values() {
            namespaces.entry(own.namespace.clone()).or_default().extend(self.choices(own));
        }
        self.namespaces = namespaces.into_iter().map(|(name, choices)| (name, choices.into())).collect();
    }

    fn choices(&self, own: &Config<MemQuota>) -> Vec<Choices> {
        let of_limit = |limit: &meltemi_config::mixer::MemQuotaLimit| {
            let quota = self.quotas.get(&ObjectKey::new(own.namespace.clone(), limit.quota()));
            let policy = |choice: WorkloadLimit| {
                let rules = vec![choice.rule.clone()];
                let policy = own.with_spec(RateLimitPolicy { rules, ..RateLimitPolicy::default() });
                // A name that no RateLimitPolicy can have.
                (choice, Shared::new(Config { name: format!("memquota/{}", own.name).into(), ..policy }))
            };
            limit.limits(quota.map(|quota| &*quota.spec)).into_iter().map(policy).collect()
        };
        own.spec.quotas.iter().map(of_limit).collect()
    }

    /// One policy for each quota, of the root namespace's and of the workload's own.
    pub(crate) fn selecting(&self, workload: &Workload<'_>, root: &str) -> Vec<ConfigRef<RateLimitPolicy>> {
        let own = Some(workload.namespace).filter(|own| *own != root);
        let lists = [Some(root), own].into_iter().flatten().filter_map(|name| self.namespaces.get(name));
        let is_for = |limit: &WorkloadLimit| {
            selects(limit.labels.iter().map(|(key, value)| (&**key, &**value)), workload.labels)
        };
        let first =
            |choices: &Choices| choices.iter().find(|(limit, _)| is_for(limit)).map(|(_, policy)| policy.clone());
        lists.flat_map(|list| list.iter()).filter_map(first).collect()
    }
}

fn apply<T>(known: &mut BTreeMap<ObjectKey, ConfigRef<T>>, changes: &[(ObjectKey, Option<ConfigRef<T>>)]) {
    for (key, new) in changes {
        match new {
            Some(new) => drop(known.insert(key.clone(), new.clone())),
            None => drop(known.remove(key)),
        }
    }
}

#[cfg(test)]
mod tests;
