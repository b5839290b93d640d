//! Why a route does not take a request: for people, never on a request's path.

use super::super::{CookieMatcher, PathRule, QueryMatcher, Route, RouteConfiguration, RouteRequest};
use super::{cookies_match, is_grpc, path_for_matching, query_matches};
use crate::common::Fraction;
use crate::header::HeaderMatcher;
use crate::rbac::MetadataMatcher;

/// The first condition of a route that a request does not meet, in the order in which they are looked at.
#[derive(Debug, Clone, Copy)]
pub enum Mismatch<'a> {
    Path(&'a PathRule),
    /// Only a part of all requests is taken.
    Fraction(Fraction),
    Header(&'a HeaderMatcher),
    Grpc,
    Query(&'a QueryMatcher),
    Cookie(&'a CookieMatcher),
    /// Whether a client certificate must have been shown.
    TlsPresented(bool),
    TlsValidated(bool),
    Metadata(&'a MetadataMatcher),
}

impl RouteConfiguration {
    /// Why [`RouteConfiguration::find_route`] passes a route by; `None` where it takes it.
    pub fn mismatch<'r>(&self, route: &'r Route, request: &RouteRequest<'_>) -> Option<Mismatch<'r>> {
        let path = path_for_matching(request.path, self.ignore_path_parameters);
        let rule = &*route.matcher;
        if rule.matches(request, path) {
            return None;
        }
        if !rule.path.matches(path, request) {
            return Some(Mismatch::Path(&rule.path));
        }
        let fraction = rule.fraction.filter(|fraction| !fraction.hits(request.random)).map(Mismatch::Fraction);
        let header = || rule.headers.iter().find(|header| !header.matches(request.headers)).map(Mismatch::Header);
        let grpc = || (rule.grpc && !is_grpc(request)).then_some(Mismatch::Grpc);
        let one_query = |query: &&QueryMatcher| !query_matches(std::slice::from_ref(query), request.path);
        let query = || rule.query.iter().find(one_query).map(Mismatch::Query);
        let one_cookie = |cookie: &&CookieMatcher| !cookies_match(std::slice::from_ref(cookie), request);
        let cookie = || rule.cookies.iter().find(one_cookie).map(Mismatch::Cookie);
        let presented = || rule.tls_presented.filter(|wanted| *wanted != request.tls_presented);
        let validated = || rule.tls_validated.filter(|wanted| *wanted != request.tls_validated);
        fraction
            .or_else(header)
            .or_else(grpc)
            .or_else(query)
            .or_else(cookie)
            .or_else(|| presented().map(Mismatch::TlsPresented))
            .or_else(|| validated().map(Mismatch::TlsValidated))
            .or_else(|| rule.dynamic_metadata.first().map(Mismatch::Metadata))
    }
}
