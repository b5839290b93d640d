//! Envoy's config dump from resources.

use std::sync::Arc;

use meltemi_proto::json::{Secrets, any_to_value};
use meltemi_xds::Resource;
use meltemi_xds::types::{CLUSTER, ENDPOINT, EXTENSION_CONFIG, LISTENER, ROUTE, SECRET};
use serde_json::{Value, json};

const ADMIN: &str = "type.googleapis.com/envoy.admin.v3.";

/// `envoy.admin.v3.ConfigDump` of what a proxy is sent. Secrets are redacted. Types that Envoy dumps elsewhere are left out.
pub(crate) fn config_dump(types: &[(Arc<str>, Vec<Resource>)]) -> Value {
    let configs: Vec<Value> = types.iter().filter_map(|(type_url, resources)| section(type_url, resources)).collect();
    json!({ "configs": configs })
}

/// The resources of some types one after the other, in the same frame.
pub(super) fn resources(types: &[(Arc<str>, Vec<Resource>)], wanted: &[&str]) -> Value {
    let chosen = types.iter().filter(|(type_url, _)| wanted.contains(&&**type_url));
    let configs = chosen.flat_map(|(_, resources)| resources);
    let configs: Vec<Value> = configs.map(|resource| any_to_value(&resource.body, Secrets::Redacted)).collect();
    json!({ "configs": configs })
}

fn section(type_url: &str, resources: &[Resource]) -> Option<Value> {
    let entries = |key: &str| -> Value { resources.iter().map(|resource| entry(resource, key)).collect() };
    Some(match type_url {
        CLUSTER => {
            json!({ "@type": format!("{ADMIN}ClustersConfigDump"), "dynamic_active_clusters": entries("cluster") })
        }
        LISTENER => {
            let listeners: Value = resources
                .iter()
                .map(|resource| json!({ "name": &*resource.name, "active_state": entry(resource, "listener") }))
                .collect();
            json!({ "@type": format!("{ADMIN}ListenersConfigDump"), "dynamic_listeners": listeners })
        }
        ROUTE => {
            json!({ "@type": format!("{ADMIN}RoutesConfigDump"), "dynamic_route_configs": entries("route_config") })
        }
        ENDPOINT => {
            json!({ "@type": format!("{ADMIN}EndpointsConfigDump"), "dynamic_endpoint_configs": entries("endpoint_config") })
        }
        SECRET => {
            let secrets: Value = resources
                .iter()
                .map(|resource| {
                    let mut value = entry(resource, "secret");
                    value["name"] = (*resource.name).into();
                    value
                })
                .collect();
            json!({ "@type": format!("{ADMIN}SecretsConfigDump"), "dynamic_active_secrets": secrets })
        }
        EXTENSION_CONFIG => {
            json!({ "@type": format!("{ADMIN}EcdsConfigDump"), "ecds_filters": entries("ecds_filter") })
        }
        _ => return None,
    })
}

fn entry(resource: &Resource, key: &str) -> Value {
    json!({ "version_info": &*resource.version, key: any_to_value(&resource.body, Secrets::Redacted) })
}
