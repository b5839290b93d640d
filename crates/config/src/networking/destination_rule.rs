//! DestinationRule: what happens to a request after routing: subsets, load balancing, pools, outliers, TLS origination.

use std::collections::BTreeMap;
use std::time::Duration;

use super::PortSelector;
use crate::security::LabelSelector;
use crate::wire::{Double, Str, enumeration, message};

message! {
    /// `networking.istio.io` DestinationRule.
    struct DestinationRule {
        host: Str,
        traffic_policy: Option<TrafficPolicy>,
        subsets: Vec<Subset>,
        export_to: Vec<Str>,
        workload_selector: Option<LabelSelector>,
    }

    struct Subset {
        name: Str,
        labels: BTreeMap<Str, Str>,
        traffic_policy: Option<TrafficPolicy>,
    }

    struct TrafficPolicy {
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
        /// Each entry replaces the four settings above for its port; nothing is inherited.
        port_level_settings: Vec<PortTrafficPolicy>,
        tunnel: Option<TunnelSettings>,
        proxy_protocol: Option<ProxyProtocol>,
        retry_budget: Option<RetryBudget>,
    }

    struct PortTrafficPolicy {
        port: Option<PortSelector>,
        load_balancer: Option<LoadBalancerSettings>,
        connection_pool: Option<ConnectionPoolSettings>,
        outlier_detection: Option<OutlierDetection>,
        tls: Option<ClientTlsSettings>,
    }

    struct TunnelSettings {
        /// `CONNECT` (also when empty) or `POST`.
        protocol: Str,
        target_host: Str,
        target_port: u32,
    }

    struct ProxyProtocol {
        version: ProxyProtocolVersion,
    }

    struct RetryBudget {
        percent: Option<Double>,
        min_retry_concurrency: u32,
        #[serde(with = "crate::wire::duration")]
        budget_interval: Option<Duration>,
    }

    /// At most one of `simple` and `consistent_hash`.
    struct LoadBalancerSettings {
        simple: Option<SimpleLb>,
        consistent_hash: Option<ConsistentHashLb>,
        locality_lb_setting: Option<LocalityLbSetting>,
        zone_aware_lb_setting: Option<ZoneAwareLbSetting>,
        /// Deprecated; `warmup` wins.
        #[serde(with = "crate::wire::duration")]
        warmup_duration_secs: Option<Duration>,
        warmup: Option<WarmupConfiguration>,
    }

    struct WarmupConfiguration {
        #[serde(with = "crate::wire::duration")]
        duration: Option<Duration>,
        minimum_percent: Option<Double>,
        aggression: Option<Double>,
    }

    /// Exactly one key (`http_header_name` to `http_query_parameter_name`), at most one algorithm.
    struct ConsistentHashLb {
        http_header_name: Option<Str>,
        http_cookie: Option<HttpCookie>,
        use_source_ip: Option<bool>,
        http_query_parameter_name: Option<Str>,
        ring_hash: Option<RingHash>,
        maglev: Option<Maglev>,
        /// Deprecated; `ring_hash.minimum_ring_size` wins.
        minimum_ring_size: u64,
    }

    struct RingHash {
        minimum_ring_size: u64,
    }

    struct Maglev {
        /// A prime; 0 is Envoy's default of 65537.
        table_size: u64,
    }

    struct HttpCookie {
        name: Str,
        path: Str,
        /// Present (also 0: a session cookie) means that the proxy sets the cookie itself.
        #[serde(with = "crate::wire::duration")]
        ttl: Option<Duration>,
        attributes: Vec<CookieAttribute>,
    }

    struct CookieAttribute {
        name: Str,
        value: Str,
    }

    struct LocalityLbSetting {
        distribute: Vec<LocalityDistribute>,
        failover: Vec<LocalityFailover>,
        failover_priority: Vec<Str>,
        enabled: Option<bool>,
    }

    struct ZoneAwareLbSetting {
        enabled: Option<bool>,
        failover: Vec<LocalityFailover>,
        failover_priority: Vec<Str>,
        min_cluster_size: Option<u64>,
    }

    struct LocalityDistribute {
        from: Str,
        to: BTreeMap<Str, u32>,
    }

    struct LocalityFailover {
        from: Str,
        to: Str,
    }

    struct ConnectionPoolSettings {
        tcp: Option<TcpSettings>,
        http: Option<HttpSettings>,
    }

    struct TcpSettings {
        max_connections: i32,
        #[serde(with = "crate::wire::duration")]
        connect_timeout: Option<Duration>,
        tcp_keepalive: Option<TcpKeepalive>,
        #[serde(with = "crate::wire::duration")]
        max_connection_duration: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        idle_timeout: Option<Duration>,
    }

    struct TcpKeepalive {
        probes: u32,
        #[serde(with = "crate::wire::duration")]
        time: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        interval: Option<Duration>,
    }

    struct HttpSettings {
        http1_max_pending_requests: i32,
        http2_max_requests: i32,
        max_requests_per_connection: i32,
        max_retries: i32,
        #[serde(with = "crate::wire::duration")]
        idle_timeout: Option<Duration>,
        h2_upgrade_policy: H2UpgradePolicy,
        use_client_protocol: bool,
        max_concurrent_streams: i32,
        http2_keep_alive: Option<Http2KeepAlive>,
    }

    struct Http2KeepAlive {
        #[serde(with = "crate::wire::duration")]
        interval: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        timeout: Option<Duration>,
    }

    struct OutlierDetection {
        /// Deprecated: read when neither of the two that replace it is set.
        consecutive_errors: i32,
        split_external_local_origin_errors: bool,
        consecutive_local_origin_failures: Option<u32>,
        consecutive_gateway_errors: Option<u32>,
        consecutive_5xx_errors: Option<u32>,
        #[serde(with = "crate::wire::duration")]
        interval: Option<Duration>,
        #[serde(with = "crate::wire::duration")]
        base_ejection_time: Option<Duration>,
        max_ejection_percent: i32,
        min_health_percent: i32,
        outlier_detection_http_error_codes: Vec<u32>,
    }

    struct ClientTlsSettings {
        mode: ClientTlsMode,
        client_certificate: Str,
        private_key: Str,
        ca_certificates: Str,
        ca_crl: Str,
        credential_name: Str,
        subject_alt_names: Vec<Str>,
        sni: Str,
        insecure_skip_verify: Option<bool>,
    }
}

enumeration! {
    enum ProxyProtocolVersion {
        #[default]
        V1 = "V1",
        V2 = "V2",
    }

    enum SimpleLb {
        #[default]
        Unspecified = "UNSPECIFIED",
        /// Deprecated name of `LeastRequest`.
        LeastConn = "LEAST_CONN",
        Random = "RANDOM",
        Passthrough = "PASSTHROUGH",
        RoundRobin = "ROUND_ROBIN",
        LeastRequest = "LEAST_REQUEST",
    }

    enum H2UpgradePolicy {
        #[default]
        Default = "DEFAULT",
        DoNotUpgrade = "DO_NOT_UPGRADE",
        Upgrade = "UPGRADE",
    }

    enum ClientTlsMode {
        #[default]
        Disable = "DISABLE",
        Simple = "SIMPLE",
        Mutual = "MUTUAL",
        IstioMutual = "ISTIO_MUTUAL",
    }
}
