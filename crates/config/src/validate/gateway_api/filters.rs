//! Filters of routes and of their backends.

use super::super::Validation;
use super::rule::MAX_VALUES;
use super::{at_most, backend, hostname};
use crate::gateway_api::{
    HttpCorsFilter, HttpHeader, HttpHeaderFilter, HttpPathModifier, HttpPathModifierType, HttpRequestMirrorFilter,
    HttpRequestRedirectFilter, HttpRouteFilter, HttpRouteFilterType, HttpRouteRule, PathMatchType,
};
use crate::names;
use crate::path::Path;
use crate::wire::Str;

const MAX_FILTERS: usize = 16;
const MAX_CORS_VALUES: usize = 64;

pub(super) fn list(filters: &[HttpRouteFilter], at: &Path<'_>, v: &mut Validation) {
    use HttpRouteFilterType as Type;
    at_most(filters.len(), MAX_FILTERS, at, v);
    for (i, one) in filters.iter().enumerate() {
        let at = at.index(i);
        filter(one, &at, v);
        let repeats = matches!(one.filter_type, Some(Type::RequestMirror | Type::ExtensionRef | Type::ExternalAuth));
        if let Some(kind) = one.filter_type.filter(|_| !repeats) {
            let again = filters[..i].iter().any(|other| other.filter_type == Some(kind));
            v.require(&at, !again, format_args!("{kind} filter cannot be repeated"));
        }
    }
    let has = |kind| filters.iter().any(|filter| filter.filter_type == Some(kind));
    let both = has(Type::RequestRedirect) && has(Type::UrlRewrite);
    v.require(at, !both, "either RequestRedirect or URLRewrite may be specified, but not both");
}

fn filter(filter: &HttpRouteFilter, at: &Path<'_>, v: &mut Validation) {
    use HttpRouteFilterType as Type;
    let Some(kind) = filter.filter_type else { return v.error(&at.field("type"), "required") };
    let fields = [
        ("requestHeaderModifier", Type::RequestHeaderModifier, filter.request_header_modifier.is_some()),
        ("responseHeaderModifier", Type::ResponseHeaderModifier, filter.response_header_modifier.is_some()),
        ("requestMirror", Type::RequestMirror, filter.request_mirror.is_some()),
        ("requestRedirect", Type::RequestRedirect, filter.request_redirect.is_some()),
        ("urlRewrite", Type::UrlRewrite, filter.url_rewrite.is_some()),
        ("cors", Type::Cors, filter.cors.is_some()),
        ("externalAuth", Type::ExternalAuth, filter.external_auth.is_some()),
        ("extensionRef", Type::ExtensionRef, filter.extension_ref.is_some()),
    ];
    for (field, of, set) in fields {
        let at = at.field(field);
        v.require(&at, set || of != kind, format_args!("must be specified for a filter of type {of}"));
        v.require(&at, !set || of == kind, format_args!("must not stand in a filter of type {kind}"));
    }
    for (field, headers) in [
        ("requestHeaderModifier", &filter.request_header_modifier),
        ("responseHeaderModifier", &filter.response_header_modifier),
    ] {
        if let Some(headers) = headers {
            header_filter(headers, &at.field(field), v);
        }
    }
    if let Some(mirror) = &filter.request_mirror {
        request_mirror(mirror, &at.field("requestMirror"), v);
    }
    if let Some(redirect) = &filter.request_redirect {
        request_redirect(redirect, &at.field("requestRedirect"), v);
    }
    if let Some(rewrite) = &filter.url_rewrite {
        let at = at.field("urlRewrite");
        path_modifier(rewrite.path.as_ref(), &at.field("path"), v);
        if let Some(host) = &rewrite.hostname {
            hostname(host, false, &at.field("hostname"), v);
        }
    }
    if let Some(policy) = &filter.cors {
        cors(policy, &at.field("cors"), v);
    }
}

pub(super) fn header_filter(filter: &HttpHeaderFilter, at: &Path<'_>, v: &mut Validation) {
    for (field, list) in [("set", &filter.set), ("add", &filter.add)] {
        let at = at.field(field);
        at_most(list.len(), MAX_VALUES, &at, v);
        for (i, HttpHeader { name, value }) in list.iter().enumerate() {
            let at = at.index(i);
            v.check(&at.field("name"), names::header_name(name));
            v.require(&at.field("value"), is_header_value(value), "not the value of a header");
        }
    }
    at_most(filter.remove.len(), MAX_VALUES, &at.field("remove"), v);
}

/// Visible characters with single blanks or tabs between them.
fn is_header_value(value: &str) -> bool {
    let visible = |byte: u8| (b'!'..=b'~').contains(&byte);
    let bytes = value.as_bytes();
    let ends = bytes.first().copied().is_some_and(visible) && bytes.last().copied().is_some_and(visible);
    ends && bytes.windows(2).all(|two| {
        let blank = |byte: u8| byte == b' ' || byte == b'\t';
        two.iter().all(|byte| visible(*byte) || blank(*byte)) && !two.iter().all(|byte| blank(*byte))
    })
}

pub(super) fn request_mirror(mirror: &HttpRequestMirrorFilter, at: &Path<'_>, v: &mut Validation) {
    backend(&mirror.backend_ref, false, &at.field("backendRef"), v);
    let both = mirror.percent.is_some() && mirror.fraction.is_some();
    v.require(at, !both, "Only one of percent or fraction may be specified in HTTPRequestMirrorFilter");
    let percent = mirror.percent.is_none_or(|percent| (0..=100).contains(&percent));
    v.require(&at.field("percent"), percent, "must be 0 to 100");
    if let Some(fraction) = &mirror.fraction {
        let denominator = fraction.denominator.unwrap_or(100);
        let fits = denominator >= 1 && (0..=denominator).contains(&fraction.numerator);
        v.require(&at.field("fraction"), fits, "numerator must be less than or equal to denominator");
    }
}

fn request_redirect(redirect: &HttpRequestRedirectFilter, at: &Path<'_>, v: &mut Validation) {
    if let Some(host) = &redirect.hostname {
        hostname(host, false, &at.field("hostname"), v);
    }
    if let Some(port) = redirect.port {
        v.check(&at.field("port"), names::port(port));
    }
    let known = redirect.status_code.is_none_or(|code| matches!(code, 301 | 302 | 303 | 307 | 308));
    v.require(&at.field("statusCode"), known, "must be 301, 302, 303, 307 or 308");
    path_modifier(redirect.path.as_ref(), &at.field("path"), v);
}

fn path_modifier(path: Option<&HttpPathModifier>, at: &Path<'_>, v: &mut Validation) {
    let Some(path) = path else { return };
    let Some(kind) = path.modifier_type else { return v.error(&at.field("type"), "required") };
    let fields = [
        ("replaceFullPath", HttpPathModifierType::ReplaceFullPath, path.replace_full_path.as_ref()),
        ("replacePrefixMatch", HttpPathModifierType::ReplacePrefixMatch, path.replace_prefix_match.as_ref()),
    ];
    for (field, of, value) in fields {
        let at = at.field(field);
        v.require(&at, value.is_some() || of != kind, format_args!("must be specified when type is set to '{of}'"));
        v.require(&at, value.is_none() || of == kind, format_args!("type must be '{of}' when {field} is set"));
        v.require(&at, value.is_none_or(|value| value.len() <= 1024), "a path has at most 1024 characters");
    }
}

fn cors(policy: &HttpCorsFilter, at: &Path<'_>, v: &mut Validation) {
    let lists = [
        ("allowOrigins", &policy.allow_origins),
        ("allowMethods", &policy.allow_methods),
        ("allowHeaders", &policy.allow_headers),
        ("exposeHeaders", &policy.expose_headers),
    ];
    for (field, list) in lists {
        let at = at.field(field);
        at_most(list.len(), MAX_CORS_VALUES, &at, v);
        let star = list.len() > 1 && list.iter().any(|entry| &**entry == "*") && field != "exposeHeaders";
        v.require(&at, !star, "'*' must stand alone");
        for (i, entry) in list.iter().enumerate() {
            cors_entry(field, entry, &at.index(i), v);
        }
    }
    v.require(&at.field("maxAge"), policy.max_age.is_none_or(|age| age >= 1), "must be at least 1");
}

fn cors_entry(field: &str, entry: &Str, at: &Path<'_>, v: &mut Validation) {
    const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];
    match field {
        "allowOrigins" => {
            v.require(at, is_origin(entry), "an origin is `*` or <scheme>://<host>, with a port or without")
        }
        "allowMethods" => v.require(at, METHODS.contains(&&**entry), format_args!("{entry:?} is not a method")),
        _ => v.check(at, names::header_name(entry)),
    }
}

fn is_origin(text: &str) -> bool {
    if text == "*" {
        return true;
    }
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else { return false };
    let (host, port) = rest.rsplit_once(':').map_or((rest, "1"), |(host, port)| (host, port));
    let port = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
    let name = host.strip_prefix("*.").unwrap_or(host);
    let label = |label: &str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    port && (host == "*" || name.split('.').all(label))
}

/// What filters of a rule, or of one of its backends, demand of the rule.
pub(super) fn with_rule(filters: &[HttpRouteFilter], rule: &HttpRouteRule, at: &Path<'_>, v: &mut Validation) {
    let redirects = filters.iter().any(|filter| filter.request_redirect.is_some());
    v.require(
        at,
        !redirects || rule.backend_refs.is_empty(),
        "RequestRedirect filter must not be used together with backendRefs",
    );
    let modifiers = filters.iter().flat_map(|filter| {
        let redirect = filter.request_redirect.as_ref().and_then(|redirect| redirect.path.as_ref());
        redirect.into_iter().chain(filter.url_rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref()))
    });
    let is_prefix = |path: &Option<crate::gateway_api::HttpPathMatch>| {
        path.as_ref().is_none_or(|path| path.match_type == PathMatchType::PathPrefix)
    };
    let one_prefix = matches!(rule.matches.as_slice(), [only] if is_prefix(&only.path));
    for modifier in modifiers.filter(|path| path.replace_prefix_match.is_some()) {
        let prefix = rule.matches.is_empty() || one_prefix;
        let needed = modifier.modifier_type == Some(HttpPathModifierType::ReplacePrefixMatch);
        v.require(at, prefix || !needed, "replacePrefixMatch needs exactly one match, of type PathPrefix");
    }
}
