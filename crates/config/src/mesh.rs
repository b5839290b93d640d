//! MeshConfig, the ProxyConfig in its `defaultConfig`, extension providers and MeshNetworks, with Istio's defaults.
//!
//! `MeshConfig::default()` is what a mesh without any configuration runs with. Reading a partial document keeps the
//! default of every field that it leaves out, inside `defaultConfig` too.

mod extension;
mod networks;
mod proxy;

use std::time::Duration;

pub use extension::*;
pub use networks::*;
pub use proxy::*;

use crate::networking::{
    ClientTlsSettings, ConnectionPoolSettings, HttpRetry, LocalityLbSetting, OutlierDetection, TcpKeepalive,
    ZoneAwareLbSetting,
};
use crate::wire::{Str, enumeration, message, settings};

settings! {
    /// Settings of the whole mesh.
    struct MeshConfig {
        proxy_listen_port: i32,
        proxy_inbound_listen_port: i32,
        proxy_http_port: i32,
        #[serde(with = "crate::wire::required_duration")]
        connect_timeout: Duration,
        #[serde(with = "crate::wire::duration")]
        hbone_idle_timeout: Option<Duration>,
        /// Zero: protocol detection waits as long as it takes.
        #[serde(with = "crate::wire::required_duration")]
        protocol_detection_timeout: Duration,
        tcp_keepalive: Option<TcpKeepalive>,
        ingress_class: Str,
        ingress_service: Str,
        ingress_controller_mode: IngressControllerMode,
        ingress_selector: Str,
        enable_tracing: bool,
        /// Empty: no access log.
        access_log_file: Str,
        /// Empty: Istio's default format.
        access_log_format: Str,
        access_log_encoding: AccessLogEncoding,
        enable_envoy_access_log_service: bool,
        disable_envoy_listener_log: bool,
        default_config: ProxyConfig,
        outbound_traffic_policy: MeshOutboundTrafficPolicy,
        inbound_traffic_policy: InboundTrafficPolicy,
        config_sources: Vec<ConfigSource>,
        enable_auto_mtls: bool,
        trust_domain: Str,
        trust_domain_aliases: Vec<Str>,
        ca_certificates: Vec<CertificateData>,
        default_service_export_to: Vec<Str>,
        default_virtual_service_export_to: Vec<Str>,
        default_destination_rule_export_to: Vec<Str>,
        root_namespace: Str,
        locality_lb_setting: Option<LocalityLbSetting>,
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        #[serde(with = "crate::wire::required_duration")]
        dns_refresh_rate: Duration,
        h2_upgrade_policy: MeshH2UpgradePolicy,
        inbound_cluster_stat_name: Str,
        outbound_cluster_stat_name: Str,
        /// Deprecated.
        certificates: Vec<Certificate>,
        service_settings: Vec<ServiceSettings>,
        service_scope_configs: Vec<ServiceScopeConfigs>,
        enable_prometheus_merge: bool,
        /// Deprecated.
        verify_certificate_at_client: Option<bool>,
        ca: Option<CertificateAuthority>,
        extension_providers: Vec<ExtensionProvider>,
        default_providers: DefaultProviders,
        /// Empty: every namespace.
        discovery_selectors: Vec<MeshLabelSelector>,
        path_normalization: ProxyPathNormalization,
        default_http_retry_policy: Option<HttpRetry>,
        default_inbound_http_retry_policy: Option<HttpRetry>,
        #[serde(rename = "meshMTLS", alias = "mesh_mTLS")]
        mesh_mtls: Option<TlsConfig>,
        tls_defaults: Option<TlsConfig>,
        default_traffic_policy: Option<DefaultTrafficPolicy>,
        service_entry_visibility: Option<ServiceEntryVisibility>,
    }
}

impl Default for MeshConfig {
    fn default() -> Self {
        let everywhere = || vec![Str::from("*")];
        Self {
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            proxy_http_port: 0,
            connect_timeout: Duration::from_secs(10),
            hbone_idle_timeout: None,
            protocol_detection_timeout: Duration::ZERO,
            tcp_keepalive: None,
            ingress_class: "istio".into(),
            ingress_service: "istio-ingressgateway".into(),
            ingress_controller_mode: IngressControllerMode::Strict,
            ingress_selector: Str::default(),
            enable_tracing: true,
            access_log_file: Str::default(),
            access_log_format: Str::default(),
            access_log_encoding: AccessLogEncoding::Text,
            enable_envoy_access_log_service: false,
            disable_envoy_listener_log: false,
            default_config: ProxyConfig::default(),
            outbound_traffic_policy: MeshOutboundTrafficPolicy {
                mode: MeshOutboundTrafficPolicyMode::AllowAny,
                tls: None,
            },
            inbound_traffic_policy: InboundTrafficPolicy::default(),
            config_sources: Vec::new(),
            enable_auto_mtls: true,
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            ca_certificates: Vec::new(),
            default_service_export_to: everywhere(),
            default_virtual_service_export_to: everywhere(),
            default_destination_rule_export_to: everywhere(),
            root_namespace: "istio-system".into(),
            locality_lb_setting: Some(LocalityLbSetting { enabled: Some(true), ..Default::default() }),
            zone_aware_lb_setting: None,
            dns_refresh_rate: Duration::from_secs(60),
            h2_upgrade_policy: MeshH2UpgradePolicy::DoNotUpgrade,
            inbound_cluster_stat_name: Str::default(),
            outbound_cluster_stat_name: Str::default(),
            certificates: Vec::new(),
            service_settings: Vec::new(),
            service_scope_configs: Vec::new(),
            enable_prometheus_merge: true,
            verify_certificate_at_client: None,
            ca: None,
            extension_providers: default_extension_providers(),
            default_providers: DefaultProviders::default(),
            discovery_selectors: Vec::new(),
            path_normalization: ProxyPathNormalization::default(),
            default_http_retry_policy: None,
            default_inbound_http_retry_policy: None,
            mesh_mtls: None,
            tls_defaults: None,
            default_traffic_policy: None,
            service_entry_visibility: None,
        }
    }
}

message! {
    struct MeshOutboundTrafficPolicy {
        mode: MeshOutboundTrafficPolicyMode,
        tls: Option<ClientTlsSettings>,
    }

    struct InboundTrafficPolicy {
        mode: InboundTrafficPolicyMode,
    }

    struct ConfigSource {
        address: Str,
        tls_settings: Option<ClientTlsSettings>,
        subscribed_resources: Vec<ConfigResource>,
    }

    /// At most one of `pem` and `spiffe_bundle_url`.
    struct CertificateData {
        pem: Option<Str>,
        spiffe_bundle_url: Option<Str>,
        cert_signers: Vec<Str>,
        trust_domains: Vec<Str>,
    }

    struct Certificate {
        secret_name: Str,
        dns_names: Vec<Str>,
    }

    struct ServiceSettings {
        settings: Option<ServiceSettingsSettings>,
        hosts: Vec<Str>,
    }

    struct ServiceSettingsSettings {
        cluster_local: bool,
    }

    struct ServiceScopeConfigs {
        namespace_selector: Option<MeshLabelSelector>,
        services_selector: Option<MeshLabelSelector>,
        scope: ServiceScope,
    }

    /// Kubernetes' label selector.
    struct MeshLabelSelector {
        match_labels: std::collections::BTreeMap<Str, Str>,
        match_expressions: Vec<LabelSelectorRequirement>,
    }

    struct LabelSelectorRequirement {
        key: Str,
        /// `In`, `NotIn`, `Exists`, `DoesNotExist`.
        operator: Str,
        values: Vec<Str>,
    }

    struct CertificateAuthority {
        address: Str,
        tls_settings: Option<ClientTlsSettings>,
        #[serde(with = "crate::wire::duration")]
        request_timeout: Option<Duration>,
        istiod_side: bool,
    }

    struct DefaultProviders {
        tracing: Vec<Str>,
        metrics: Vec<Str>,
        access_logging: Vec<Str>,
    }

    struct ProxyPathNormalization {
        normalization: PathNormalization,
    }

    struct TlsConfig {
        min_protocol_version: MeshTlsProtocol,
        ecdh_curves: Vec<Str>,
        cipher_suites: Vec<Str>,
    }

    struct DefaultTrafficPolicy {
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
    }

    struct ServiceEntryVisibility {
        default_visibility: Visibility,
        apply_to_sidecars: bool,
        policies: Vec<VisibilityPolicy>,
    }

    struct VisibilityPolicy {
        visibility: Visibility,
        matching_rules: Vec<VisibilityMatchRule>,
    }

    struct VisibilityMatchRule {
        namespace_selector: Option<MeshLabelSelector>,
    }
}

enumeration! {
    enum IngressControllerMode {
        #[default]
        Unspecified = "UNSPECIFIED",
        Off = "OFF",
        Default = "DEFAULT",
        Strict = "STRICT",
    }

    enum AccessLogEncoding {
        #[default]
        Text = "TEXT",
        Json = "JSON",
    }

    enum MeshOutboundTrafficPolicyMode {
        #[default]
        RegistryOnly = "REGISTRY_ONLY",
        AllowAny = "ALLOW_ANY",
        /// Number 2, withdrawn in Istio; refused by validation.
        VirtualServiceOnly = "VIRTUAL_SERVICE_ONLY",
        AllowAnyDynamicDns = "ALLOW_ANY_DYNAMIC_DNS",
    }

    enum InboundTrafficPolicyMode {
        #[default]
        Passthrough = "PASSTHROUGH",
        Localhost = "LOCALHOST",
    }

    enum ConfigResource {
        #[default]
        ServiceRegistry = "SERVICE_REGISTRY",
    }

    enum MeshH2UpgradePolicy {
        #[default]
        DoNotUpgrade = "DO_NOT_UPGRADE",
        Upgrade = "UPGRADE",
    }

    enum ServiceScope {
        #[default]
        Local = "LOCAL",
        Global = "GLOBAL",
    }

    enum PathNormalization {
        #[default]
        Default = "DEFAULT",
        None = "NONE",
        Base = "BASE",
        MergeSlashes = "MERGE_SLASHES",
        DecodeAndMergeSlashes = "DECODE_AND_MERGE_SLASHES",
    }

    enum MeshTlsProtocol {
        #[default]
        Auto = "TLS_AUTO",
        V1_2 = "TLSV1_2",
        V1_3 = "TLSV1_3",
    }

    enum Visibility {
        #[default]
        Unspecified = "VISIBILITY_UNSPECIFIED",
        None = "NONE",
        Namespace = "NAMESPACE",
        Public = "PUBLIC",
    }
}

impl MeshConfig {
    /// The extension provider of this name.
    pub fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.extension_providers.iter().find(|p| &*p.name == name)
    }

    /// Adds the built-in providers that the document did not define itself.
    pub(crate) fn complete_providers(&mut self) {
        for provider in default_extension_providers() {
            if self.provider(&provider.name).is_none() {
                self.extension_providers.push(provider);
            }
        }
    }
}
