//! Which policies are for which workload: AuthorizationPolicy, RequestAuthentication and RateLimitPolicy.
//!
//! Owns selection, by labels or by reference to a Gateway, with the root namespace's policies for all namespaces. What a policy
//! says is nothing to it. Looking up costs a walk over the policies of two namespaces.

use crate::config::{ConfigRef, ObjectKey};
use crate::labels::selects;
use crate::node::Node;
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

    /// `root` is the root namespace.
    pub fn selects(&self, node: &Node, root: &str) -> bool {
        match &self.subject {
            Subject::Labels(labels) => {
                (*self.namespace == *root || self.namespace == node.namespace)
                    && selects(labels.iter().map(|(key, value)| (&**key, &**value)), &node.labels)
            }
            Subject::Gateways(names) => {
                self.namespace == node.namespace && node.labels.get(GATEWAY_NAME).is_some_and(|own| names.contains(own))
            }
        }
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
    /// The policies of these namespaces that select a node, in this order; a namespace that is named twice counts once.
    pub fn selecting(&self, node: &Node, root: &str, namespaces: [&str; 2]) -> Vec<ConfigRef<T>> {
        let [first, second] = namespaces;
        let second = (first != second).then_some(second);
        let candidates = self.in_namespace(first).chain(second.into_iter().flat_map(|name| self.in_namespace(name)));
        candidates.filter(|policy| T::selection(&policy.namespace, &policy.spec).selects(node, root)).cloned().collect()
    }
}

/// PeerAuthentications by namespace.
pub(crate) type PeerAuthentications = ByNamespace<PeerAuthentication>;

#[cfg(test)]
mod tests;
