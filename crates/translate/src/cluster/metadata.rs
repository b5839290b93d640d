//! What telemetry and the CLI read off a cluster, and the filter that exchanges metadata between peers.

use crate::dialect::Dialect;
use meltemi_model::{Config, Service};
use meltemi_proto::Any;
use meltemi_proto::envoy::config::cluster::v3::{Cluster, Filter};
use meltemi_proto::envoy::config::core::v3::Metadata;
use meltemi_proto::envoy::tcp::metadataexchange::config::MetadataExchange;
use meltemi_proto::prost_types::{ListValue, Struct, Value, value};

/// Metadata of Istio's own under this key.
const ISTIO: &str = "istio";
/// The ALPN by which peers agree to exchange metadata.
pub const EXCHANGE_ALPN: &str = "istio-peer-exchange";

pub fn text(value: &str) -> Value {
    Value { kind: Some(value::Kind::StringValue(value.into())) }
}

/// Envoy splits statistics at colons unless a name ends in one: Istio's way to keep the name whole.
pub fn stat_name(name: &str) -> String {
    format!("{name};")
}

fn istio(cluster: &mut Cluster) -> &mut Struct {
    cluster.metadata.get_or_insert_with(Metadata::default).filter_metadata.entry(ISTIO.to_owned()).or_default()
}

/// `services: [{host, name, namespace}]`.
pub fn services<'a>(cluster: &mut Cluster, services: impl Iterator<Item = &'a Service>) {
    let values: Vec<Value> = services
        .map(|service| {
            let fields = [("host", &service.hostname), ("name", &service.name), ("namespace", &service.namespace)];
            let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), text(value))).collect();
            Value { kind: Some(value::Kind::StructValue(Struct { fields })) }
        })
        .collect();
    let list = Value { kind: Some(value::Kind::ListValue(ListValue { values })) };
    istio(cluster).fields.insert("services".into(), list);
}

/// Outside the mesh: no metadata is sent there.
pub fn external(cluster: &mut Cluster) {
    let yes = Value { kind: Some(value::Kind::BoolValue(true)) };
    istio(cluster).fields.insert("external".into(), yes);
}

/// `config: <path>`: which rule shaped the cluster.
pub fn origin<T>(cluster: &mut Cluster, config: &Config<T>) {
    let path = format!("/apis/networking.istio.io/v1/namespaces/{}/destination-rule/{}", config.namespace, config.name);
    istio(cluster).fields.insert("config".into(), text(&path));
}

pub fn subset(cluster: &mut Cluster, name: &str) {
    istio(cluster).fields.insert("subset".into(), text(name));
}

/// The ALPN filter must not replace what the user's own TLS settings say.
pub fn keep_alpn(cluster: &mut Cluster) {
    istio(cluster).fields.insert("alpn_override".into(), text("false"));
}

/// The upstream half of TCP metadata exchange.
pub fn exchange(cluster: &mut Cluster, dialect: Dialect) {
    if dialect != Dialect::IstioProxy {
        return;
    }
    let config = MetadataExchange { protocol: EXCHANGE_ALPN.into(), ..MetadataExchange::default() };
    cluster.filters.push(Filter {
        name: "istio.metadata_exchange".into(),
        typed_config: Some(Any::pack(&config)),
        ..Filter::default()
    });
}
