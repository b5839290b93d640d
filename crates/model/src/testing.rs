//! Updates from documents, for this crate's tests. Services are given by name; the registry is another crate.

use crate::{
    Address, Config, Endpoint, EndpointShard, Node, NodeDescription, ObjectKey, Options, Port, Protocol, RegistryKind,
    Resolution, Service, ServiceKey, Shared, Snapshot, TargetPort, TlsMode, Update, Visibility,
};
use meltemi_config::Spec;
use std::sync::Arc;

pub fn update(yaml: &str) -> Update {
    let objects = meltemi_config::objects("test.yaml", yaml).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut update = Update::default();
    for object in objects {
        let meta = &object.meta;
        let key = ObjectKey::new(meta.namespace.clone(), meta.name.clone());
        match &object.spec {
            Spec::VirtualService(spec) => update.virtual_services.push((key, Some(Config::shared(meta, spec)))),
            Spec::DestinationRule(spec) => update.destination_rules.push((key, Some(Config::shared(meta, spec)))),
            Spec::Gateway(spec) => update.gateways.push((key, Some(Config::shared(meta, spec)))),
            Spec::Sidecar(spec) => update.sidecars.push((key, Some(Config::shared(meta, spec)))),
            Spec::PeerAuthentication(spec) => update.peer_authentications.push((key, Some(Config::shared(meta, spec)))),
            Spec::AuthorizationPolicy(spec) => {
                update.authorization_policies.push((key, Some(Config::shared(meta, spec))));
            }
            Spec::RequestAuthentication(spec) => {
                update.request_authentications.push((key, Some(Config::shared(meta, spec))));
            }
            Spec::RateLimitPolicy(spec) => update.rate_limit_policies.push((key, Some(Config::shared(meta, spec)))),
            Spec::MemQuota(spec) => update.mem_quotas.push((key, Some(Config::shared(meta, spec)))),
            Spec::Quota(spec) => update.quotas.push((key, Some(Config::shared(meta, spec)))),
            Spec::ResiliencePolicy(spec) => update.resilience_policies.push((key, Some(Config::shared(meta, spec)))),
            other => panic!("{:?} is for the registry", other.kind()),
        }
    }
    update
}

/// `namespace/host:port,port`, with a leading `ext:` for a ServiceEntry's.
pub fn service(text: &str) -> Service {
    let (registry, text) = match text.strip_prefix("ext:") {
        Some(rest) => (RegistryKind::External, rest),
        None => (RegistryKind::Kubernetes, text),
    };
    let (key, ports) = text.split_once(':').unwrap_or((text, "80"));
    let (namespace, hostname) = key.split_once('/').unwrap();
    Service {
        hostname: hostname.into(),
        namespace: namespace.into(),
        name: hostname.split('.').next().unwrap().into(),
        ports: ports
            .split(',')
            .map(|number| Port {
                name: format!("p{number}").into(),
                number: number.parse().unwrap(),
                protocol: Protocol::Http,
                target: TargetPort::Same,
            })
            .collect(),
        resolution: Resolution::ClientSideLb,
        export_to: Visibility::Public,
        registry,
        ..Service::default()
    }
}

pub fn add_services(update: &mut Update, services: impl IntoIterator<Item = Service>) {
    for service in services {
        update.services.insert(service.key(), Some(Shared::new(service)));
    }
}

pub fn shard(key: &ServiceKey, addresses: &[&str], account: &str) -> Shared<EndpointShard> {
    let endpoints = addresses.iter().map(|address| {
        Shared::new(Endpoint {
            address: Address::parse(address),
            ports: vec![("p80".into(), 8080)],
            namespace: key.namespace.clone(),
            service_account: account.into(),
            tls_mode: TlsMode::Istio,
            ..Endpoint::default()
        })
    });
    Shared::new(EndpointShard::new(key.clone(), endpoints.collect()))
}

pub fn snapshot(yaml: &str, services: &[&str]) -> Snapshot {
    let mut update = update(yaml);
    add_services(&mut update, services.iter().map(|text| service(text)));
    Snapshot::build(Options::default(), &update)
}

pub fn node(kind: &str, namespace: &str, labels: &[(&str, &str)]) -> Node {
    let labels: serde_json::Map<_, _> = labels.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    let metadata = serde_json::Map::from_iter([("LABELS".to_owned(), labels.into())]);
    let id = format!("{kind}~10.9.9.9~pod.{namespace}~{namespace}.svc.cluster.local");
    Node::new(NodeDescription { id, metadata, ..NodeDescription::default() }).unwrap()
}

pub fn hosts(services: &[Shared<Service>]) -> Vec<String> {
    let mut found: Vec<String> = services
        .iter()
        .map(|service| {
            let ports: Vec<_> = service.ports.iter().map(|port| port.number.to_string()).collect();
            format!("{}/{}:{}", service.namespace, service.hostname, ports.join(","))
        })
        .collect();
    found.sort();
    found
}

pub fn text(value: &str) -> Arc<str> {
    value.into()
}
