//! GRPCRoute.

use super::super::{Validation, common};
use super::filters::{header_filter, request_mirror};
use super::http::{self, MAX_ALL_MATCHES, MAX_BACKENDS, MAX_MATCHES, MAX_RULES, MAX_VALUES, value_match};
use super::{at_most, backend, hostnames, parents, section_name};
use crate::gateway_api::{
    GrpcMethodMatch, GrpcRoute, GrpcRouteFilter, GrpcRouteFilterType, GrpcRouteRule, ValueMatchType,
};
use crate::path::Path;

const MAX_FILTERS: usize = 16;
const MAX_NAME: usize = 1024;

pub(in super::super) fn grpc_route(spec: &GrpcRoute, at: &Path<'_>, v: &mut Validation) {
    parents(&spec.parent_refs, at, v);
    hostnames(&spec.hostnames, at, v);
    let rules = at.field("rules");
    at_most(spec.rules.len(), MAX_RULES, &rules, v);
    at_most(spec.rules.iter().map(|rule| rule.matches.len()).sum(), MAX_ALL_MATCHES, &rules, v);
    for (i, one) in spec.rules.iter().enumerate() {
        let at = rules.index(i);
        rule(one, &at, v);
        let same = |other: &GrpcRouteRule| one.name.is_some() && other.name == one.name;
        v.require(&at.field("name"), !spec.rules[..i].iter().any(same), "Rule name must be unique within the route");
    }
}

fn rule(rule: &GrpcRouteRule, at: &Path<'_>, v: &mut Validation) {
    if let Some(name) = &rule.name {
        section_name(name, &at.field("name"), v);
    }
    let matches = at.field("matches");
    at_most(rule.matches.len(), MAX_MATCHES, &matches, v);
    for (i, one) in rule.matches.iter().enumerate() {
        let at = matches.index(i);
        if let Some(method) = &one.method {
            method_match(method, &at.field("method"), v);
        }
        let headers = at.field("headers");
        at_most(one.headers.len(), MAX_VALUES, &headers, v);
        for (i, header) in one.headers.iter().enumerate() {
            value_match(header.match_type, &header.name, &header.value, &headers.index(i), v);
            let same = one.headers[..i].iter().any(|other| other.name.eq_ignore_ascii_case(&header.name));
            v.require(&headers.index(i).field("name"), !same, "a name stands once");
        }
    }
    filters(&rule.filters, &at.field("filters"), v);
    let backends = at.field("backendRefs");
    at_most(rule.backend_refs.len(), MAX_BACKENDS, &backends, v);
    for (i, one) in rule.backend_refs.iter().enumerate() {
        let at = backends.index(i);
        backend(&one.backend(), true, &at, v);
        filters(&one.filters, &at.field("filters"), v);
    }
    if let Some(session) = &rule.session_persistence {
        http::session_persistence(session, &at.field("sessionPersistence"), v);
    }
}

fn method_match(method: &GrpcMethodMatch, at: &Path<'_>, v: &mut Validation) {
    v.require(
        at,
        method.service.is_some() || method.method.is_some(),
        "One or both of 'service' or 'method' must be specified",
    );
    let exact = method.match_type == ValueMatchType::Exact;
    for (field, value, dots) in [("service", &method.service, true), ("method", &method.method, false)] {
        let Some(value) = value else { continue };
        let at = at.field(field);
        v.require(&at, value.len() <= MAX_NAME, "a name has at most 1024 characters");
        if !exact {
            common::regex(value, &at, v);
            continue;
        }
        let mut parts = value.split('.');
        let identifier = |part: &str| {
            part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        };
        let fits = parts.all(identifier) && (dots || !value.contains('.'));
        v.require(&at, fits, format_args!("{value:?} is not the name of a {field}"));
    }
}

fn filters(filters: &[GrpcRouteFilter], at: &Path<'_>, v: &mut Validation) {
    use GrpcRouteFilterType as Type;
    at_most(filters.len(), MAX_FILTERS, at, v);
    for (i, one) in filters.iter().enumerate() {
        let at = at.index(i);
        let Some(kind) = one.filter_type else {
            v.error(&at.field("type"), "required");
            continue;
        };
        let fields = [
            ("requestHeaderModifier", Type::RequestHeaderModifier, one.request_header_modifier.is_some()),
            ("responseHeaderModifier", Type::ResponseHeaderModifier, one.response_header_modifier.is_some()),
            ("requestMirror", Type::RequestMirror, one.request_mirror.is_some()),
            ("extensionRef", Type::ExtensionRef, one.extension_ref.is_some()),
        ];
        for (field, of, set) in fields {
            let at = at.field(field);
            v.require(&at, set || of != kind, format_args!("must be specified for a filter of type {of}"));
            v.require(&at, !set || of == kind, format_args!("must not stand in a filter of type {kind}"));
        }
        let once = matches!(kind, Type::RequestHeaderModifier | Type::ResponseHeaderModifier);
        let again = filters[..i].iter().any(|other| other.filter_type == Some(kind));
        v.require(&at, !(once && again), format_args!("{kind} filter cannot be repeated"));
        for headers in [&one.request_header_modifier, &one.response_header_modifier].into_iter().flatten() {
            header_filter(headers, &at, v);
        }
        if let Some(mirror) = &one.request_mirror {
            request_mirror(mirror, &at.field("requestMirror"), v);
        }
    }
}
