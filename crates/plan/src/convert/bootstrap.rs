//! The bootstrap.

mod limits;
mod whole;

use super::access_log::access_logs;
use super::common::{address, config_source, enumeration, grpc_cluster, optional_duration, structure};
use super::endpoint::locality;
use super::{cluster, listener, secret};
use crate::bootstrap::{Admin, AdsConfig, Bootstrap, Node, RuntimeLayer};
use crate::common::{Address, ConfigSource};
use crate::error::{At, Result, refuse};
use meltemi_proto::envoy::config::bootstrap::v3 as proto;
use meltemi_proto::envoy::config::core::v3 as core;
use std::sync::Arc;

pub fn bootstrap(value: &proto::Bootstrap) -> Result<Bootstrap> {
    let bytes = meltemi_proto::encode(value);
    crate::support::check(&bytes, "envoy.config.bootstrap.v3.Bootstrap")?;
    let none = proto::bootstrap::StaticResources::default();
    let statics = value.static_resources.as_ref().unwrap_or(&none);
    let dynamic = value.dynamic_resources.as_ref();
    let ads = dynamic.and_then(|dynamic| dynamic.ads_config.as_ref());
    let ads = ads.map(ads_config).transpose().at("dynamic_resources.ads_config")?;
    let from_ads = |config: Option<&core::ConfigSource>, field: &str| -> Result<bool> {
        match config.map(config_source).transpose().at(field).at("dynamic_resources")? {
            None => Ok(false),
            Some(ConfigSource::Ads) if ads.is_some() => Ok(true),
            Some(ConfigSource::Ads) => refuse(format!("dynamic_resources.{field}: needs ads_config")),
            Some(_) => refuse(format!("dynamic_resources.{field}: only ADS is supported")),
        }
    };
    let node = node(value.node.as_ref());
    if ads.is_some() && (node.id.is_empty() || node.cluster.is_empty()) {
        return refuse("node: id and cluster are needed for a control plane (--service-node, --service-cluster)");
    }
    let listeners = resources(&statics.listeners, "listeners", listener::listener)?;
    let clusters = resources(&statics.clusters, "clusters", cluster::cluster)?;
    whole::check_names(&clusters).and_then(|()| whole::check_routes(&listeners, &clusters)).at("static_resources")?;
    let local_cluster =
        value.cluster_manager.as_ref().and_then(|manager| super::common::non_empty(&manager.local_cluster_name));
    if let Some(name) = local_cluster.as_ref().filter(|name| !clusters.iter().any(|cluster| cluster.name == **name)) {
        return refuse(format!("cluster_manager.local_cluster_name: no static cluster {name:?}"));
    }
    let mut ignored = crate::support::ignored(&bytes, "envoy.config.bootstrap.v3.Bootstrap");
    let runtime = runtime(value.layered_runtime.as_ref());
    let limits = limits::limits(value.overload_manager.as_ref(), &runtime, &mut ignored)?;
    Ok(Bootstrap {
        node,
        listeners,
        clusters,
        secrets: resources(&statics.secrets, "secrets", secret::secret)?,
        follows_listeners: from_ads(dynamic.and_then(|dynamic| dynamic.lds_config.as_ref()), "lds_config")?,
        follows_clusters: from_ads(dynamic.and_then(|dynamic| dynamic.cds_config.as_ref()), "cds_config")?,
        ads,
        admin: value.admin.as_ref().map(admin).transpose().at("admin")?,
        runtime,
        limits,
        local_cluster,
        ignored,
    })
}

fn resources<T, U>(values: &[T], field: &str, convert: impl Fn(&T) -> Result<U>) -> Result<Vec<Arc<U>>> {
    super::common::list(values, field, |value| convert(value).map(Arc::new)).at("static_resources")
}

fn node(value: Option<&core::Node>) -> Node {
    let Some(value) = value else { return Node::default() };
    Node {
        id: value.id.as_str().into(),
        cluster: value.cluster.as_str().into(),
        metadata: value.metadata.as_ref().map_or_else(|| serde_json::json!({}), structure),
        locality: locality(value.locality.as_ref()),
        user_agent_name: value.user_agent_name.as_str().into(),
    }
}

fn ads_config(value: &core::ApiConfigSource) -> Result<AdsConfig> {
    use core::api_config_source::ApiType;
    let delta = match enumeration::<ApiType>(value.api_type).at("api_type")? {
        ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc => true,
        ApiType::Grpc | ApiType::AggregatedGrpc => false,
        ApiType::Rest | ApiType::DeprecatedAndUnavailableDoNotUse => return refuse("api_type: only gRPC is supported"),
    };
    let service = match &value.grpc_services[..] {
        [service] => service,
        _ => return refuse("grpc_services: exactly one is needed"),
    };
    let (cluster, authority) = grpc_cluster(service).at_index("grpc_services", 0)?;
    let initial_metadata = service
        .initial_metadata
        .iter()
        .map(|header| (Arc::from(header.key.as_str()), Arc::from(header.value.as_str())))
        .collect();
    let timeout = optional_duration(service.timeout.as_ref()).at("grpc_services[0].timeout")?;
    Ok(AdsConfig { delta, cluster, authority, initial_metadata, timeout })
}

fn admin(value: &proto::Admin) -> Result<Admin> {
    let address = value.address.as_ref().map(address).transpose().at("address")?;
    if let Some(named @ (Address::Name { .. } | Address::Internal { .. })) = &address {
        return refuse(format!("{named} is not an IP address")).at("address");
    }
    Ok(Admin { address, access_logs: access_logs(&value.access_log, "access_log")? })
}

fn runtime(value: Option<&proto::LayeredRuntime>) -> Vec<RuntimeLayer> {
    use proto::runtime_layer::LayerSpecifier;
    let layers = value.into_iter().flat_map(|runtime| &runtime.layers);
    layers
        .map(|layer| RuntimeLayer {
            name: layer.name.as_str().into(),
            values: match layer.layer_specifier.as_ref() {
                Some(LayerSpecifier::StaticLayer(fields)) => structure(fields),
                Some(LayerSpecifier::DiskLayer(_) | LayerSpecifier::AdminLayer(_) | LayerSpecifier::RtdsLayer(_))
                | None => {
                    serde_json::json!({})
                }
            },
        })
        .collect()
}
