//! Routes for one host of one parent as one VirtualService, in the order of precedence.

use crate::route::Keyed;
use meltemi_config::networking::{HttpMatchRequest, HttpRoute, StringMatchType, VirtualService};
use meltemi_model::{Config, ConfigRef, ObjectKey, Shared, semantics};
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The more specific rule first; what is equal stays in order. Rules have one match at most, and one without is last.
pub fn by_precedence(mut rules: Vec<HttpRoute>) -> Vec<HttpRoute> {
    rules.sort_by_key(|rule| Reverse(rule.matches.first().map(precedence)));
    rules
}

/// By path (exact, prefix, expression; the longer first), method, number of headers, of query parameters.
fn precedence(condition: &HttpMatchRequest) -> (i32, usize, bool, usize, usize) {
    let (rank, length) = match condition.uri.as_ref().map(|uri| uri.kind()) {
        Some(StringMatchType::Exact(text)) => (3, text.len()),
        Some(StringMatchType::Prefix(text)) => (2, text.len()),
        Some(StringMatchType::Regex(text)) => (1, text.len()),
        None | Some(StringMatchType::Present) => (-1, 0),
    };
    (rank, length, condition.method.is_some(), condition.headers.len(), condition.query_params.len())
}

/// One VirtualService for each key: the oldest route's, with the rules of all.
pub fn merged(routes: Vec<Keyed>) -> BTreeMap<ObjectKey, ConfigRef<VirtualService>> {
    let mut by_key: BTreeMap<String, Vec<Config<VirtualService>>> = BTreeMap::new();
    for route in routes {
        by_key.entry(route.key).or_default().push(route.config);
    }
    by_key
        .into_iter()
        .filter_map(|(key, configs)| one(&key, configs))
        .map(|config| (config.key(), Shared::new(config)))
        .collect()
}

fn one(key: &str, mut configs: Vec<Config<VirtualService>>) -> Option<Config<VirtualService>> {
    let age = |config: &Config<VirtualService>| (config.creation, config.namespace.clone(), config.name.clone());
    configs.sort_by_cached_key(age);
    let mut rest = configs.into_iter();
    let mut first = rest.next()?;
    let mut spec = VirtualService::clone(&first.spec);
    let parents = |config: &Config<VirtualService>| config.annotations.get(semantics::PARENTS).cloned();
    let mut names: Vec<_> = parents(&first).into_iter().collect();
    for config in rest {
        spec.http.extend(config.spec.http.iter().cloned());
        names.extend(parents(&config));
    }
    spec.http = by_precedence(spec.http);
    first.annotations.insert(semantics::PARENTS.into(), names.join(",").into());
    first.name = key.replace('/', "~").into();
    first.spec = Arc::new(spec);
    Some(first)
}

#[cfg(test)]
mod tests;
