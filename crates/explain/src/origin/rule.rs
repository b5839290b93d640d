//! Which rule and match of a VirtualService a route was made from.
//!
//! A route says of which VirtualService it is, not of which rule. Rules become routes in their order, so the routes of a virtual
//! host are laid beside the rules, and each takes the next rule that it can be made from: by name, path, and what else is matched.

use std::sync::Arc;

use meltemi_config::networking::{HttpMatchRequest, HttpRoute, StringMatch, StringMatchType, VirtualService};
use meltemi_config::{Key, Kind, Spec};
use meltemi_plan::route::PathRule;
use meltemi_plan::{HeaderKey, Route, VirtualHost};
use meltemi_translate::RETRIES;

use super::{Origins, Place};

/// One `http` entry with one of its matches.
struct Candidate<'a> {
    /// Of the VirtualService that has the entry: a delegate, where the route's own one delegates.
    key: Key,
    /// `spec.http[1].match[0]`.
    path: String,
    rule: &'a HttpRoute,
    condition: Option<&'a HttpMatchRequest>,
    /// The delegating entry, with the match of it that counts.
    root: Option<(&'a HttpRoute, Option<&'a HttpMatchRequest>)>,
}

impl Candidate<'_> {
    /// Whether a route looks like one that is made from this.
    fn fits(&self, route: &Route) -> bool {
        if *route.name != *self.name() {
            return false;
        }
        let root = self.root.and_then(|(_, condition)| condition);
        let own = self.condition;
        let uri = own.and_then(|own| own.uri.as_ref()).or_else(|| root.and_then(|root| root.uri.as_ref()));
        if !same_path(&route.matcher.path, uri) {
            return false;
        }
        let conditions: Vec<&HttpMatchRequest> = own.into_iter().chain(root).collect();
        let any = |of: &dyn Fn(&HttpMatchRequest) -> bool| conditions.iter().any(|condition| of(condition));
        let has = |key: &HeaderKey| {
            let named = |condition: &HttpMatchRequest| {
                let headers = condition.headers.keys().chain(condition.without_headers.keys());
                headers.into_iter().any(|name| name.eq_ignore_ascii_case(key.as_str()))
            };
            match key {
                HeaderKey::Method => any(&|condition| condition.method.is_some()),
                HeaderKey::Scheme => any(&|condition| condition.scheme.is_some()),
                HeaderKey::Authority => any(&|condition| condition.authority.is_some() || named(condition)),
                _ => any(&named),
            }
        };
        let asked = |name: &str| any(&|condition| condition.query_params.contains_key(name));
        let matcher = &route.matcher;
        matcher.headers.iter().all(|header| has(&header.key))
            && matcher.query.iter().all(|query| asked(&query.name))
            && (self.root.is_some() || self.counts() == counts_of(route))
    }

    /// The route's name, as translation puts it together.
    fn name(&self) -> String {
        let joined = |root: &str, own: &str| match (root, own) {
            ("", one) | (one, "") => one.to_owned(),
            (root, own) => format!("{root}-{own}"),
        };
        let named = |condition: Option<&HttpMatchRequest>| condition.map_or("", |condition| &condition.name).to_owned();
        let (root, outer) = self.root.map_or(("", String::new()), |(root, outer)| (&*root.name, named(outer)));
        let rule = joined(root, &self.rule.name);
        match joined(&outer, &named(self.condition)) {
            condition if condition.is_empty() => rule,
            condition => format!("{rule}.{condition}"),
        }
    }

    /// Matched headers and claims, and query parameters.
    fn counts(&self) -> (usize, usize) {
        let Some(condition) = self.condition else { return (0, 0) };
        let pseudo = [&condition.method, &condition.authority, &condition.scheme];
        let pseudo = pseudo.iter().filter(|matcher| matcher.is_some()).count();
        (condition.headers.len() + condition.without_headers.len() + pseudo, condition.query_params.len())
    }
}

fn counts_of(route: &Route) -> (usize, usize) {
    let matcher = &route.matcher;
    (matcher.headers.len() + matcher.dynamic_metadata.len(), matcher.query.len())
}

pub(super) fn same_path(rule: &PathRule, uri: Option<&StringMatch>) -> bool {
    match (rule, uri.map(StringMatch::kind)) {
        (PathRule::Prefix { prefix, .. }, None | Some(StringMatchType::Present)) => &**prefix == "/",
        (
            PathRule::Prefix { prefix, .. } | PathRule::SeparatedPrefix { prefix, .. },
            Some(StringMatchType::Prefix(text)),
        ) => **prefix == **text,
        (PathRule::Exact { path, .. }, Some(StringMatchType::Exact(text))) => **path == **text,
        (PathRule::Regex(regex), Some(StringMatchType::Regex(text))) => regex.pattern() == &**text,
        _ => false,
    }
}

/// The route for idempotent methods that stands before the one of its rule.
fn is_by_method(route: &Route) -> bool {
    let mark = route.metadata.as_deref().and_then(|metadata| metadata.value(RETRIES, &["methods"]));
    mark.and_then(|methods| methods.as_str()) == Some("idempotent")
}

/// The matches of an entry; none is one that takes everything.
fn matches(rule: &HttpRoute) -> Vec<(Option<usize>, Option<&HttpMatchRequest>)> {
    if rule.matches.is_empty() {
        return vec![(None, None)];
    }
    rule.matches.iter().enumerate().map(|(index, condition)| (Some(index), Some(condition))).collect()
}

fn path(http: usize, index: Option<usize>) -> String {
    match index {
        Some(index) => format!("spec.http[{http}].match[{index}]"),
        None => format!("spec.http[{http}]"),
    }
}

impl Origins {
    /// The place of a virtual host's route: the rule it was made from, as far as that can be told.
    pub fn of_route(&self, host: &VirtualHost, route: &Route) -> Option<Place> {
        let key = self.of_metadata(route.metadata.as_deref())?;
        if let Some(parents) = self.made.get(&key) {
            return self.of_made(parents, route);
        }
        match self.candidate_of(&key, host, route) {
            Some(candidate) => self.place(&candidate.key, &candidate.path),
            None => self.place(&key, ""),
        }
    }

    /// Routes and rules have the same order, so each route takes the first rule after that of the route before it.
    fn candidate_of(&self, key: &Key, host: &VirtualHost, route: &Route) -> Option<Candidate<'_>> {
        // Automatic retries make two routes of a rule: the first, by method, is what the second is.
        let asked = host.routes.iter().position(|own| std::ptr::eq(&**own, route))?;
        let route = host.routes[asked..].iter().find(|own| !is_by_method(own))?;
        let mut candidates = self.candidates(key)?.into_iter();
        let own =
            |own: &&Arc<Route>| !is_by_method(own) && self.of_metadata(own.metadata.as_deref()).as_ref() == Some(key);
        for own in host.routes.iter().filter(own) {
            let found = candidates.find(|candidate| candidate.fits(own));
            if Arc::ptr_eq(own, route) || found.is_none() {
                return found;
            }
        }
        None
    }

    /// Every entry with every match, in the order in which they become routes.
    fn candidates(&self, key: &Key) -> Option<Vec<Candidate<'_>>> {
        let mut all = Vec::new();
        for (http, rule) in self.rules(key)?.http.iter().enumerate() {
            let Some(delegate) = &rule.delegate else {
                all.extend(matches(rule).into_iter().map(|(index, condition)| Candidate {
                    key: key.clone(),
                    path: path(http, index),
                    rule,
                    condition,
                    root: None,
                }));
                continue;
            };
            let namespace = if delegate.namespace.is_empty() { &key.namespace } else { &delegate.namespace };
            let delegate = Key::new(Kind::VirtualService, namespace, &delegate.name);
            all.extend(self.delegated(rule, &delegate));
        }
        Some(all)
    }

    fn delegated<'a>(&'a self, root: &'a HttpRoute, delegate: &Key) -> Vec<Candidate<'a>> {
        let mut all = Vec::new();
        for (http, rule) in self.rules(delegate).into_iter().flat_map(|rules| rules.http.iter().enumerate()) {
            for (_, outer) in matches(root) {
                all.extend(matches(rule).into_iter().map(|(index, condition)| Candidate {
                    key: delegate.clone(),
                    path: path(http, index),
                    rule,
                    condition,
                    root: Some((root, outer)),
                }));
            }
        }
        all
    }

    fn rules(&self, key: &Key) -> Option<&VirtualService> {
        match &self.object(key)?.spec {
            Spec::VirtualService(rules) => Some(rules),
            _ => None,
        }
    }
}
