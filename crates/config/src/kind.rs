//! The table of kinds: group, served versions, plural, scope, and where in the document the typed part sits.
//!
//! Owns the names; never the types. One static array, looked up by a scan of some forty entries.

use std::fmt;

/// A kind of document that Meltemi understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    VirtualService,
    DestinationRule,
    Gateway,
    ServiceEntry,
    WorkloadEntry,
    WorkloadGroup,
    Sidecar,
    EnvoyFilter,
    ProxyConfig,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    Telemetry,
    WasmPlugin,
    TrafficExtension,
    /// `networking.istio.io/v1alpha3` Telemetry, which Istio never had: a [`Kind::ResiliencePolicy`] in another spelling.
    FutureFeatures,
    ResiliencePolicy,
    RateLimitPolicy,
    /// Mixer's: a [`Kind::RateLimitPolicy`] of old, together with [`Kind::Quota`].
    MemQuota,
    Quota,
    GatewayClass,
    /// The Gateway API's; [`Kind::Gateway`] is Istio's.
    KubernetesGateway,
    ListenerSet,
    HttpRoute,
    GrpcRoute,
    TcpRoute,
    TlsRoute,
    ReferenceGrant,
    Service,
    Endpoints,
    EndpointSlice,
    Pod,
    Namespace,
    Node,
    ServiceAccount,
    Secret,
    ConfigMap,
    Deployment,
    StatefulSet,
    ReplicaSet,
    DaemonSet,
    Job,
}

/// Where the typed part of a document sits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// Istio's, the Gateway API's and our own kinds: the type is the content of `spec`; `status` is output and not read.
    Spec,
    /// Kubernetes: the type is the document without `apiVersion`, `kind` and `metadata`.
    Document,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct KindInfo {
    pub kind: Kind,
    pub name: &'static str,
    pub group: &'static str,
    /// Served versions, the preferred one first.
    pub versions: &'static [&'static str],
    pub plural: &'static str,
    pub namespaced: bool,
    pub shape: Shape,
}

const NETWORKING: &str = "networking.istio.io";
/// The Gateway API's.
pub(crate) const GATEWAY_API: &str = crate::gateway_api::GROUP;
/// Our own group.
pub(crate) const MELTEMI: &str = "meltemi.io";
/// Gone from Istio.
pub(crate) const MIXER: &str = "config.istio.io";
const SECURITY: &str = "security.istio.io";
const EXTENSIONS: &str = "extensions.istio.io";
const V1: &[&str] = &["v1"];
const V1_BETA: &[&str] = &["v1", "v1beta1"];
const NETWORKING_VERSIONS: &[&str] = &["v1", "v1beta1", "v1alpha3"];

const fn istio(
    kind: Kind,
    name: &'static str,
    group: &'static str,
    versions: &'static [&'static str],
    plural: &'static str,
) -> KindInfo {
    KindInfo { kind, name, group, versions, plural, namespaced: true, shape: Shape::Spec }
}

const fn kube(kind: Kind, name: &'static str, group: &'static str, plural: &'static str, namespaced: bool) -> KindInfo {
    KindInfo { kind, name, group, versions: V1, plural, namespaced, shape: Shape::Document }
}

static TABLE: [KindInfo; 42] = [
    istio(Kind::VirtualService, "VirtualService", NETWORKING, NETWORKING_VERSIONS, "virtualservices"),
    istio(Kind::DestinationRule, "DestinationRule", NETWORKING, NETWORKING_VERSIONS, "destinationrules"),
    istio(Kind::Gateway, "Gateway", NETWORKING, NETWORKING_VERSIONS, "gateways"),
    istio(Kind::ServiceEntry, "ServiceEntry", NETWORKING, NETWORKING_VERSIONS, "serviceentries"),
    istio(Kind::WorkloadEntry, "WorkloadEntry", NETWORKING, NETWORKING_VERSIONS, "workloadentries"),
    istio(Kind::WorkloadGroup, "WorkloadGroup", NETWORKING, NETWORKING_VERSIONS, "workloadgroups"),
    istio(Kind::Sidecar, "Sidecar", NETWORKING, NETWORKING_VERSIONS, "sidecars"),
    istio(Kind::EnvoyFilter, "EnvoyFilter", NETWORKING, &["v1alpha3"], "envoyfilters"),
    istio(Kind::ProxyConfig, "ProxyConfig", NETWORKING, &["v1beta1"], "proxyconfigs"),
    istio(Kind::PeerAuthentication, "PeerAuthentication", SECURITY, &["v1", "v1beta1"], "peerauthentications"),
    istio(Kind::RequestAuthentication, "RequestAuthentication", SECURITY, &["v1", "v1beta1"], "requestauthentications"),
    istio(Kind::AuthorizationPolicy, "AuthorizationPolicy", SECURITY, &["v1", "v1beta1"], "authorizationpolicies"),
    istio(Kind::Telemetry, "Telemetry", "telemetry.istio.io", &["v1", "v1alpha1"], "telemetries"),
    istio(Kind::WasmPlugin, "WasmPlugin", EXTENSIONS, &["v1alpha1"], "wasmplugins"),
    istio(Kind::TrafficExtension, "TrafficExtension", EXTENSIONS, &["v1alpha1"], "trafficextensions"),
    istio(Kind::FutureFeatures, "Telemetry", NETWORKING, &["v1alpha3"], "telemetries"),
    istio(Kind::ResiliencePolicy, "ResiliencePolicy", MELTEMI, &["v1alpha1"], "resiliencepolicies"),
    istio(Kind::RateLimitPolicy, "RateLimitPolicy", MELTEMI, &["v1alpha1"], "ratelimitpolicies"),
    istio(Kind::MemQuota, "memquota", MIXER, &["v1alpha2"], "memquotas"),
    istio(Kind::Quota, "quota", MIXER, &["v1alpha2"], "quotas"),
    KindInfo { namespaced: false, ..istio(Kind::GatewayClass, "GatewayClass", GATEWAY_API, V1_BETA, "gatewayclasses") },
    istio(Kind::KubernetesGateway, "Gateway", GATEWAY_API, V1_BETA, "gateways"),
    istio(Kind::ListenerSet, "ListenerSet", GATEWAY_API, V1, "listenersets"),
    istio(Kind::HttpRoute, "HTTPRoute", GATEWAY_API, V1_BETA, "httproutes"),
    istio(Kind::GrpcRoute, "GRPCRoute", GATEWAY_API, &["v1", "v1alpha2"], "grpcroutes"),
    istio(Kind::TcpRoute, "TCPRoute", GATEWAY_API, &["v1", "v1alpha2"], "tcproutes"),
    istio(Kind::TlsRoute, "TLSRoute", GATEWAY_API, &["v1", "v1alpha3", "v1alpha2"], "tlsroutes"),
    istio(Kind::ReferenceGrant, "ReferenceGrant", GATEWAY_API, V1_BETA, "referencegrants"),
    kube(Kind::Service, "Service", "", "services", true),
    kube(Kind::Endpoints, "Endpoints", "", "endpoints", true),
    kube(Kind::EndpointSlice, "EndpointSlice", "discovery.k8s.io", "endpointslices", true),
    kube(Kind::Pod, "Pod", "", "pods", true),
    kube(Kind::Namespace, "Namespace", "", "namespaces", false),
    kube(Kind::Node, "Node", "", "nodes", false),
    kube(Kind::ServiceAccount, "ServiceAccount", "", "serviceaccounts", true),
    kube(Kind::Secret, "Secret", "", "secrets", true),
    kube(Kind::ConfigMap, "ConfigMap", "", "configmaps", true),
    kube(Kind::Deployment, "Deployment", "apps", "deployments", true),
    kube(Kind::StatefulSet, "StatefulSet", "apps", "statefulsets", true),
    kube(Kind::ReplicaSet, "ReplicaSet", "apps", "replicasets", true),
    kube(Kind::DaemonSet, "DaemonSet", "apps", "daemonsets", true),
    kube(Kind::Job, "Job", "batch", "jobs", true),
];

impl Kind {
    /// Every kind, in the order of the table.
    pub fn all() -> impl Iterator<Item = Kind> {
        TABLE.iter().map(|row| row.kind)
    }

    /// The row of this kind.
    pub fn info(self) -> &'static KindInfo {
        &TABLE[self as usize]
    }

    /// The kind with this name in this group. The same name may be in several groups (`Gateway`).
    pub fn find(group: &str, name: &str) -> Option<Kind> {
        TABLE.iter().find(|row| row.name == name && row.group == group).map(|row| row.kind)
    }

    /// `networking.istio.io/v1`, or `v1` for the core group.
    pub fn api_version(self) -> String {
        let info = self.info();
        match info.group {
            "" => info.versions[0].to_owned(),
            group => format!("{group}/{}", info.versions[0]),
        }
    }

    /// True for Istio's own kinds.
    pub fn is_istio(self) -> bool {
        self.info().group.ends_with(".istio.io")
    }

    /// True for kinds that are protobuf messages, and are written with protojson's leniences.
    pub(crate) fn is_protobuf(self) -> bool {
        self.is_istio() || self.info().group == MELTEMI
    }

    /// The name in `kind:`.
    pub fn as_str(self) -> &'static str {
        self.info().name
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests;
