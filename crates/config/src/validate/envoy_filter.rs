//! EnvoyFilter. What patches carry is looked at as JSON here, and read as Envoy's messages in `messages`.

mod messages;

use serde_json::Value;

use super::{Validation, common};
use crate::names;
use crate::networking::{
    ApplyTo, EnvoyConfigObjectMatch, EnvoyConfigObjectPatch, EnvoyFilter, FilterMatch, ListenerMatch, Patch,
    PatchContext, PatchOperation,
};
use crate::path::Path;

const CONNECTION_MANAGER: &str = "envoy.filters.network.http_connection_manager";
const OLD_CONNECTION_MANAGER: &str = "envoy.http_connection_manager";
/// A longer pattern is not compiled, and the patch is then for every version.
const MAX_VERSION_BYTES: usize = 1024;

pub(super) fn envoy_filter(spec: &EnvoyFilter, at: &Path<'_>, v: &mut Validation) {
    v.warn(
        at,
        "EnvoyFilter exposes internal implementation details that may change at any time. Prefer other APIs if possible, \
         and exercise extreme caution, especially around upgrades.",
    );
    common::workload_selector(spec.workload_selector.as_ref(), at, v);
    if spec.workload_selector.is_some() && !spec.target_refs.is_empty() {
        v.error(at, "only one of targetRefs or workloadSelector can be set");
    }
    common::target_refs(false, None, &spec.target_refs, at, v);
    let patches = at.field("configPatches");
    for (i, patch) in spec.config_patches.iter().enumerate() {
        config_patch(patch, &patches.index(i), v);
    }
}

/// Reads what patches carry as the messages that it is for. Patches that are wrong as such are passed over.
pub(super) fn values(spec: &EnvoyFilter, at: &Path<'_>, v: &mut Validation) {
    let patches = at.field("configPatches");
    for (i, patch) in spec.config_patches.iter().enumerate() {
        let waypoint = patch.matches.as_ref().is_some_and(|matches| matches.context == PatchContext::Waypoint);
        let value = patch.patch.as_ref().and_then(|change| change.value.as_ref());
        let Some(value) = value.filter(|_| !waypoint) else { continue };
        let at = patches.index(i);
        let at = at.field("patch");
        messages::check(value, patch.apply_to, &at.field("value"), v);
    }
}

fn config_patch(patch: &EnvoyConfigObjectPatch, at: &Path<'_>, v: &mut Validation) {
    if let Some(matches) = &patch.matches {
        object_match(matches, &at.field("match"), v);
        if matches.context == PatchContext::Waypoint {
            return;
        }
    }
    let apply_to = patch.apply_to;
    v.require(&at.field("applyTo"), apply_to != ApplyTo::Invalid, "missing applyTo");
    match &patch.patch {
        Some(change) => change_of(change, apply_to, &at.field("patch"), v),
        None => v.error(&at.field("patch"), "missing patch"),
    }
    let Some(matches) = &patch.matches else { return };
    let at = at.field("match");
    let (listener, route, cluster) =
        (matches.listener.is_some(), matches.route_configuration.is_some(), matches.cluster.is_some());
    let (fits, class, own) = match apply_to {
        ApplyTo::Cluster => (!listener && !route, "cluster", "cluster"),
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => {
            (!listener && !cluster, "http route", "route configuration")
        }
        ApplyTo::Listener | ApplyTo::FilterChain | ApplyTo::NetworkFilter | ApplyTo::HttpFilter => {
            (!route && !cluster, "listener", "listener")
        }
        ApplyTo::Invalid | ApplyTo::ExtensionConfig | ApplyTo::Bootstrap | ApplyTo::ListenerFilter => (true, "", ""),
    };
    v.require(&at, fits, format_args!("applyTo for {class} class objects cannot have non {own} match"));
    if let Some(listener) = &matches.listener {
        listener_match(listener, apply_to, &at.field("listener"), v);
    }
}

/// What holds whatever is patched.
fn object_match(matches: &EnvoyConfigObjectMatch, at: &Path<'_>, v: &mut Validation) {
    let set = [
        matches.listener.is_some(),
        matches.route_configuration.is_some(),
        matches.cluster.is_some(),
        matches.waypoint.is_some(),
    ];
    v.require(
        at,
        set.iter().filter(|s| **s).count() <= 1,
        "only one of listener, routeConfiguration, cluster and waypoint can be set",
    );
    let waypoint = matches.context == PatchContext::Waypoint;
    v.require(at, waypoint == matches.waypoint.is_some(), "only support waypointMatch when context is WAYPOINT");
    if let Some(port) = matches.waypoint.as_ref().map(|w| w.port_number).filter(|p| *p != 0) {
        v.check(&at.field("waypoint").field("portNumber"), names::port(port));
    }
    let Some(proxy) = matches.proxy.as_ref().filter(|_| !waypoint) else { return };
    let at = at.field("proxy");
    let at = at.field("proxyVersion");
    if proxy.proxy_version.len() > MAX_VERSION_BYTES {
        v.warn(&at, format_args!("longer than {MAX_VERSION_BYTES} characters: it will be ignored"));
    } else {
        common::regex(&proxy.proxy_version, &at, v);
    }
}

fn listener_match(listener: &ListenerMatch, apply_to: ApplyTo, at: &Path<'_>, v: &mut Validation) {
    let http = apply_to == ApplyTo::HttpFilter;
    let network = apply_to == ApplyTo::NetworkFilter;
    let whole = matches!(apply_to, ApplyTo::Listener | ApplyTo::FilterChain);
    if !(http || network || whole) {
        return;
    }
    let Some(filter) = listener.filter_chain.as_ref().and_then(|chain| chain.filter.as_ref()) else { return };
    let at = at.field("filterChain");
    let at = at.field("filter");
    if whole {
        v.warn(&at, format_args!("filter match has no effect when used with {apply_to}"));
    }
    filter_match(filter, http, &at, v);
}

fn filter_match(filter: &FilterMatch, http: bool, at: &Path<'_>, v: &mut Validation) {
    if filter.name.is_empty() {
        v.error(&at.field("name"), "filter match has no name to match on");
        return;
    }
    filter_name(&filter.name, &at.field("name"), v);
    let Some(inner) = &filter.sub_filter else { return };
    let at = at.field("subFilter");
    let manager = matches!(&*filter.name, CONNECTION_MANAGER | OLD_CONNECTION_MANAGER);
    if !http {
        v.error(&at, "subfilter match can be used with applyTo HTTP_FILTER only");
    } else if !manager {
        v.error(&at, format_args!("subfilter match requires filter match with {CONNECTION_MANAGER}"));
    } else if inner.name.is_empty() {
        v.error(&at.field("name"), "subfilter match has no name to match on");
    } else {
        filter_name(&inner.name, &at.field("name"), v);
    }
}

fn filter_name(name: &str, at: &Path<'_>, v: &mut Validation) {
    if let Some((_, new)) = OLD_NAMES.iter().find(|(old, _)| *old == name) {
        v.warn(at, format_args!("using deprecated filter name {name:?}; use {new:?} instead"));
    }
}

fn change_of(change: &Patch, apply_to: ApplyTo, at: &Path<'_>, v: &mut Validation) {
    let at_value = at.field("value");
    match change.operation {
        PatchOperation::Invalid => v.error(&at.field("operation"), "missing patch operation"),
        PatchOperation::Remove => {}
        _ => v.require(&at_value, change.value.is_some(), "missing patch value for non-remove operation"),
    }
    let Some(value) = &change.value else { return };
    let filter = matches!(apply_to, ApplyTo::HttpFilter | ApplyTo::NetworkFilter | ApplyTo::ListenerFilter);
    let configured = ["typed_config", "typedConfig", "config_discovery", "configDiscovery"];
    if filter && !configured.iter().any(|field| value.contains_key(*field)) {
        let name = value.get("name").and_then(Value::as_str).unwrap_or_default();
        v.warn(&at_value, format_args!("using deprecated types by name without typed_config; {name}"));
    }
}

/// Names that filters had, and those that they have.
const OLD_NAMES: &[(&str, &str)] = &[
    ("envoy.buffer", "envoy.filters.http.buffer"),
    ("envoy.client_ssl_auth", "envoy.filters.network.client_ssl_auth"),
    ("envoy.cors", "envoy.filters.http.cors"),
    ("envoy.csrf", "envoy.filters.http.csrf"),
    ("envoy.ext_authz", "envoy.filters.http.ext_authz"),
    ("envoy.fault", "envoy.filters.http.fault"),
    ("envoy.grpc_http1_bridge", "envoy.filters.http.grpc_http1_bridge"),
    ("envoy.grpc_json_transcoder", "envoy.filters.http.grpc_json_transcoder"),
    ("envoy.grpc_web", "envoy.filters.http.grpc_web"),
    ("envoy.gzip", "envoy.filters.http.gzip"),
    ("envoy.health_check", "envoy.filters.http.health_check"),
    (OLD_CONNECTION_MANAGER, CONNECTION_MANAGER),
    ("envoy.http_dynamo_filter", "envoy.filters.http.dynamo"),
    ("envoy.ip_tagging", "envoy.filters.http.ip_tagging"),
    ("envoy.listener.http_inspector", "envoy.filters.listener.http_inspector"),
    ("envoy.listener.original_dst", "envoy.filters.listener.original_dst"),
    ("envoy.listener.original_src", "envoy.filters.listener.original_src"),
    ("envoy.listener.proxy_protocol", "envoy.filters.listener.proxy_protocol"),
    ("envoy.listener.tls_inspector", "envoy.filters.listener.tls_inspector"),
    ("envoy.lua", "envoy.filters.http.lua"),
    ("envoy.mongo_proxy", "envoy.filters.network.mongo_proxy"),
    ("envoy.rate_limit", "envoy.filters.http.ratelimit"),
    ("envoy.ratelimit", "envoy.filters.network.ratelimit"),
    ("envoy.redis_proxy", "envoy.filters.network.redis_proxy"),
    ("envoy.router", "envoy.filters.http.router"),
    ("envoy.squash", "envoy.filters.http.squash"),
    ("envoy.tcp_proxy", "envoy.filters.network.tcp_proxy"),
];
