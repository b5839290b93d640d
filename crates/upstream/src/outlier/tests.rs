use meltemi_telemetry::Registry;
use meltemi_telemetry::metrics::Scope;

use super::*;

fn hosts(n: u16) -> Vec<Arc<Endpoint>> {
    (0..n).map(|i| Arc::new(Endpoint::bare(std::net::SocketAddr::from(([10, 0, 0, 1], i)).into()))).collect()
}

fn envoy_defaults() -> OutlierDetection {
    OutlierDetection {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 100,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 0,
        split_external_local_origin_errors: false,
        consecutive_local_origin_failure: 5,
        enforcing_consecutive_local_origin_failure: 100,
        interval: Duration::from_secs(10),
        base_ejection_time: Duration::from_secs(30),
        max_ejection_time: Duration::from_secs(300),
        max_ejection_time_jitter: Duration::ZERO,
        max_ejection_percent: 10,
        always_eject_one_host: false,
        enforcing_success_rate: 100,
        enforcing_local_origin_success_rate: 100,
        success_rate_minimum_hosts: 5,
        success_rate_request_volume: 100,
        success_rate_stdev_factor: 1900,
        failure_percentage_threshold: 85,
        enforcing_failure_percentage: 0,
        enforcing_failure_percentage_local_origin: 0,
        failure_percentage_minimum_hosts: 5,
        failure_percentage_request_volume: 50,
        successful_health_check_uneject_host: true,
    }
}

fn detector(config: OutlierDetection) -> Detector {
    Detector::new(config.into(), OutlierStats::new(&Registry::new(), Scope::plain("cluster.c.outlier_detection")))
}

fn half() -> OutlierDetection {
    OutlierDetection { max_ejection_percent: 50, ..envoy_defaults() }
}

/// Reports in order; at which report the host was ejected.
fn ejected_at(detector: &Detector, outcomes: &[Outcome]) -> Option<usize> {
    let hosts = hosts(2);
    outcomes.iter().position(|o| detector.report(&hosts[0], *o, 2, Instant::now()))
}

#[test]
fn consecutive_failures() {
    use Outcome::{ConnectFailed, Connected, Status, Timeout};
    let check = |config: OutlierDetection, outcomes: &[Outcome], expected| {
        assert_eq!(ejected_at(&detector(config), outcomes), expected, "{outcomes:?}");
    };
    check(half(), &[Status(500); 6], Some(4));
    check(half(), &[Status(499); 9], None);
    let interrupted = [Status(500), Status(500), Status(500), Status(500), Status(200), Status(500)];
    check(half(), &interrupted, None);
    // Failures of our own count as 5xx unless split.
    check(half(), &[ConnectFailed, Timeout, ConnectFailed, Status(503), Timeout], Some(4));
    let split =
        OutlierDetection { split_external_local_origin_errors: true, consecutive_local_origin_failure: 2, ..half() };
    check(split.clone(), &[Status(500), ConnectFailed, ConnectFailed], Some(2));
    check(split.clone(), &[ConnectFailed, Connected, ConnectFailed], None);
    // Gateway errors have their own, usually lower, threshold; another 5xx interrupts them.
    let gateway =
        OutlierDetection { consecutive_gateway_failure: 3, enforcing_consecutive_gateway_failure: 100, ..half() };
    check(gateway.clone(), &[Status(502), Status(503), Status(504)], Some(2));
    check(gateway, &[Status(502), Status(503), Status(500), Status(504)], None);
    // Not enforced: detected only.
    let lenient = detector(OutlierDetection { enforcing_consecutive_5xx: 0, ..half() });
    assert_eq!(ejected_at(&lenient, &[Status(500); 10]), None);
    assert_eq!(lenient.stats.ejections_detected_consecutive_5xx().value(), 2);
    // Istio's way: 5xx off by a threshold no one reaches, gateway on.
    let istio = OutlierDetection {
        consecutive_5xx: 5,
        enforcing_consecutive_5xx: 0,
        consecutive_gateway_failure: 5,
        enforcing_consecutive_gateway_failure: 100,
        ..half()
    };
    check(istio, &[Status(503); 5], Some(4));
}

fn fail(detector: &Detector, host: &Endpoint, hosts: usize, now: Instant) -> bool {
    (0..5).any(|_| detector.report(host, Outcome::Status(500), hosts, now))
}

#[test]
fn at_most_the_given_percentage_is_ejected() {
    let check = |percent, n: u16, always, expected| {
        let config = OutlierDetection { max_ejection_percent: percent, always_eject_one_host: always, ..half() };
        let detector = detector(config);
        let hosts = hosts(n);
        let ejected = hosts.iter().filter(|h| fail(&detector, h, hosts.len(), Instant::now())).count();
        assert_eq!(ejected, expected, "{percent}% of {n}");
        let overflow = detector.stats.ejections_overflow().value() as usize;
        assert_eq!((detector.stats.ejections_active().value() as usize, overflow > 0), (expected, expected < n.into()));
    };
    check(10, 10, false, 1);
    check(10, 5, false, 0);
    check(10, 5, true, 1);
    check(50, 4, false, 2);
    check(100, 3, false, 3);
}

#[test]
fn ejection_lasts_longer_each_time_and_the_host_comes_back() {
    let detector = detector(half());
    let hosts = hosts(2);
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    assert!(fail(&detector, &hosts[0], 2, at(0)));
    assert!(!fail(&detector, &hosts[0], 2, at(0)), "it is out already");
    assert!(!detector.sweep(&hosts, at(29)));
    assert!(detector.sweep(&hosts, at(30)));
    assert!(!hosts[0].state.has(Fault::Outlier));
    // Second time: twice the base.
    assert!(fail(&detector, &hosts[0], 2, at(31)));
    assert!(!detector.sweep(&hosts, at(90)));
    assert!(detector.sweep(&hosts, at(91)));
    // Two quiet intervals, and it is the base again.
    detector.sweep(&hosts, at(100));
    detector.sweep(&hosts, at(110));
    assert!(fail(&detector, &hosts[0], 2, at(120)));
    assert!(detector.sweep(&hosts, at(150)));
    assert_eq!((hosts[0].state.outlier.ejections(), detector.stats.ejections_active().value()), (3, 0));
}

#[test]
fn ejection_time_is_capped() {
    let detector = detector(OutlierDetection { max_ejection_time: Duration::from_secs(40), ..half() });
    let hosts = hosts(2);
    let mut now = Instant::now();
    for _ in 0..4 {
        assert!(fail(&detector, &hosts[0], 2, now));
        now += Duration::from_secs(40);
        assert!(detector.sweep(&hosts, now));
    }
}

fn answer(detector: &Detector, host: &Endpoint, good: u32, bad: u32) {
    // Interleaved, so that nothing is consecutive.
    for i in 0..good.max(bad) {
        if i < bad {
            detector.report(host, Outcome::Status(500), 6, Instant::now());
        }
        if i < good {
            detector.report(host, Outcome::Status(200), 6, Instant::now());
        }
    }
}

#[test]
fn success_rate_outliers() {
    let detector = detector(half());
    let hosts = hosts(6);
    for host in &hosts[..5] {
        answer(&detector, host, 100, 0);
    }
    answer(&detector, &hosts[5], 80, 40);
    assert!(detector.sweep(&hosts, Instant::now()));
    let ejected: Vec<bool> = hosts.iter().map(|h| h.state.has(Fault::Outlier)).collect();
    assert_eq!(ejected, [false, false, false, false, false, true]);
    // Too few requests to judge.
    let detector = self::detector(half());
    let hosts = self::hosts(6);
    hosts.iter().for_each(|h| answer(&detector, h, 40, 20));
    assert!(!detector.sweep(&hosts, Instant::now()));
}

#[test]
fn failure_percentage_outliers() {
    let config = OutlierDetection {
        enforcing_failure_percentage: 100,
        enforcing_success_rate: 0,
        consecutive_5xx: 1000,
        failure_percentage_threshold: 50,
        ..half()
    };
    let detector = detector(config);
    let hosts = hosts(5);
    for host in &hosts[..4] {
        answer(&detector, host, 60, 10);
    }
    answer(&detector, &hosts[4], 30, 30);
    assert!(detector.sweep(&hosts, Instant::now()));
    assert_eq!(detector.stats.ejections_enforced_failure_percentage().value(), 1);
    assert!(hosts[4].state.has(Fault::Outlier));
}

#[test]
fn a_host_that_leaves_frees_its_place() {
    let detector = detector(half());
    let hosts = hosts(2);
    assert!(fail(&detector, &hosts[0], 2, Instant::now()));
    assert!(!fail(&detector, &hosts[1], 2, Instant::now()));
    detector.forget(&hosts[0]);
    assert!(fail(&detector, &hosts[1], 2, Instant::now()));
}
