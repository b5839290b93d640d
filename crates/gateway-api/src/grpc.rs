//! GRPCRoute: a route of HTTP whose paths are `/service/method`.

use crate::backend::{self, From, destination};
use crate::error::{Problem, reason};
use crate::filter;
use crate::http::{mirrored, rule_name, value};
use crate::reference::GRPC_ROUTE;
use crate::route::{Bindings, Context, Converted, Keyed, Route, Rules, http_services};
use meltemi_config::gateway_api::{
    GrpcBackendRef, GrpcMethodMatch, GrpcRoute as Api, GrpcRouteFilter, GrpcRouteFilterType, GrpcRouteMatch,
    GrpcRouteRule, ValueMatchType,
};
use meltemi_config::networking::{
    Headers, HttpDirectResponse, HttpMatchRequest, HttpRoute, HttpRouteDestination, StringMatch,
};
use meltemi_config::{Meta, Str};

/// The VirtualServices of every GRPCRoute.
pub fn routes(context: &Context<'_>) -> Vec<Keyed> {
    let of_one = |(meta, spec): (&Meta, &Api)| {
        let route = view(meta, spec);
        http_services(context, &route, &bindings(context, &route, spec))
    };
    context.catalogue.all::<Api>().flat_map(of_one).collect()
}

/// The route without its rules.
pub fn view<'a>(meta: &'a Meta, spec: &'a Api) -> Route<'a> {
    Route { kind: GRPC_ROUTE, meta, parents: &spec.parent_refs, hostnames: &spec.hostnames }
}

pub fn bindings<'a>(context: &'a Context<'_>, route: &Route<'a>, spec: &Api) -> Bindings<'a, HttpRoute> {
    Bindings::of(context, route, |mesh| rules(context, route.meta, spec, mesh))
}

fn rules(context: &Context<'_>, meta: &Meta, spec: &Api, mesh: bool) -> Rules<HttpRoute> {
    let from = From { kind: GRPC_ROUTE, namespace: &meta.namespace, grants: !mesh };
    let each = spec.rules.iter().enumerate().flat_map(|(position, rule)| {
        let all = rule.matches.iter().map(Some).collect::<Vec<_>>();
        let all = if all.is_empty() { vec![None] } else { all };
        let name = rule_name(rule.name.as_ref(), meta, position);
        all.into_iter().map(move |condition| (name.clone(), rule, condition))
    });
    each.map(|(name, rule, condition)| convert(context, from, rule, (name, condition))).collect()
}

fn convert(
    context: &Context<'_>,
    from: From<'_>,
    rule: &GrpcRouteRule,
    (name, condition): (Str, Option<&GrpcRouteMatch>),
) -> Converted<HttpRoute> {
    let matches = condition.map(match_request).transpose()?.into_iter().collect();
    let mut out = HttpRoute { name, matches, ..HttpRoute::default() };
    for one in &rule.filters {
        match (one.filter_type, &one.request_mirror) {
            (Some(GrpcRouteFilterType::RequestMirror), Some(mirror)) => {
                out.mirrors.push(mirrored(context, from, mirror)?);
            }
            _ => header_filter(one, &mut out.headers)?,
        }
    }
    let weight = |to: &GrpcBackendRef| to.weight.unwrap_or(1);
    if rule.backend_refs.iter().all(|to| weight(to) == 0) {
        out.direct_response = Some(HttpDirectResponse { status: 500, body: None });
        return Ok((out, None));
    }
    let mut invalid = None;
    for (to, weight) in backend::weighted(&rule.backend_refs, weight) {
        let (destination, problem) = destination(context, from, &to.backend())?;
        invalid = problem.or(invalid);
        let mut headers = None;
        for one in &to.filters {
            header_filter(one, &mut headers)?;
        }
        out.route.push(HttpRouteDestination { destination, weight, headers });
    }
    Ok((out, invalid))
}

fn match_request(condition: &GrpcRouteMatch) -> Result<HttpMatchRequest, Problem> {
    let headers = condition.headers.iter().map(|header| (header.name.clone(), value(header.match_type, &header.value)));
    Ok(HttpMatchRequest {
        uri: condition.method.as_ref().map(path).transpose()?,
        headers: headers.collect(),
        ..HttpMatchRequest::default()
    })
}

fn path(method: &GrpcMethodMatch) -> Result<StringMatch, Problem> {
    let exact = method.match_type == ValueMatchType::Exact;
    match (&method.service, &method.method) {
        (None, None) => {
            Err(Problem::new(reason::INVALID_CONFIGURATION, "gRPC match must have method or service defined"))
        }
        (Some(service), None) if exact => Ok(StringMatch::prefix(&format!("/{service}/"))),
        (Some(service), None) => Ok(StringMatch::regex(&format!("/{service}/.+"))),
        (None, Some(method)) => Ok(StringMatch::regex(&format!("/[^/]+/{method}"))),
        (Some(service), Some(method)) if exact => Ok(StringMatch::exact(&format!("/{service}/{method}"))),
        (Some(service), Some(method)) => Ok(StringMatch::regex(&format!("/{service}/{method}"))),
    }
}

fn header_filter(one: &GrpcRouteFilter, headers: &mut Option<Headers>) -> Result<(), Problem> {
    use GrpcRouteFilterType as Type;
    match one.filter_type {
        Some(Type::RequestHeaderModifier | Type::ResponseHeaderModifier) => {}
        other => return Err(filter::unsupported(other.map_or("", |kind| kind.as_str()))),
    }
    if let Some(modifier) = &one.request_header_modifier {
        headers.get_or_insert_default().request = Some(filter::headers(modifier)?);
    }
    if let Some(modifier) = &one.response_header_modifier {
        headers.get_or_insert_default().response = Some(filter::headers(modifier)?);
    }
    Ok(())
}
