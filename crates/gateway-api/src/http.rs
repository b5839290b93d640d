//! HTTPRoute.

use crate::backend::{self, From, destination};
use crate::error::{Problem, joined};
use crate::filter;
use crate::reference::{GroupKind, HTTP_ROUTE};
use crate::route::{Context, Converted, HttpKind};
use meltemi_config::Str;
use meltemi_config::gateway_api::{
    HttpPathMatch, HttpRequestMirrorFilter, HttpRoute as Api, HttpRouteFilter, HttpRouteFilterType, HttpRouteMatch,
    HttpRouteRetry, HttpRouteRule, PathMatchType, ValueMatchType,
};
use meltemi_config::networking::{Headers, HttpMatchRequest, HttpMirrorPolicy, HttpRetry, HttpRoute, StringMatch};

/// Failures before the upstream can have acted, which a `retry` always covers.
const RETRY_ON: [&str; 4] = ["connect-failure", "refused-stream", "unavailable", "cancelled"];
/// What Istio retries by default.
const DEFAULT_ATTEMPTS: i32 = 2;

impl HttpKind for Api {
    const GROUP_KIND: GroupKind<'static> = HTTP_ROUTE;

    fn convert(
        context: &Context<'_>,
        from: From<'_>,
        rule: &HttpRouteRule,
        (name, condition): (Str, Option<&HttpRouteMatch>),
    ) -> Converted<HttpRoute> {
        let matches = condition.map(match_request).into_iter().collect();
        let mut out = HttpRoute { name, matches, ..HttpRoute::default() };
        let unmirrored = filters(context, from, &rule.filters, &mut out)?;
        limits(rule, &mut out);
        match backend::destinations(context, from, &rule.backend_refs, header_filters)? {
            Some((route, invalid)) => {
                out.route = route;
                return Ok((out, joined(invalid, unmirrored)));
            }
            None if out.redirect.is_none() => out.direct_response = Some(backend::nobody()),
            None => {}
        }
        Ok((out, unmirrored))
    }
}

fn limits(rule: &HttpRouteRule, out: &mut HttpRoute) {
    out.retries = rule.retry.as_ref().map(retries);
    let Some(timeouts) = &rule.timeouts else { return };
    out.timeout = timeouts.request.filter(|limit| !limit.is_zero());
    let attempt = timeouts.backend_request.filter(|limit| !limit.is_zero());
    match (&mut out.retries, attempt) {
        (Some(retries), Some(attempt)) => retries.per_try_timeout = Some(attempt),
        (None, Some(attempt)) => out.timeout = Some(attempt),
        (_, None) => {}
    }
}

fn match_request(condition: &HttpRouteMatch) -> HttpMatchRequest {
    let headers = condition.headers.iter().map(|header| (header.name.clone(), value(header.match_type, &header.value)));
    let query = condition.query_params.iter().map(|own| (own.name.clone(), value(own.match_type, &own.value)));
    HttpMatchRequest {
        uri: Some(path(condition.path.as_ref())),
        headers: headers.collect(),
        query_params: query.collect(),
        method: condition.method.map(|method| StringMatch::exact(method.as_str())),
        ..HttpMatchRequest::default()
    }
}

fn path(path: Option<&HttpPathMatch>) -> StringMatch {
    let text = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    match path.map_or(PathMatchType::PathPrefix, |path| path.match_type) {
        // A slash at the end of a prefix means nothing.
        PathMatchType::PathPrefix if text != "/" => StringMatch::prefix(text.strip_suffix('/').unwrap_or(text)),
        PathMatchType::PathPrefix => StringMatch::prefix(text),
        PathMatchType::Exact => StringMatch::exact(text),
        PathMatchType::RegularExpression => StringMatch::regex(text),
    }
}

pub fn value(kind: ValueMatchType, text: &str) -> StringMatch {
    match kind {
        ValueMatchType::Exact => StringMatch::exact(text),
        ValueMatchType::RegularExpression => StringMatch::regex(text),
    }
}

/// Applies the filters; what is wrong with a mirror leaves that out and nothing else.
fn filters(
    context: &Context<'_>,
    from: From<'_>,
    filters: &[HttpRouteFilter],
    out: &mut HttpRoute,
) -> Result<Option<Problem>, Problem> {
    use HttpRouteFilterType as Type;
    let mut unmirrored = None;
    for one in filters {
        match one.filter_type {
            Some(Type::RequestHeaderModifier | Type::ResponseHeaderModifier) => modify(one, &mut out.headers)?,
            Some(Type::RequestRedirect) => out.redirect = one.request_redirect.as_ref().map(filter::redirect),
            Some(Type::UrlRewrite) => out.rewrite = one.url_rewrite.as_ref().and_then(filter::rewrite),
            Some(Type::Cors) => out.cors_policy = one.cors.as_ref().map(filter::cors),
            Some(Type::RequestMirror) => {
                match one.request_mirror.as_ref().map(|mirror| mirrored(context, from, mirror)) {
                    Some(Ok(policy)) => out.mirrors.push(policy),
                    Some(Err(problem)) => unmirrored = Some(problem),
                    None => {}
                }
            }
            Some(kind @ (Type::ExternalAuth | Type::ExtensionRef)) => return Err(filter::unsupported(kind.as_str())),
            None => return Err(filter::unsupported("")),
        }
    }
    Ok(unmirrored)
}

pub fn mirrored(
    context: &Context<'_>,
    from: From<'_>,
    mirror: &HttpRequestMirrorFilter,
) -> Result<HttpMirrorPolicy, Problem> {
    match destination(context, from, &mirror.backend_ref)? {
        (destination, None) => Ok(HttpMirrorPolicy {
            destination: Some(destination),
            percentage: filter::mirrored(mirror.percent, mirror.fraction.as_ref()),
        }),
        (_, Some(problem)) => Err(problem),
    }
}

fn modify(one: &HttpRouteFilter, headers: &mut Option<Headers>) -> Result<(), Problem> {
    filter::modify(headers, one.request_header_modifier.as_ref(), one.response_header_modifier.as_ref())
}

/// The filters of a backend, which can change headers and nothing else.
fn header_filters(filters: &[HttpRouteFilter]) -> Result<Option<Headers>, Problem> {
    use HttpRouteFilterType as Type;
    let mut headers = None;
    for one in filters {
        match one.filter_type {
            Some(Type::RequestHeaderModifier | Type::ResponseHeaderModifier) => modify(one, &mut headers)?,
            other => return Err(filter::unsupported(other.map_or("", |kind| kind.as_str()))),
        }
    }
    Ok(headers)
}

fn retries(retry: &HttpRouteRetry) -> HttpRetry {
    let attempts = retry.attempts.unwrap_or(DEFAULT_ATTEMPTS);
    let codes = retry.codes.iter().map(ToString::to_string);
    let retry_on: Vec<String> = RETRY_ON.into_iter().map(str::to_owned).chain(codes).collect();
    HttpRetry {
        attempts,
        retry_on: if attempts == 0 { "".into() } else { retry_on.join(",").into() },
        backoff: retry.backoff,
        ..HttpRetry::default()
    }
}
