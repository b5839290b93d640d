//! What a route does to the request head on its way to the host.

use std::sync::Arc;

use http::HeaderValue;
use meltemi_filters::{RequestFields, headers as rules};
use meltemi_http::{ByteStr, RequestHead, name};
use meltemi_plan::{
    HeaderKey, HeaderLookup, Route, VirtualHost,
    route::{Forward, HostRewrite, PathRewrite},
};

use meltemi_upstream::Endpoint;
use tokio::time::Instant;

use super::timers::Timers;
use crate::hcm::{self, Exchange};

/// Header rules, then host and path; done once, before the first attempt.
pub(super) fn finalize(exchange: &mut Exchange<'_>, host: &Arc<VirtualHost>, route: &Arc<Route>, forward: &Forward) {
    if let Some(routes) = &exchange.info.route_configuration {
        let weighted = exchange.info.weighted_cluster().map(|w| &w.request_headers);
        let mut levels =
            [weighted, Some(&route.request_headers), Some(&host.request_headers), Some(&routes.request_headers)];
        if routes.most_specific_header_mutations_wins {
            levels.reverse();
        }
        for level in levels.into_iter().flatten() {
            if !level.is_empty() {
                rules::apply_to_request(level, &mut exchange.request, &exchange.info);
            }
        }
    }
    rewrite_host(exchange, forward);
    rewrite_path(exchange, route, forward);
    if let Some(tracer) = &exchange.context.http.tracer {
        tracer.inject(&mut exchange.request, &exchange.info);
        tracer.tell_operation(&mut exchange.request.headers, &exchange.info);
    }
}

fn rewrite_host(exchange: &mut Exchange<'_>, forward: &Forward) {
    let request = &exchange.request;
    let literal = exchange.info.weighted_cluster().and_then(|w| w.host_rewrite.as_deref()).map(ByteStr::from);
    let rewritten = literal.or_else(|| match &forward.host_rewrite {
        HostRewrite::None | HostRewrite::Auto => None,
        HostRewrite::Literal(format) => Some(ByteStr::from(text(exchange, format))),
        HostRewrite::Header(key) => first_value(request, key),
        HostRewrite::PathRegex(rewrite) => Some(ByteStr::from(rewrite.apply_str(request.path_only()))),
    });
    if let Some(host) = rewritten.filter(|host| !host.is_empty()) {
        let say = says(exchange, forward);
        set_host(&mut exchange.request, host, say);
    }
}

/// Of a repeated header the first counts, where other uses join them.
fn first_value(request: &RequestHead, key: &HeaderKey) -> Option<ByteStr> {
    let HeaderKey::Name(name) = key else {
        return RequestFields(request).value(key).and_then(|v| std::str::from_utf8(&v).ok().map(ByteStr::from));
    };
    request.headers.get_str(name).map(ByteStr::from)
}

/// What a change of the authority leaves behind.
#[derive(Clone, Copy)]
struct Says {
    /// `x-envoy-original-host`.
    original: bool,
    /// The old host at the end of `x-forwarded-host`.
    forwarded: bool,
}

fn says(exchange: &Exchange<'_>, forward: &Forward) -> Says {
    Says { original: !exchange.context.http.suppress_envoy_headers(), forwarded: forward.append_x_forwarded_host }
}

/// Sets the authority, and says what it was even if that is the same, as Envoy does.
fn set_host(request: &mut RequestHead, host: ByteStr, says: Says) {
    if let Ok(old) = HeaderValue::from_maybe_shared(request.authority.to_bytes()) {
        let last = request.headers.get_str(&name::X_FORWARDED_HOST).and_then(|list| list.rsplit(',').next());
        if says.forwarded && last.map(str::trim) != Some(request.authority.as_str()) {
            request.headers.append(name::X_FORWARDED_HOST, old.clone());
        }
        if says.original {
            request.headers.insert(name::X_ENVOY_ORIGINAL_HOST, old);
        }
    }
    request.authority = host;
}

fn rewrite_path(exchange: &mut Exchange<'_>, route: &Route, forward: &Forward) {
    let request = &exchange.request;
    let parts = || request.path.split_at(request.path_only().len());
    let new = match &forward.path_rewrite {
        PathRewrite::None => return,
        PathRewrite::Prefix(prefix) => {
            let (only, query) = parts();
            let rest = &only[route.matcher.path.matched_len(only)..];
            format!("{prefix}{rest}{query}")
        }
        PathRewrite::Regex(rewrite) => {
            let (only, query) = parts();
            format!("{}{query}", rewrite.apply_str(only))
        }
        PathRewrite::Format(format) => format!("{}{}", text(exchange, format), parts().1),
    };
    set_path(exchange, new);
}

/// Sets the path, and says what it was.
pub(super) fn set_path(exchange: &mut Exchange<'_>, path: String) {
    let says = !exchange.context.http.suppress_envoy_headers();
    let request = &mut exchange.request;
    if let (true, Ok(original)) = (says, HeaderValue::from_maybe_shared(request.path.to_bytes())) {
        request.headers.insert(name::X_ENVOY_ORIGINAL_PATH, original);
    }
    request.path = ByteStr::from(path);
}

fn text(exchange: &Exchange<'_>, format: &meltemi_plan::Format) -> String {
    match format.as_literal() {
        Some(literal) => literal.to_owned(),
        None => hcm::text(format, &exchange.request, &exchange.info),
    }
}

/// `x-envoy-expected-rq-timeout-ms`, for each attempt anew.
pub(super) fn timeouts(exchange: &mut Exchange<'_>, timers: &Timers, now: Instant) {
    let expected = timers.expected(now);
    if let Some(expected) = expected.filter(|_| !exchange.context.http.suppress_envoy_headers()) {
        let ms = u64::try_from(expected.as_micros().div_ceil(1000)).unwrap_or(u64::MAX);
        exchange.request.headers.insert(name::X_ENVOY_EXPECTED_RQ_TIMEOUT_MS, HeaderValue::from(ms));
    }
}

/// `x-envoy-attempt-count`.
pub(super) fn attempt(exchange: &mut Exchange<'_>, host: &VirtualHost) {
    if host.include_request_attempt_count {
        let count = HeaderValue::from(exchange.info.upstream.attempts);
        exchange.request.headers.insert(name::X_ENVOY_ATTEMPT_COUNT, count);
    }
}

/// The host name of the chosen endpoint as the authority, where the route says `auto_host_rewrite`.
pub(super) fn auto_host(exchange: &mut Exchange<'_>, endpoint: &Endpoint) {
    let Some(route) = exchange.info.route.clone() else { return };
    let Some(forward) = route.forward() else { return };
    let auto = matches!(forward.host_rewrite, HostRewrite::Auto) && !endpoint.hostname.is_empty();
    // Another attempt at the same name must not pass that name off as the original.
    if auto && *exchange.request.authority != *endpoint.hostname {
        let says = says(exchange, forward);
        set_host(&mut exchange.request, ByteStr::from(&*endpoint.hostname), says);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Method;

    #[test]
    fn host_rewrite_by_header_takes_the_first_value() {
        let mut request = RequestHead::new(Method::GET, "a", "/");
        for value in ["one", "fixed"] {
            request.headers.append(name::X_FORWARDED_HOST, HeaderValue::from_static(value));
        }
        assert_eq!(first_value(&request, &HeaderKey::Name(name::X_FORWARDED_HOST)).as_deref(), Some("one"));
        assert_eq!(first_value(&request, &HeaderKey::Authority).as_deref(), Some("a"));
    }

    #[test]
    fn a_rewritten_host_leaves_the_original_even_if_it_is_the_same() {
        for host in ["a", "b"] {
            let mut request = RequestHead::new(Method::GET, "a", "/");
            set_host(&mut request, ByteStr::from(host), Says { original: true, forwarded: true });
            assert_eq!(request.authority.as_str(), host);
            assert_eq!(request.headers.get_str(&name::X_ENVOY_ORIGINAL_HOST), Some("a"));
            assert_eq!(request.headers.get_str(&name::X_FORWARDED_HOST), Some("a"));
        }
    }

    #[test]
    fn the_forwarded_host_is_not_repeated() {
        let mut request = RequestHead::new(Method::GET, "a", "/");
        request.headers.append(name::X_FORWARDED_HOST, HeaderValue::from_static("z, a"));
        set_host(&mut request, ByteStr::from("b"), Says { original: false, forwarded: true });
        assert_eq!(request.headers.iter().count(), 1);
    }
}
