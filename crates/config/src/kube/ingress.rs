//! Ingress and IngressClass: Kubernetes' first way of saying what is served at the edge.

use super::LoadBalancerStatus;
use crate::wire::{Ignored, Str, enumeration, message};

message! {
    /// `networking.k8s.io/v1` Ingress.
    struct Ingress {
        spec: IngressSpec,
        status: IngressStatus,
    }

    struct IngressSpec {
        ingress_class_name: Option<Str>,
        /// For requests that no rule is for.
        default_backend: Option<IngressBackend>,
        tls: Vec<IngressTls>,
        rules: Vec<IngressRule>,
    }

    struct IngressTls {
        /// Empty: every host.
        hosts: Vec<Str>,
        secret_name: Str,
    }

    struct IngressRule {
        /// Empty: every host.
        host: Str,
        http: Option<HttpIngressRule>,
    }

    struct HttpIngressRule {
        paths: Vec<HttpIngressPath>,
    }

    struct HttpIngressPath {
        path: Str,
        path_type: Option<PathType>,
        backend: IngressBackend,
    }

    /// One of both.
    struct IngressBackend {
        service: Option<IngressServiceBackend>,
        resource: Option<Ignored>,
    }

    struct IngressServiceBackend {
        name: Str,
        port: ServiceBackendPort,
    }

    /// One of both.
    struct ServiceBackendPort {
        name: Str,
        number: u32,
    }

    struct IngressStatus {
        load_balancer: LoadBalancerStatus,
    }

    /// `networking.k8s.io/v1` IngressClass.
    struct IngressClass {
        spec: IngressClassSpec,
    }

    struct IngressClassSpec {
        /// `istio.io/ingress-controller` is ours.
        controller: Str,
        parameters: Ignored,
    }
}

enumeration! {
    enum PathType {
        #[default]
        ImplementationSpecific = "ImplementationSpecific",
        Exact = "Exact",
        Prefix = "Prefix",
    }
}
