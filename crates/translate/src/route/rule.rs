//! The rules of a VirtualService as routes.

use std::collections::BTreeMap;

use meltemi_config::networking::{
    Headers, HttpDirectResponse, HttpMatchRequest, HttpRedirect, HttpRoute, HttpRouteDestination, RedirectPort,
};
use meltemi_model::{PersistentSession, Resilience, semantics};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::core::v3::{DataSource, RuntimeFractionalPercent, data_source};
use meltemi_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use meltemi_proto::envoy::config::route::v3::route_action::{
    ClusterNotFoundResponseCode, ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy,
};
use meltemi_proto::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use meltemi_proto::envoy::config::route::v3::{
    Decorator, DirectResponseAction, RedirectAction, Route, RouteAction, RouteMatch, WeightedCluster, route,
    route_match,
};
use meltemi_proto::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSessionPerRoute, stateful_session_per_route,
};
use meltemi_proto::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;

use super::spec::{Destination, Policy, RuleRoutes, Selected};
use super::{filters, headers, matching, render, retry};
use crate::listener::tcp;
use crate::names;
use crate::wire;

/// Each with what policies turn on, which is for [`super::resilience`] to apply.
pub fn routes<'a>(rule: &'a RuleRoutes, policy: &'a Policy) -> impl Iterator<Item = (Route, &'a Resilience)> + use<'a> {
    rule.selected.iter().filter_map(|selected| Some((one(rule, selected, policy)?, &*selected.resilience)))
}

fn one(rule: &RuleRoutes, selected: &Selected, policy: &Policy) -> Option<Route> {
    let http = rule.rule.spec.http.get(selected.http)?;
    let matches = selected.matches.and_then(|index| http.matches.get(index));
    let mut out = Route {
        name: route_name(http, matches),
        r#match: Some(matching::route_match(matches, semantics::has_whole_segments(&rule.rule))),
        metadata: Some(wire::origin_metadata(&tcp::origin(&rule.rule))),
        stat_prefix: matches.map(|m| m.stat_prefix.to_string()).unwrap_or_default(),
        typed_per_filter_config: per_filter(http, selected),
        ..Route::default()
    };
    let authority = apply_headers(&mut out, http.headers.as_ref());
    out.action = if let Some(redirect) = &http.redirect {
        redirect_action(redirect, rule).map(route::Action::Redirect)
    } else if let Some(response) = &http.direct_response {
        Some(route::Action::DirectResponse(direct_response(response)))
    } else {
        let mut action = forward(http, selected, policy, &mut out, authority);
        if semantics::is_route(&rule.rule) {
            as_gateway_api(&mut action, &out);
        }
        Some(route::Action::Route(action))
    };
    if rule.advertises_http3 {
        // RFC 7838, for a day, as istiod says it.
        out.response_headers_to_add.push(headers::appended("alt-svc", format!("h3=\":{}\"; ma=86400", rule.port)));
    }
    out.decorator = Some(Decorator { operation: operation(&out, rule), propagate: None });
    out.action.is_some().then_some(out)
}

fn route_name(http: &HttpRoute, matches: Option<&HttpMatchRequest>) -> String {
    match matches {
        Some(matches) if !matches.name.is_empty() => format!("{}.{}", http.name, matches.name),
        _ => http.name.to_string(),
    }
}

fn apply_headers(route: &mut Route, headers: Option<&Headers>) -> Option<String> {
    let operations = headers::operations(headers);
    route.request_headers_to_add.extend(operations.request_add);
    route.request_headers_to_remove.extend(operations.request_remove);
    route.response_headers_to_add.extend(operations.response_add);
    route.response_headers_to_remove.extend(operations.response_remove);
    operations.authority
}

/// The filter's name and its override for one service's sessions.
pub fn session(session: &PersistentSession) -> (String, Any) {
    let own = crate::listener::stateful_session_of(session);
    let own = StatefulSessionPerRoute { r#override: Some(stateful_session_per_route::Override::StatefulSession(own)) };
    (crate::listener::SESSION_FILTER.to_owned(), Any::pack(&own))
}

fn per_filter(http: &HttpRoute, selected: &Selected) -> BTreeMap<String, Any> {
    let fault = http.fault.as_ref().and_then(filters::fault).map(|fault| Any::pack(&fault));
    let cors = http.cors_policy.as_ref().map(|cors| Any::pack(&filters::cors(cors)));
    let named = [(crate::listener::FAULT_FILTER, fault), (crate::listener::CORS_FILTER, cors)];
    let named = named.into_iter().filter_map(|(name, config)| config.map(|config| (name.to_owned(), config)));
    named.chain(selected.session.as_ref().map(session)).collect()
}

fn forward(
    http: &HttpRoute,
    selected: &Selected,
    policy: &Policy,
    route: &mut Route,
    authority: Option<String>,
) -> RouteAction {
    let mut action = RouteAction::default();
    render::set_timeout(&mut action, http.timeout, policy.proxyless);
    rewrite(&mut action, http, policy);
    let authority =
        http.rewrite.as_ref().filter(|r| !r.authority.is_empty()).map(|r| r.authority.to_string()).or(authority);
    action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    action.request_mirror_policies = mirrors(http, &selected.mirrors);
    let paired: Vec<_> = http.route.iter().zip(selected.destinations.iter()).collect();
    let mut consistent_hash = false;
    match paired.as_slice() {
        [(entry, destination)] => {
            consistent_hash = destination.hash.is_some();
            single(&mut action, route, entry, destination);
        }
        _ => weighted(&mut action, &paired),
    }
    let retries = http.retries.as_ref().or(policy.default_retry.as_ref());
    action.retry_policy = retry::outbound(retries, consistent_hash);
    action
}

/// A backend that is not there is 500 in the Gateway API, and `/` in the place of a prefix takes the prefix away without
/// leaving two slashes.
fn as_gateway_api(action: &mut RouteAction, route: &Route) {
    action.cluster_not_found_response_code = ClusterNotFoundResponseCode::InternalServerError as i32;
    if action.prefix_rewrite != "/" {
        return;
    }
    let prefix = match route.r#match.as_ref().and_then(path_specifier) {
        Some(route_match::PathSpecifier::PathSeparatedPrefix(prefix)) => meltemi_matchers::quoted(prefix),
        _ => String::new(),
    };
    action.prefix_rewrite.clear();
    action.regex_rewrite = Some(RegexMatchAndSubstitute {
        pattern: Some(wire::regex(&format!("^{prefix}(/?)(.*)"))),
        substitution: r"/\2".into(),
    });
}

fn rewrite(action: &mut RouteAction, http: &HttpRoute, policy: &Policy) {
    let Some(rewrite) = &http.rewrite else { return };
    action.append_x_forwarded_host = policy.x_forwarded_host;
    if let Some(regex) = &rewrite.uri_regex_rewrite {
        action.regex_rewrite = Some(RegexMatchAndSubstitute {
            pattern: Some(wire::regex(&regex.pattern)),
            substitution: regex.rewrite.to_string(),
        });
    } else {
        action.prefix_rewrite = rewrite.uri.to_string();
    }
}

fn mirrors(http: &HttpRoute, clusters: &[String]) -> Vec<RequestMirrorPolicy> {
    let mut percentages = Vec::new();
    if http.mirror.is_some() {
        percentages.push(match (&http.mirror_percentage, http.mirror_percent) {
            (Some(percent), _) => filters::percent(percent),
            (None, Some(percent)) => filters::whole_percent(percent),
            (None, None) => filters::whole_percent(100),
        });
    }
    let listed = http.mirrors.iter().filter(|mirror| mirror.destination.is_some());
    percentages.extend(listed.map(|mirror| match &mirror.percentage {
        Some(percent) => filters::percent(percent),
        None => filters::whole_percent(100),
    }));
    let mirrored = clusters.iter().zip(percentages).filter(|(_, percentage)| percentage.numerator > 0);
    let policy = |(cluster, percentage): (&String, _)| RequestMirrorPolicy {
        cluster: cluster.clone(),
        runtime_fraction: Some(RuntimeFractionalPercent {
            default_value: Some(percentage),
            ..RuntimeFractionalPercent::default()
        }),
        trace_sampled: Some(false),
        disable_shadow_host_suffix_append: true,
        ..RequestMirrorPolicy::default()
    };
    mirrored.map(policy).collect()
}

fn single(action: &mut RouteAction, route: &mut Route, entry: &HttpRouteDestination, destination: &Destination) {
    action.cluster_specifier = Some(ClusterSpecifier::Cluster(destination.cluster.clone()));
    let authority = apply_headers(route, entry.headers.as_ref());
    if action.host_rewrite_specifier.is_none() {
        action.host_rewrite_specifier = authority.map(HostRewriteSpecifier::HostRewriteLiteral);
    }
    action.hash_policy.extend(destination.hash.as_ref().map(render::hash_policy));
}

fn weighted(action: &mut RouteAction, destinations: &[(&HttpRouteDestination, &Destination)]) {
    let mut clusters = Vec::with_capacity(destinations.len());
    for (entry, destination) in destinations {
        let Some(weight) = u32::try_from(entry.weight).ok().filter(|weight| *weight > 0) else { continue };
        let operations = headers::operations(entry.headers.as_ref());
        clusters.push(ClusterWeight {
            name: destination.cluster.clone(),
            weight: Some(weight),
            request_headers_to_add: operations.request_add,
            request_headers_to_remove: operations.request_remove,
            response_headers_to_add: operations.response_add,
            response_headers_to_remove: operations.response_remove,
            host_rewrite_specifier: operations.authority.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
            ..ClusterWeight::default()
        });
        action.hash_policy.extend(destination.hash.as_ref().map(render::hash_policy));
    }
    action.cluster_specifier =
        Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..WeightedCluster::default() }));
}

fn redirect_action(redirect: &HttpRedirect, rule: &RuleRoutes) -> Option<RedirectAction> {
    let code = match redirect.redirect_code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let path = match &*redirect.prefix_rewrite {
        "" => PathRewriteSpecifier::PathRedirect(redirect.uri.to_string()),
        prefix => PathRewriteSpecifier::PrefixRewrite(prefix.into()),
    };
    Some(RedirectAction {
        host_redirect: redirect.authority.to_string(),
        port_redirect: redirect_port(redirect, rule),
        response_code: code as i32,
        scheme_rewrite_specifier: (!redirect.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(redirect.scheme.to_string())),
        path_rewrite_specifier: Some(path),
        ..RedirectAction::default()
    })
}

/// 0 leaves the port out, as for the scheme's own.
fn redirect_port(redirect: &HttpRedirect, rule: &RuleRoutes) -> u32 {
    let port = match (redirect.port, redirect.derive_port) {
        (Some(port), _) => port,
        (None, Some(RedirectPort::FromRequestPort)) => rule.port,
        (None, _) => 0,
    };
    let scheme = match &*redirect.scheme {
        "" if rule.tls => "https",
        "" => "http",
        scheme => scheme,
    };
    match (port, scheme) {
        (80, "http") | (443, "https") => 0,
        _ => port,
    }
}

fn direct_response(response: &HttpDirectResponse) -> DirectResponseAction {
    let body = response.body.as_ref().and_then(|body| match (&body.string, &body.bytes) {
        (Some(text), _) => Some(data_source::Specifier::InlineString(text.to_string())),
        (None, Some(bytes)) => Some(data_source::Specifier::InlineBytes(bytes.0.to_vec().into())),
        (None, None) => None,
    });
    DirectResponseAction {
        status: response.status,
        body: body.map(|specifier| DataSource { specifier: Some(specifier), ..DataSource::default() }),
        body_format: None,
    }
}

/// The name of a trace span: the destination where there is one, else the rule, then the path pattern.
fn operation(route: &Route, rule: &RuleRoutes) -> String {
    let path = match route.r#match.as_ref().and_then(path_specifier) {
        Some(route_match::PathSpecifier::Prefix(prefix)) => format!("{prefix}*"),
        Some(route_match::PathSpecifier::Path(path)) => path.clone(),
        Some(route_match::PathSpecifier::SafeRegex(regex)) => regex.regex.clone(),
        _ => "/*".into(),
    };
    let cluster = match &route.action {
        Some(route::Action::Route(RouteAction {
            cluster_specifier: Some(ClusterSpecifier::Cluster(name)), ..
        })) => name,
        _ => "",
    };
    match names::Cluster::parse(cluster) {
        names::Cluster::Outbound { port, host, .. } => format!("{host}:{port}{path}"),
        _ => format!("{}:{}{path}", rule.rule.name, rule.port),
    }
}

fn path_specifier(matches: &RouteMatch) -> Option<&route_match::PathSpecifier> {
    matches.path_specifier.as_ref()
}
