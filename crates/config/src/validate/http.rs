//! The actions and matches of one HTTP route.

use super::Validation;
use super::common::{duration, fine_percent, labels, percent, regex};
use super::virtual_service::{Scope, destination, gateway_names, header_rules};
use crate::names;
use crate::networking::{
    CorsPolicy, FaultAbort, FaultDelay, HttpDirectResponse, HttpFaultInjection, HttpMatchRequest, HttpRedirect,
    HttpRetry, HttpRewrite, HttpRoute, StringMatch, StringMatchType,
};
use crate::path::Path;

/// Envoy's limit for the body of a direct response, and the size from which it is a burden.
const MAX_BODY: usize = 1 << 20;
const LARGE_BODY: usize = 100 << 10;

/// The match of one HTTP route.
pub(super) fn http_match(m: &HttpMatchRequest, scope: &Scope, at: &Path<'_>, v: &mut Validation) {
    for (field, value) in [("uri", &m.uri), ("scheme", &m.scheme), ("method", &m.method), ("authority", &m.authority)] {
        // Every path begins with an empty prefix.
        let any = field == "uri" && value.as_ref().is_some_and(|m| *m == every_path());
        if let Some(value) = value.as_ref().filter(|_| !any) {
            string_match(value, &at.field(field), v);
        }
    }
    for (field, map) in [("headers", &m.headers), ("withoutHeaders", &m.without_headers)] {
        let at = at.field(field);
        for (name, value) in map {
            let at = at.field(name);
            v.check(&at, names::match_header_name(name));
            if names::is_jwt_claim(name) && !scope.only_gateways {
                v.error(&at, "JWT claim based routing is only supported for gateways, not for the mesh");
            }
            // Envoy's own way to say that a header must be absent.
            let any = field == "withoutHeaders" && value.regex.as_deref() == Some("*");
            if !any {
                string_match(value, &at, v);
            }
        }
    }
    let query = at.field("queryParams");
    for (name, value) in &m.query_params {
        string_match(value, &query.field(name), v);
    }
    if m.port != 0 {
        v.check(&at.field("port"), names::port(m.port));
    }
    labels(&m.source_labels, &at.field("sourceLabels"), v);
    if !m.source_namespace.is_empty() {
        v.check(&at.field("sourceNamespace"), names::dns_label(&m.source_namespace));
    }
    gateway_names(&m.gateways, at, v);
}

fn every_path() -> StringMatch {
    StringMatch { prefix: Some("".into()), ..StringMatch::default() }
}

/// `exact`, `prefix` and `regex`: one at most, the last two not empty.
pub(super) fn string_match(m: &StringMatch, at: &Path<'_>, v: &mut Validation) {
    let set = [&m.exact, &m.prefix, &m.regex].iter().filter(|f| f.is_some()).count();
    if set > 1 {
        v.error(at, "only one of exact, prefix and regex can be set");
    }
    match m.kind() {
        StringMatchType::Prefix(text) if text.is_empty() => v.error(at, "prefix string match should not be empty"),
        StringMatchType::Regex(text) if text.is_empty() => v.error(at, "regex string match should not be empty"),
        StringMatchType::Regex(text) => regex(text, &at.field("regex"), v),
        _ => {}
    }
}

/// Everything a route does, apart from where it sends.
pub(super) fn actions(route: &HttpRoute, at: &Path<'_>, v: &mut Validation) {
    duration(route.timeout, &at.field("timeout"), v);
    if let Some(retry) = &route.retries {
        http_retry(retry, &at.field("retries"), v);
    }
    if let Some(rewrite) = &route.rewrite {
        http_rewrite(rewrite, &at.field("rewrite"), v);
    }
    if let Some(redirect) = &route.redirect {
        http_redirect(redirect, &at.field("redirect"), v);
    }
    if let Some(response) = &route.direct_response {
        direct_response(response, &at.field("directResponse"), v);
    }
    if let Some(fault) = &route.fault {
        fault_injection(fault, &at.field("fault"), v);
    }
    if let Some(cors) = &route.cors_policy {
        cors_policy(cors, &at.field("corsPolicy"), v);
    }
    if let Some(headers) = &route.headers {
        header_rules(headers, &at.field("headers"), v);
    }
    mirrors(route, at, v);
}

fn mirrors(route: &HttpRoute, at: &Path<'_>, v: &mut Validation) {
    if let Some(mirror) = &route.mirror {
        destination(mirror, &at.field("mirror"), v);
        v.require(at, route.mirrors.is_empty(), "HTTP route cannot contain both mirror and mirrors");
    }
    if let Some(value) = route.mirror_percent {
        v.require(&at.field("mirrorPercent"), value <= 100, "mirrorPercent must be at most 100");
        v.warn(&at.field("mirrorPercent"), "deprecated; use mirrorPercentage");
    }
    if let Some(value) = &route.mirror_percentage {
        percent(value.value.value(), &at.field("mirrorPercentage"), v);
    }
    let at = at.field("mirrors");
    for (i, mirror) in route.mirrors.iter().enumerate() {
        let at = at.index(i);
        match &mirror.destination {
            Some(to) => destination(to, &at.field("destination"), v),
            None => v.error(&at, "destination is required"),
        }
        if let Some(value) = &mirror.percentage {
            percent(value.value.value(), &at.field("percentage"), v);
        }
    }
}

fn http_redirect(redirect: &HttpRedirect, at: &Path<'_>, v: &mut Validation) {
    let nothing = redirect.uri.is_empty()
        && redirect.authority.is_empty()
        && redirect.port.is_none()
        && redirect.derive_port.is_none()
        && redirect.scheme.is_empty()
        && redirect.prefix_rewrite.is_empty();
    v.require(at, !nothing, "redirect must specify uri, authority, scheme, port or prefixRewrite");
    v.require(
        at,
        redirect.uri.is_empty() || redirect.prefix_rewrite.is_empty(),
        "uri and prefixRewrite cannot both be set",
    );
    v.require(at, redirect.port.is_none() || redirect.derive_port.is_none(), "port and derivePort cannot both be set");
    if let Some(port) = redirect.port.filter(|p| *p != 0) {
        v.check(&at.field("port"), names::port(port));
    }
    let code = redirect.redirect_code;
    v.require(
        &at.field("redirectCode"),
        code == 0 || (300..=399).contains(&code),
        format_args!("{code} is not a redirect (3xx)"),
    );
    let scheme = matches!(&*redirect.scheme, "" | "http" | "https");
    v.require(&at.field("scheme"), scheme, "scheme must be http or https");
}

fn direct_response(response: &HttpDirectResponse, at: &Path<'_>, v: &mut Validation) {
    http_status(response.status.into(), &at.field("status"), v);
    let Some(body) = &response.body else { return };
    let at = at.field("body");
    v.require(&at, body.string.is_none() || body.bytes.is_none(), "only one of string and bytes can be set");
    let size = body.string.as_ref().map_or(0, |s| s.len()).max(body.bytes.as_ref().map_or(0, |b| b.0.len()));
    if size > MAX_BODY {
        v.error(&at, format_args!("body of {size} bytes is larger than 1MB"));
    } else if size > LARGE_BODY {
        v.warn(
            &at,
            format_args!("a body of {size} bytes is held by every proxy and may slow down configuration updates"),
        );
    }
}

fn http_status(status: i64, at: &Path<'_>, v: &mut Validation) {
    v.require(at, (200..=600).contains(&status), format_args!("HTTP status {status} is not in range 200..599"));
}

fn fault_injection(fault: &HttpFaultInjection, at: &Path<'_>, v: &mut Validation) {
    if fault.delay.is_none() && fault.abort.is_none() {
        v.error(at, "HTTP fault injection must have an abort and/or a delay");
    }
    if let Some(delay) = &fault.delay {
        fault_delay(delay, &at.field("delay"), v);
    }
    if let Some(abort) = &fault.abort {
        fault_abort(abort, &at.field("abort"), v);
    }
}

fn fault_delay(delay: &FaultDelay, at: &Path<'_>, v: &mut Validation) {
    if let Some(value) = &delay.percentage {
        fine_percent(value.value.value(), &at.field("percentage"), v);
    }
    if delay.percent != 0 {
        percent(delay.percent.into(), &at.field("percent"), v);
        v.warn(&at.field("percent"), "deprecated; use percentage");
    }
    duration(delay.fixed_delay, &at.field("fixedDelay"), v);
    if delay.exponential_delay.is_some() {
        v.error(&at.field("exponentialDelay"), "exponentialDelay not supported yet");
    }
}

fn fault_abort(abort: &FaultAbort, at: &Path<'_>, v: &mut Validation) {
    let set = [abort.http_status.is_some(), abort.grpc_status.is_some(), abort.http2_error.is_some()];
    v.require(at, set.iter().filter(|s| **s).count() <= 1, "only one of httpStatus and grpcStatus can be set");
    if !set.contains(&true) {
        v.warn(at, "abort configured, but error type not set");
    }
    if let Some(value) = &abort.percentage {
        fine_percent(value.value.value(), &at.field("percentage"), v);
    }
    if let Some(status) = abort.http_status {
        http_status(status.into(), &at.field("httpStatus"), v);
    }
    if let Some(status) = &abort.grpc_status {
        v.require(
            &at.field("grpcStatus"),
            is_grpc_status(status),
            format_args!("gRPC status {status:?} is not supported"),
        );
    }
    if abort.http2_error.is_some() {
        v.error(&at.field("http2Error"), "HTTP/2 abort fault injection not supported yet");
    }
}

/// The names of gRPC's status codes, in the order of their numbers.
pub const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

fn is_grpc_status(text: &str) -> bool {
    GRPC_STATUSES.contains(&text)
}

const RETRY_CONDITIONS: [&str; 16] = [
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

/// A retry policy of a route or of the mesh.
pub(super) fn http_retry(retry: &HttpRetry, at: &Path<'_>, v: &mut Validation) {
    v.require(&at.field("attempts"), retry.attempts >= 0, "attempts cannot be negative");
    let configured =
        retry.per_try_timeout.is_some() || !retry.retry_on.is_empty() || retry.retry_remote_localities.is_some();
    if retry.attempts == 0 && configured {
        v.error(at, "http retry policy configured when attempts are set to 0 (disabled)");
    }
    duration(retry.per_try_timeout, &at.field("perTryTimeout"), v);
    duration(retry.backoff, &at.field("backoff"), v);
    retry_on(&retry.retry_on, &at.field("retryOn"), v);
}

pub(super) fn retry_on(list: &str, at: &Path<'_>, v: &mut Validation) {
    for condition in list.split(',').filter(|_| !list.is_empty()) {
        let status = condition.parse::<u16>().ok().and_then(|s| http::StatusCode::from_u16(s).ok());
        let known = RETRY_CONDITIONS.contains(&condition) || status.is_some_and(|s| s.canonical_reason().is_some());
        v.require(at, known, format_args!("{condition:?} is not a valid retryOn policy"));
    }
}

fn http_rewrite(rewrite: &HttpRewrite, at: &Path<'_>, v: &mut Validation) {
    let regex_rewrite = rewrite.uri_regex_rewrite.as_ref();
    if rewrite.uri.is_empty() && rewrite.authority.is_empty() && regex_rewrite.is_none() {
        v.error(at, "rewrite must specify uri, uriRegexRewrite or authority");
    }
    let Some(rule) = regex_rewrite else { return };
    v.require(at, rewrite.uri.is_empty(), "rewrite cannot contain both uri and uriRegexRewrite");
    let at = at.field("uriRegexRewrite");
    v.require(&at, !rule.pattern.is_empty() && !rule.rewrite.is_empty(), "requires both match and rewrite");
    regex(&rule.pattern, &at.field("match"), v);
}

fn cors_policy(cors: &CorsPolicy, at: &Path<'_>, v: &mut Validation) {
    if !cors.allow_origin.is_empty() {
        v.warn(&at.field("allowOrigin"), "deprecated; use allowOrigins");
    }
    let origins = at.field("allowOrigins");
    for (i, origin) in cors.allow_origins.iter().enumerate() {
        let at = origins.index(i);
        string_match(origin, &at, v);
        let nothing = matches!(origin.kind(), StringMatchType::Present) || origin.exact.as_deref() == Some("");
        v.require(&at, !nothing, "an origin to allow must be given");
    }
    let methods = at.field("allowMethods");
    for (i, method) in cors.allow_methods.iter().enumerate() {
        let known =
            ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "CONNECT", "OPTIONS", "TRACE", "*"].contains(&&**method);
        v.require(&methods.index(i), known, format_args!("{method:?} is not a supported HTTP method"));
    }
    for (field, list) in [("allowHeaders", &cors.allow_headers), ("exposeHeaders", &cors.expose_headers)] {
        let at = at.field(field);
        for (i, name) in list.iter().enumerate() {
            v.check(&at.index(i), names::header_name(name));
        }
    }
    let at = at.field("maxAge");
    duration(cors.max_age, &at, v);
    let whole = cors.max_age.is_none_or(|d| d.subsec_nanos() == 0);
    v.require(&at, whole, "maxAge is accurate only to seconds precision");
}
