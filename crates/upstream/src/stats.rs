//! A cluster's metrics, under Envoy's names.

use std::sync::{Arc, LazyLock, OnceLock};

use meltemi_telemetry::metrics::{Labels, Prefix, Scope};
use meltemi_telemetry::{Registry, Spec, stats};

stats! {
    /// What requests and connections of a cluster count. Cells are allocated by the first request.
    pub struct TrafficStats {
        upstream_cx_total: Spec::counter("upstream_cx_total"),
        upstream_cx_active: Spec::gauge("upstream_cx_active"),
        upstream_cx_http1_total: Spec::counter("upstream_cx_http1_total"),
        upstream_cx_http2_total: Spec::counter("upstream_cx_http2_total"),
        upstream_cx_connect_fail: Spec::counter("upstream_cx_connect_fail"),
        upstream_cx_connect_timeout: Spec::counter("upstream_cx_connect_timeout"),
        upstream_cx_idle_timeout: Spec::counter("upstream_cx_idle_timeout"),
        upstream_cx_max_duration_reached: Spec::counter("upstream_cx_max_duration_reached"),
        upstream_cx_connect_attempts_exceeded: Spec::counter("upstream_cx_connect_attempts_exceeded"),
        upstream_cx_overflow: Spec::counter("upstream_cx_overflow"),
        upstream_cx_destroy: Spec::counter("upstream_cx_destroy"),
        upstream_cx_destroy_local: Spec::counter("upstream_cx_destroy_local"),
        upstream_cx_destroy_remote: Spec::counter("upstream_cx_destroy_remote"),
        upstream_cx_destroy_with_active_rq: Spec::counter("upstream_cx_destroy_with_active_rq"),
        upstream_cx_destroy_local_with_active_rq: Spec::counter("upstream_cx_destroy_local_with_active_rq"),
        upstream_cx_destroy_remote_with_active_rq: Spec::counter("upstream_cx_destroy_remote_with_active_rq"),
        upstream_cx_close_notify: Spec::counter("upstream_cx_close_notify"),
        upstream_cx_rx_bytes_total: Spec::counter("upstream_cx_rx_bytes_total"),
        upstream_cx_tx_bytes_total: Spec::counter("upstream_cx_tx_bytes_total"),
        upstream_cx_protocol_error: Spec::counter("upstream_cx_protocol_error"),
        upstream_cx_max_requests: Spec::counter("upstream_cx_max_requests"),
        upstream_cx_none_healthy: Spec::counter("upstream_cx_none_healthy"),
        upstream_rq_total: Spec::counter("upstream_rq_total"),
        upstream_rq_active: Spec::gauge("upstream_rq_active"),
        upstream_rq_active_overflow: Spec::counter("upstream_rq_active_overflow"),
        upstream_rq_completed: Spec::counter("upstream_rq_completed"),
        upstream_rq_pending_total: Spec::counter("upstream_rq_pending_total"),
        upstream_rq_pending_active: Spec::gauge("upstream_rq_pending_active"),
        upstream_rq_pending_overflow: Spec::counter("upstream_rq_pending_overflow"),
        upstream_rq_pending_failure_eject: Spec::counter("upstream_rq_pending_failure_eject"),
        upstream_rq_cancelled: Spec::counter("upstream_rq_cancelled"),
        upstream_rq_timeout: Spec::counter("upstream_rq_timeout"),
        upstream_rq_max_duration_reached: Spec::counter("upstream_rq_max_duration_reached"),
        upstream_rq_per_try_timeout: Spec::counter("upstream_rq_per_try_timeout"),
        upstream_rq_per_try_idle_timeout: Spec::counter("upstream_rq_per_try_idle_timeout"),
        upstream_rq_rx_reset: Spec::counter("upstream_rq_rx_reset"),
        upstream_rq_tx_reset: Spec::counter("upstream_rq_tx_reset"),
        upstream_rq_retry: Spec::counter("upstream_rq_retry"),
        upstream_rq_retry_success: Spec::counter("upstream_rq_retry_success"),
        upstream_rq_retry_overflow: Spec::counter("upstream_rq_retry_overflow"),
        upstream_rq_retry_limit_exceeded: Spec::counter("upstream_rq_retry_limit_exceeded"),
        upstream_rq_retry_backoff_exponential: Spec::counter("upstream_rq_retry_backoff_exponential"),
        retry_upstream_rq_completed: Spec::counter("retry.upstream_rq_completed"),
        retry_upstream_rq_2xx: Spec::class("retry.upstream_rq_2xx", "retry_upstream_rq_xx", "2"),
        retry_upstream_rq_4xx: Spec::class("retry.upstream_rq_4xx", "retry_upstream_rq_xx", "4"),
        retry_upstream_rq_5xx: Spec::class("retry.upstream_rq_5xx", "retry_upstream_rq_xx", "5"),
        upstream_rq_1xx: Spec::class("upstream_rq_1xx", "upstream_rq_xx", "1"),
        upstream_rq_2xx: Spec::class("upstream_rq_2xx", "upstream_rq_xx", "2"),
        upstream_rq_3xx: Spec::class("upstream_rq_3xx", "upstream_rq_xx", "3"),
        upstream_rq_4xx: Spec::class("upstream_rq_4xx", "upstream_rq_xx", "4"),
        upstream_rq_5xx: Spec::class("upstream_rq_5xx", "upstream_rq_xx", "5"),
        upstream_rq_100: Spec::code("upstream_rq_100", "upstream_rq", "100"),
        upstream_rq_101: Spec::code("upstream_rq_101", "upstream_rq", "101"),
        upstream_rq_200: Spec::code("upstream_rq_200", "upstream_rq", "200"),
        upstream_rq_201: Spec::code("upstream_rq_201", "upstream_rq", "201"),
        upstream_rq_202: Spec::code("upstream_rq_202", "upstream_rq", "202"),
        upstream_rq_203: Spec::code("upstream_rq_203", "upstream_rq", "203"),
        upstream_rq_204: Spec::code("upstream_rq_204", "upstream_rq", "204"),
        upstream_rq_205: Spec::code("upstream_rq_205", "upstream_rq", "205"),
        upstream_rq_206: Spec::code("upstream_rq_206", "upstream_rq", "206"),
        upstream_rq_207: Spec::code("upstream_rq_207", "upstream_rq", "207"),
        upstream_rq_300: Spec::code("upstream_rq_300", "upstream_rq", "300"),
        upstream_rq_301: Spec::code("upstream_rq_301", "upstream_rq", "301"),
        upstream_rq_302: Spec::code("upstream_rq_302", "upstream_rq", "302"),
        upstream_rq_303: Spec::code("upstream_rq_303", "upstream_rq", "303"),
        upstream_rq_304: Spec::code("upstream_rq_304", "upstream_rq", "304"),
        upstream_rq_307: Spec::code("upstream_rq_307", "upstream_rq", "307"),
        upstream_rq_308: Spec::code("upstream_rq_308", "upstream_rq", "308"),
        upstream_rq_400: Spec::code("upstream_rq_400", "upstream_rq", "400"),
        upstream_rq_401: Spec::code("upstream_rq_401", "upstream_rq", "401"),
        upstream_rq_402: Spec::code("upstream_rq_402", "upstream_rq", "402"),
        upstream_rq_403: Spec::code("upstream_rq_403", "upstream_rq", "403"),
        upstream_rq_404: Spec::code("upstream_rq_404", "upstream_rq", "404"),
        upstream_rq_405: Spec::code("upstream_rq_405", "upstream_rq", "405"),
        upstream_rq_406: Spec::code("upstream_rq_406", "upstream_rq", "406"),
        upstream_rq_407: Spec::code("upstream_rq_407", "upstream_rq", "407"),
        upstream_rq_408: Spec::code("upstream_rq_408", "upstream_rq", "408"),
        upstream_rq_409: Spec::code("upstream_rq_409", "upstream_rq", "409"),
        upstream_rq_410: Spec::code("upstream_rq_410", "upstream_rq", "410"),
        upstream_rq_411: Spec::code("upstream_rq_411", "upstream_rq", "411"),
        upstream_rq_412: Spec::code("upstream_rq_412", "upstream_rq", "412"),
        upstream_rq_413: Spec::code("upstream_rq_413", "upstream_rq", "413"),
        upstream_rq_414: Spec::code("upstream_rq_414", "upstream_rq", "414"),
        upstream_rq_415: Spec::code("upstream_rq_415", "upstream_rq", "415"),
        upstream_rq_416: Spec::code("upstream_rq_416", "upstream_rq", "416"),
        upstream_rq_417: Spec::code("upstream_rq_417", "upstream_rq", "417"),
        upstream_rq_418: Spec::code("upstream_rq_418", "upstream_rq", "418"),
        upstream_rq_421: Spec::code("upstream_rq_421", "upstream_rq", "421"),
        upstream_rq_422: Spec::code("upstream_rq_422", "upstream_rq", "422"),
        upstream_rq_423: Spec::code("upstream_rq_423", "upstream_rq", "423"),
        upstream_rq_424: Spec::code("upstream_rq_424", "upstream_rq", "424"),
        upstream_rq_425: Spec::code("upstream_rq_425", "upstream_rq", "425"),
        upstream_rq_426: Spec::code("upstream_rq_426", "upstream_rq", "426"),
        upstream_rq_428: Spec::code("upstream_rq_428", "upstream_rq", "428"),
        upstream_rq_429: Spec::code("upstream_rq_429", "upstream_rq", "429"),
        upstream_rq_431: Spec::code("upstream_rq_431", "upstream_rq", "431"),
        upstream_rq_451: Spec::code("upstream_rq_451", "upstream_rq", "451"),
        upstream_rq_499: Spec::code("upstream_rq_499", "upstream_rq", "499"),
        upstream_rq_500: Spec::code("upstream_rq_500", "upstream_rq", "500"),
        upstream_rq_501: Spec::code("upstream_rq_501", "upstream_rq", "501"),
        upstream_rq_502: Spec::code("upstream_rq_502", "upstream_rq", "502"),
        upstream_rq_503: Spec::code("upstream_rq_503", "upstream_rq", "503"),
        upstream_rq_504: Spec::code("upstream_rq_504", "upstream_rq", "504"),
        upstream_rq_505: Spec::code("upstream_rq_505", "upstream_rq", "505"),
        upstream_rq_507: Spec::code("upstream_rq_507", "upstream_rq", "507"),
        upstream_rq_508: Spec::code("upstream_rq_508", "upstream_rq", "508"),
        upstream_rq_510: Spec::code("upstream_rq_510", "upstream_rq", "510"),
        upstream_rq_511: Spec::code("upstream_rq_511", "upstream_rq", "511"),
        upstream_rq_520: Spec::code("upstream_rq_520", "upstream_rq", "520"),
        lb_healthy_panic: Spec::counter("lb_healthy_panic"),
        original_dst_host_invalid: Spec::counter("original_dst_host_invalid"),
        upstream_rq_time: Spec::histogram("upstream_rq_time"),
        upstream_cx_connect_ms: Spec::histogram("upstream_cx_connect_ms"),
        upstream_cx_length_ms: Spec::histogram("upstream_cx_length_ms"),
    }
}

stats! {
    /// What updates, health and limits of a cluster count: touched on the main thread for every cluster, so kept small and
    /// apart.
    pub struct MembershipStats {
        membership_total: Spec::gauge("membership_total"),
        membership_healthy: Spec::gauge("membership_healthy"),
        membership_degraded: Spec::gauge("membership_degraded"),
        membership_excluded: Spec::gauge("membership_excluded"),
        membership_change: Spec::counter("membership_change"),
        max_host_weight: Spec::gauge("max_host_weight"),
        version: Spec::gauge("version"),
        update_attempt: Spec::counter("update_attempt"),
        update_success: Spec::counter("update_success"),
        update_failure: Spec::counter("update_failure"),
        update_empty: Spec::counter("update_empty"),
        default_cx_open: Spec::gauge("circuit_breakers.default.cx_open"),
        default_rq_pending_open: Spec::gauge("circuit_breakers.default.rq_pending_open"),
        default_rq_open: Spec::gauge("circuit_breakers.default.rq_open"),
        default_rq_retry_open: Spec::gauge("circuit_breakers.default.rq_retry_open"),
        high_cx_open: Spec::gauge("circuit_breakers.high.cx_open"),
        high_rq_pending_open: Spec::gauge("circuit_breakers.high.rq_pending_open"),
        high_rq_open: Spec::gauge("circuit_breakers.high.rq_open"),
        high_rq_retry_open: Spec::gauge("circuit_breakers.high.rq_retry_open"),
    }
}

stats! {
    /// Under `outlier_detection.`.
    pub struct OutlierStats {
        ejections_active: Spec::gauge("ejections_active"),
        ejections_overflow: Spec::counter("ejections_overflow"),
        ejections_enforced_total: Spec::counter("ejections_enforced_total"),
        ejections_detected_consecutive_5xx: Spec::counter("ejections_detected_consecutive_5xx"),
        ejections_enforced_consecutive_5xx: Spec::counter("ejections_enforced_consecutive_5xx"),
        ejections_detected_consecutive_gateway_failure: Spec::counter("ejections_detected_consecutive_gateway_failure"),
        ejections_enforced_consecutive_gateway_failure: Spec::counter("ejections_enforced_consecutive_gateway_failure"),
        ejections_detected_consecutive_local_origin_failure:
            Spec::counter("ejections_detected_consecutive_local_origin_failure"),
        ejections_enforced_consecutive_local_origin_failure:
            Spec::counter("ejections_enforced_consecutive_local_origin_failure"),
        ejections_detected_success_rate: Spec::counter("ejections_detected_success_rate"),
        ejections_enforced_success_rate: Spec::counter("ejections_enforced_success_rate"),
        ejections_detected_failure_percentage: Spec::counter("ejections_detected_failure_percentage"),
        ejections_enforced_failure_percentage: Spec::counter("ejections_enforced_failure_percentage"),
    }
}

stats! {
    /// Under `anomaly_detection.`; our own.
    pub struct AnomalyStats {
        anomalous_endpoints: Spec::gauge("anomalous_endpoints"),
        began_latency: Spec::counter("began_latency"),
        began_errors: Spec::counter("began_errors"),
        ejections: Spec::counter("ejections"),
    }
}

stats! {
    /// Under `health_check.`.
    pub struct HealthCheckStats {
        attempt: Spec::counter("attempt"),
        success: Spec::counter("success"),
        failure: Spec::counter("failure"),
        network_failure: Spec::counter("network_failure"),
        healthy: Spec::gauge("healthy"),
        degraded: Spec::gauge("degraded"),
    }
}

/// How a cluster's groups are named; they share one label.
#[derive(Clone, Debug)]
pub(crate) struct Names(Labels);

impl Names {
    pub fn new(stat_name: &Arc<str>) -> Self {
        static LABEL: LazyLock<Arc<str>> = LazyLock::new(|| "envoy_cluster_name".into());
        Self(Labels::new([(LABEL.clone(), stat_name.clone())]))
    }

    /// `part` ends in a dot, `prometheus` is the whole prefix.
    pub fn part(&self, part: &'static str, prometheus: &'static str) -> Scope {
        let prefix = Prefix::Tagged { kind: "cluster", part };
        Scope { prefix, prometheus: prometheus.into(), labels: self.0.clone() }
    }
}

/// All of a cluster's metrics.
#[derive(Clone, Debug)]
pub struct ClusterStats {
    pub traffic: TrafficStats,
    pub membership: MembershipStats,
}

impl ClusterStats {
    pub(crate) fn new(registry: &Registry, names: &Names) -> Self {
        let scope = || names.part("", "envoy_cluster_");
        Self { traffic: TrafficStats::new(registry, scope()), membership: MembershipStats::new(registry, scope()) }
    }
}

impl TrafficStats {
    /// Counts a response by its class and, if it is a usual one, its code.
    pub fn response(&self, status: u16) {
        self.upstream_rq_completed().inc();
        match status / 100 {
            1 => self.upstream_rq_1xx().inc(),
            2 => self.upstream_rq_2xx().inc(),
            3 => self.upstream_rq_3xx().inc(),
            4 => self.upstream_rq_4xx().inc(),
            5 => self.upstream_rq_5xx().inc(),
            _ => {}
        }
        if let Some(index) = self.code_index(status) {
            self.group().add(index, 1);
        }
    }

    /// Counts a response that nobody got, since the request was sent again.
    pub fn retried(&self, status: u16) {
        self.retry_upstream_rq_completed().inc();
        match status / 100 {
            2 => self.retry_upstream_rq_2xx().inc(),
            4 => self.retry_upstream_rq_4xx().inc(),
            5 => self.retry_upstream_rq_5xx().inc(),
            _ => {}
        }
    }

    /// Where the counter of a code is; the table is made from the names once in the process.
    fn code_index(&self, status: u16) -> Option<usize> {
        static TABLE: OnceLock<Vec<Option<usize>>> = OnceLock::new();
        let table =
            TABLE.get_or_init(|| (0..600).map(|code| self.group().index(&format!("upstream_rq_{code}"))).collect());
        table.get(usize::from(status)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_count_by_class_and_code() {
        let registry = Registry::new();
        let stats = ClusterStats::new(&registry, &Names::new(&"c".into()));
        [200, 200, 503, 299, 999].into_iter().for_each(|status| stats.traffic.response(status));
        let by = |label: &'static str, value: &'static str| {
            let text = registry.prometheus(&Default::default());
            let wanted = format!("{label}=\"{value}\"");
            let mut lines = text.lines().filter(|l| l.starts_with("envoy_cluster_upstream_rq"));
            let line = lines.find(|l| l.contains(&wanted)).map(str::to_owned);
            line.and_then(|l| l.rsplit(' ').next().map(str::to_owned))
        };
        assert_eq!(by("envoy_response_code_class", "2").as_deref(), Some("3"));
        assert_eq!(by("envoy_response_code", "200").as_deref(), Some("2"));
        assert_eq!(by("envoy_response_code", "503").as_deref(), Some("1"));
        assert_eq!(by("envoy_response_code", "404"), None, "hidden until used");
    }
}
