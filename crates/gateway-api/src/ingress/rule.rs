//! The rules of an Ingress as routes, in Ingress' order of precedence.

use super::EVERY_HOST;
use crate::catalogue::Catalogue;
use meltemi_config::kube::{HttpIngressPath, HttpIngressRule, Ingress, IngressBackend, PathType};
use meltemi_config::networking::{
    Destination, HttpMatchRequest, HttpRoute, HttpRouteDestination, PortSelector, StringMatch, StringMatchType,
};
use meltemi_config::{Meta, Str};
use meltemi_model::host;
use std::cmp::Reverse;

/// All of a destination's share.
const WHOLE: i32 = 100;

/// What an Ingress says of one host.
pub struct Rule<'a> {
    pub host: Str,
    pub meta: &'a Meta,
    ingress: &'a Ingress,
    http: Option<&'a HttpIngressRule>,
    /// Where the rule stands in the Ingress.
    pub index: usize,
}

/// The rules of an Ingress. One with a default backend has a rule for every host.
pub fn all<'a>(meta: &'a Meta, ingress: &'a Ingress) -> Vec<Rule<'a>> {
    let rules = ingress.spec.rules.iter().enumerate().filter(|(_, rule)| rule.http.is_some());
    let mut all: Vec<_> = rules
        .map(|(index, rule)| {
            let host = if rule.host.is_empty() { EVERY_HOST.into() } else { rule.host.clone() };
            Rule { host, meta, ingress, http: rule.http.as_ref(), index }
        })
        .collect();
    if ingress.spec.default_backend.is_some() && all.iter().all(|rule| &*rule.host != EVERY_HOST) {
        all.push(Rule { host: EVERY_HOST.into(), meta, ingress, http: None, index: all.len() });
    }
    all
}

impl Rule<'_> {
    /// Whether the Ingress has a certificate for the host.
    pub fn has_certificate(&self) -> bool {
        let fits = |name: &Str| host::covers(name, &self.host);
        let with_secret = self.ingress.spec.tls.iter().filter(|tls| !tls.secret_name.is_empty());
        let mut found = with_secret.map(|tls| tls.hosts.is_empty() || tls.hosts.iter().any(fits));
        found.any(|found| found)
    }

    /// A route for each path whose backend is a Service with that port, and one for the rest.
    pub fn routes(&self, catalogue: &Catalogue, domain: &str) -> Vec<HttpRoute> {
        let to = |backend: &IngressBackend| destination(catalogue, &self.meta.namespace, domain, backend);
        let route = |destination| HttpRoute {
            route: vec![HttpRouteDestination { destination, weight: WHOLE, ..HttpRouteDestination::default() }],
            ..HttpRoute::default()
        };
        let paths = self.http.map_or(&[][..], |http| &http.paths);
        let of_path = |path: &HttpIngressPath| {
            let uri = uri(path).map(|uri| HttpMatchRequest { uri: Some(uri), ..HttpMatchRequest::default() });
            Some(HttpRoute { matches: uri.into_iter().collect(), ..route(to(&path.backend)?) })
        };
        let rest = self.ingress.spec.default_backend.as_ref().and_then(to).map(route);
        paths.iter().filter_map(of_path).chain(rest).collect()
    }
}

/// `None`: every path.
fn uri(path: &HttpIngressPath) -> Option<StringMatch> {
    let text = &*path.path;
    match path.path_type {
        Some(PathType::Exact) => Some(StringMatch::exact(text)),
        Some(PathType::Prefix) => Some(StringMatch::prefix(text)),
        Some(PathType::ImplementationSpecific) | None => match text {
            "" | "*" | "/*" | ".*" => None,
            _ => Some(match text.strip_suffix(".*").or_else(|| text.strip_suffix("/*")) {
                Some(prefix) => StringMatch::prefix(prefix),
                None => StringMatch::exact(text),
            }),
        },
    }
}

fn destination(catalogue: &Catalogue, namespace: &str, domain: &str, backend: &IngressBackend) -> Option<Destination> {
    let service = backend.service.as_ref()?;
    let number = match service.port.number {
        0 => {
            let (_, named) = catalogue.service(namespace, &service.name)?;
            named.spec.ports.iter().find(|port| port.name == service.port.name)?.port
        }
        number => number,
    };
    let host = format!("{}.{namespace}.svc.{domain}", service.name).into();
    Some(Destination { host, port: Some(PortSelector { number }), ..Destination::default() })
}

/// The longer path first, and of equal ones the exact; what is for every path is last.
pub fn by_precedence(mut routes: Vec<HttpRoute>) -> Vec<HttpRoute> {
    let rank = |route: &HttpRoute| {
        let uri = route.matches.first().and_then(|matches| matches.uri.as_ref());
        match uri.map(StringMatch::kind) {
            Some(StringMatchType::Exact(text)) => (text.len(), true),
            Some(StringMatchType::Prefix(text)) => (text.len(), false),
            _ => (0, false),
        }
    };
    routes.sort_by_key(|route| Reverse(rank(route)));
    routes
}
