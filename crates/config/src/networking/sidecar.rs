//! Sidecar: what a workload's proxy listens on and which services it sees.

use super::{ConnectionPoolSettings, Destination, Port, ServerTlsSettings, WorkloadSelector};
use crate::wire::{Str, enumeration, message};

message! {
    /// `networking.istio.io` Sidecar.
    struct Sidecar {
        workload_selector: Option<WorkloadSelector>,
        ingress: Vec<IstioIngressListener>,
        egress: Vec<IstioEgressListener>,
        inbound_connection_pool: Option<ConnectionPoolSettings>,
        outbound_traffic_policy: Option<OutboundTrafficPolicy>,
    }

    struct IstioIngressListener {
        port: Option<Port>,
        bind: Str,
        capture_mode: CaptureMode,
        /// `127.0.0.1:port`, `[::1]:port`, `0.0.0.0:port`, `[::]:port`, `unix://path`; empty is the port itself.
        default_endpoint: Str,
        tls: Option<ServerTlsSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
    }

    struct IstioEgressListener {
        port: Option<Port>,
        bind: Str,
        capture_mode: CaptureMode,
        /// `namespace/dnsName`, namespace may be `*`, `.` or `~`.
        hosts: Vec<Str>,
    }

    struct OutboundTrafficPolicy {
        mode: OutboundTrafficPolicyMode,
        egress_proxy: Option<Destination>,
    }
}

enumeration! {
    enum CaptureMode {
        #[default]
        Default = "DEFAULT",
        Iptables = "IPTABLES",
        None = "NONE",
    }

    /// Of a Sidecar. MeshConfig's has one value more.
    enum OutboundTrafficPolicyMode {
        #[default]
        RegistryOnly = "REGISTRY_ONLY",
        AllowAny = "ALLOW_ANY",
    }
}
