//! HTTPRoute.

use crate::backend::{self, From, destination};
use crate::error::{Problem, joined};
use crate::filter;
use crate::reference::HTTP_ROUTE;
use crate::route::{Bindings, Context, Converted, Keyed, Route, Rules, http_services};
use meltemi_config::gateway_api::{
    HttpBackendRef, HttpPathMatch, HttpRequestMirrorFilter, HttpRoute as Api, HttpRouteFilter, HttpRouteFilterType,
    HttpRouteMatch, HttpRouteRetry, HttpRouteRule, PathMatchType, ValueMatchType,
};
use meltemi_config::networking::{
    Headers, HttpDirectResponse, HttpMatchRequest, HttpMirrorPolicy, HttpRetry, HttpRoute, HttpRouteDestination,
    StringMatch,
};
use meltemi_config::{Meta, Str};

/// Failures before the upstream can have acted, which a `retry` always covers.
const RETRY_ON: [&str; 4] = ["connect-failure", "refused-stream", "unavailable", "cancelled"];
/// What Istio retries by default.
const DEFAULT_ATTEMPTS: i32 = 2;

/// The VirtualServices of every HTTPRoute.
pub fn routes(context: &Context<'_>) -> Vec<Keyed> {
    let of_one = |(meta, spec): (&Meta, &Api)| {
        let route = view(meta, spec);
        http_services(context, &route, &bindings(context, &route, spec))
    };
    context.catalogue.all::<Api>().flat_map(of_one).collect()
}

/// The route without its rules.
pub fn view<'a>(meta: &'a Meta, spec: &'a Api) -> Route<'a> {
    Route { kind: HTTP_ROUTE, meta, parents: &spec.parent_refs, hostnames: &spec.hostnames }
}

pub fn bindings<'a>(context: &'a Context<'_>, route: &Route<'a>, spec: &Api) -> Bindings<'a, HttpRoute> {
    Bindings::of(context, route, |mesh| rules(context, route.meta, spec, mesh))
}

/// One rule for each match, as precedence goes by matches.
fn rules(context: &Context<'_>, meta: &Meta, spec: &Api, mesh: bool) -> Rules<HttpRoute> {
    let from = From { kind: HTTP_ROUTE, namespace: &meta.namespace, grants: !mesh };
    let each = spec.rules.iter().enumerate().flat_map(|(position, rule)| {
        let all = rule.matches.iter().map(Some).collect::<Vec<_>>();
        let all = if all.is_empty() { vec![None] } else { all };
        let name = rule_name(rule.name.as_ref(), meta, position);
        all.into_iter().map(move |condition| (name.clone(), rule, condition))
    });
    each.map(|(name, rule, condition)| convert(context, from, rule, (name, condition))).collect()
}

/// A rule's own name, or one that says where it stands.
pub fn rule_name(own: Option<&Str>, meta: &Meta, position: usize) -> Str {
    own.cloned().unwrap_or_else(|| format!("{}.{}.{position}", meta.namespace, meta.name).into())
}

fn convert(
    context: &Context<'_>,
    from: From<'_>,
    rule: &HttpRouteRule,
    (name, condition): (Str, Option<&HttpRouteMatch>),
) -> Converted<HttpRoute> {
    let matches = condition.map(match_request).into_iter().collect();
    let mut out = HttpRoute { name, matches, ..HttpRoute::default() };
    let unmirrored = filters(context, from, &rule.filters, &mut out)?;
    out.retries = rule.retry.as_ref().map(retries);
    if let Some(timeouts) = &rule.timeouts {
        out.timeout = timeouts.request.filter(|limit| !limit.is_zero());
        let attempt = timeouts.backend_request.filter(|limit| !limit.is_zero());
        match (&mut out.retries, attempt) {
            (Some(retries), Some(attempt)) => retries.per_try_timeout = Some(attempt),
            (None, Some(attempt)) => out.timeout = Some(attempt),
            (_, None) => {}
        }
    }
    let weight = |to: &HttpBackendRef| to.weight.unwrap_or(1);
    let nobody = rule.backend_refs.iter().map(weight).all(|weight| weight == 0);
    if nobody && out.redirect.is_none() {
        out.direct_response = Some(HttpDirectResponse { status: 500, body: None });
        return Ok((out, unmirrored));
    }
    let mut invalid = None;
    for (to, weight) in backend::weighted(&rule.backend_refs, weight) {
        let (destination, problem) = destination(context, from, &to.backend())?;
        invalid = problem.or(invalid);
        out.route.push(HttpRouteDestination { destination, weight, headers: header_filters(&to.filters)? });
    }
    Ok((out, joined(invalid, unmirrored)))
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
            Some(Type::RequestHeaderModifier | Type::ResponseHeaderModifier) => header_filter(one, &mut out.headers)?,
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

fn header_filter(one: &HttpRouteFilter, headers: &mut Option<Headers>) -> Result<(), Problem> {
    if let Some(modifier) = &one.request_header_modifier {
        headers.get_or_insert_default().request = Some(filter::headers(modifier)?);
    }
    if let Some(modifier) = &one.response_header_modifier {
        headers.get_or_insert_default().response = Some(filter::headers(modifier)?);
    }
    Ok(())
}

/// The filters of a backend, which can change headers and nothing else.
fn header_filters(filters: &[HttpRouteFilter]) -> Result<Option<Headers>, Problem> {
    use HttpRouteFilterType as Type;
    let mut headers = None;
    for one in filters {
        match one.filter_type {
            Some(Type::RequestHeaderModifier | Type::ResponseHeaderModifier) => header_filter(one, &mut headers)?,
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
