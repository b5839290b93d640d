//! The configuration, ready to be asked: which limit is for a descriptor.
//!
//! Owns the reference server's precedence. At each entry of a descriptor the exact value is before patterns (in the order of the
//! document), which are before any value; a limit counts only where the descriptor ends.

use std::collections::HashMap;
use std::sync::Arc;

use meltemi_config::Str;
use meltemi_config::rate_limit::{LimitBlock, LimitDescriptor, RateLimitConfiguration, RateLimitUnit};
use meltemi_proto::envoy::extensions::common::ratelimit::v3::RateLimitDescriptor;

use crate::stats::{LimitStats, Stats};

/// How many hits fit in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Window {
    pub requests: u32,
    pub unit: RateLimitUnit,
}

/// One limit of the configuration, or of a request.
#[derive(Debug)]
pub(crate) struct Limit {
    /// None: unlimited.
    pub window: Option<Window>,
    pub name: Str,
    /// Names of limits that do not count where this one does.
    pub replaces: Vec<Str>,
    /// Counts and never refuses.
    pub shadow: bool,
    /// Refuses only when every limit of this mode is exceeded.
    pub quota: bool,
    pub stats: LimitStats,
}

/// What is for a descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    pub limit: Arc<Limit>,
    /// For each entry the pattern whose values share one count.
    pub shared: Vec<Option<Str>>,
}

/// All limits in force, by domain.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    domains: HashMap<Str, Level>,
}

/// The descriptors of one list of the document.
#[derive(Debug, Default)]
struct Level {
    /// By key and value.
    exact: HashMap<Str, HashMap<Str, Branch>>,
    patterns: Vec<(Str, Pattern, Branch)>,
    /// By key: any value.
    any: HashMap<Str, Branch>,
}

#[derive(Debug)]
struct Branch {
    limit: Option<Arc<Limit>>,
    share: bool,
    below: Level,
}

/// A value with `*` in it.
#[derive(Debug)]
struct Pattern {
    text: Str,
    parts: Vec<String>,
}

impl Pattern {
    fn new(text: &Str) -> Self {
        Self { text: text.clone(), parts: text.split('*').map(str::to_owned).collect() }
    }

    /// Each `*` is any number of characters. Linear: the shortest text for each is as good as any.
    fn matches(&self, value: &str) -> bool {
        let [first, middle @ .., last] = &*self.parts else { return *value == *self.text };
        let Some(mut rest) = value.strip_prefix(&**first).and_then(|rest| rest.strip_suffix(&**last)) else {
            return false;
        };
        middle.iter().all(|part| match rest.find(&**part) {
            Some(at) => {
                rest = &rest[at + part.len()..];
                true
            }
            None => false,
        })
    }
}

impl Limits {
    /// The documents must be valid, each of another domain.
    pub fn new(documents: &[RateLimitConfiguration], stats: &Stats) -> Self {
        let domain = |document: &RateLimitConfiguration| {
            let maker = Maker { stats, domain: &document.domain };
            (document.domain.clone(), maker.level(&document.descriptors, &mut Vec::new()))
        };
        Self { domains: documents.iter().map(domain).collect() }
    }

    /// None: there is no such domain. The inner: no limit is for the descriptor.
    pub fn find(&self, domain: &str, descriptor: &RateLimitDescriptor) -> Option<Option<Found>> {
        let mut level = self.domains.get(domain)?;
        let mut shared = Vec::with_capacity(descriptor.entries.len());
        let mut found = None;
        for entry in &descriptor.entries {
            let Some((branch, pattern)) = level.branch(&entry.key, &entry.value) else { return Some(None) };
            shared.push(pattern.filter(|_| branch.share).map(|pattern| pattern.text.clone()));
            found = branch.limit.as_ref();
            level = &branch.below;
        }
        Some(found.map(|limit| Found { limit: limit.clone(), shared }))
    }
}

impl Level {
    fn branch(&self, key: &str, value: &str) -> Option<(&Branch, Option<&Pattern>)> {
        if let Some(branch) = self.exact.get(key).and_then(|values| values.get(value)) {
            return Some((branch, None));
        }
        let pattern = self.patterns.iter().find(|(own, pattern, _)| **own == *key && pattern.matches(value));
        if let Some((_, pattern, branch)) = pattern {
            return Some((branch, Some(pattern)));
        }
        self.any.get(key).map(|branch| (branch, None))
    }
}

/// Makes the levels of one domain.
struct Maker<'a> {
    stats: &'a Stats,
    domain: &'a str,
}

impl Maker<'_> {
    /// `above`: the entries that lead here, as metrics name them.
    fn level(&self, list: &[LimitDescriptor], above: &mut Vec<String>) -> Level {
        let mut level = Level::default();
        for one in list {
            above.push(entry_name(&one.key, &one.value));
            let branch = Branch {
                limit: one.rate_limit.as_ref().map(|block| Arc::new(self.limit(one, block, above))),
                share: one.share_threshold,
                below: self.level(&one.descriptors, above),
            };
            above.pop();
            if one.value.is_empty() {
                level.any.insert(one.key.clone(), branch);
            } else if one.value.contains('*') {
                level.patterns.push((one.key.clone(), Pattern::new(&one.value), branch));
            } else {
                level.exact.entry(one.key.clone()).or_default().insert(one.value.clone(), branch);
            }
        }
        level
    }

    fn limit(&self, one: &LimitDescriptor, block: &LimitBlock, entries: &[String]) -> Limit {
        let unit = RateLimitUnit::parse(&block.unit).filter(|_| !block.unlimited);
        Limit {
            window: unit.map(|unit| Window { requests: block.requests_per_unit, unit }),
            name: block.name.clone(),
            replaces: block.replaces.iter().map(|replaced| replaced.name.clone()).collect(),
            shadow: one.shadow_mode,
            quota: one.quota_mode,
            stats: self.stats.limit(self.domain, entries.iter().map(|entry| &**entry)),
        }
    }
}

/// An entry as metrics name it.
pub(crate) fn entry_name(key: &str, value: &str) -> String {
    if value.is_empty() { key.to_owned() } else { format!("{key}_{value}") }
}

#[cfg(test)]
mod tests;
