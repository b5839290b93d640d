//! EnvoyFilter.

use super::{Validation, common};
use crate::names;
use crate::networking::{ApplyTo, EnvoyConfigObjectPatch, EnvoyFilter, PatchContext, PatchOperation};
use crate::path::Path;

pub(super) fn envoy_filter(spec: &EnvoyFilter, at: &Path<'_>, v: &mut Validation) {
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

fn config_patch(patch: &EnvoyConfigObjectPatch, at: &Path<'_>, v: &mut Validation) {
    let apply_to = patch.apply_to;
    v.require(&at.field("applyTo"), apply_to != ApplyTo::Invalid, "applyTo must be set");
    let at_patch = at.field("patch");
    let Some(change) = &patch.patch else {
        v.error(&at_patch, "patch is required");
        return;
    };
    match change.operation {
        PatchOperation::Invalid => v.error(&at_patch.field("operation"), "operation must be set"),
        PatchOperation::Remove => {}
        _ => v.require(
            &at_patch.field("value"),
            change.value.is_some(),
            "a value is required unless the operation is REMOVE",
        ),
    }
    let Some(matches) = &patch.matches else { return };
    let at = at.field("match");
    let set = [
        matches.listener.is_some(),
        matches.route_configuration.is_some(),
        matches.cluster.is_some(),
        matches.waypoint.is_some(),
    ];
    v.require(
        &at,
        set.iter().filter(|s| **s).count() <= 1,
        "only one of listener, routeConfiguration, cluster and waypoint can be set",
    );
    let waypoint = matches.context == PatchContext::Waypoint;
    v.require(&at, waypoint == matches.waypoint.is_some(), "only support waypointMatch when context is WAYPOINT");
    let fits = match apply_to {
        ApplyTo::Cluster => !set[0] && !set[1],
        ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute => !set[0] && !set[2],
        ApplyTo::Listener
        | ApplyTo::FilterChain
        | ApplyTo::NetworkFilter
        | ApplyTo::HttpFilter
        | ApplyTo::ListenerFilter => !set[1] && !set[2],
        ApplyTo::Invalid | ApplyTo::ExtensionConfig | ApplyTo::Bootstrap => true,
    };
    v.require(&at, fits, format_args!("the match is not one for {apply_to}"));
    if let Some(proxy) = &matches.proxy {
        common::regex(&proxy.proxy_version, &at.field("proxy").field("proxyVersion"), v);
    }
    if let Some(port) = matches.waypoint.as_ref().map(|w| w.port_number).filter(|p| *p != 0) {
        v.check(&at.field("waypoint").field("portNumber"), names::port(port));
    }
}
