//! The objects that a conversion reads, and what they say of each other.

use crate::reference::{
    BACKEND, CONFIG_MAP, GATEWAY, GRPC_ROUTE, GroupKind, HTTP_ROUTE, INFERENCE_POOL, LISTENER_SET, SECRET, SERVICE,
    TCP_ROUTE, TLS_ROUTE,
};
use meltemi_config::gateway_api::{ReferenceGrant, ReferenceGrantFrom, ReferenceGrantTo};
use meltemi_config::kube::{ConfigMap, KubeService, Namespace};
use meltemi_config::networking::ServiceEntry;
use meltemi_config::{Key, Kind, Meta, Object, Resource};
use std::collections::BTreeMap;

/// Kinds of the API itself, and Ingress: without any of these there is nothing to convert.
const OWN: [Kind; 13] = [
    Kind::GatewayClass,
    Kind::KubernetesGateway,
    Kind::ListenerSet,
    Kind::HttpRoute,
    Kind::GrpcRoute,
    Kind::TcpRoute,
    Kind::TlsRoute,
    Kind::ReferenceGrant,
    Kind::BackendTlsPolicy,
    Kind::XBackendTrafficPolicy,
    Kind::XBackend,
    Kind::InferencePool,
    Kind::Ingress,
];
/// Kinds that references name.
const NAMED: [Kind; 6] =
    [Kind::Service, Kind::ServiceEntry, Kind::Namespace, Kind::Secret, Kind::ConfigMap, Kind::IngressClass];

/// What a ReferenceGrant can be from, and to; other kinds in it are for others.
const GRANTED_FROM: [GroupKind<'static>; 6] = [GATEWAY, LISTENER_SET, HTTP_ROUTE, GRPC_ROUTE, TCP_ROUTE, TLS_ROUTE];
const GRANTED_TO: [GroupKind<'static>; 5] = [SERVICE, SECRET, CONFIG_MAP, BACKEND, INFERENCE_POOL];

/// Every object that counts, as it was last seen.
#[derive(Debug, Default)]
pub struct Catalogue {
    objects: BTreeMap<Key, Object>,
    own: usize,
}

impl Catalogue {
    /// Takes a changed object (`None`: removed). True where a conversion may come out differently.
    pub fn take(&mut self, key: &Key, object: Option<&Object>) -> bool {
        let own = OWN.contains(&key.kind);
        if !own && !NAMED.contains(&key.kind) {
            return false;
        }
        let before = match object {
            Some(object) => self.objects.insert(key.clone(), object.clone()),
            None => self.objects.remove(key),
        };
        if own {
            self.own = self.own + usize::from(object.is_some()) - usize::from(before.is_some());
        }
        before.as_ref() != object && (own || self.own > 0)
    }

    /// Every object of a kind, in the order of namespaces and names.
    pub(crate) fn all<T: Resource>(&self) -> impl Iterator<Item = (&Meta, &T)> {
        let from = self.objects.range(Key::new(T::KIND, "", "")..);
        let of_kind = from.take_while(|(key, _)| key.kind == T::KIND);
        of_kind.filter_map(|(_, object)| Some((&*object.meta, &**object.spec_as::<T>()?)))
    }

    pub(crate) fn get<T: Resource>(&self, namespace: &str, name: &str) -> Option<(&Meta, &T)> {
        let object = self.objects.get(&Key::new(T::KIND, namespace, name))?;
        Some((&*object.meta, &**object.spec_as::<T>()?))
    }

    pub(crate) fn service(&self, namespace: &str, name: &str) -> Option<(&Meta, &KubeService)> {
        self.get(namespace, name)
    }

    pub(crate) fn service_entry(&self, namespace: &str, name: &str) -> Option<(&Meta, &ServiceEntry)> {
        self.get(namespace, name)
    }

    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<(&Meta, &ConfigMap)> {
        self.get(namespace, name)
    }

    pub(crate) fn namespace(&self, name: &str) -> Option<&Meta> {
        self.get::<Namespace>("", name).map(|(meta, _)| meta)
    }

    /// Whether a namespace's hosts include this one: its Services', and those of its ServiceEntries.
    pub(crate) fn has_host(&self, host: &str, namespace: &str, domain: &str) -> bool {
        let mut entries = self.all::<ServiceEntry>().filter(|(meta, _)| *meta.namespace == *namespace);
        self.service_of(host, namespace, domain).is_some()
            || entries.any(|(_, entry)| entry.hosts.iter().any(|own| **own == *host))
    }

    /// The first port of the service of a host, in one namespace; a ServiceEntry for the very host comes first.
    pub(crate) fn first_port(&self, host: &str, namespace: &str, domain: &str) -> Option<u32> {
        let mut entries = self.all::<ServiceEntry>().filter(|(meta, _)| *meta.namespace == *namespace);
        let entry = entries.find(|(_, entry)| entry.hosts.iter().any(|own| **own == *host));
        let of_entry = entry.and_then(|(_, entry)| entry.ports.first()).map(|port| port.number);
        of_entry.or_else(|| self.service_of(host, namespace, domain)?.spec.ports.first().map(|port| port.port))
    }

    /// The Service whose host this is, in its own namespace.
    pub(crate) fn service_of(&self, host: &str, namespace: &str, domain: &str) -> Option<&KubeService> {
        let name = host.strip_suffix(domain)?.strip_suffix(".svc.")?.strip_suffix(namespace)?.strip_suffix('.')?;
        self.service(namespace, name).map(|(_, service)| service)
    }

    /// Whether an object of `from` may name one in another namespace.
    pub(crate) fn is_granted(&self, from: (GroupKind<'_>, &str), to: (GroupKind<'_>, &str, &str)) -> bool {
        let (from_kind, from_namespace) = from;
        let (to_kind, to_namespace, name) = to;
        if !GRANTED_FROM.contains(&from_kind) || !GRANTED_TO.contains(&to_kind) {
            return false;
        }
        let fits_from = |entry: &ReferenceGrantFrom| {
            *entry.namespace == *from_namespace && *entry.kind == *from_kind.kind && *entry.group == *from_kind.group
        };
        let fits_to = |entry: &ReferenceGrantTo| {
            let named = entry.name.as_deref().is_none_or(|own| own == name);
            named && *entry.kind == *to_kind.kind && *entry.group == *to_kind.group
        };
        let mut grants = self.all::<ReferenceGrant>().filter(|(meta, _)| *meta.namespace == *to_namespace);
        grants.any(|(_, grant)| grant.from.iter().any(fits_from) && grant.to.iter().any(fits_to))
    }
}
