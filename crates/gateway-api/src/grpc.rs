//! GRPCRoute: a route of HTTP whose paths are `/service/method`.

use crate::backend::{self, From};
use crate::error::{Problem, reason};
use crate::filter;
use crate::http::{mirrored, value};
use crate::reference::{GRPC_ROUTE, GroupKind};
use crate::route::{Context, Converted, HttpKind};
use meltemi_config::Str;
use meltemi_config::gateway_api::{
    GrpcMethodMatch, GrpcRoute as Api, GrpcRouteFilter, GrpcRouteFilterType, GrpcRouteMatch, GrpcRouteRule,
    ValueMatchType,
};
use meltemi_config::networking::{Headers, HttpMatchRequest, HttpRoute, StringMatch};

impl HttpKind for Api {
    const GROUP_KIND: GroupKind<'static> = GRPC_ROUTE;

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
                _ => modify(one, &mut out.headers)?,
            }
        }
        match backend::destinations(context, from, &rule.backend_refs, header_filters)? {
            Some((route, invalid)) => {
                out.route = route;
                Ok((out, invalid))
            }
            None => {
                out.direct_response = Some(backend::nobody());
                Ok((out, None))
            }
        }
    }
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

/// The filters of a backend, which can change headers and nothing else.
fn header_filters(filters: &[GrpcRouteFilter]) -> Result<Option<Headers>, Problem> {
    let mut headers = None;
    filters.iter().try_for_each(|one| modify(one, &mut headers))?;
    Ok(headers)
}

fn modify(one: &GrpcRouteFilter, headers: &mut Option<Headers>) -> Result<(), Problem> {
    use GrpcRouteFilterType as Type;
    match one.filter_type {
        Some(Type::RequestHeaderModifier | Type::ResponseHeaderModifier) => {}
        other => return Err(filter::unsupported(other.map_or("", |kind| kind.as_str()))),
    }
    filter::modify(headers, one.request_header_modifier.as_ref(), one.response_header_modifier.as_ref())
}
