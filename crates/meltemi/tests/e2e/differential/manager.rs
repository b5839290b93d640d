//! Connection managers and what all of them have here.

use super::{log, merge};
use serde_json::{Value, json};

/// A connection manager with these virtual hosts; `settings` is what else it has.
pub fn manager(hosts: Value, filters: Value, settings: Value) -> Value {
    let mut manager = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "differential",
        "route_config": {
            "name": "routes",
            "validate_clusters": false,
            "virtual_hosts": hosts,
            // What the client sees of the decision.
            "response_headers_to_add": [
                { "header": { "key": "x-seen-flags", "value": "%RESPONSE_FLAGS%" } },
                { "header": { "key": "x-seen-cluster", "value": "%UPSTREAM_CLUSTER%" } },
                { "header": { "key": "x-seen-route", "value": "%ROUTE_NAME%" } },
                { "header": { "key": "x-seen-details", "value": "%RESPONSE_CODE_DETAILS%" } },
            ],
        },
        "http_filters": filters,
        "access_log": log::config(),
    });
    merge(&mut manager, settings);
    manager
}

/// A listener with one chain, which has this connection manager.
pub fn listener(manager: Value) -> Value {
    json!({ "filter_chains": [{ "filters": [network(manager)] }] })
}

pub fn network(manager: Value) -> Value {
    json!({ "name": "envoy.filters.network.http_connection_manager", "typed_config": manager })
}

/// HTTP filters by the last part of their name, and the router.
pub fn filters(before: Vec<(&str, Value)>) -> Value {
    let router = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" });
    let all = before.into_iter().chain([("router", router)]);
    all.map(|(name, config)| json!({ "name": format!("envoy.filters.http.{name}"), "typed_config": config })).collect()
}

/// An abort for requests with a header, or for all of a route.
pub fn fault(always: Option<bool>) -> Value {
    let mut fault = json!({ "@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault" });
    let Some(always) = always else { return fault };
    fault["abort"] = json!({ "http_status": 418, "percentage": { "numerator": 100 } });
    if !always {
        fault["headers"] = json!([{ "name": "x-one", "string_match": { "exact": "two" } }]);
    }
    fault
}

/// What makes a cluster speak HTTP/2.
pub fn http2() -> Value {
    json!({ "typed_extension_protocol_options": { "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": { "http2_protocol_options": {} } } } })
}
