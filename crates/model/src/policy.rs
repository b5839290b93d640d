//! Which policies are for which workload: AuthorizationPolicy, RequestAuthentication and RateLimitPolicy.
//!
//! Owns selection, by labels or by reference to a Gateway, with the root namespace's policies for all namespaces. What a policy
//! says is nothing to it. Looking up costs a walk over the policies of two namespaces.

use crate::config::{ConfigRef, ObjectKey};
use crate::labels::{Labels, selects};
use meltemi_config::rate_limit::RateLimitPolicy;
use meltemi_config::security::{
    AuthorizationPolicy, LabelSelector, PeerAuthentication, PolicyTargetReference, RequestAuthentication,
};
use meltemi_config::wire::Str;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// On a proxy: the Gateway of the Gateway API whose instance it is.
const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";
const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// Whom a policy is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Selection {
    /// Of the policy.
    namespace: Arc<str>,
    subject: Subject,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Subject {
    /// Workloads with all of these labels: of the namespace, or of every one where the policy is in the root namespace.
    Labels(BTreeMap<Str, Str>),
    /// Instances of these Gateways of the policy's own namespace.
    Gateways(BTreeSet<Str>),
}

impl Selection {
    fn new(namespace: &Arc<str>, selector: Option<&LabelSelector>, references: &[&PolicyTargetReference]) -> Self {
        let subject = if references.is_empty() {
            Subject::Labels(selector.map(|selector| selector.match_labels.clone()).unwrap_or_default())
        } else {
            // Services and classes are targets of waypoints, and another namespace's Gateway is nobody's.
            let own = |to: &&&PolicyTargetReference| {
                &*to.kind == "Gateway"
                    && &*to.group == GATEWAY_GROUP
                    && (to.namespace.is_empty() || to.namespace == *namespace)
            };
            Subject::Gateways(references.iter().filter(own).map(|to| to.name.clone()).collect())
        };
        Self { namespace: namespace.clone(), subject }
    }

    /// For every workload of a namespace.
    pub(crate) fn of_namespace(namespace: &Arc<str>) -> Self {
        Self { namespace: namespace.clone(), subject: Subject::Labels(BTreeMap::new()) }
    }

    /// Whether the policy is for a workload; `root` is the root namespace.
    pub fn selects(&self, workload: &Workload<'_>, root: &str) -> bool {
        let own = *self.namespace == *workload.namespace;
        match &self.subject {
            Subject::Labels(wanted) => {
                (own || *self.namespace == *root)
                    && selects(wanted.iter().map(|(key, value)| (&**key, &**value)), workload.labels)
            }
            Subject::Gateways(names) => own && workload.gateways.iter().any(|name| names.contains(name)),
        }
    }
}

/// Whom policies may be for.
#[derive(Clone, Debug)]
pub struct Workload<'a> {
    pub namespace: &'a str,
    pub labels: &'a Labels,
    /// Gateways of the Gateway API, of its own namespace, whose instance it is.
    pub gateways: BTreeSet<Str>,
}

impl<'a> Workload<'a> {
    /// An instance of the Gateway that its labels name, if they name one.
    pub fn new(namespace: &'a str, labels: &'a Labels) -> Self {
        Self { namespace, labels, gateways: labels.get(GATEWAY_NAME).cloned().into_iter().collect() }
    }
}

/// A policy that says whom it is for.
pub trait Selective: Sized {
    fn selection(namespace: &Arc<str>, spec: &Self) -> Selection;
}

macro_rules! selective {
    ($($kind:ident),*) => {$(
        impl Selective for $kind {
            fn selection(namespace: &Arc<str>, spec: &Self) -> Selection {
                // The deprecated reference counts where the list is empty.
                let mut references: Vec<_> = spec.target_refs.iter().collect();
                if references.is_empty() {
                    references.extend(&spec.target_ref);
                }
                Selection::new(namespace, spec.selector.as_ref(), &references)
            }
        }
    )*};
}

selective!(AuthorizationPolicy, RequestAuthentication);

impl Selective for RateLimitPolicy {
    fn selection(namespace: &Arc<str>, spec: &Self) -> Selection {
        Selection::new(namespace, spec.selector.as_ref(), &spec.target_refs.iter().collect::<Vec<_>>())
    }
}

/// Objects of one kind per namespace, the oldest first.
#[derive(Debug)]
pub struct ByNamespace<T>(BTreeMap<Arc<str>, Arc<Vec<ConfigRef<T>>>>);

impl<T> Clone for ByNamespace<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for ByNamespace<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T> ByNamespace<T> {
    pub(crate) fn update(&mut self, changes: &[(ObjectKey, Option<ConfigRef<T>>)]) {
        for (key, new) in changes {
            let list = Arc::make_mut(self.0.entry(key.namespace.clone()).or_default());
            list.retain(|own| own.name != key.name);
            list.extend(new.clone());
            list.sort_by(|a, b| a.by_age(b));
            if list.is_empty() {
                self.0.remove(&key.namespace);
            }
        }
    }

    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &ConfigRef<T>> {
        self.0.get(namespace).into_iter().flat_map(|list| list.iter())
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&ConfigRef<T>> {
        self.in_namespace(&key.namespace).find(|config| config.name == key.name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &ConfigRef<T>> {
        self.0.values().flat_map(|list| list.iter())
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: Selective> ByNamespace<T> {
    /// The policies that select a workload, those of the root namespace first or last.
    pub fn selecting(&self, workload: &Workload<'_>, root: &str, root_first: bool) -> Vec<ConfigRef<T>> {
        let namespaces = match root_first {
            _ if workload.namespace == root => vec![root],
            true => vec![root, workload.namespace],
            false => vec![workload.namespace, root],
        };
        let candidates = namespaces.into_iter().flat_map(|name| self.in_namespace(name));
        let is_selected =
            |policy: &&ConfigRef<T>| T::selection(&policy.namespace, &policy.spec).selects(workload, root);
        candidates.filter(is_selected).cloned().collect()
    }
}

/// PeerAuthentications by namespace.
pub(crate) type PeerAuthentications = ByNamespace<PeerAuthentication>;

#[cfg(test)]
mod tests;
