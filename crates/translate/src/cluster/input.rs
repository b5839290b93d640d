//! What each cluster depends on, gathered from the snapshot as one node sees it.

use super::ClusterInput;
use crate::dialect::Dialect;
use crate::dynamic_dns::{self, DnsCache};
use crate::endpoint::LocalityView;
use crate::names;
use meltemi_base::Compliance;
use meltemi_config::mesh::{InboundTrafficPolicyMode, MeshConfig};
use meltemi_config::networking::{
    ConnectionPoolSettings, IstioIngressListener, ServerTlsMode, SimpleLb, TrafficPolicy,
};
use meltemi_model::destination_rule::{for_port, for_subset};
use meltemi_model::{
    EndpointShard, InterceptionMode, MergedRule, MtlsMode, Node, NodeKind, OutboundPolicy, Port, Protocol, Resilience,
    Resolution, Service, ServiceTarget, Shared, SidecarScope, Snapshot,
};
use std::collections::BTreeMap;
use std::sync::Arc;

/// How a proxy is placed, as far as clusters differ by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProxyClass {
    Sidecar,
    Gateway,
}

/// What all clusters of a proxy have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Common {
    pub dialect: Dialect,
    pub class: ProxyClass,
    pub mesh: Shared<MeshConfig>,
    pub ipv4: bool,
    pub ipv6: bool,
    pub preserve_header_case: bool,
    pub compliance: Option<Compliance>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PassthroughKind {
    Outbound,
    Inbound,
}

/// Whether clients may use mTLS towards a service without being told to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AutoMtls {
    Off,
    On,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OutboundCluster {
    pub name: Arc<str>,
    pub common: Common,
    pub service: Shared<Service>,
    pub port: Port,
    /// Empty for the whole service.
    pub subset: Arc<str>,
    pub rule: Option<Shared<MergedRule>>,
    /// The rule's policy for this port and subset, over the mesh's default.
    pub policy: Option<TrafficPolicy>,
    pub auto_mtls: AutoMtls,
    pub resilience: Resilience,
    /// Sessions reach endpoints that drain.
    pub reach_draining: bool,
    /// `namespace/account` of the service's workloads.
    pub accounts: Vec<(Arc<str>, Arc<str>)>,
    /// Of DNS services: what to resolve.
    pub dns: Option<DnsEndpoints>,
    /// Forwards TLS by SNI without terminating it.
    pub sni_dnat: bool,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct DnsEndpoints {
    pub shard: Shared<EndpointShard>,
    pub locality: Option<LocalityView>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct InboundCluster {
    pub port: u32,
    pub common: Common,
    /// The address to send to and its port; `None` is wherever the connection was going.
    pub endpoint: Option<(Arc<str>, u32)>,
    pub protocol: Protocol,
    /// The services of the workload's port for telemetry, the one that decides first.
    pub services: Vec<Shared<Service>>,
    pub service_port: Option<Port>,
    pub rule: Option<Shared<MergedRule>>,
    pub connection_pool: Option<ConnectionPoolSettings>,
}

/// The snapshot as one node sees it, for as long as its clusters are gathered.
pub(super) struct Gather<'a> {
    pub snapshot: &'a Snapshot,
    pub node: &'a Node,
    pub scope: Arc<SidecarScope>,
    pub common: Common,
}

impl<'a> Gather<'a> {
    pub fn new(snapshot: &'a Snapshot, node: &'a Node) -> Self {
        let common = Common {
            dialect: Dialect::of(node),
            class: if node.kind == NodeKind::Sidecar { ProxyClass::Sidecar } else { ProxyClass::Gateway },
            mesh: snapshot.mesh.clone(),
            ipv4: node.has_ipv4(),
            ipv6: node.has_ipv6(),
            preserve_header_case: preserve_header_case(&snapshot.mesh, node),
            compliance: snapshot.options.compliance,
        };
        Self { snapshot, node, scope: snapshot.scope(node), common }
    }

    /// The clusters of a service: each port, and each subset of it.
    pub fn outbound(&self, service: &Shared<Service>, found: &mut Vec<(Arc<str>, ClusterInput)>) {
        self.of_service(service, false, found);
    }

    pub fn sni_dnat(&self, service: &Shared<Service>, found: &mut Vec<(Arc<str>, ClusterInput)>) {
        if !service.mesh_external {
            self.of_service(service, true, found);
        }
    }

    fn of_service(&self, service: &Shared<Service>, sni_dnat: bool, found: &mut Vec<(Arc<str>, ClusterInput)>) {
        let dynamic = dynamic_dns::is_dynamic(service);
        // Clients of gRPC resolve names by themselves, and know of no such cluster.
        if service.resolution == Resolution::Alias || dynamic && self.common.dialect == Dialect::Grpc {
            return;
        }
        let rule = self.snapshot.destination_rule(self.node, service);
        let resilience = self.snapshot.resilience(self.node, &service.hostname);
        let reach_draining = self.snapshot.options.sessions.reach_draining(service);
        let served = |port: &&Port| port.protocol != Protocol::Udp && (!dynamic || names_hosts(port.protocol));
        for port in service.ports.iter().filter(served) {
            let base = for_port(rule.as_ref().and_then(|rule| rule.spec().traffic_policy.as_ref()), port.number);
            let base = self.over_mesh_default(base);
            // There are no endpoints to make subsets of.
            let subsets = rule.iter().filter(|_| !dynamic).flat_map(|rule| &rule.spec().subsets);
            let policies = std::iter::once((Arc::from(""), base.clone()))
                .chain(subsets.map(|subset| (subset.name.clone(), for_subset(base.clone(), subset, port.number))));
            for (subset, policy) in policies {
                let name = if sni_dnat {
                    names::outbound_sni(port.number, &subset, &service.hostname)
                } else {
                    names::outbound(port.number, &subset, &service.hostname)
                };
                let name: Arc<str> = name.into();
                let input = OutboundCluster {
                    name: name.clone(),
                    common: self.common.clone(),
                    service: service.clone(),
                    port: port.clone(),
                    auto_mtls: self.auto_mtls(service, policy.as_ref()),
                    resilience: resilience.clone(),
                    reach_draining,
                    accounts: self.accounts(service),
                    dns: self.dns(service, policy.as_ref()),
                    subset,
                    rule: rule.clone(),
                    policy,
                    sni_dnat,
                };
                // A DNS cluster without endpoints is one that Envoy refuses.
                if !input.is_dns() || input.dns.as_ref().is_some_and(|dns| !dns.shard.endpoints.is_empty()) {
                    found.push((name, ClusterInput::Outbound(Box::new(input))));
                }
            }
        }
    }

    fn over_mesh_default(&self, policy: Option<TrafficPolicy>) -> Option<TrafficPolicy> {
        let Some(default) = &self.common.mesh.default_traffic_policy else { return policy };
        let mut policy = policy.unwrap_or_default();
        if policy.connection_pool.is_none() {
            policy.connection_pool.clone_from(&default.connection_pool);
        }
        if policy.outlier_detection.is_none() {
            policy.outlier_detection.clone_from(&default.outlier_detection);
        }
        Some(policy)
    }

    /// Clients decide per endpoint; only where no endpoint is chosen (passthrough) must all of them take mTLS.
    fn auto_mtls(&self, service: &Service, policy: Option<&TrafficPolicy>) -> AutoMtls {
        if service.mesh_external || !self.common.mesh.enable_auto_mtls {
            return AutoMtls::Off;
        }
        let simple = policy.and_then(|policy| policy.load_balancer.as_ref()).and_then(|balancer| balancer.simple);
        if service.resolution == Resolution::Passthrough || simple == Some(SimpleLb::Passthrough) {
            let shard = self.snapshot.endpoints.get(&service.key());
            if shard.is_none_or(|shard| shard.summary().has_plaintext) {
                return AutoMtls::Off;
            }
        }
        let root = self.snapshot.root_namespace();
        match self.snapshot.client_authentication().namespace_mode(&service.namespace, root) {
            MtlsMode::Disable => AutoMtls::Off,
            MtlsMode::Permissive | MtlsMode::Strict => AutoMtls::On,
        }
    }

    fn accounts(&self, service: &Service) -> Vec<(Arc<str>, Arc<str>)> {
        let shard = self.snapshot.endpoints.get(&service.key());
        shard.into_iter().flat_map(|shard| shard.summary().accounts.iter().cloned()).collect()
    }

    fn dns(&self, service: &Service, policy: Option<&TrafficPolicy>) -> Option<DnsEndpoints> {
        if !matches!(service.resolution, Resolution::DnsLb | Resolution::DnsRoundRobin) {
            return None;
        }
        let shard = self.snapshot.endpoints.get(&service.key())?.clone();
        let locality = LocalityView::of(self.snapshot, self.node, service, policy);
        Some(DnsEndpoints { shard, locality })
    }

    /// The cluster of hosts that no service claims, where the mesh resolves them.
    pub fn allow_any_dynamic_dns(&self) -> Option<ClusterInput> {
        let dynamic = self.scope.outbound_policy == OutboundPolicy::AllowAnyDynamicDns;
        dynamic.then(|| ClusterInput::AllowAnyDynamicDns(self.common.clone(), DnsCache::allow_any(self.node)))
    }

    pub fn has_auto_passthrough(&self) -> bool {
        self.snapshot.gateways_for(self.node).iter().any(|gateway| {
            gateway
                .spec
                .servers
                .iter()
                .any(|server| server.tls.as_ref().is_some_and(|tls| tls.mode == ServerTlsMode::AutoPassthrough))
        })
    }

    /// The inbound clusters: one for each port of the workload that a service or a Sidecar's ingress names.
    pub fn inbound(&self, found: &mut Vec<(Arc<str>, ClusterInput)>) {
        let targets = self.snapshot.service_targets(self.node);
        if let Some(spec) = self.scope.spec().filter(|spec| !spec.ingress.is_empty()) {
            found.extend(spec.ingress.iter().filter_map(|listener| self.ingress(listener, &targets)));
            return;
        }
        if self.node.interception_mode() == InterceptionMode::None {
            return;
        }
        let mut by_port: BTreeMap<u32, Vec<ServiceTarget>> = BTreeMap::new();
        for target in targets.into_iter().filter(|target| target.port.protocol != Protocol::Udp) {
            by_port.entry(target.target_port).or_default().push(target);
        }
        let passthrough = self.common.mesh.inbound_traffic_policy.mode == InboundTrafficPolicyMode::Passthrough;
        let loopback: Arc<str> = if self.common.ipv4 { "127.0.0.1" } else { "::1" }.into();
        for (port, targets) in by_port {
            let endpoint = (!passthrough).then(|| (loopback.clone(), port));
            let Some(first) = targets.first() else { continue };
            let service_port = first.port.clone();
            // Services that reach the port under another number of their own are other clusters' telemetry.
            let mut services: Vec<Shared<Service>> = Vec::new();
            for target in targets.iter().filter(|target| target.port.number == service_port.number) {
                if !services.iter().any(|service| service.hostname == target.service.hostname) {
                    services.push(target.service.clone());
                }
            }
            found.push(self.inbound_input(port, endpoint, service_port, services));
        }
    }

    fn inbound_input(
        &self,
        port: u32,
        endpoint: Option<(Arc<str>, u32)>,
        service_port: Port,
        services: Vec<Shared<Service>>,
    ) -> (Arc<str>, ClusterInput) {
        let rule = services.first().and_then(|service| self.snapshot.inbound_destination_rule(self.node, service));
        let input = InboundCluster {
            port,
            common: self.common.clone(),
            endpoint,
            protocol: service_port.protocol,
            service_port: Some(service_port),
            rule,
            connection_pool: self.scope.inbound_connection_pool(port).cloned(),
            services,
        };
        (names::inbound(port).into(), ClusterInput::Inbound(Box::new(input)))
    }

    fn ingress(&self, listener: &IstioIngressListener, targets: &[ServiceTarget]) -> Option<(Arc<str>, ClusterInput)> {
        let declared = listener.port.as_ref()?;
        let endpoint = match &*listener.default_endpoint {
            "" => None,
            text => Some(self.default_endpoint(text)?),
        };
        let port = Port {
            name: declared.name.clone(),
            number: declared.number,
            protocol: Protocol::parse(&declared.protocol),
            target: meltemi_model::TargetPort::Same,
        };
        let service = targets.iter().find(|target| target.target_port == declared.number);
        let services = service.map(|target| target.service.clone()).into_iter().collect();
        Some(self.inbound_input(declared.number, endpoint, port, services))
    }

    /// `127.0.0.1:port` and `[::1]:port` are the workload's loopback, `0.0.0.0:port` and `[::]:port` its own address.
    fn default_endpoint(&self, text: &str) -> Option<(Arc<str>, u32)> {
        if text.starts_with("unix:") {
            return Some((text.into(), 0));
        }
        let (host, port) = names::host_and_port(text)?;
        let own = |v6: bool| self.node.ip_addresses.iter().find(|address| address.contains(':') == v6).cloned();
        let loopback = |v6: bool| Arc::from(if v6 { "::1" } else { "127.0.0.1" });
        let host = match host {
            "0.0.0.0" => own(false).unwrap_or_else(|| loopback(false)),
            "::" => own(true).unwrap_or_else(|| loopback(true)),
            "127.0.0.1" => loopback(!self.common.ipv4 && self.common.ipv6),
            "::1" => loopback(self.common.ipv6 || !self.common.ipv4),
            _ => return None,
        };
        Some((host, port))
    }
}

/// Whether a request or connection says which host it is for.
fn names_hosts(protocol: Protocol) -> bool {
    protocol.is_http() || protocol.is_tls()
}

impl OutboundCluster {
    pub fn is_dns(&self) -> bool {
        matches!(self.service.resolution, Resolution::DnsLb | Resolution::DnsRoundRobin)
    }
}

/// `proxyHeaders.preserveHttp1HeaderCase`, of the mesh or of the proxy's own configuration.
fn preserve_header_case(mesh: &MeshConfig, node: &Node) -> bool {
    let own = node.metadata.get("PROXY_CONFIG").and_then(|config| config.get("proxyHeaders"));
    let own = own.and_then(|headers| headers.get("preserveHttp1HeaderCase")).and_then(|value| value.as_bool());
    let mesh = mesh.default_config.proxy_headers.as_ref().and_then(|headers| headers.preserve_http1_header_case);
    own.or(mesh).unwrap_or(false)
}
