//! Connection pools, circuit breakers and outlier detection.

use super::protocol::{Options, Upstream};
use crate::wire::{duration, exact};
use meltemi_config::mesh::{MeshConfig, MeshH2UpgradePolicy};
use meltemi_config::networking::{
    ConnectionPoolSettings, H2UpgradePolicy, HttpSettings, OutlierDetection, RetryBudget, TcpKeepalive,
};
use meltemi_model::{Protocol, Retries};
use meltemi_proto::envoy::config::cluster::v3 as proto;
use meltemi_proto::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use meltemi_proto::envoy::config::cluster::v3::{CircuitBreakers, Cluster, UpstreamConnectionOptions};
use meltemi_proto::envoy::config::common::matcher::v3::{HttpHeadersMatch, MatchPredicate, match_predicate};
use meltemi_proto::envoy::config::core::v3::{KeepaliveSettings, TcpKeepalive as ProtoKeepalive};
use meltemi_proto::envoy::config::route::v3::{HeaderMatcher, header_matcher};
use meltemi_proto::envoy::r#type::v3::Percent;

/// Istio's defaults for a retry budget.
const BUDGET_PERCENT: f64 = 20.0;
const BUDGET_CONCURRENCY: u32 = 3;

fn positive(value: i32) -> Option<u32> {
    u32::try_from(value).ok().filter(|value| *value > 0)
}

/// Connect timeout, keepalive and circuit breakers. Without limits of the user's, none: Envoy's own are too low for bursts.
pub fn connection_pool(
    cluster: &mut Cluster,
    settings: &ConnectionPoolSettings,
    budget: Option<&RetryBudget>,
    mesh: &MeshConfig,
) {
    let tcp = settings.tcp.as_ref();
    let http = settings.http.as_ref();
    let connect_timeout = tcp.and_then(|tcp| tcp.connect_timeout).unwrap_or(mesh.connect_timeout);
    cluster.connect_timeout = Some(duration(connect_timeout));
    let limit = |value: Option<u32>| Some(value.unwrap_or(u32::MAX));
    let of_http = |field: fn(&HttpSettings) -> i32| http.and_then(|http| positive(field(http)));
    let threshold = Thresholds {
        max_connections: limit(tcp.and_then(|tcp| positive(tcp.max_connections))),
        max_pending_requests: limit(of_http(|http| http.http1_max_pending_requests)),
        max_requests: limit(of_http(|http| http.http2_max_requests)),
        max_retries: limit(of_http(|http| http.max_retries)),
        retry_budget: budget.map(retry_budget),
        ..Thresholds::default()
    };
    cluster.circuit_breakers = Some(CircuitBreakers { thresholds: vec![threshold], ..CircuitBreakers::default() });
    for keepalive in [mesh.tcp_keepalive.as_ref(), tcp.and_then(|tcp| tcp.tcp_keepalive.as_ref())].into_iter().flatten()
    {
        apply_keepalive(cluster, keepalive);
    }
}

/// The budget of automatic retries, where the user set neither a budget nor a number.
pub fn automatic_budget(settings: &ConnectionPoolSettings, retries: Option<&Retries>) -> Option<RetryBudget> {
    let limited = settings.http.as_ref().is_some_and(|http| http.max_retries > 0);
    retries.filter(|_| !limited).map(|retries| RetryBudget {
        percent: Some(retries.budget_percent),
        min_retry_concurrency: retries.budget_concurrency,
        ..RetryBudget::default()
    })
}

fn retry_budget(budget: &RetryBudget) -> thresholds::RetryBudget {
    let percent = budget.percent.map_or(BUDGET_PERCENT, |percent| percent.value());
    let concurrency = if budget.min_retry_concurrency > 0 { budget.min_retry_concurrency } else { BUDGET_CONCURRENCY };
    thresholds::RetryBudget {
        budget_percent: Some(Percent { value: percent }),
        budget_interval: budget.budget_interval.map(duration),
        min_retry_concurrency: Some(concurrency),
    }
}

fn apply_keepalive(cluster: &mut Cluster, settings: &TcpKeepalive) {
    let options = cluster.upstream_connection_options.get_or_insert_with(UpstreamConnectionOptions::default);
    let keepalive = options.tcp_keepalive.get_or_insert_with(ProtoKeepalive::default);
    let seconds = |value: std::time::Duration| u32::try_from(value.as_secs()).unwrap_or(u32::MAX);
    if settings.probes > 0 {
        keepalive.keepalive_probes = Some(settings.probes);
    }
    keepalive.keepalive_time = settings.time.map(seconds).or(keepalive.keepalive_time);
    keepalive.keepalive_interval = settings.interval.map(seconds).or(keepalive.keepalive_interval);
}

/// The pool's part in HTTP: timeouts, streams, and which protocol to speak.
pub fn http_options(options: &mut Options, settings: &ConnectionPoolSettings) {
    let (tcp, http) = (settings.tcp.as_ref(), settings.http.as_ref());
    let idle = http.and_then(|http| http.idle_timeout).or(tcp.and_then(|tcp| tcp.idle_timeout));
    if let Some(idle) = idle {
        options.common.idle_timeout = Some(duration(idle));
    }
    if let Some(longest) = tcp.and_then(|tcp| tcp.max_connection_duration) {
        options.common.max_connection_duration = Some(duration(longest));
    }
    let Some(http) = http else { return };
    options.common.max_requests_per_connection = positive(http.max_requests_per_connection);
    if options.is_http2() {
        options.http2.max_concurrent_streams = positive(http.max_concurrent_streams);
        options.http2.connection_keepalive = http.http2_keep_alive.as_ref().map(|keepalive| KeepaliveSettings {
            interval: keepalive.interval.map(duration),
            timeout: keepalive.timeout.map(duration),
            ..KeepaliveSettings::default()
        });
    }
    if http.use_client_protocol {
        options.upstream = Upstream::UseDownstream;
    }
}

/// True when HTTP/1.1 requests are to travel as HTTP/2.
pub fn upgrades_to_http2(settings: &ConnectionPoolSettings, protocol: Protocol, mesh: &MeshConfig) -> bool {
    if let Some(http) = &settings.http {
        match (http.use_client_protocol, http.h2_upgrade_policy) {
            (true, _) | (_, H2UpgradePolicy::DoNotUpgrade) => return false,
            // The user says that it is HTTP, so even a sniffed port is.
            (_, H2UpgradePolicy::Upgrade) => return true,
            (_, H2UpgradePolicy::Default) => {}
        }
    }
    protocol.is_http() && mesh.h2_upgrade_policy == MeshH2UpgradePolicy::Upgrade
}

/// Passive health checks. Success rates are never judged; panic is off unless asked for.
pub fn outlier_detection(cluster: &mut Cluster, settings: &OutlierDetection) {
    let enforcing = |value: u32| if value > 0 { 100 } else { 0 };
    // The deprecated field means what the two that replaced it together mean.
    let legacy = positive(settings.consecutive_errors)
        .filter(|_| settings.consecutive_5xx_errors.is_none() && settings.consecutive_gateway_errors.is_none());
    let consecutive = settings.consecutive_5xx_errors.or(legacy);
    let gateway = settings.consecutive_gateway_errors.or(legacy);
    let mut out = proto::OutlierDetection {
        enforcing_success_rate: Some(0),
        consecutive_5xx: consecutive,
        enforcing_consecutive_5xx: consecutive.map(enforcing),
        consecutive_gateway_failure: gateway,
        enforcing_consecutive_gateway_failure: gateway.map(enforcing),
        interval: settings.interval.map(duration),
        base_ejection_time: settings.base_ejection_time.map(duration),
        max_ejection_percent: positive(settings.max_ejection_percent),
        ..proto::OutlierDetection::default()
    };
    if settings.split_external_local_origin_errors {
        out.split_external_local_origin_errors = true;
        out.enforcing_local_origin_success_rate = Some(0);
        if let Some(failures) = settings.consecutive_local_origin_failures.filter(|failures| *failures > 0) {
            out.consecutive_local_origin_failure = Some(failures);
            out.enforcing_consecutive_local_origin_failure = Some(100);
        }
    }
    cluster.outlier_detection = Some(out);
    let panic = f64::from(settings.min_health_percent.max(0));
    cluster.common_lb_config.get_or_insert_with(Default::default).healthy_panic_threshold =
        Some(Percent { value: panic });
}

/// Which statuses count as failures, in place of every 5xx.
pub fn error_codes(codes: &[u32]) -> Option<MatchPredicate> {
    let mut rules: Vec<MatchPredicate> = codes
        .iter()
        .map(|code| {
            let header = HeaderMatcher {
                name: ":status".into(),
                header_match_specifier: Some(header_matcher::HeaderMatchSpecifier::StringMatch(exact(
                    &code.to_string(),
                ))),
                ..HeaderMatcher::default()
            };
            let headers = HttpHeadersMatch { headers: vec![header] };
            MatchPredicate { rule: Some(match_predicate::Rule::HttpResponseHeadersMatch(headers)) }
        })
        .collect();
    match rules.len() {
        0 => None,
        1 => rules.pop(),
        _ => Some(MatchPredicate { rule: Some(match_predicate::Rule::OrMatch(match_predicate::MatchSet { rules })) }),
    }
}
