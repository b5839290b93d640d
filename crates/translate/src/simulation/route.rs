//! Which virtual host and route take a request.

use meltemi_proto::envoy::config::route::v3::route_match::PathSpecifier;
use meltemi_proto::envoy::config::route::v3::virtual_host::TlsRequirementType;
use meltemi_proto::envoy::config::route::v3::{Route, RouteConfiguration, VirtualHost, route, route_action};
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use meltemi_proto::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;

use super::{Call, Failure, Outcome, Security};

pub(super) fn select(
    manager: &HttpConnectionManager,
    routes: &[RouteConfiguration],
    call: &Call,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    let config = match &manager.route_specifier {
        Some(RouteSpecifier::RouteConfig(inline)) => inline,
        Some(RouteSpecifier::Rds(rds)) => {
            outcome.route_config.clone_from(&rds.route_config_name);
            routes.iter().find(|r| r.name == rds.route_config_name).ok_or(Failure::NoVirtualHost)?
        }
        _ => return Err(Failure::NoVirtualHost),
    };
    let host = virtual_host(config, &call.host).ok_or(Failure::NoVirtualHost)?;
    outcome.virtual_host.clone_from(&host.name);
    if host.require_tls == TlsRequirementType::All as i32 && call.security == Security::Plaintext {
        return Err(Failure::TlsRedirect);
    }
    let route = host.routes.iter().find(|route| path_matches(route, &call.path)).ok_or(Failure::NoRoute)?;
    outcome.route.clone_from(&route.name);
    if let Some(cluster) = single_cluster(route) {
        cluster.clone_into(&mut outcome.cluster);
    }
    Ok(())
}

/// The one cluster that a route forwards to, if it is one.
pub fn single_cluster(route: &Route) -> Option<&str> {
    match &route.action {
        Some(route::Action::Route(action)) => match &action.cluster_specifier {
            Some(route_action::ClusterSpecifier::Cluster(cluster)) => Some(cluster),
            _ => None,
        },
        _ => None,
    }
}

fn virtual_host<'a>(config: &'a RouteConfiguration, host: &str) -> Option<&'a VirtualHost> {
    let host = if config.ignore_port_in_host_matching { without_port(host) } else { host };
    let domains = || config.virtual_hosts.iter().flat_map(|vh| vh.domains.iter().map(move |d| (d.as_str(), vh)));
    let exact = domains().find(|(domain, _)| domain.eq_ignore_ascii_case(host));
    let longest =
        |fits: &dyn Fn(&str) -> bool| domains().filter(|(d, _)| *d != "*" && fits(d)).max_by_key(|(d, _)| d.len());
    let suffix = || longest(&|d| d.strip_prefix('*').is_some_and(|s| host.len() > s.len() && host.ends_with(s)));
    let prefix = || longest(&|d| d.strip_suffix('*').is_some_and(|p| host.len() > p.len() && host.starts_with(p)));
    let any = || domains().find(|(domain, _)| *domain == "*");
    exact.or_else(suffix).or_else(prefix).or_else(any).map(|(_, vh)| vh)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

fn path_matches(route: &Route, path: &str) -> bool {
    match route.r#match.as_ref().and_then(|m| m.path_specifier.as_ref()) {
        Some(PathSpecifier::Prefix(prefix) | PathSpecifier::PathSeparatedPrefix(prefix)) => path.starts_with(prefix),
        Some(PathSpecifier::Path(exact)) => path == exact,
        Some(PathSpecifier::SafeRegex(matcher)) => regex::Regex::new(&matcher.regex).is_ok_and(|r| r.is_match(path)),
        _ => false,
    }
}
