//! Values for the tests of this crate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use meltemi_plan::cluster::{
    CircuitBreakers, Cluster, ClusterKind, ClusterSettings, CommonLb, DnsFamily, DnsSettings, LbPolicy, LocalityLb,
    Thresholds, TransportSocket, UpstreamHttp, UpstreamProtocol,
};
use meltemi_plan::hcm::{HeaderCase, Http1Options, Http2Options};
use meltemi_plan::{Endpoint, EndpointHealth, LoadAssignment, Locality, LocalityEndpoints};

pub(crate) fn socket(host: u8, port: u16) -> SocketAddr {
    ([10, 0, 0, host], port).into()
}

pub(crate) fn endpoint(address: SocketAddr, weight: u32) -> Endpoint {
    Endpoint {
        address: meltemi_plan::Address::Socket(address),
        additional_addresses: Box::default(),
        hostname: "".into(),
        weight,
        health: EndpointHealth::Unknown,
        metadata: None,
        health_check: None,
    }
}

pub(crate) fn locality(priority: u32, weight: Option<u32>, endpoints: Vec<Endpoint>) -> LocalityEndpoints {
    let zone = format!("zone-{priority}-{}", weight.unwrap_or(0));
    let locality = Locality { region: "r".into(), zone: zone.into(), sub_zone: "".into() };
    LocalityEndpoints { locality: Arc::new(locality), priority, weight, endpoints: endpoints.into() }
}

pub(crate) fn assignment(localities: Vec<LocalityEndpoints>) -> LoadAssignment {
    LoadAssignment {
        cluster: "c".into(),
        localities: localities.into(),
        overprovisioning_factor: 140,
        weighted_priority_health: false,
        fingerprint: 0,
    }
}

/// One locality of hosts 10.0.0.1, .2 and so on with these weights.
pub(crate) fn hosts(weights: &[u32]) -> LoadAssignment {
    let one = |(i, weight): (usize, &u32)| endpoint(socket(i as u8 + 1, 80), *weight);
    assignment(vec![locality(0, None, weights.iter().enumerate().map(one).collect())])
}

fn thresholds() -> Thresholds {
    Thresholds {
        max_connections: 1024,
        max_pending_requests: 1024,
        max_requests: 1024,
        max_retries: 3,
        retry_budget: None,
        track_remaining: false,
    }
}

fn http() -> UpstreamHttp {
    UpstreamHttp {
        protocol: UpstreamProtocol::Http1,
        http1: Http1Options {
            allow_absolute_url: true,
            accept_http_10: false,
            default_host_for_http_10: "".into(),
            enable_trailers: false,
            header_case: HeaderCase::Lower,
            stream_error_on_invalid: None,
            send_fully_qualified_url: false,
            allow_custom_methods: false,
        },
        http2: Http2Options {
            hpack_table_size: 4096,
            max_concurrent_streams: 1024,
            initial_stream_window: 1 << 20,
            initial_connection_window: 1 << 20,
            allow_connect: false,
            max_outbound_frames: 10_000,
            max_outbound_control_frames: 1000,
            stream_error_on_invalid: None,
            keepalive: None,
        },
        idle_timeout: None,
        max_connection_duration: None,
        max_stream_duration: None,
        max_requests_per_connection: 0,
        max_headers_count: 100,
        max_response_headers_bytes: 60 * 1024,
        auto_sni: false,
        auto_sni_header: None,
        auto_san_validation: false,
        filters: vec![],
        retry_policy: None,
        hash_policy: vec![],
    }
}

/// A static cluster, as Envoy's defaults make it.
pub(crate) fn plan(kind: ClusterKind, lb_policy: LbPolicy, load_assignment: Option<LoadAssignment>) -> Cluster {
    let settings = ClusterSettings {
        kind,
        connect_timeout: Duration::from_secs(5),
        lb_policy,
        lb: CommonLb {
            healthy_panic_threshold: 50.0,
            locality: LocalityLb::None,
            use_hostname_for_hashing: false,
            hash_balance_factor: 0,
            hash_policy: vec![],
            close_connections_on_host_set_change: false,
            ignore_new_hosts_until_first_hc: false,
            update_merge_window: Duration::from_secs(1),
            override_host_status: Default::default(),
        },
        subsets: None,
        breakers: Arc::new(CircuitBreakers {
            default: thresholds(),
            high: thresholds(),
            per_host_max_connections: None,
        }),
        outlier: None,
        health_checks: vec![],
        http: http(),
        dns: DnsSettings {
            refresh_rate: Duration::from_secs(5),
            jitter: Duration::ZERO,
            failure_base: Duration::from_secs(5),
            failure_max: Duration::from_secs(50),
            respect_ttl: false,
            family: DnsFamily::V4Only,
            resolvers: vec![],
            use_tcp: false,
            no_search_domain: false,
        },
        keepalive: None,
        bind: None,
        buffer_limit: 1 << 20,
        ignore_health_on_host_removal: false,
        close_connections_on_host_health_failure: false,
        wait_for_warm_on_init: true,
        cleanup_interval: Duration::from_secs(5),
        pool_per_downstream_connection: false,
        track_timeout_budgets: false,
        filters: vec![],
        preconnect_ratio: 1.0,
        encoded: bytes::Bytes::new(),
    };
    Cluster {
        name: "c".into(),
        stat_name: "c".into(),
        service_name: "s".into(),
        load_assignment: load_assignment.map(Arc::new),
        transport: TransportSocket::Plain,
        transport_matches: vec![],
        metadata: Arc::default(),
        anomalies: None,
        settings: Arc::new(settings),
        fingerprint: 0,
    }
}

/// The settings of a cluster, to change.
pub(crate) fn settings(cluster: &mut Cluster) -> &mut ClusterSettings {
    Arc::make_mut(&mut cluster.settings)
}

pub(crate) fn round_robin() -> LbPolicy {
    LbPolicy::RoundRobin { slow_start: None }
}

/// Waits until the started cluster is warm.
pub(crate) async fn warmed(cluster: &crate::Cluster, background: &crate::Background) {
    while !cluster.is_warm() {
        background.warmed().notified().await;
    }
}
