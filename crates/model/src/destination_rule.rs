//! Which DestinationRule a client uses for a service.
//!
//! Owns lookup (client's namespace, then the service's, then the root namespace), the merging of rules for one host (those made of policies for
//! backends beneath the users' own), and the rule that a port's settings replace the rule's. A change rebuilds only its own namespace.

use crate::config::{Config, ConfigRef, ObjectKey};
use crate::host;
use crate::labels::{Labels, selects};
use crate::semantics;
use crate::service::{Service, Visibility};
use crate::shared::Shared;
use meltemi_config::networking::{DestinationRule, PortTrafficPolicy, Subset, TrafficPolicy};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The rules of one namespace for one host, as one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MergedRule {
    pub rule: Config<DestinationRule>,
    pub visibility: Visibility,
    /// Every rule that took part, the oldest first.
    pub from: Vec<ObjectKey>,
}

impl MergedRule {
    pub fn spec(&self) -> &DestinationRule {
        &self.rule.spec
    }

    pub fn subset(&self, name: &str) -> Option<&Subset> {
        self.rule.spec.subsets.iter().find(|subset| &*subset.name == name)
    }

    pub fn has_selector(&self) -> bool {
        self.rule.spec.workload_selector.is_some()
    }

    fn selects(&self, labels: &Labels) -> bool {
        self.rule.spec.workload_selector.as_ref().is_some_and(|selector| {
            selects(selector.match_labels.iter().map(|(key, value)| (&**key, &**value)), labels)
        })
    }

    /// Takes in a younger rule for the same host: its new subsets, and its policy where there is none yet.
    fn absorb(&mut self, other: &ConfigRef<DestinationRule>) {
        let mut spec = (*self.rule.spec).clone();
        for subset in &other.spec.subsets {
            if !spec.subsets.iter().any(|own| own.name == subset.name) {
                spec.subsets.push(subset.clone());
            }
        }
        if spec.traffic_policy.is_none() {
            spec.traffic_policy.clone_from(&other.spec.traffic_policy);
        }
        self.rule.spec = Arc::new(spec);
        self.from.push(other.key());
    }

    /// Takes in a rule that was made of policies for backends: it says what this one leaves unsaid.
    fn underlie(&mut self, made: &ConfigRef<DestinationRule>) {
        let Some(under) = &made.spec.traffic_policy else { return };
        let mut spec = (*self.rule.spec).clone();
        spec.traffic_policy = Some(match &spec.traffic_policy {
            Some(own) => beneath(own, under),
            None => under.clone(),
        });
        self.rule.spec = Arc::new(spec);
        self.from.push(made.key());
    }
}

/// A policy with what another says beneath it, field by field. A port's entry inherits nothing, so one from beneath gets what
/// the policy says for all ports.
fn beneath(own: &TrafficPolicy, under: &TrafficPolicy) -> TrafficPolicy {
    let mut out = own.clone();
    macro_rules! fill {
        ($into:expr, $from:expr, $($field:ident),*) => {
            $( if $into.$field.is_none() { $into.$field.clone_from(&$from.$field); } )*
        };
    }
    fill!(out, under, load_balancer, connection_pool, outlier_detection, tls, tunnel, proxy_protocol, retry_budget);
    for entry in &under.port_level_settings {
        match out.port_level_settings.iter_mut().find(|own| own.port == entry.port) {
            Some(port) => {
                fill!(port, entry, load_balancer, connection_pool, outlier_detection, tls);
            }
            None => {
                let mut port = PortTrafficPolicy { port: entry.port.clone(), ..PortTrafficPolicy::default() };
                fill!(port, own, load_balancer, connection_pool, outlier_detection, tls);
                fill!(port, entry, load_balancer, connection_pool, outlier_detection, tls);
                out.port_level_settings.push(port);
            }
        }
    }
    out
}

/// The policy for a port: its entry in `portLevelSettings` replaces load balancer, pool, outlier detection and TLS.
pub fn for_port(policy: Option<&TrafficPolicy>, port: u32) -> Option<TrafficPolicy> {
    let policy = policy?;
    let own = policy.port_level_settings.iter().find(|entry| entry.port.as_ref().is_some_and(|own| own.number == port));
    let mut out = TrafficPolicy { port_level_settings: Vec::new(), ..policy.clone() };
    if let Some(own) = own {
        out.load_balancer.clone_from(&own.load_balancer);
        out.connection_pool.clone_from(&own.connection_pool);
        out.outlier_detection.clone_from(&own.outlier_detection);
        out.tls.clone_from(&own.tls);
    }
    Some(out)
}

/// A subset's policy over the rule's (already resolved for the port): what the subset sets replaces, block by block; then the
/// subset's own port settings.
pub fn for_subset(base: Option<TrafficPolicy>, subset: &Subset, port: u32) -> Option<TrafficPolicy> {
    let Some(own) = &subset.traffic_policy else { return base };
    let mut out = base.unwrap_or_default();
    macro_rules! over {
        ($($field:ident),*) => { $( if own.$field.is_some() { out.$field.clone_from(&own.$field); } )* };
    }
    over!(load_balancer, connection_pool, outlier_detection, tls, tunnel, proxy_protocol, retry_budget);
    let ported = own.port_level_settings.iter().find(|entry| entry.port.as_ref().is_some_and(|own| own.number == port));
    if let Some(ported) = ported {
        out.load_balancer.clone_from(&ported.load_balancer);
        out.connection_pool.clone_from(&ported.connection_pool);
        out.outlier_detection.clone_from(&ported.outlier_detection);
        out.tls.clone_from(&ported.tls);
    }
    Some(out)
}

/// Rules by host: exact ones by lookup, wildcards by scan from the most specific.
#[derive(Debug, Default)]
struct ByHost {
    exact: BTreeMap<Arc<str>, Vec<Shared<MergedRule>>>,
    wildcard: Vec<(Arc<str>, Vec<Shared<MergedRule>>)>,
}

impl ByHost {
    fn of(rules: impl Iterator<Item = (Arc<str>, ConfigRef<DestinationRule>, Visibility)>) -> Self {
        let mut merged: BTreeMap<Arc<str>, Vec<MergedRule>> = BTreeMap::new();
        for (host, rule, visibility) in rules {
            let found = merged.entry(host).or_default();
            if semantics::is_made(&rule) {
                underlay(found, rule, visibility);
                continue;
            }
            let same = found.iter_mut().find(|own| {
                own.visibility == visibility && own.rule.spec.workload_selector == rule.spec.workload_selector
            });
            match same {
                Some(own) => own.absorb(&rule),
                None => found.push(MergedRule { from: vec![rule.key()], rule: (*rule).clone(), visibility }),
            }
        }
        let mut out = Self::default();
        for (host, rules) in merged {
            let rules = rules.into_iter().map(Shared::new).collect();
            if host::is_wildcard(&host) {
                out.wildcard.push((host, rules));
            } else {
                out.exact.insert(host, rules);
            }
        }
        out.wildcard.sort_by(|(a, _), (b, _)| host::by_specificity(a, b));
        out
    }

    fn find(&self, hostname: &str) -> Option<&[Shared<MergedRule>]> {
        if let Some(rules) = self.exact.get(hostname) {
            return Some(rules);
        }
        self.wildcard.iter().find(|(pattern, _)| host::covers(pattern, hostname)).map(|(_, rules)| &**rules)
    }
}

/// Puts a made rule beneath the users' own for the host; where none of those is for the same clients, also beside them.
fn underlay(found: &mut Vec<MergedRule>, made: ConfigRef<DestinationRule>, visibility: Visibility) {
    let mut placed = false;
    for own in found.iter_mut().filter(|own| !own.has_selector()) {
        own.underlie(&made);
        placed |= own.visibility == visibility;
    }
    if !placed {
        // Of several the last counts, which is to be a user's.
        found.insert(0, MergedRule { from: vec![made.key()], rule: (*made).clone(), visibility });
    }
}

#[derive(Debug, Default)]
struct NamespaceRules {
    raw: BTreeMap<Arc<str>, ConfigRef<DestinationRule>>,
    /// What the namespace's own clients see first: all its rules.
    local: ByHost,
    /// What others may see.
    exported: ByHost,
    /// Rules for the namespace alone; only asked in the root namespace.
    private: ByHost,
}

#[derive(Clone, Debug, Default)]
pub struct DestinationRuleIndex {
    namespaces: BTreeMap<Arc<str>, Arc<NamespaceRules>>,
}

impl DestinationRuleIndex {
    /// Takes in changed rules (`None`: removed). `domain` completes short host names; `default` is the mesh's exportTo.
    pub(crate) fn update(
        &mut self,
        changes: &[(ObjectKey, Option<ConfigRef<DestinationRule>>)],
        domain: &str,
        default: &Visibility,
    ) {
        let mut raw: BTreeMap<&Arc<str>, BTreeMap<Arc<str>, ConfigRef<DestinationRule>>> = BTreeMap::new();
        for (key, rule) in changes {
            let rules = raw.entry(&key.namespace).or_insert_with(|| {
                self.namespaces.get(&key.namespace).map(|namespace| namespace.raw.clone()).unwrap_or_default()
            });
            match rule {
                Some(rule) => drop(rules.insert(key.name.clone(), rule.clone())),
                None => drop(rules.remove(&key.name)),
            }
        }
        for (namespace, rules) in raw {
            if rules.is_empty() {
                self.namespaces.remove(namespace);
            } else {
                self.namespaces
                    .insert(namespace.clone(), Arc::new(NamespaceRules::of(namespace, rules, domain, default)));
            }
        }
    }

    /// All rules again, after the mesh's defaults changed.
    pub(crate) fn rebuild(&mut self, domain: &str, default: &Visibility) {
        for (namespace, rules) in &mut self.namespaces {
            *rules = Arc::new(NamespaceRules::of(namespace, rules.raw.clone(), domain, default));
        }
    }

    pub fn get(&self, key: &ObjectKey) -> Option<&ConfigRef<DestinationRule>> {
        self.namespaces.get(&key.namespace)?.raw.get(&key.name)
    }

    pub fn iter(&self) -> impl Iterator<Item = &ConfigRef<DestinationRule>> {
        self.namespaces.values().flat_map(|namespace| namespace.raw.values())
    }

    /// The rules that a client in `namespace` has for `service`, whatever their workload selectors.
    pub fn candidates(&self, namespace: &str, root: &str, service: &Service) -> Vec<Shared<MergedRule>> {
        let local = self.namespaces.get(namespace);
        // In the root namespace live the mesh's defaults; they must not shadow the rules of a service's own namespace.
        let own = local.and_then(|rules| {
            if namespace == root { rules.private.find(&service.hostname) } else { rules.local.find(&service.hostname) }
        });
        if let Some(rules) = own {
            return rules.to_vec();
        }
        for owner in [&*service.namespace, root] {
            let found = self.namespaces.get(owner).and_then(|rules| rules.exported.find(&service.hostname));
            let visible: Vec<_> =
                found.into_iter().flatten().filter(|rule| rule.visibility.includes(namespace)).cloned().collect();
            if !visible.is_empty() {
                return visible;
            }
        }
        Vec::new()
    }

    /// The one rule for a client with these labels. For inbound clusters pass no labels: selectors choose clients.
    pub fn lookup(
        &self,
        namespace: &str,
        root: &str,
        service: &Service,
        labels: Option<&Labels>,
    ) -> Option<Shared<MergedRule>> {
        let candidates = self.candidates(namespace, root, service);
        let selected = labels.and_then(|labels| {
            candidates.iter().find(|rule| &*rule.rule.namespace == namespace && rule.selects(labels))
        });
        selected.or_else(|| candidates.iter().rfind(|rule| !rule.has_selector())).cloned()
    }
}

impl NamespaceRules {
    fn of(
        namespace: &str,
        raw: BTreeMap<Arc<str>, ConfigRef<DestinationRule>>,
        domain: &str,
        default: &Visibility,
    ) -> Self {
        let mut rules: Vec<_> = raw
            .values()
            .map(|rule| {
                let host: Arc<str> = host::fqdn(&rule.spec.host, namespace, domain).into();
                let export_to = rule.spec.export_to.iter().map(|entry| &**entry);
                (host, rule.clone(), Visibility::parse(export_to, namespace, default))
            })
            .collect();
        // What was made comes after what users wrote, whatever its age.
        let rank = |rule: &ConfigRef<DestinationRule>| semantics::is_made(rule);
        rules.sort_by(|(_, a, _), (_, b, _)| rank(a).cmp(&rank(b)).then_with(|| a.by_age(b)));
        let local = ByHost::of(rules.iter().cloned());
        let (private, exported): (Vec<_>, Vec<_>) =
            rules.into_iter().partition(|(_, _, visibility)| visibility.is_private_to(namespace));
        Self { raw, local, exported: ByHost::of(exported.into_iter()), private: ByHost::of(private.into_iter()) }
    }
}

#[cfg(test)]
mod tests;
