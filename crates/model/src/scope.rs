//! What one namespace's proxies see: services, and per egress listener the VirtualServices.
//!
//! Owns the meaning of Sidecar's `egress`; without a Sidecar, everything exported to the namespace. Built once per namespace
//! and Sidecar for a snapshot, in time linear in the services; shared by all nodes it fits.

mod hosts;
mod select;

use crate::config::ConfigRef;
use crate::service::Service;
use crate::shared::Shared;
use meltemi_config::mesh::{MeshConfig, MeshOutboundTrafficPolicyMode};
use meltemi_config::networking::{CaptureMode, OutboundTrafficPolicyMode, Port, Sidecar, VirtualService};
use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

pub(crate) use select::{Catalogue, build};

use crate::service::ServiceKey;
use crate::virtual_service;
use hosts::Imports;

/// Services in the order of their selection, shared by scopes in which they are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services(Arc<Vec<Shared<Service>>>);

impl Deref for Services {
    type Target = [Shared<Service>];
    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl<'a> IntoIterator for &'a Services {
    type Item = &'a Shared<Service>;
    type IntoIter = std::slice::Iter<'a, Shared<Service>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl From<Vec<Shared<Service>>> for Services {
    fn from(services: Vec<Shared<Service>>) -> Self {
        Self(Arc::new(services))
    }
}

/// One listener of the `egress` list, or the implied one.
#[derive(Clone, Debug)]
pub struct EgressListener {
    pub port: Option<Port>,
    pub bind: Arc<str>,
    pub capture_mode: CaptureMode,
    /// What the listener's hosts name, one per host name.
    pub services: Services,
    /// Resolved, in the order in which conflicts are settled.
    pub virtual_services: Vec<ConfigRef<VirtualService>>,
}

impl EgressListener {
    /// Its port takes requests for every port of its services, as a generic HTTP proxy does.
    pub fn is_http_proxy(&self) -> bool {
        self.port.as_ref().is_some_and(is_http_proxy)
    }
}

fn is_http_proxy(port: &Port) -> bool {
    port.protocol.eq_ignore_ascii_case("HTTP_PROXY")
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboundPolicy {
    RegistryOnly,
    AllowAny,
    AllowAnyDynamicDns,
}

#[derive(Clone, Debug)]
pub struct SidecarScope {
    pub namespace: Arc<str>,
    pub sidecar: Option<ConfigRef<Sidecar>>,
    pub egress: Vec<EgressListener>,
    /// All services the proxies can reach: the listeners' and the destinations of their VirtualServices, one per host name.
    pub services: Services,
    by_hostname: Arc<HashMap<Arc<str>, usize>>,
    pub outbound_policy: OutboundPolicy,
    /// What each listener imports, in their order.
    imports: Arc<[Imports]>,
}

impl SidecarScope {
    pub fn service(&self, hostname: &str) -> Option<&Shared<Service>> {
        self.by_hostname.get(hostname).and_then(|index| self.services.get(*index))
    }

    /// Whether the scope may differ by what this service is now, or was before: a bound from above.
    pub fn involves_service(&self, key: &ServiceKey) -> bool {
        let imported = || self.imports.iter().any(|imports| imports.has_service(&key.namespace, &key.hostname));
        let sent_to = || {
            let rules = self.egress.iter().flat_map(|listener| &listener.virtual_services);
            rules.into_iter().any(|rule| virtual_service::destinations(&rule.spec).contains_key(&key.hostname))
        };
        self.by_hostname.contains_key(&key.hostname) || imported() || sent_to()
    }

    /// Whether the scope has, or may have had, rules of this namespace for one of these hosts.
    pub fn involves_rules(&self, namespace: &str, hosts: &[Arc<str>]) -> bool {
        self.imports.iter().any(|imports| imports.has_rule(namespace, hosts, false))
    }

    pub fn spec(&self) -> Option<&Sidecar> {
        self.sidecar.as_ref().map(|sidecar| &*sidecar.spec)
    }

    pub fn has_ingress(&self) -> bool {
        self.spec().is_some_and(|spec| !spec.ingress.is_empty())
    }

    /// The listener that serves a port: one that declares it, else the catch-all one.
    pub fn egress_for_port(&self, port: u32) -> Option<&EgressListener> {
        let declared = self.egress.iter().find(|listener| listener.port.as_ref().is_some_and(|own| own.number == port));
        declared.or_else(|| self.egress.iter().find(|listener| listener.port.is_none()))
    }

    /// The listener bound to a Unix socket.
    pub fn egress_for_bind(&self, bind: &str) -> Option<&EgressListener> {
        self.egress.iter().find(|listener| &*listener.bind == bind)
    }

    /// A Sidecar's pool settings for an inbound port: the ingress listener's, else the Sidecar's.
    pub fn inbound_connection_pool(&self, port: u32) -> Option<&meltemi_config::networking::ConnectionPoolSettings> {
        let spec = self.spec()?;
        let listener =
            spec.ingress.iter().find(|listener| listener.port.as_ref().is_some_and(|own| own.number == port));
        listener.and_then(|listener| listener.connection_pool.as_ref()).or(spec.inbound_connection_pool.as_ref())
    }
}

fn outbound_policy(sidecar: Option<&Sidecar>, mesh: &MeshConfig) -> OutboundPolicy {
    if let Some(policy) = sidecar.and_then(|sidecar| sidecar.outbound_traffic_policy.as_ref()) {
        return match policy.mode {
            OutboundTrafficPolicyMode::AllowAny => OutboundPolicy::AllowAny,
            OutboundTrafficPolicyMode::RegistryOnly => OutboundPolicy::RegistryOnly,
        };
    }
    match mesh.outbound_traffic_policy.mode {
        MeshOutboundTrafficPolicyMode::AllowAny => OutboundPolicy::AllowAny,
        MeshOutboundTrafficPolicyMode::AllowAnyDynamicDns => OutboundPolicy::AllowAnyDynamicDns,
        MeshOutboundTrafficPolicyMode::RegistryOnly | MeshOutboundTrafficPolicyMode::VirtualServiceOnly => {
            OutboundPolicy::RegistryOnly
        }
    }
}

#[cfg(test)]
mod tests;
