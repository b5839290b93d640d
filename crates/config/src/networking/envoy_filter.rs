//! EnvoyFilter: raw patches of the generated Envoy configuration.

use std::collections::BTreeMap;

use super::WorkloadSelector;
use crate::security::PolicyTargetReference;
use crate::wire::{Str, enumeration, message};

message! {
    /// `networking.istio.io` EnvoyFilter.
    struct EnvoyFilter {
        workload_selector: Option<WorkloadSelector>,
        target_refs: Vec<PolicyTargetReference>,
        config_patches: Vec<EnvoyConfigObjectPatch>,
        priority: i32,
    }

    struct EnvoyConfigObjectPatch {
        apply_to: ApplyTo,
        #[serde(rename = "match")]
        matches: Option<EnvoyConfigObjectMatch>,
        patch: Option<Patch>,
    }

    /// At most one of `listener`, `route_configuration`, `cluster`, `waypoint`.
    struct EnvoyConfigObjectMatch {
        context: PatchContext,
        proxy: Option<ProxyMatch>,
        listener: Option<ListenerMatch>,
        route_configuration: Option<RouteConfigurationMatch>,
        cluster: Option<ClusterMatch>,
        waypoint: Option<WaypointMatch>,
    }

    struct ProxyMatch {
        proxy_version: Str,
        metadata: BTreeMap<Str, Str>,
    }

    struct ListenerMatch {
        port_number: u32,
        port_name: Str,
        filter_chain: Option<FilterChainMatch>,
        listener_filter: Str,
        name: Str,
    }

    struct FilterChainMatch {
        name: Str,
        sni: Str,
        transport_protocol: Str,
        application_protocols: Str,
        filter: Option<FilterMatch>,
        destination_port: u32,
    }

    struct FilterMatch {
        name: Str,
        sub_filter: Option<SubFilterMatch>,
    }

    struct SubFilterMatch {
        name: Str,
    }

    struct RouteConfigurationMatch {
        port_number: u32,
        port_name: Str,
        gateway: Str,
        vhost: Option<VirtualHostMatch>,
        name: Str,
    }

    struct VirtualHostMatch {
        name: Str,
        domain_name: Str,
        route: Option<RouteMatch>,
    }

    struct RouteMatch {
        name: Str,
        action: RouteMatchAction,
    }

    struct ClusterMatch {
        port_number: u32,
        service: Str,
        subset: Str,
        name: Str,
    }

    struct WaypointMatch {
        filter: Option<FilterMatch>,
        port_number: u32,
        route: Option<WaypointRouteMatch>,
    }

    struct WaypointRouteMatch {
        name: Str,
    }

    struct Patch {
        operation: PatchOperation,
        value: Option<serde_json::Map<String, serde_json::Value>>,
        filter_class: FilterClass,
    }
}

enumeration! {
    enum ApplyTo {
        #[default]
        Invalid = "INVALID",
        Listener = "LISTENER",
        FilterChain = "FILTER_CHAIN",
        NetworkFilter = "NETWORK_FILTER",
        HttpFilter = "HTTP_FILTER",
        RouteConfiguration = "ROUTE_CONFIGURATION",
        VirtualHost = "VIRTUAL_HOST",
        HttpRoute = "HTTP_ROUTE",
        Cluster = "CLUSTER",
        ExtensionConfig = "EXTENSION_CONFIG",
        Bootstrap = "BOOTSTRAP",
        ListenerFilter = "LISTENER_FILTER",
    }

    enum PatchContext {
        #[default]
        Any = "ANY",
        SidecarInbound = "SIDECAR_INBOUND",
        SidecarOutbound = "SIDECAR_OUTBOUND",
        Gateway = "GATEWAY",
        Waypoint = "WAYPOINT",
    }

    enum RouteMatchAction {
        #[default]
        Any = "ANY",
        Route = "ROUTE",
        Redirect = "REDIRECT",
        DirectResponse = "DIRECT_RESPONSE",
    }

    enum PatchOperation {
        #[default]
        Invalid = "INVALID",
        Merge = "MERGE",
        Add = "ADD",
        Remove = "REMOVE",
        InsertBefore = "INSERT_BEFORE",
        InsertAfter = "INSERT_AFTER",
        InsertFirst = "INSERT_FIRST",
        Replace = "REPLACE",
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST",
    }

    enum FilterClass {
        #[default]
        Unspecified = "UNSPECIFIED",
        Authn = "AUTHN",
        Authz = "AUTHZ",
        Stats = "STATS",
    }
}
