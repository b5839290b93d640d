//! HTTPRoute: hosts, rules and matches.

use super::super::{Validation, common};
use super::filters;
use super::rule::{self, MAX_ALL_MATCHES};
use crate::gateway_api::{FilteredBackend, PathMatchType, SessionPersistence};
use crate::gateway_api::{HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteTimeouts};
use crate::path::Path;

pub(in super::super) fn http_route(spec: &HttpRoute, at: &Path<'_>, v: &mut Validation) {
    rule::route(spec, at, v, "rule name must be unique within the route", of_rule);
    v.require(
        &at.field("rules"),
        rule::all_matches(spec) <= MAX_ALL_MATCHES,
        format_args!("While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than {MAX_ALL_MATCHES}"),
    );
}

fn of_rule(rule: &HttpRouteRule, at: &Path<'_>, v: &mut Validation) {
    rule::matches(rule, at, v, route_match);
    filters::list(&rule.filters, &at.field("filters"), v);
    filters::with_rule(&rule.filters, rule, at, v);
    rule::backends(rule, at, v, |own, here, v| {
        filters::list(own.filters(), &here.field("filters"), v);
        filters::with_rule(own.filters(), rule, at, v);
    });
    if let Some(timeouts) = &rule.timeouts {
        limits(timeouts, &at.field("timeouts"), v);
    }
    if let Some(retry) = &rule.retry {
        retries(retry, &at.field("retry"), v);
    }
    if let Some(session) = &rule.session_persistence {
        session_persistence(session, &at.field("sessionPersistence"), v);
    }
}

fn route_match(one: &HttpRouteMatch, at: &Path<'_>, v: &mut Validation) {
    if let Some(path) = &one.path {
        path_match(path, &at.field("path"), v);
    }
    rule::headers(&one.headers, &at.field("headers"), v);
    let parameters = one.query_params.iter().map(|own| (own.match_type, &own.name, &own.value)).collect::<Vec<_>>();
    rule::values(&parameters, |a, b| a == b, &at.field("queryParams"), v);
}

fn path_match(path: &HttpPathMatch, at: &Path<'_>, v: &mut Validation) {
    let at = at.field("value");
    let value = path.value.as_deref().unwrap_or("/");
    v.require(&at, value.len() <= 1024, "a path has at most 1024 characters");
    if path.match_type == PathMatchType::RegularExpression {
        return common::regex(value, &at, v);
    }
    v.require(&at, value.starts_with('/'), "value must be an absolute path and start with '/'");
    for refused in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        v.require(&at, !value.contains(refused), format_args!("must not contain {refused:?}"));
    }
    for refused in ["/..", "/."] {
        v.require(&at, !value.ends_with(refused), format_args!("must not end with {refused:?}"));
    }
    v.require(&at, is_path(value), "must only contain characters of a path");
}

/// The characters of RFC 3986's `pchar` and `/`, others as `%XX`.
fn is_path(text: &str) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let fits = match byte {
            b'%' => {
                let mut digit = || bytes.next().is_some_and(|b| b.is_ascii_hexdigit());
                digit() && digit()
            }
            other => other.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&other),
        };
        if !fits {
            return false;
        }
    }
    true
}

fn limits(timeouts: &HttpRouteTimeouts, at: &Path<'_>, v: &mut Validation) {
    let (Some(request), Some(backend)) = (timeouts.request, timeouts.backend_request) else { return };
    v.require(
        &at.field("backendRequest"),
        request.is_zero() || backend <= request,
        "backendRequest timeout cannot be longer than request timeout",
    );
}

fn retries(retry: &HttpRouteRetry, at: &Path<'_>, v: &mut Validation) {
    let codes = at.field("codes");
    for (i, code) in retry.codes.iter().enumerate() {
        v.require(&codes.index(i), (400..=599).contains(code), "a status that is tried again is 400 to 599");
    }
    let attempts = retry.attempts.is_none_or(|attempts| attempts >= 0);
    v.require(&at.field("attempts"), attempts, "cannot be negative");
}

pub(super) fn session_persistence(session: &SessionPersistence, at: &Path<'_>, v: &mut Validation) {
    let lifetime = session.cookie_config.as_ref().map(|cookie| &*cookie.lifetime_type);
    let kind = &*session.persistence_type;
    v.require(&at.field("type"), matches!(kind, "" | "Cookie" | "Header"), "must be Cookie or Header");
    v.require(
        &at.field("absoluteTimeout"),
        lifetime != Some("Permanent") || session.absolute_timeout.is_some(),
        "AbsoluteTimeout must be specified when cookie lifetimeType is Permanent",
    );
    v.require(
        &at.field("cookieConfig"),
        lifetime.is_none() || kind != "Header",
        "cookieConfig can only be set with type Cookie",
    );
}
