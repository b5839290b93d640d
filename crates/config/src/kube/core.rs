//! Service, Endpoints, EndpointSlice, Namespace, Node, ServiceAccount, Secret, ConfigMap.

use std::collections::BTreeMap;

use crate::wire::{Base64Bytes, Ignored, IntOrString, Str, enumeration, message};

message! {
    /// `v1` Service.
    struct KubeService {
        spec: ServiceSpec,
        status: ServiceStatus,
    }

    struct ServiceStatus {
        load_balancer: LoadBalancerStatus,
        conditions: Ignored,
    }

    struct LoadBalancerStatus {
        ingress: Vec<LoadBalancerIngress>,
    }

    /// One address by which a Service or an Ingress is reached from outside: an address or a name.
    struct LoadBalancerIngress {
        ip: Str,
        hostname: Str,
        ip_mode: Ignored,
        ports: Ignored,
    }

    struct ServiceSpec {
        #[serde(rename = "type")]
        service_type: ServiceType,
        ports: Vec<KubeServicePort>,
        selector: BTreeMap<Str, Str>,
        /// Empty: none assigned yet. `None`: headless.
        #[serde(rename = "clusterIP")]
        cluster_ip: Str,
        #[serde(rename = "clusterIPs")]
        cluster_ips: Vec<Str>,
        #[serde(rename = "externalIPs")]
        external_ips: Vec<Str>,
        external_name: Str,
        publish_not_ready_addresses: bool,
        session_affinity: Str,
        internal_traffic_policy: Str,
        external_traffic_policy: Ignored,
        /// `PreferClose`, `PreferSameZone`, `PreferSameNode` or empty.
        traffic_distribution: Str,
        /// `IPv4`, `IPv6`; empty: as the policy has it.
        ip_families: Vec<Str>,
        /// `SingleStack` (also when empty), `PreferDualStack` or `RequireDualStack`.
        ip_family_policy: Str,
        #[serde(rename = "loadBalancerIP")]
        load_balancer_ip: Ignored,
        load_balancer_class: Ignored,
        load_balancer_source_ranges: Ignored,
        allocate_load_balancer_node_ports: Ignored,
        health_check_node_port: Ignored,
        session_affinity_config: Ignored,
    }

    struct KubeServicePort {
        name: Str,
        port: u32,
        target_port: Option<IntOrString>,
        /// `TCP` (also when empty), `UDP` or `SCTP`.
        protocol: Str,
        app_protocol: Str,
        node_port: Ignored,
    }

    /// `v1` Endpoints.
    struct Endpoints {
        subsets: Vec<EndpointSubset>,
    }

    struct EndpointSubset {
        addresses: Vec<EndpointAddress>,
        not_ready_addresses: Vec<EndpointAddress>,
        ports: Vec<EndpointPort>,
    }

    struct EndpointAddress {
        ip: Str,
        hostname: Str,
        node_name: Str,
        target_ref: Option<ObjectReference>,
    }

    /// Of Endpoints and of an EndpointSlice.
    struct EndpointPort {
        name: Str,
        port: Option<u32>,
        protocol: Str,
        app_protocol: Str,
    }

    struct ObjectReference {
        kind: Str,
        name: Str,
        namespace: Str,
        uid: Str,
        api_version: Ignored,
        resource_version: Ignored,
        field_path: Ignored,
    }

    /// `discovery.k8s.io/v1` EndpointSlice. Its Service is in the label `kubernetes.io/service-name`.
    struct EndpointSlice {
        address_type: Str,
        endpoints: Vec<SliceEndpoint>,
        ports: Vec<EndpointPort>,
    }

    struct SliceEndpoint {
        addresses: Vec<Str>,
        conditions: EndpointConditions,
        hostname: Str,
        target_ref: Option<ObjectReference>,
        node_name: Str,
        zone: Str,
        hints: Ignored,
        deprecated_topology: Ignored,
    }

    /// An absent `ready` or `serving` is true.
    struct EndpointConditions {
        ready: Option<bool>,
        serving: Option<bool>,
        terminating: Option<bool>,
    }

    /// `v1` Namespace: only its labels and annotations matter.
    struct Namespace {
        spec: Ignored,
        status: Ignored,
    }

    /// `v1` Node. Its locality is in its labels `topology.kubernetes.io/region`, `/zone`, `topology.istio.io/subzone`.
    struct KubeNode {
        spec: Ignored,
        status: NodeStatus,
    }

    struct NodeStatus {
        addresses: Vec<NodeAddress>,
        allocatable: Ignored,
        capacity: Ignored,
        conditions: Ignored,
        config: Ignored,
        daemon_endpoints: Ignored,
        declared_features: Ignored,
        features: Ignored,
        images: Ignored,
        node_info: NodeInfo,
        phase: Ignored,
        runtime_handlers: Ignored,
        volumes_attached: Ignored,
        volumes_in_use: Ignored,
    }

    struct NodeInfo {
        /// Such as `v1.36.0`.
        kubelet_version: Str,
        architecture: Ignored,
        #[serde(rename = "bootID")]
        boot_id: Ignored,
        container_runtime_version: Ignored,
        kernel_version: Ignored,
        kube_proxy_version: Ignored,
        #[serde(rename = "machineID")]
        machine_id: Ignored,
        operating_system: Ignored,
        os_image: Ignored,
        swap: Ignored,
        #[serde(rename = "systemUUID")]
        system_uuid: Ignored,
    }

    struct NodeAddress {
        #[serde(rename = "type")]
        address_type: Str,
        address: Str,
    }

    /// `v1` ServiceAccount.
    struct ServiceAccount {
        secrets: Ignored,
        image_pull_secrets: Ignored,
        automount_service_account_token: Ignored,
    }

    /// `v1` Secret.
    struct Secret {
        #[serde(rename = "type")]
        secret_type: Str,
        data: BTreeMap<Str, Base64Bytes>,
        /// As plain text; wins over `data`. Not shown by `Debug`.
        string_data: BTreeMap<Str, SecretText>,
        immutable: Ignored,
    }

    /// `v1` ConfigMap.
    struct ConfigMap {
        data: BTreeMap<Str, Str>,
        binary_data: BTreeMap<Str, Base64Bytes>,
        immutable: Ignored,
    }
}

enumeration! {
    enum ServiceType {
        #[default]
        ClusterIp = "ClusterIP",
        NodePort = "NodePort",
        LoadBalancer = "LoadBalancer",
        ExternalName = "ExternalName",
    }
}

/// Text that may be a key: never shown.
#[derive(Clone, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SecretText(pub Str);

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

impl Secret {
    /// The bytes under a key, from `stringData` or `data`.
    pub fn value(&self, key: &str) -> Option<&[u8]> {
        self.string_data.get(key).map(|t| t.0.as_bytes()).or_else(|| self.data.get(key).map(|b| &*b.0))
    }
}

impl ServiceSpec {
    /// A service without a virtual address.
    pub fn is_headless(&self) -> bool {
        self.cluster_ip.eq_ignore_ascii_case("none")
    }

    /// The virtual addresses, none for a headless or external-name service.
    pub fn vips(&self) -> impl Iterator<Item = &Str> {
        let single =
            if self.cluster_ips.is_empty() { std::slice::from_ref(&self.cluster_ip) } else { &self.cluster_ips[..] };
        single.iter().filter(|ip| !ip.is_empty() && !ip.eq_ignore_ascii_case("none"))
    }
}
