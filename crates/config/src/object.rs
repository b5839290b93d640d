//! `Object`: metadata and a typed spec, as an immutable value that is cheap to clone and to compare.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::extensions::{TrafficExtension, WasmPlugin};
use crate::gateway_api::{
    BackendTlsPolicy, GatewayClass, GrpcRoute, HttpRoute, InferencePool, KubernetesGateway, ListenerSet,
    ReferenceGrant, TcpRoute, TlsRoute, XBackend, XBackendTrafficPolicy,
};
use crate::kind::Kind;
use crate::kube::{
    ConfigMap, DaemonSet, Deployment, EndpointSlice, Endpoints, Ingress, IngressClass, Job, KubeNode, KubeService,
    Namespace, Pod, ReplicaSet, Secret, ServiceAccount, StatefulSet,
};
use crate::mixer::{MemQuota, Quota};
use crate::networking::{
    DestinationRule, EnvoyFilter, Gateway, ProxyConfigResource, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
    WorkloadGroup,
};
use crate::problem::Source;
use crate::rate_limit::RateLimitPolicy;
use crate::resilience::{FutureFeatures, ResiliencePolicy};
use crate::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::telemetry::Telemetry;
use crate::wire::Str;

/// What names an object. Cluster-scoped kinds have an empty namespace.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub kind: Kind,
    pub namespace: Str,
    pub name: Str,
}

impl Key {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }

    /// The ConfigMap in which Istio keeps the mesh configuration of a cluster.
    pub fn mesh_config_map() -> Self {
        Self::new(Kind::ConfigMap, "istio-system", "istio")
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind, self.name),
            namespace => write!(f, "{} {}/{}", self.kind, namespace, self.name),
        }
    }
}

/// Kubernetes object metadata, as far as it means something to a mesh.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Meta {
    pub name: Str,
    /// `default` where a namespaced document names none; empty for cluster-scoped kinds.
    pub namespace: Str,
    pub labels: BTreeMap<Str, Str>,
    pub annotations: BTreeMap<Str, Str>,
    pub creation_timestamp: Option<jiff::Timestamp>,
    pub uid: Str,
    pub resource_version: Str,
    pub generation: i64,
    pub owner_references: Vec<OwnerReference>,
    /// Set while the object waits for its finalizers: it is going away.
    pub deletion_timestamp: Option<jiff::Timestamp>,
    pub source: Option<Source>,
}

impl Meta {
    /// In the namespace that it names, or else in this one; outside of all where its kind is.
    pub(crate) fn placed(mut self, kind: Kind, namespace: &str) -> Self {
        if !kind.info().namespaced {
            self.namespace = Str::default();
        } else if self.namespace.is_empty() {
            self.namespace = namespace.into();
        }
        self
    }
}

/// The object that made this one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct OwnerReference {
    pub kind: Str,
    pub name: Str,
    pub controller: bool,
}

/// One document.
#[derive(Debug, Clone)]
pub struct Object {
    pub meta: Arc<Meta>,
    pub spec: Spec,
    /// Hash of labels, annotations and spec: equal for equal content, wherever it was written.
    pub hash: u64,
}

macro_rules! specs {
    ($( $variant:ident ( $type:ty ) ),* $(,)?) => {
        /// The typed part of an object.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Spec { $( $variant(Arc<$type>), )* }

        impl Spec {
            pub fn kind(&self) -> Kind {
                match self { $( Self::$variant(_) => Kind::$variant, )* }
            }

            pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(kind: Kind, from: D) -> Result<Self, D::Error> {
                match kind {
                    $( Kind::$variant => {
                        <$type as serde::Deserialize>::deserialize(from).map(|v| Self::$variant(Arc::new(v)))
                    } )*
                }
            }
        }

        impl serde::Serialize for Spec {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self { $( Self::$variant(value) => value.serialize(serializer), )* }
            }
        }

        $( impl Resource for $type {
            const KIND: Kind = Kind::$variant;
            fn of(spec: &Spec) -> Option<&Arc<Self>> {
                match spec {
                    Spec::$variant(value) => Some(value),
                    _ => None,
                }
            }
            fn into_spec(self) -> Spec {
                Spec::$variant(Arc::new(self))
            }
        } )*
    };
}

/// A type that is the spec of a kind: lets a store be asked by type.
pub trait Resource: Sized + Send + Sync + 'static {
    const KIND: Kind;
    fn of(spec: &Spec) -> Option<&Arc<Self>>;
    fn into_spec(self) -> Spec;
}

specs! {
    VirtualService(VirtualService),
    DestinationRule(DestinationRule),
    Gateway(Gateway),
    ServiceEntry(ServiceEntry),
    WorkloadEntry(WorkloadEntry),
    WorkloadGroup(WorkloadGroup),
    Sidecar(Sidecar),
    EnvoyFilter(EnvoyFilter),
    ProxyConfig(ProxyConfigResource),
    PeerAuthentication(PeerAuthentication),
    RequestAuthentication(RequestAuthentication),
    AuthorizationPolicy(AuthorizationPolicy),
    Telemetry(Telemetry),
    WasmPlugin(WasmPlugin),
    TrafficExtension(TrafficExtension),
    FutureFeatures(FutureFeatures),
    ResiliencePolicy(ResiliencePolicy),
    RateLimitPolicy(RateLimitPolicy),
    MemQuota(MemQuota),
    Quota(Quota),
    GatewayClass(GatewayClass),
    KubernetesGateway(KubernetesGateway),
    ListenerSet(ListenerSet),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    TcpRoute(TcpRoute),
    TlsRoute(TlsRoute),
    ReferenceGrant(ReferenceGrant),
    BackendTlsPolicy(BackendTlsPolicy),
    XBackendTrafficPolicy(XBackendTrafficPolicy),
    XBackend(XBackend),
    InferencePool(InferencePool),
    Ingress(Ingress),
    IngressClass(IngressClass),
    Service(KubeService),
    Endpoints(Endpoints),
    EndpointSlice(EndpointSlice),
    Pod(Pod),
    Namespace(Namespace),
    Node(KubeNode),
    ServiceAccount(ServiceAccount),
    Secret(Secret),
    ConfigMap(ConfigMap),
    Deployment(Deployment),
    StatefulSet(StatefulSet),
    ReplicaSet(ReplicaSet),
    DaemonSet(DaemonSet),
    Job(Job),
}

impl Object {
    /// An object from its parts; computes the content hash.
    pub fn new(meta: Meta, spec: Spec) -> Self {
        use std::hash::{DefaultHasher, Hash, Hasher};
        let mut hasher = DefaultHasher::new();
        (&meta.name, &meta.namespace, &meta.labels, &meta.annotations, &meta.creation_timestamp).hash(&mut hasher);
        // An object that was removed and made again says the same, and is another.
        (&meta.owner_references, &meta.deletion_timestamp, &meta.uid, meta.generation).hash(&mut hasher);
        spec.hash(&mut hasher);
        Self { meta: Arc::new(meta), spec, hash: hasher.finish() }
    }

    pub fn kind(&self) -> Kind {
        self.spec.kind()
    }

    pub fn key(&self) -> Key {
        Key { kind: self.kind(), namespace: self.meta.namespace.clone(), name: self.meta.name.clone() }
    }

    /// The text of the mesh configuration, if this is the object that has it.
    pub fn mesh_config(&self) -> Option<&str> {
        let Spec::ConfigMap(map) = &self.spec else { return None };
        map.data.get("mesh").map(|text| &**text).filter(|_| self.key() == Key::mesh_config_map())
    }

    /// The spec as `T`, if it is one.
    pub fn spec_as<T: Resource>(&self) -> Option<&Arc<T>> {
        T::of(&self.spec)
    }
}

/// Equal content; where it was written does not count.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
            && self.meta.name == other.meta.name
            && self.meta.namespace == other.meta.namespace
            && self.meta.labels == other.meta.labels
            && self.meta.annotations == other.meta.annotations
            && self.spec == other.spec
    }
}

impl Eq for Object {}
