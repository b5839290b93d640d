//! HTTPRoute: hosts, rules and matches.

use super::super::{Validation, common};
use super::{at_most, backend, filters, hostnames, parents, section_name};
use crate::gateway_api::{HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteTimeouts};
use crate::gateway_api::{PathMatchType, SessionPersistence, ValueMatchType};
use crate::names;
use crate::path::Path;
use crate::wire::Str;

pub(super) const MAX_RULES: usize = 16;
pub(super) const MAX_MATCHES: usize = 64;
pub(super) const MAX_ALL_MATCHES: usize = 128;
pub(super) const MAX_BACKENDS: usize = 16;
pub(super) const MAX_VALUES: usize = 16;
const MAX_VALUE_BYTES: usize = 4096;

pub(in super::super) fn http_route(spec: &HttpRoute, at: &Path<'_>, v: &mut Validation) {
    parents(&spec.parent_refs, at, v);
    hostnames(&spec.hostnames, at, v);
    let rules = at.field("rules");
    at_most(spec.rules.len(), MAX_RULES, &rules, v);
    let all: usize = spec.rules.iter().map(|rule| rule.matches.len()).sum();
    v.require(
        &rules,
        all <= MAX_ALL_MATCHES,
        format_args!("While 16 rules and 64 matches per rule are allowed, the total number of matches across all rules in a route must be less than {MAX_ALL_MATCHES}"),
    );
    for (i, one) in spec.rules.iter().enumerate() {
        let at = rules.index(i);
        rule(one, &at, v);
        let same = |other: &HttpRouteRule| one.name.is_some() && other.name == one.name;
        v.require(&at.field("name"), !spec.rules[..i].iter().any(same), "rule name must be unique within the route");
    }
}

fn rule(rule: &HttpRouteRule, at: &Path<'_>, v: &mut Validation) {
    if let Some(name) = &rule.name {
        section_name(name, &at.field("name"), v);
    }
    let matches = at.field("matches");
    at_most(rule.matches.len(), MAX_MATCHES, &matches, v);
    for (i, one) in rule.matches.iter().enumerate() {
        route_match(one, &matches.index(i), v);
    }
    filters::list(&rule.filters, &at.field("filters"), v);
    filters::with_rule(&rule.filters, rule, at, v);
    let backends = at.field("backendRefs");
    at_most(rule.backend_refs.len(), MAX_BACKENDS, &backends, v);
    for (i, one) in rule.backend_refs.iter().enumerate() {
        let here = backends.index(i);
        backend(&one.backend(), true, &here, v);
        filters::list(&one.filters, &here.field("filters"), v);
        filters::with_rule(&one.filters, rule, at, v);
    }
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
    let headers = at.field("headers");
    at_most(one.headers.len(), MAX_VALUES, &headers, v);
    for (i, header) in one.headers.iter().enumerate() {
        value_match(header.match_type, &header.name, &header.value, &headers.index(i), v);
        let same = one.headers[..i].iter().any(|other| other.name.eq_ignore_ascii_case(&header.name));
        v.require(&headers.index(i).field("name"), !same, "a name stands once");
    }
    let parameters = at.field("queryParams");
    at_most(one.query_params.len(), MAX_VALUES, &parameters, v);
    for (i, parameter) in one.query_params.iter().enumerate() {
        value_match(parameter.match_type, &parameter.name, &parameter.value, &parameters.index(i), v);
        let same = one.query_params[..i].iter().any(|other| other.name == parameter.name);
        v.require(&parameters.index(i).field("name"), !same, "a name stands once");
    }
}

pub(super) fn value_match(kind: ValueMatchType, name: &Str, value: &Str, at: &Path<'_>, v: &mut Validation) {
    v.check(&at.field("name"), names::header_name(name));
    let at = at.field("value");
    v.require(&at, (1..=MAX_VALUE_BYTES).contains(&value.len()), "a value has 1 to 4096 characters");
    if kind == ValueMatchType::RegularExpression {
        common::regex(value, &at, v);
    }
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
