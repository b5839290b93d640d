//! How the limits of RateLimitPolicies are named between proxies and whoever counts.
//!
//! Owns descriptors: the first entry says which rule, each further one where its value comes from. What a proxy sends and what a
//! server is told both come from here, so that they agree.

use crate::config::{Config, ObjectKey};
use meltemi_config::Str;
use meltemi_config::rate_limit::{
    LimitBlock, LimitDescriptor, RateLimitConfiguration, RateLimitKey, RateLimitPolicy, RateLimitRule, RateLimitScope,
    RateLimitSource,
};
use std::collections::BTreeMap;

/// Of rules whose provider names no domain.
pub const DOMAIN: &str = "meltemi";
/// The key of a descriptor's first entry.
pub const RULE: &str = "rule";

/// What the first entry says: `<namespace>/<policy>/<rule>`, where a rule without a name has its place for one.
pub fn rule_value(policy: &ObjectKey, index: usize, rule: &RateLimitRule) -> String {
    match &*rule.name {
        "" => format!("{policy}/{index}"),
        name => format!("{policy}/{name}"),
    }
}

/// The key of an entry.
pub fn entry_key(source: RateLimitSource<'_>) -> String {
    match source {
        RateLimitSource::Header(name) => format!("request.headers[{}]", name.to_ascii_lowercase()),
        RateLimitSource::Claim(claim) if claim.starts_with('[') => format!("request.auth.claims{claim}"),
        RateLimitSource::Claim(claim) => format!("request.auth.claims[{claim}]"),
        RateLimitSource::Path => "request.path".into(),
        RateLimitSource::Method => "request.method".into(),
        RateLimitSource::Host => "request.host".into(),
        // Envoy's action for it lets nobody choose.
        RateLimitSource::RemoteAddress => "remote_address".into(),
        RateLimitSource::SourcePrincipal => "source.principal".into(),
        RateLimitSource::Value(_) => "value".into(),
    }
}

/// The value of an entry where it is always the same; else any.
pub fn entry_value(source: RateLimitSource<'_>) -> Str {
    match source {
        RateLimitSource::Value(value) => value.clone(),
        _ => Str::default(),
    }
}

/// The domain in which a rule is counted; `None` where each proxy counts for itself.
pub fn domain(rule: &RateLimitRule) -> Option<Str> {
    let provider = rule.provider.as_ref().filter(|_| rule.scope == RateLimitScope::Global)?;
    Some(if provider.domain.is_empty() { DOMAIN.into() } else { provider.domain.clone() })
}

/// What a server must be told to count the global rules of these policies: a document a domain.
pub fn server_configurations<'a>(
    policies: impl IntoIterator<Item = (ObjectKey, &'a RateLimitPolicy)>,
) -> Vec<RateLimitConfiguration> {
    let mut domains: BTreeMap<Str, Vec<LimitDescriptor>> = BTreeMap::new();
    for (key, policy) in policies {
        for (index, rule) in policy.rules.iter().enumerate() {
            let Some(domain) = domain(rule) else { continue };
            domains.entry(domain).or_default().extend(descriptor(&key, index, rule));
        }
    }
    let document = |(domain, descriptors)| RateLimitConfiguration { domain, descriptors };
    domains.into_iter().map(document).collect()
}

/// The rule's entry, with those of its keys inside each other and the limit innermost.
fn descriptor(policy: &ObjectKey, index: usize, rule: &RateLimitRule) -> Option<LimitDescriptor> {
    let limit = rule.limit.as_ref()?;
    let block =
        LimitBlock { unit: limit.unit?.as_str().into(), requests_per_unit: limit.requests, ..LimitBlock::default() };
    let first = LimitDescriptor {
        key: RULE.into(),
        value: rule_value(policy, index, rule).into(),
        ..LimitDescriptor::default()
    };
    let entry = |source| LimitDescriptor {
        key: entry_key(source).into(),
        value: entry_value(source),
        ..LimitDescriptor::default()
    };
    let mut entries = std::iter::once(first).chain(rule.by.iter().filter_map(RateLimitKey::source).map(entry)).rev();
    let mut inner =
        LimitDescriptor { rate_limit: Some(block), shadow_mode: rule.dry_run, ..entries.next().unwrap_or_default() };
    for entry in entries {
        inner = LimitDescriptor { descriptors: vec![inner], ..entry };
    }
    Some(inner)
}

impl Config<RateLimitPolicy> {
    /// The rules with their places.
    pub fn rules(&self) -> impl Iterator<Item = (usize, &RateLimitRule)> {
        self.spec.rules.iter().enumerate()
    }
}

#[cfg(test)]
mod tests;
