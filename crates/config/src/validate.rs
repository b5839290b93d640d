//! Validation with the meaning of Istio's webhook and of the constraints in its CRDs: one function a kind, pure.
//!
//! Owns: which objects are accepted. Never looks at another object (that is analysis). Linear in the object, but for
//! pairwise comparisons of the hosts of one VirtualService.

mod common;
mod destination_rule;
mod envoy_filter;
mod extensions;
mod gateway;
mod gateway_api;
mod http;
mod ingress;
mod kube;
mod load_balancer;
mod mesh;
mod mixer;
mod proxy_config;
mod rate_limit;
mod reachability;
mod resilience;
mod security;
mod service_entry;
mod sidecar;
mod telemetry;
mod virtual_service;

use std::fmt::Display;

pub use self::http::GRPC_STATUSES;
pub use self::kube::ALWAYS_REJECT;
pub use self::mesh::{is_cipher_suite, mesh_config, mesh_networks};
pub use self::proxy_config::proxy_config;
pub(crate) use self::rate_limit::rate_limit_configuration;

use crate::object::{Object, Spec};
use crate::path::Path;

/// What is wrong at one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `spec.http[0].timeout`; empty for the whole object.
    pub path: String,
    pub message: String,
}

/// The result: any error refuses the object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validation {
    pub errors: Vec<Finding>,
    pub warnings: Vec<Finding>,
}

impl Validation {
    fn error(&mut self, at: &Path<'_>, message: impl Display) {
        self.errors.push(Finding { path: at.to_string(), message: message.to_string() });
    }

    fn warn(&mut self, at: &Path<'_>, message: impl Display) {
        self.warnings.push(Finding { path: at.to_string(), message: message.to_string() });
    }

    /// Records the error of a check.
    fn check<E: Display>(&mut self, at: &Path<'_>, result: Result<(), E>) {
        if let Err(error) = result {
            self.error(at, error);
        }
    }

    /// Records an error unless the condition holds.
    fn require(&mut self, at: &Path<'_>, condition: bool, message: impl Display) {
        if !condition {
            self.error(at, message);
        }
    }
}

/// Validates an object of any kind.
pub fn validate(object: &Object) -> Validation {
    let mut out = Validation::default();
    let v = &mut out;
    let at = &Path::root("spec");
    let meta = &*object.meta;
    match &object.spec {
        Spec::VirtualService(spec) => virtual_service::virtual_service(spec, meta, at, v),
        Spec::DestinationRule(spec) => destination_rule::destination_rule(spec, meta, at, v),
        Spec::Gateway(spec) => gateway::gateway(spec, meta, at, v),
        Spec::ServiceEntry(spec) => service_entry::service_entry(spec, meta, at, v),
        Spec::WorkloadEntry(spec) => service_entry::workload_entry(spec, at, v),
        Spec::WorkloadGroup(spec) => service_entry::workload_group(spec, at, v),
        Spec::Sidecar(spec) => sidecar::sidecar(spec, meta, at, v),
        Spec::EnvoyFilter(spec) => envoy_filter::envoy_filter(spec, at, v),
        Spec::ProxyConfig(spec) => proxy_config::resource(spec, at, v),
        Spec::PeerAuthentication(spec) => security::peer_authentication(spec, at, v),
        Spec::RequestAuthentication(spec) => security::request_authentication(spec, at, v),
        Spec::AuthorizationPolicy(spec) => security::authorization_policy(spec, at, v),
        Spec::Telemetry(spec) => telemetry::telemetry(spec, at, v),
        Spec::WasmPlugin(spec) => extensions::wasm_plugin(spec, at, v),
        Spec::TrafficExtension(spec) => extensions::traffic_extension(spec, at, v),
        Spec::FutureFeatures(spec) => resilience::future_features(spec, at, v),
        Spec::ResiliencePolicy(spec) => resilience::resilience_policy(spec, at, v),
        Spec::RateLimitPolicy(spec) => rate_limit::rate_limit_policy(spec, at, v),
        Spec::MemQuota(spec) => mixer::mem_quota(spec, at, v),
        Spec::Quota(spec) => mixer::quota(spec, at, v),
        Spec::GatewayClass(spec) => gateway_api::gateway_class(spec, at, v),
        Spec::KubernetesGateway(spec) => gateway_api::gateway(spec, at, v),
        Spec::ListenerSet(spec) => gateway_api::listener_set(spec, at, v),
        Spec::HttpRoute(spec) => gateway_api::http_route(spec, at, v),
        Spec::GrpcRoute(spec) => gateway_api::grpc_route(spec, at, v),
        Spec::TcpRoute(spec) => gateway_api::tcp_route(spec, at, v),
        Spec::TlsRoute(spec) => gateway_api::tls_route(spec, at, v),
        Spec::ReferenceGrant(spec) => gateway_api::reference_grant(spec, at, v),
        Spec::BackendTlsPolicy(spec) => gateway_api::backend_tls_policy(spec, at, v),
        Spec::XBackendTrafficPolicy(spec) => gateway_api::backend_traffic_policy(spec, at, v),
        Spec::XBackend(spec) => gateway_api::backend_resource(spec, at, v),
        Spec::InferencePool(spec) => gateway_api::inference_pool(spec, at, v),
        Spec::Ingress(spec) => ingress::ingress(spec, v),
        Spec::IngressClass(spec) => ingress::ingress_class(spec, v),
        Spec::Service(spec) => kube::service(spec, v),
        Spec::EndpointSlice(spec) => kube::endpoint_slice(spec, v),
        Spec::Endpoints(spec) => kube::endpoints(spec, v),
        Spec::Deployment(spec) => kube::workload(&spec.spec.template, &spec.spec.selector, spec.spec.replicas, v),
        Spec::StatefulSet(spec) => kube::workload(&spec.spec.template, &spec.spec.selector, spec.spec.replicas, v),
        Spec::ReplicaSet(spec) => kube::workload(&spec.spec.template, &spec.spec.selector, spec.spec.replicas, v),
        Spec::DaemonSet(spec) => kube::workload(&spec.spec.template, &spec.spec.selector, None, v),
        Spec::Job(spec) => kube::pod_template(&spec.spec.template, v),
        Spec::Pod(spec) => kube::pod(&spec.spec, at, v),
        Spec::Namespace(_) | Spec::Node(_) | Spec::ServiceAccount(_) | Spec::Secret(_) | Spec::ConfigMap(_) => {}
    }
    kube::annotations(object, v);
    out
}

/// What an API server demands of the metadata of any object.
pub(crate) fn metadata(object: &Object) -> Validation {
    let mut out = Validation::default();
    kube::names_and_labels(object, &mut out);
    out
}

/// Validates the messages of Envoy's that an object carries.
pub(crate) fn messages(object: &Object) -> Validation {
    let mut out = Validation::default();
    if let Spec::EnvoyFilter(spec) = &object.spec {
        envoy_filter::values(spec, &Path::root("spec"), &mut out);
    }
    out
}

#[cfg(test)]
mod tests;
