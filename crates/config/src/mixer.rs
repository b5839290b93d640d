//! `config.istio.io/v1alpha2`: what Istio's Mixer had for rate limits. Read as limits of our own, by [`MemQuota::limits`].

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rate_limit::{RateLimit, RateLimitKey, RateLimitRule};
use crate::wire::{Str, message};

message! {
    /// `memquota`: how many requests a while, in memory.
    struct MemQuota {
        quotas: Vec<MemQuotaLimit>,
        /// Of Mixer's answers to one question that was repeated.
        min_deduplication_duration: Str,
    }

    struct MemQuotaLimit {
        /// Which [`Quota`], with `.quota` after its name.
        name: Str,
        max_amount: i64,
        #[serde(with = "crate::wire::duration")]
        valid_duration: Option<Duration>,
        /// The first that matches has effect in the place of the above.
        overrides: Vec<MemQuotaOverride>,
    }

    struct MemQuotaOverride {
        /// Values of the quota's dimensions, all of which must be these.
        dimensions: BTreeMap<Str, Str>,
        max_amount: i64,
        /// None: as without the override.
        #[serde(with = "crate::wire::duration")]
        valid_duration: Option<Duration>,
    }

    /// `quota`: what there is a count for each value of.
    struct Quota {
        /// Mixer's expressions by name, such as `destination.labels["app"] | "unknown"`.
        dimensions: BTreeMap<Str, Str>,
    }
}

/// What a dimension of a quota is to a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// A label of the workload that serves, which counts for itself anyway.
    Workload(Str),
    /// What a rule counts by.
    Key(RateLimitKey),
}

/// The limit of some workloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadLimit {
    /// Labels that select the workloads.
    pub labels: BTreeMap<Str, Str>,
    pub rule: RateLimitRule,
}

impl MemQuotaLimit {
    /// The name of its quota.
    pub fn quota(&self) -> &str {
        self.name.split_once('.').map_or(&self.name, |(name, _)| name)
    }

    /// In the order in which they are tried: one of them is a workload's. `quota` is what the dimensions are, where known.
    pub fn limits(&self, quota: Option<&Quota>) -> Vec<WorkloadLimit> {
        let by: Vec<_> = quota.map(keys).unwrap_or_default();
        let limit = |labels, amount: i64, interval| {
            let limit = RateLimit { requests: u32::try_from(amount).ok()?, interval, ..RateLimit::default() };
            let name = self.quota().into();
            Some(WorkloadLimit {
                labels,
                rule: RateLimitRule { name, limit: Some(limit), by: by.clone(), ..RateLimitRule::default() },
            })
        };
        let overrides = self.overrides.iter().filter_map(|own| {
            let interval = own.valid_duration.or(self.valid_duration);
            limit(own.labels(quota)?, own.max_amount, interval)
        });
        overrides.chain(limit(BTreeMap::new(), self.max_amount, self.valid_duration)).collect()
    }
}

impl MemQuotaOverride {
    /// The labels of the workloads; `None` where it is about something else, and is left out.
    pub fn labels(&self, quota: Option<&Quota>) -> Option<BTreeMap<Str, Str>> {
        let label = |(name, value): (&Str, &Str)| match dimension_of(name, quota)? {
            Dimension::Workload(label) => Some((label, value.clone())),
            Dimension::Key(_) => None,
        };
        self.dimensions.iter().map(label).collect()
    }
}

/// Without a quota that says otherwise, `destination` is the application that serves.
fn dimension_of(name: &str, quota: Option<&Quota>) -> Option<Dimension> {
    match quota.and_then(|quota| quota.dimensions.get(name)) {
        Some(expression) => dimension(expression),
        None if name == "destination" => Some(Dimension::Workload("app".into())),
        None => None,
    }
}

fn keys(quota: &Quota) -> Vec<RateLimitKey> {
    let mut keys = Vec::new();
    for expression in quota.dimensions.values() {
        if let Some(Dimension::Key(key)) = dimension(expression)
            && !keys.contains(&key)
        {
            keys.push(key);
        }
    }
    keys
}

/// What an expression of Mixer's is to a proxy; `None` where it is nothing. What follows `|`, for requests that lack the
/// attribute, does not count.
pub fn dimension(expression: &str) -> Option<Dimension> {
    let attribute = expression.split('|').next().unwrap_or_default().trim();
    if let Some(label) = quoted_in(attribute, "destination.labels[") {
        return Some(Dimension::Workload(label.into()));
    }
    if let Some(header) = quoted_in(attribute, "request.headers[") {
        return Some(Dimension::Key(RateLimitKey { header: header.into(), ..RateLimitKey::default() }));
    }
    if let Some(claim) = quoted_in(attribute, "request.auth.claims[") {
        return Some(Dimension::Key(RateLimitKey { claim: claim.into(), ..RateLimitKey::default() }));
    }
    let key = RateLimitKey::default();
    let key = match attribute {
        "request.path" | "request.url_path" => RateLimitKey { path: true, ..key },
        "request.method" => RateLimitKey { method: true, ..key },
        "request.host" => RateLimitKey { host: true, ..key },
        "source.ip" => RateLimitKey { remote_address: true, ..key },
        // Labels of a client are not proven; its identity is.
        _ if attribute.starts_with("source.") => RateLimitKey { source_principal: true, ..key },
        _ => return None,
    };
    Some(Dimension::Key(key))
}

fn quoted_in<'a>(attribute: &'a str, before: &str) -> Option<&'a str> {
    let inner = attribute.strip_prefix(before)?.strip_suffix(']')?.trim();
    inner.strip_prefix('"')?.strip_suffix('"').filter(|name| !name.is_empty())
}
