//! GRPCRoute.

use super::super::{Validation, common};
use super::filters::{header_filter, request_mirror};
use super::{at_most, http, rule};
use crate::gateway_api::{
    FilteredBackend, GrpcMethodMatch, GrpcRoute, GrpcRouteFilter, GrpcRouteFilterType, GrpcRouteMatch, GrpcRouteRule,
    ValueMatchType,
};
use crate::path::Path;

const MAX_FILTERS: usize = 16;
const MAX_NAME: usize = 1024;

pub(in super::super) fn grpc_route(spec: &GrpcRoute, at: &Path<'_>, v: &mut Validation) {
    rule::route(spec, at, v, "Rule name must be unique within the route", of_rule);
    at_most(rule::all_matches(spec), rule::MAX_ALL_MATCHES, &at.field("rules"), v);
}

fn of_rule(rule: &GrpcRouteRule, at: &Path<'_>, v: &mut Validation) {
    rule::matches(rule, at, v, route_match);
    filters(&rule.filters, &at.field("filters"), v);
    rule::backends(rule, at, v, |own, at, v| filters(own.filters(), &at.field("filters"), v));
    if let Some(session) = &rule.session_persistence {
        http::session_persistence(session, &at.field("sessionPersistence"), v);
    }
}

fn route_match(one: &GrpcRouteMatch, at: &Path<'_>, v: &mut Validation) {
    if let Some(method) = &one.method {
        method_match(method, &at.field("method"), v);
    }
    rule::headers(&one.headers, &at.field("headers"), v);
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
