//! Which ResiliencePolicy decides what for a client and a destination.
//!
//! Owns precedence: a policy that selects the workload before one for all of the namespace, before one of the root namespace
//! (there too the selecting ones first); of equals the oldest. Each feature is decided for itself: by the first policy that
//! names it, to be on or off. A look-up walks the policies of two namespaces.

use crate::config::{Config, ConfigRef, ObjectKey};
use crate::host;
use crate::labels::{Labels, selects};
use meltemi_config::Str;
use meltemi_config::resilience::{
    AdaptiveLoadBalancing, AnomalyAction, AnomalyDetection, AutomaticRetries, ResiliencePolicy, Sensitivity,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const MAX_ATTEMPTS: u32 = 3;
const BUDGET_PERCENT: f64 = 20.0;
const BUDGET_CONCURRENCY: u32 = 3;
const WINDOW: Duration = Duration::from_secs(30);

/// Retries that are decided for a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Retries {
    /// The first attempt included.
    pub max_attempts: u32,
    /// Percent of the requests in flight and pending that may be retries.
    pub budget_percent: meltemi_config::Double,
    pub budget_concurrency: u32,
    /// The policy that decided.
    pub policy: ObjectKey,
}

/// What is watched for anomalies at a destination.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Anomalies {
    pub sensitivity: Sensitivity,
    /// An endpoint that is unlike its peers is ejected.
    pub eject: bool,
    /// The policy that decided.
    pub policy: ObjectKey,
}

/// What is on for a client and a destination.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Resilience {
    pub retries: Option<Retries>,
    /// The window of adaptive load balancing.
    pub balancing_window: Option<Duration>,
    pub anomalies: Option<Anomalies>,
}

/// A policy with its destinations' full names.
#[derive(Debug)]
struct Ranked {
    policy: ConfigRef<ResiliencePolicy>,
    hosts: Vec<String>,
}

impl Ranked {
    fn labels(&self) -> Option<&BTreeMap<Str, Str>> {
        self.policy.spec.selector.as_ref().map(|selector| &selector.match_labels).filter(|labels| !labels.is_empty())
    }

    fn is_for(&self, labels: &Labels) -> bool {
        self.labels().is_none_or(|own| selects(own.iter().map(|(key, value)| (&**key, &**value)), labels))
    }

    fn is_about(&self, hostname: &str) -> bool {
        self.hosts.is_empty() || self.hosts.iter().any(|pattern| host::covers(pattern, hostname))
    }
}

/// All policies by namespace, in the order in which they decide there.
#[derive(Debug, Default, Clone)]
pub struct ResilienceIndex {
    /// The two spellings have names of their own.
    raw: BTreeMap<(bool, ObjectKey), ConfigRef<ResiliencePolicy>>,
    namespaces: BTreeMap<Arc<str>, Arc<[Ranked]>>,
}

impl ResilienceIndex {
    /// The policy of that name; `future`: in the other spelling.
    pub(crate) fn get(&self, future: bool, key: &ObjectKey) -> Option<&ConfigRef<ResiliencePolicy>> {
        self.raw.get(&(future, key.clone()))
    }

    /// Takes in changed policies (`None`: removed). `domain` completes short host names.
    pub(crate) fn update(
        &mut self,
        future: bool,
        changes: &[(ObjectKey, Option<ConfigRef<ResiliencePolicy>>)],
        domain: &str,
    ) {
        for (key, policy) in changes {
            match policy {
                Some(policy) => drop(self.raw.insert((future, key.clone()), policy.clone())),
                None => drop(self.raw.remove(&(future, key.clone()))),
            }
        }
        let mut namespaces: BTreeMap<Arc<str>, Vec<Ranked>> = BTreeMap::new();
        for policy in self.raw.values() {
            let hosts = policy.spec.hosts.iter().map(|name| host::fqdn(name, &policy.namespace, domain)).collect();
            namespaces.entry(policy.namespace.clone()).or_default().push(Ranked { policy: policy.clone(), hosts });
        }
        let in_order = |(namespace, mut policies): (Arc<str>, Vec<Ranked>)| {
            let first = |ranked: &Ranked| ranked.labels().is_none();
            policies.sort_by(|a, b| first(a).cmp(&first(b)).then_with(|| a.policy.by_age(&b.policy)));
            (namespace, policies.into())
        };
        self.namespaces = namespaces.into_iter().map(in_order).collect();
    }

    /// Label keys that some policy selects by.
    pub fn selected_labels(&self) -> impl Iterator<Item = &Str> {
        self.raw.values().filter_map(|policy| policy.spec.selector.as_ref()).flat_map(|own| own.match_labels.keys())
    }

    /// What is on for a workload that calls a host.
    pub(crate) fn lookup(&self, namespace: &str, root: &str, labels: &Labels, hostname: &str) -> Resilience {
        if self.raw.is_empty() {
            return Resilience::default();
        }
        let root = Some(root).filter(|root| *root != namespace);
        let lists = [Some(namespace), root].into_iter().flatten().filter_map(|of| self.namespaces.get(of));
        let policies: Vec<&Config<ResiliencePolicy>> = lists
            .flat_map(|list| list.iter())
            .filter(|ranked| ranked.is_for(labels) && ranked.is_about(hostname))
            .map(|ranked| &*ranked.policy)
            .collect();
        Resilience {
            retries: policies.iter().find_map(|own| retries(own, own.spec.automatic_retries.as_ref()?)).flatten(),
            balancing_window: policies
                .iter()
                .find_map(|own| own.spec.adaptive_load_balancing.as_ref())
                .and_then(balancing_window),
            anomalies: policies.iter().find_map(|own| anomalies(own, own.spec.anomaly_detection.as_ref()?)).flatten(),
        }
    }
}

/// The outer `Some`: it is decided; the inner: it is on.
fn retries(policy: &Config<ResiliencePolicy>, own: &AutomaticRetries) -> Option<Option<Retries>> {
    let budget = own.budget.as_ref();
    Some(own.enabled.unwrap_or(true).then(|| Retries {
        max_attempts: own.max_attempts.unwrap_or(MAX_ATTEMPTS),
        budget_percent: budget.and_then(|own| own.percent).unwrap_or(BUDGET_PERCENT.into()),
        budget_concurrency: budget.and_then(|own| own.min_concurrency).unwrap_or(BUDGET_CONCURRENCY),
        policy: policy.key(),
    }))
}

/// As [`retries`] does.
fn anomalies(policy: &Config<ResiliencePolicy>, own: &AnomalyDetection) -> Option<Option<Anomalies>> {
    Some(own.enabled.unwrap_or(true).then(|| Anomalies {
        sensitivity: own.sensitivity,
        eject: own.action == AnomalyAction::Eject,
        policy: policy.key(),
    }))
}

fn balancing_window(own: &AdaptiveLoadBalancing) -> Option<Duration> {
    own.enabled.unwrap_or(true).then(|| own.window_size.unwrap_or(WINDOW))
}

#[cfg(test)]
mod tests;
