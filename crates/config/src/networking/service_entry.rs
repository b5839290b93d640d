//! ServiceEntry, WorkloadEntry and WorkloadGroup: services and workloads that no Kubernetes Service describes.

use std::collections::BTreeMap;

use crate::wire::{Str, enumeration, message};

message! {
    /// `networking.istio.io` ServiceEntry.
    struct ServiceEntry {
        hosts: Vec<Str>,
        /// VIPs or CIDRs.
        addresses: Vec<Str>,
        ports: Vec<ServicePort>,
        location: ServiceLocation,
        resolution: Resolution,
        endpoints: Vec<WorkloadEntry>,
        workload_selector: Option<WorkloadSelector>,
        export_to: Vec<Str>,
        subject_alt_names: Vec<Str>,
    }

    struct ServicePort {
        number: u32,
        protocol: Str,
        name: Str,
        /// 0 is `number`.
        target_port: u32,
    }

    /// Labels of workloads; empty selects all in the namespace.
    struct WorkloadSelector {
        labels: BTreeMap<Str, Str>,
    }

    /// `networking.istio.io` WorkloadEntry, also an endpoint of a ServiceEntry.
    struct WorkloadEntry {
        /// IP, DNS name, or `unix://` path.
        address: Str,
        /// Port name to port.
        ports: BTreeMap<Str, u32>,
        labels: BTreeMap<Str, Str>,
        network: Str,
        /// `region/zone/subzone`.
        locality: Str,
        weight: u32,
        service_account: Str,
    }

    /// `networking.istio.io` WorkloadGroup.
    struct WorkloadGroup {
        metadata: Option<WorkloadGroupMetadata>,
        template: Option<WorkloadEntry>,
        probe: Option<ReadinessProbe>,
    }

    struct WorkloadGroupMetadata {
        labels: BTreeMap<Str, Str>,
        annotations: BTreeMap<Str, Str>,
    }

    /// At most one of the four methods.
    struct ReadinessProbe {
        initial_delay_seconds: i32,
        timeout_seconds: i32,
        period_seconds: i32,
        success_threshold: i32,
        failure_threshold: i32,
        http_get: Option<HttpHealthCheck>,
        tcp_socket: Option<TcpHealthCheck>,
        exec: Option<ExecHealthCheck>,
        grpc: Option<GrpcHealthCheck>,
    }

    struct HttpHealthCheck {
        path: Str,
        port: u32,
        host: Str,
        scheme: Str,
        http_headers: Vec<HttpHeader>,
    }

    struct HttpHeader {
        name: Str,
        value: Str,
    }

    struct TcpHealthCheck {
        host: Str,
        port: u32,
    }

    struct ExecHealthCheck {
        command: Vec<Str>,
    }

    struct GrpcHealthCheck {
        port: u32,
        service: Str,
    }
}

enumeration! {
    enum ServiceLocation {
        #[default]
        MeshExternal = "MESH_EXTERNAL",
        MeshInternal = "MESH_INTERNAL",
    }

    enum Resolution {
        #[default]
        None = "NONE",
        Static = "STATIC",
        Dns = "DNS",
        DnsRoundRobin = "DNS_ROUND_ROBIN",
        DynamicDns = "DYNAMIC_DNS",
    }
}
