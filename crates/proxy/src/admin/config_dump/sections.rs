//! The parts of a dump, one for each kind of resource.

use super::super::AdminState;
use super::timestamp;
use crate::configurator::{Configurator, Held, Source};
use bytes::Bytes;
use meltemi_plan::{OnDemandHost, RouteConfiguration};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::bootstrap::v3::bootstrap::StaticResources;
use meltemi_proto::json::{Secrets, any_to_value};
use meltemi_xds::types;
use serde_json::{Value, json};
use std::collections::BTreeSet;

const PREFIX: &str = "type.googleapis.com/envoy.admin.v3.";
const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const HCM: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";

/// The message within its dump that an entry of this list is; `None`: the list is a message itself.
pub fn element_type(list: &str) -> Option<&'static str> {
    Some(match list {
        "static_clusters" => "StaticCluster",
        "dynamic_active_clusters" | "dynamic_warming_clusters" => "DynamicCluster",
        "static_listeners" => "StaticListener",
        "dynamic_listeners" => "DynamicListener",
        "static_route_configs" => "StaticRouteConfig",
        "dynamic_route_configs" => "DynamicRouteConfig",
        "static_endpoint_configs" => "StaticEndpointConfig",
        "dynamic_endpoint_configs" => "DynamicEndpointConfig",
        "static_secrets" => "StaticSecret",
        "dynamic_active_secrets" | "dynamic_warming_secrets" => "DynamicSecret",
        _ => return None,
    })
}

/// What a dump is made of, and of what by name.
pub struct Sections<'a> {
    pub state: &'a AdminState,
    pub name: Option<&'a regex::Regex>,
    pub include_eds: bool,
}

impl Sections<'_> {
    pub fn all(&self) -> Vec<Value> {
        let bootstrap = any_to_value(&self.state.bootstrap, Secrets::Redacted);
        let fixed = meltemi_proto::unpack_bootstrap(&self.state.bootstrap).ok();
        let fixed = fixed.and_then(|bootstrap| bootstrap.static_resources).unwrap_or_default();
        let configurator = self.state.configurator.lock();
        let clusters = self.clusters(&configurator, &fixed);
        let listeners = self.listeners(&configurator, &fixed);
        let routes = self.routes(&configurator, &listeners);
        let endpoints = self.include_eds.then(|| self.endpoints(&configurator, &clusters));
        let secrets = self.secrets(&configurator, &fixed);
        drop(configurator);
        let bootstrap = json!({ "@type": format!("{PREFIX}BootstrapConfigDump"), "bootstrap": bare(bootstrap),
            "last_updated": self.started() });
        [bootstrap, clusters].into_iter().chain(endpoints).chain([listeners, routes, secrets]).collect()
    }

    fn keeps(&self, name: &str) -> bool {
        self.name.is_none_or(|pattern| pattern.is_match(name))
    }

    fn started(&self) -> String {
        timestamp(self.state.started)
    }

    /// Resources of the bootstrap, by name, under a field.
    fn fixed<'b>(&self, field: &str, resources: impl Iterator<Item = (&'b str, Any)>) -> Value {
        let kept = resources.filter(|(name, _)| self.keeps(name));
        kept.map(|(_, any)| json!({ field: any_to_value(&any, Secrets::Redacted), "last_updated": self.started() }))
            .collect()
    }

    fn clusters(&self, configurator: &Configurator, fixed: &StaticResources) -> Value {
        let (mut active, mut warming) = (Vec::new(), Vec::new());
        for (held, is_active) in configurator.held_clusters().filter(|(held, _)| self.keeps(&held.plan.name)) {
            if !held.source.fixed {
                let list = if is_active { &mut active } else { &mut warming };
                list.push(entry(&held.source, types::CLUSTER, "cluster"));
            }
        }
        json!({
            "@type": format!("{PREFIX}ClustersConfigDump"),
            "static_clusters": self.fixed("cluster", fixed.clusters.iter().map(|cluster| (&*cluster.name, Any::pack(cluster)))),
            "dynamic_active_clusters": active,
            "dynamic_warming_clusters": warming,
        })
    }

    fn listeners(&self, configurator: &Configurator, fixed: &StaticResources) -> Value {
        let mut dynamic = Vec::new();
        for (held, is_active) in configurator.held_listeners().filter(|(held, _)| self.keeps(&held.plan.name)) {
            if !held.source.fixed {
                let state = if is_active { "active_state" } else { "warming_state" };
                let entry = entry(&held.source, types::LISTENER, "listener");
                dynamic.push(json!({ "name": &*held.plan.name, state: entry }));
            }
        }
        json!({
            "@type": format!("{PREFIX}ListenersConfigDump"),
            "static_listeners": self.fixed("listener", fixed.listeners.iter().map(|listener| (&*listener.name, Any::pack(listener)))),
            "dynamic_listeners": dynamic,
        })
    }

    /// Those of subscriptions, and those that stand in a listener.
    fn routes(&self, configurator: &Configurator, listeners: &Value) -> Value {
        let subscribed = configurator.held_routes().filter(|held| self.keeps(&held.plan.name));
        let whole = |held: &Held<RouteConfiguration>| {
            let mut entry = entry(&held.source, types::ROUTE, "route_config");
            add_hosts(&mut entry["route_config"], &held.plan.name, configurator);
            entry
        };
        let dynamic: Vec<Value> = subscribed.map(whole).collect();
        let dynamic_listeners = entries(listeners, "dynamic_listeners");
        let states =
            dynamic_listeners.flat_map(|entry| entry.get("active_state").or_else(|| entry.get("warming_state")));
        let held = entries(listeners, "static_listeners").chain(states);
        let mut inline = Vec::new();
        for entry in held {
            inline.extend(inline_routes(&entry["listener"]).map(
                |routes| json!({ "route_config": typed(types::ROUTE, routes), "last_updated": entry["last_updated"] }),
            ));
        }
        inline.retain(|entry| self.keeps(entry["route_config"]["name"].as_str().unwrap_or_default()));
        json!({ "@type": format!("{PREFIX}RoutesConfigDump"), "static_route_configs": inline,
            "dynamic_route_configs": dynamic })
    }

    /// Those of subscriptions, and those that stand in a cluster.
    fn endpoints(&self, configurator: &Configurator, clusters: &Value) -> Value {
        let held = configurator.held_assignments().filter(|(name, _)| self.keeps(name));
        let mut dynamic: Vec<Value> =
            held.map(|(_, source)| entry(source, types::ENDPOINT, "endpoint_config")).collect();
        let inline = |entry: &Value| {
            let assignment = entry["cluster"].get("load_assignment")?;
            Some(
                json!({ "endpoint_config": typed(types::ENDPOINT, assignment), "last_updated": entry["last_updated"] }),
            )
        };
        dynamic.extend(entries(clusters, "dynamic_active_clusters").filter_map(inline));
        let fixed: Vec<Value> = entries(clusters, "static_clusters").filter_map(inline).collect();
        json!({ "@type": format!("{PREFIX}EndpointsConfigDump"), "static_endpoint_configs": fixed,
            "dynamic_endpoint_configs": dynamic })
    }

    /// Of subscriptions names and lifetimes; certificates without their keys are in `/certs`.
    fn secrets(&self, configurator: &Configurator, fixed: &StaticResources) -> Value {
        let fixed_names: BTreeSet<&str> = fixed.secrets.iter().map(|secret| secret.name.as_str()).collect();
        let mut given = self.fixed("secret", fixed.secrets.iter().map(|secret| (&*secret.name, Any::pack(secret))));
        for entry in given.as_array_mut().into_iter().flatten() {
            entry["name"] = entry["secret"]["name"].clone();
        }
        let certificates = configurator.secrets.certificates();
        let dynamic = certificates.iter().filter(|(name, _)| self.keeps(name) && !fixed_names.contains(&**name));
        let active: Vec<Value> = dynamic
            .map(|(name, identity)| {
                json!({ "name": &**name, "last_updated": timestamp(identity.info().not_before),
                    "secret": { "@type": SECRET, "name": &**name } })
            })
            .collect();
        let missing = configurator.secrets.missing();
        let warming: Vec<Value> =
            missing.iter().filter(|name| self.keeps(name)).map(|name| json!({ "name": &**name })).collect();
        json!({ "@type": format!("{PREFIX}SecretsConfigDump"), "static_secrets": given,
            "dynamic_active_secrets": active, "dynamic_warming_secrets": warming })
    }
}

/// A message that is a field of its own kind carries no `@type`.
fn bare(mut value: Value) -> Value {
    if let Some(object) = value.as_object_mut() {
        object.remove("@type");
    }
    value
}

/// The other way: a field that becomes a resource of its own.
fn typed(type_url: &str, value: &Value) -> Value {
    let mut out = json!({ "@type": type_url });
    if let (Some(out), Some(fields)) = (out.as_object_mut(), value.as_object()) {
        out.extend(fields.clone());
    }
    out
}

fn entry(source: &Source, type_url: &str, field: &str) -> Value {
    let any = Any { type_url: type_url.to_owned(), value: Bytes::copy_from_slice(&source.body) };
    json!({
        "version_info": &*source.version,
        field: any_to_value(&any, Secrets::Redacted),
        "last_updated": timestamp(source.updated),
    })
}

fn entries<'a>(section: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    section[list].as_array().into_iter().flatten()
}

/// Adds the virtual hosts that came by themselves, as Envoy shows them.
fn add_hosts(routes: &mut Value, name: &str, configurator: &Configurator) {
    let is_own =
        |host: &&Held<OnDemandHost>| host.plan.name.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
    let hosts = configurator.held_hosts().filter(is_own).map(|host| {
        let mut host = entry(&host.source, types::VIRTUAL_HOST, "host")["host"].take();
        host.as_object_mut().map(|fields| fields.remove("@type"));
        host
    });
    let hosts: Vec<Value> = hosts.collect();
    if let (false, Some(fields)) = (hosts.is_empty(), routes.as_object_mut())
        && let Some(list) = fields.entry("virtual_hosts").or_insert_with(|| json!([])).as_array_mut()
    {
        list.extend(hosts);
    }
}

/// The route configurations in the connection managers of a listener.
fn inline_routes(listener: &Value) -> impl Iterator<Item = &Value> {
    let chains = entries(listener, "filter_chains").chain(listener.get("default_filter_chain"));
    let filters = chains.flat_map(|chain| entries(chain, "filters")).map(|filter| &filter["typed_config"]);
    filters
        .filter(|config| config["@type"].as_str().is_some_and(|kind| kind.ends_with(HCM)))
        .filter_map(|config| config.get("route_config"))
}
