//! A decided [`spec::Configuration`](super::spec::Configuration) as its message.

use std::sync::Arc;
use std::time::Duration;

use meltemi_proto::envoy::config::core::v3::ConfigSource;
use meltemi_proto::envoy::config::route::v3::virtual_host::TlsRequirementType;
use meltemi_proto::envoy::config::route::v3::{
    Decorator, DirectResponseAction, Route, RouteAction, RouteConfiguration, RouteMatch, Vhds, VirtualHost, route,
    route_action, route_match,
};

use super::spec::{
    CatchAll, Configuration, Hash, Host, OnDemandHost, Policy, Routes, RuleRoutes, ServiceRoute, Target,
};
use super::{resilience, retry, rule};
use crate::listener::InboundRoute;
use crate::names;
use crate::wire::{self, duration};

/// Istio's bound on a direct response's body; Envoy's default is 4 KiB.
const MAX_DIRECT_RESPONSE_BYTES: u32 = 1024 * 1024;

pub fn configuration(spec: &Configuration) -> RouteConfiguration {
    // Its size is set at once: a virtual host is large, and growing would copy all of them.
    let mut virtual_hosts = Vec::with_capacity(spec.hosts.len() + 1);
    virtual_hosts.extend(spec.hosts.iter().map(|host| virtual_host(host, &spec.policy)));
    virtual_hosts.extend(catch_all(&spec.catch_all, &spec.policy));
    RouteConfiguration {
        name: spec.name.to_string(),
        virtual_hosts,
        // Clusters may arrive later than routes; a request to a missing one gets an answer, not a refused configuration.
        validate_clusters: Some(false),
        max_direct_response_body_size_bytes: (!spec.policy.proxyless).then_some(MAX_DIRECT_RESPONSE_BYTES),
        ignore_port_in_host_matching: spec.ignore_port,
        vhds: spec.on_demand.then(|| Vhds { config_source: Some(hosts_on_demand()) }),
        ..RouteConfiguration::default()
    }
}

/// No host comes before one is asked for, and Envoy would hold up its listeners for the first.
fn hosts_on_demand() -> ConfigSource {
    ConfigSource { initial_fetch_timeout: Some(duration(Duration::from_millis(10))), ..wire::ads() }
}

/// A host that was asked for by itself.
pub fn on_demand_host(spec: &OnDemandHost) -> VirtualHost {
    let domains = vec![spec.domain.clone()];
    let name = spec.name.to_string();
    match &spec.target {
        Target::Host(routes, session) => {
            let (routes, session) = (Routes::clone(routes), session.clone());
            virtual_host(&Host { name, domains, routes, require_tls: false, session }, &spec.policy)
        }
        Target::Nobody(kind) => VirtualHost { name, domains, ..catch_all(kind, &spec.policy).unwrap_or_default() },
    }
}

fn virtual_host(host: &Host, policy: &Policy) -> VirtualHost {
    let routes = match &host.routes {
        Routes::Service(service) => resilience::apply(service_route(service, policy), &service.resilience, policy),
        Routes::Rules(rules) => rule_routes(rules, policy),
        Routes::Misdirected => vec![refusal(names::MISDIRECTED, 421)],
    };
    VirtualHost {
        name: host.name.clone(),
        domains: host.domains.clone(),
        routes,
        require_tls: if host.require_tls { TlsRequirementType::All } else { TlsRequirementType::None } as i32,
        include_request_attempt_count: policy.attempt_count,
        typed_per_filter_config: host.session.iter().map(rule::session).collect(),
        rate_limits: policy.rate_limits.actions(),
        ..VirtualHost::default()
    }
}

/// Those that take every request come last.
fn rule_routes(rules: &[Arc<RuleRoutes>], policy: &Policy) -> Vec<Route> {
    let mut routes = Vec::with_capacity(rules.iter().map(|rule| rule.selected.len()).sum());
    let mut catch_all = Vec::new();
    for (route, own) in rules.iter().flat_map(|rule| rule::routes(rule, policy)) {
        let into = if is_catch_all(&route) { &mut catch_all } else { &mut routes };
        into.extend(resilience::apply(route, own, policy));
    }
    routes.append(&mut catch_all);
    routes
}

/// Takes every request, so nothing after it is reached.
pub fn is_catch_all(route: &Route) -> bool {
    let Some(matches) = &route.r#match else { return false };
    let every_path = match &matches.path_specifier {
        Some(route_match::PathSpecifier::Prefix(prefix) | route_match::PathSpecifier::PathSeparatedPrefix(prefix)) => {
            prefix == "/"
        }
        Some(route_match::PathSpecifier::SafeRegex(regex)) => regex.regex == ".*",
        _ => false,
    };
    every_path
        && matches.headers.is_empty()
        && matches.query_parameters.is_empty()
        && matches.dynamic_metadata.is_empty()
}

fn service_route(service: &ServiceRoute, policy: &Policy) -> Route {
    let mut action = to_cluster(&service.cluster);
    // Without a rule of the user's another host is tried even where requests are hashed, as by Istio.
    action.retry_policy = retry::outbound(policy.default_retry.as_ref(), false);
    action.hash_policy = service.hash.as_ref().map(hash_policy).into_iter().collect();
    set_timeout(&mut action, None, policy.proxyless);
    default_route(&service.operation, action)
}

fn default_route(operation: &str, action: RouteAction) -> Route {
    Route {
        name: names::DEFAULT_ROUTE.into(),
        r#match: Some(any_path()),
        decorator: Some(Decorator { operation: operation.into(), propagate: None }),
        action: Some(route::Action::Route(action)),
        ..Route::default()
    }
}

fn any_path() -> RouteMatch {
    RouteMatch { path_specifier: Some(route_match::PathSpecifier::Prefix("/".into())), ..RouteMatch::default() }
}

fn to_cluster(cluster: &str) -> RouteAction {
    RouteAction {
        cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(cluster.into())),
        ..RouteAction::default()
    }
}

/// No timeout unless the rule sets one; a gRPC client's own `grpc-timeout` is honoured up to it.
#[expect(deprecated, reason = "what Istio sends, and its successor has no equal for a timeout of zero")]
pub fn set_timeout(action: &mut RouteAction, timeout: Option<Duration>, proxyless: bool) {
    let timeout = duration(timeout.unwrap_or_default());
    action.timeout = Some(timeout);
    if proxyless {
        action.max_stream_duration = Some(route_action::MaxStreamDuration {
            max_stream_duration: Some(timeout),
            ..route_action::MaxStreamDuration::default()
        });
    } else {
        action.max_grpc_timeout = Some(timeout);
    }
}

pub fn hash_policy(hash: &Hash) -> route_action::HashPolicy {
    use route_action::hash_policy::{
        ConnectionProperties, Cookie, CookieAttribute, Header, PolicySpecifier, QueryParameter,
    };
    let specifier = match hash {
        Hash::Header(name) => PolicySpecifier::Header(Header { header_name: name.to_string(), regex_rewrite: None }),
        Hash::Cookie { name, path, ttl, attributes } => PolicySpecifier::Cookie(Cookie {
            name: name.to_string(),
            ttl: ttl.map(duration),
            path: path.to_string(),
            attributes: attributes
                .iter()
                .map(|(name, value)| CookieAttribute { name: name.to_string(), value: value.to_string() })
                .collect(),
        }),
        Hash::SourceIp => PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip: true }),
        Hash::QueryParameter(name) => PolicySpecifier::QueryParameter(QueryParameter { name: name.to_string() }),
    };
    route_action::HashPolicy { terminal: false, policy_specifier: Some(specifier) }
}

fn catch_all(kind: &CatchAll, policy: &Policy) -> Option<VirtualHost> {
    let route = match kind {
        CatchAll::None => return None,
        CatchAll::AllowAny(cluster) => unclaimed(names::ALLOW_ANY, cluster, policy),
        CatchAll::DynamicDns => unclaimed(names::ALLOW_ANY_DYNAMIC_DNS, names::ALLOW_ANY_DYNAMIC_DNS_CLUSTER, policy),
        CatchAll::BlockAll => refusal(names::BLOCK_ALL, 502),
    };
    Some(VirtualHost {
        name: route.name.clone(),
        domains: vec!["*".into()],
        routes: vec![route],
        include_request_attempt_count: policy.attempt_count,
        ..VirtualHost::default()
    })
}

fn unclaimed(name: &str, cluster: &str, policy: &Policy) -> Route {
    let mut action = to_cluster(cluster);
    action.append_x_forwarded_host = policy.x_forwarded_host;
    set_timeout(&mut action, None, false);
    for_any_path(name, route::Action::Route(action))
}

fn refusal(name: &str, status: u32) -> Route {
    for_any_path(
        name,
        route::Action::DirectResponse(DirectResponseAction { status, ..DirectResponseAction::default() }),
    )
}

fn for_any_path(name: &str, action: route::Action) -> Route {
    Route { name: name.into(), r#match: Some(any_path()), action: Some(action), ..Route::default() }
}

/// The inline route configuration of an inbound filter chain.
pub fn inbound_route_configuration(spec: &InboundRoute) -> RouteConfiguration {
    let zero = || Some(duration(Duration::ZERO));
    let mut action = to_cluster(&spec.cluster);
    action.timeout = zero();
    action.max_stream_duration = Some(route_action::MaxStreamDuration {
        max_stream_duration: zero(),
        grpc_timeout_header_max: zero(),
        ..route_action::MaxStreamDuration::default()
    });
    action.retry_policy = if spec.grpc { None } else { retry::inbound(spec.retry.as_ref()) };
    let operation = format!("{}/*", names::domain(&spec.host, spec.port));
    RouteConfiguration {
        name: spec.cluster.clone(),
        virtual_hosts: vec![VirtualHost {
            name: format!("inbound|http|{}", spec.port),
            domains: vec!["*".into()],
            routes: vec![default_route(&operation, action)],
            ..VirtualHost::default()
        }],
        validate_clusters: Some(false),
        ..RouteConfiguration::default()
    }
}
