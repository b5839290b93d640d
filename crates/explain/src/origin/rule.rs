//! Which rule and match of a VirtualService a route was made from.

use meltemi_config::networking::{HttpMatchRequest, HttpRoute, StringMatch, StringMatchType, VirtualService};
use meltemi_config::{Key, Spec};
use meltemi_plan::route::PathRule;
use meltemi_plan::{HeaderKey, Route, VirtualHost};

use super::{Origins, Place};

/// One `http` entry with one of its matches, in the order in which they become routes.
struct Candidate<'a> {
    http: usize,
    matches: Option<usize>,
    rule: &'a HttpRoute,
    condition: Option<&'a HttpMatchRequest>,
}

impl Candidate<'_> {
    fn path(&self) -> String {
        match self.matches {
            Some(index) => format!("spec.http[{}].match[{index}]", self.http),
            None => format!("spec.http[{}]", self.http),
        }
    }

    /// Whether a route looks like one that is made from this.
    fn fits(&self, route: &Route) -> bool {
        let name = match self.condition {
            Some(condition) if !condition.name.is_empty() => format!("{}.{}", self.rule.name, condition.name),
            _ => self.rule.name.to_string(),
        };
        if *route.name != *name {
            return false;
        }
        let Some(condition) = self.condition else { return route.matcher.headers.is_empty() };
        let named = |key: &HeaderKey| {
            let text = key.as_str();
            condition.headers.keys().chain(condition.without_headers.keys()).any(|name| name.eq_ignore_ascii_case(text))
        };
        let headers = route.matcher.headers.iter().all(|header| match header.key {
            HeaderKey::Method => condition.method.is_some(),
            HeaderKey::Authority => condition.authority.is_some() || named(&header.key),
            HeaderKey::Scheme => condition.scheme.is_some(),
            _ => named(&header.key),
        });
        let query = route.matcher.query.iter().all(|query| condition.query_params.contains_key(&query.name));
        let pseudo = [&condition.method, &condition.authority, &condition.scheme];
        let wanted = condition.headers.len()
            + condition.without_headers.len()
            + pseudo.iter().filter(|matcher| matcher.is_some()).count();
        headers
            && query
            && route.matcher.headers.len() + route.matcher.dynamic_metadata.len() == wanted
            && route.matcher.query.len() == condition.query_params.len()
            && same_path(&route.matcher.path, condition.uri.as_ref())
    }
}

fn same_path(rule: &PathRule, uri: Option<&StringMatch>) -> bool {
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

fn candidates(rule: &VirtualService) -> Vec<Candidate<'_>> {
    let mut all = Vec::new();
    for (http, rule) in rule.http.iter().enumerate() {
        let matches = rule.matches.iter().enumerate();
        all.extend(matches.map(|(index, condition)| Candidate {
            http,
            matches: Some(index),
            rule,
            condition: Some(condition),
        }));
        if rule.matches.is_empty() {
            all.push(Candidate { http, matches: None, rule, condition: None });
        }
    }
    all
}

impl Origins {
    /// The place of a virtual host's route: the rule it was made from, as far as that can be told.
    pub fn of_route(&self, host: &VirtualHost, route: &Route) -> Option<Place> {
        let key = self.of_metadata(route.metadata.as_deref())?;
        let path = self.rule_of(&key, host, route).map(|(path, _)| path).unwrap_or_default();
        self.place(&key, &path)
    }

    /// The `http` entry that a route was made from.
    pub fn http_of(&self, host: &VirtualHost, route: &Route) -> Option<&HttpRoute> {
        let key = self.of_metadata(route.metadata.as_deref())?;
        self.rule_of(&key, host, route).map(|(_, rule)| rule)
    }

    /// Routes and rules have the same order, so each route takes the first rule after that of the route before it.
    fn rule_of(&self, key: &Key, host: &VirtualHost, route: &Route) -> Option<(String, &HttpRoute)> {
        let Spec::VirtualService(rule) = &self.object(key)?.spec else { return None };
        let candidates = candidates(rule);
        let mut next = 0;
        for own in host.routes.iter().filter(|own| self.of_metadata(own.metadata.as_deref()).as_ref() == Some(key)) {
            let found = candidates.iter().skip(next).position(|candidate| candidate.fits(own)).map(|at| next + at);
            if std::ptr::eq(&**own, route) {
                return found.map(|at| (candidates[at].path(), candidates[at].rule));
            }
            next = found.map_or(next, |at| at + 1);
        }
        None
    }
}
