//! Pod and the pod spec inside every workload kind.

use std::collections::BTreeMap;

use crate::wire::{Ignored, IntOrString, Str, message};

message! {
    /// `v1` Pod.
    struct Pod {
        spec: PodSpec,
        status: PodStatus,
    }

    struct PodSpec {
        containers: Vec<Container>,
        init_containers: Vec<Container>,
        service_account_name: Str,
        /// Deprecated name of `service_account_name`.
        service_account: Str,
        node_name: Str,
        hostname: Str,
        subdomain: Str,
        host_network: bool,
        restart_policy: Str,
        termination_grace_period_seconds: Option<i64>,
        volumes: Vec<Volume>,
        active_deadline_seconds: Ignored,
        affinity: Ignored,
        automount_service_account_token: Ignored,
        dns_config: Ignored,
        dns_policy: Ignored,
        enable_service_links: Ignored,
        ephemeral_containers: Ignored,
        host_aliases: Ignored,
        #[serde(rename = "hostIPC")]
        host_ipc: Ignored,
        #[serde(rename = "hostPID")]
        host_pid: Ignored,
        host_users: Ignored,
        hostname_override: Ignored,
        image_pull_secrets: Ignored,
        node_selector: Ignored,
        os: Ignored,
        overhead: Ignored,
        preemption_policy: Ignored,
        priority: Ignored,
        priority_class_name: Ignored,
        readiness_gates: Ignored,
        resource_claims: Ignored,
        resources: Ignored,
        runtime_class_name: Ignored,
        scheduler_name: Ignored,
        scheduling_gates: Ignored,
        security_context: Ignored,
        #[serde(rename = "setHostnameAsFQDN")]
        set_hostname_as_fqdn: Ignored,
        share_process_namespace: Ignored,
        tolerations: Ignored,
        topology_spread_constraints: Ignored,
    }

    struct Container {
        name: Str,
        image: Str,
        command: Vec<Str>,
        args: Vec<Str>,
        working_dir: Str,
        ports: Vec<ContainerPort>,
        env: Vec<EnvVar>,
        env_from: Vec<EnvFromSource>,
        volume_mounts: Vec<VolumeMount>,
        readiness_probe: Option<Probe>,
        liveness_probe: Option<Probe>,
        startup_probe: Option<Probe>,
        restart_policy: Str,
        image_pull_policy: Ignored,
        lifecycle: Ignored,
        resize_policy: Ignored,
        resources: Ignored,
        restart_policy_rules: Ignored,
        security_context: Ignored,
        stdin: Ignored,
        stdin_once: Ignored,
        termination_message_path: Ignored,
        termination_message_policy: Ignored,
        tty: Ignored,
        volume_devices: Ignored,
    }

    struct ContainerPort {
        name: Str,
        container_port: u32,
        protocol: Str,
        host_port: Ignored,
        #[serde(rename = "hostIP")]
        host_ip: Ignored,
    }

    struct EnvVar {
        name: Str,
        value: Str,
        value_from: Option<EnvVarSource>,
    }

    struct EnvVarSource {
        field_ref: Option<FieldRef>,
        config_map_key_ref: Option<KeyRef>,
        secret_key_ref: Option<KeyRef>,
        resource_field_ref: Ignored,
        file_key_ref: Ignored,
    }

    struct FieldRef {
        field_path: Str,
        api_version: Ignored,
    }

    struct KeyRef {
        name: Str,
        key: Str,
        optional: Option<bool>,
    }

    struct EnvFromSource {
        prefix: Str,
        config_map_ref: Option<NameRef>,
        secret_ref: Option<NameRef>,
    }

    struct NameRef {
        name: Str,
        optional: Option<bool>,
    }

    struct VolumeMount {
        name: Str,
        mount_path: Str,
        sub_path: Str,
        read_only: bool,
        mount_propagation: Ignored,
        recursive_read_only: Ignored,
        sub_path_expr: Ignored,
    }

    /// Of the many volume types, those whose content the manifests hold.
    struct Volume {
        name: Str,
        config_map: Option<ConfigMapVolume>,
        secret: Option<SecretVolume>,
        empty_dir: Option<EmptyDirVolume>,
        host_path: Ignored,
        #[serde(rename = "downwardAPI")]
        downward_api: Ignored,
        projected: Ignored,
        persistent_volume_claim: Ignored,
        csi: Ignored,
        ephemeral: Ignored,
        image: Ignored,
        nfs: Ignored,
        iscsi: Ignored,
        fc: Ignored,
        aws_elastic_block_store: Ignored,
        azure_disk: Ignored,
        azure_file: Ignored,
        cephfs: Ignored,
        cinder: Ignored,
        flex_volume: Ignored,
        flocker: Ignored,
        gce_persistent_disk: Ignored,
        git_repo: Ignored,
        glusterfs: Ignored,
        photon_persistent_disk: Ignored,
        portworx_volume: Ignored,
        quobyte: Ignored,
        rbd: Ignored,
        #[serde(rename = "scaleIO")]
        scale_io: Ignored,
        storageos: Ignored,
        vsphere_volume: Ignored,
    }

    struct ConfigMapVolume {
        name: Str,
        items: Vec<KeyToPath>,
        optional: Option<bool>,
        default_mode: Ignored,
    }

    struct SecretVolume {
        secret_name: Str,
        items: Vec<KeyToPath>,
        optional: Option<bool>,
        default_mode: Ignored,
    }

    struct EmptyDirVolume {
        medium: Ignored,
        size_limit: Ignored,
    }

    struct KeyToPath {
        key: Str,
        path: Str,
        mode: Ignored,
    }

    struct Probe {
        http_get: Option<HttpGetAction>,
        tcp_socket: Option<TcpSocketAction>,
        exec: Option<ExecAction>,
        grpc: Option<GrpcAction>,
        initial_delay_seconds: i32,
        timeout_seconds: i32,
        period_seconds: i32,
        success_threshold: i32,
        failure_threshold: i32,
        termination_grace_period_seconds: Ignored,
    }

    struct HttpGetAction {
        path: Str,
        port: IntOrString,
        host: Str,
        scheme: Str,
        http_headers: Vec<crate::networking::HttpHeader>,
    }

    struct TcpSocketAction {
        port: IntOrString,
        host: Str,
    }

    struct ExecAction {
        command: Vec<Str>,
    }

    struct GrpcAction {
        port: i32,
        service: Str,
    }

    struct PodStatus {
        phase: Str,
        #[serde(rename = "podIP")]
        pod_ip: Str,
        #[serde(rename = "podIPs")]
        pod_ips: Vec<PodIp>,
        #[serde(rename = "hostIP")]
        host_ip: Str,
        conditions: Vec<PodCondition>,
        allocated_resources: Ignored,
        container_statuses: Ignored,
        ephemeral_container_statuses: Ignored,
        extended_resource_claim_status: Ignored,
        #[serde(rename = "hostIPs")]
        host_ips: Ignored,
        init_container_statuses: Ignored,
        message: Ignored,
        nominated_node_name: Ignored,
        observed_generation: Ignored,
        qos_class: Ignored,
        reason: Ignored,
        resize: Ignored,
        resource_claim_statuses: Ignored,
        resources: Ignored,
        start_time: Ignored,
    }

    struct PodIp {
        ip: Str,
    }

    struct PodCondition {
        #[serde(rename = "type")]
        condition_type: Str,
        status: Str,
        last_probe_time: Ignored,
        last_transition_time: Ignored,
        message: Ignored,
        observed_generation: Ignored,
        reason: Ignored,
    }

    /// The pod that a workload makes.
    struct PodTemplate {
        metadata: TemplateMeta,
        spec: PodSpec,
    }

    struct TemplateMeta {
        name: Str,
        namespace: Ignored,
        labels: BTreeMap<Str, Str>,
        annotations: BTreeMap<Str, Str>,
        creation_timestamp: Ignored,
        generate_name: Ignored,
        finalizers: Ignored,
        owner_references: Ignored,
    }
}

impl PodSpec {
    /// The service account by either name, `default` when none is given.
    pub fn effective_service_account(&self) -> &str {
        match (&*self.service_account_name, &*self.service_account) {
            ("", "") => "default",
            ("", old) => old,
            (name, _) => name,
        }
    }
}

impl Pod {
    /// The pod's addresses, the primary one first.
    pub fn ips(&self) -> impl Iterator<Item = &Str> {
        let primary = Some(&self.status.pod_ip).filter(|ip| !ip.is_empty());
        let others =
            self.status.pod_ips.iter().map(|ip| &ip.ip).filter(move |ip| primary != Some(*ip) && !ip.is_empty());
        primary.into_iter().chain(others)
    }

    /// True when the `Ready` condition is true, or when no condition is written.
    pub fn is_ready(&self) -> bool {
        self.status.conditions.iter().find(|c| &*c.condition_type == "Ready").is_none_or(|c| &*c.status == "True")
    }
}
