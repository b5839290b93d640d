use std::time::{Duration, Instant};

use super::*;
use crate::stats;

stats! {
    struct Example {
        rq_total: Spec::counter("rq_total"),
        rq_2xx: Spec::class("rq_2xx", "rq_xx", "2"),
        active: Spec::gauge("active"),
        time: Spec::histogram("time"),
    }
}

fn example(registry: &Registry, name: &str) -> Example {
    Example::new(registry, Scope::envoy("cluster", "envoy_cluster_name", name))
}

#[test]
fn counts_from_many_threads_are_summed_and_outlive_them() {
    let registry = Registry::new();
    let stats = example(&registry, "a");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let stats = stats.clone();
            std::thread::spawn(move || {
                for _ in 0..1000 {
                    stats.rq_total().inc();
                    stats.active().inc();
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|t| t.join().unwrap());
    stats.active().sub(3999);
    assert_eq!((stats.rq_total().value(), stats.active().value()), (4000, 1));
    stats.active().set(7);
    assert_eq!(stats.active().value(), 7);
}

#[test]
fn a_freed_range_is_reused_from_zero() {
    let registry = Registry::new();
    for round in 0..3 {
        let stats = example(&registry, "short-lived");
        assert_eq!(stats.rq_total().value(), 0, "round {round}");
        stats.rq_total().add(5);
        assert_eq!(registry.total("envoy_cluster_rq_total", &[]), 5);
    }
    assert_eq!(registry.prometheus(&Filter::default()), "");
}

#[test]
fn prometheus_text_has_tags_escapes_and_cumulative_buckets() {
    let registry = Registry::new();
    let stats = example(&registry, "outbound|80||a\"b");
    stats.rq_total().inc();
    stats.rq_2xx().add(2);
    stats.time().record_ms(Duration::from_micros(400));
    stats.time().record_ms(Duration::from_millis(1));
    stats.time().record_ms(Duration::from_secs(7200));
    let text = registry.prometheus(&Filter::default());
    for line in [
        "# TYPE envoy_cluster_rq_total counter",
        "envoy_cluster_rq_total{envoy_cluster_name=\"outbound|80||a\\\"b\"} 1",
        "envoy_cluster_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"outbound|80||a\\\"b\"} 2",
        "envoy_cluster_time_bucket{envoy_cluster_name=\"outbound|80||a\\\"b\",le=\"0.5\"} 1",
        "envoy_cluster_time_bucket{envoy_cluster_name=\"outbound|80||a\\\"b\",le=\"1\"} 2",
        "envoy_cluster_time_bucket{envoy_cluster_name=\"outbound|80||a\\\"b\",le=\"3600000\"} 2",
        "envoy_cluster_time_bucket{envoy_cluster_name=\"outbound|80||a\\\"b\",le=\"+Inf\"} 3",
        "envoy_cluster_time_sum{envoy_cluster_name=\"outbound|80||a\\\"b\"} 7200001.4",
        "envoy_cluster_time_count{envoy_cluster_name=\"outbound|80||a\\\"b\"} 3",
    ] {
        assert!(text.lines().any(|l| l == line), "missing {line} in\n{text}");
    }
}

#[test]
fn stats_text_and_filters() {
    let registry = Registry::new();
    let a = example(&registry, "a");
    let _b = example(&registry, "b");
    a.rq_total().add(3);
    let used = Filter { used_only: true, ..Filter::default() };
    assert_eq!(registry.text(&used), "cluster.a.rq_total: 3\n");
    let only_b = |name: &str| name.starts_with("cluster.b.rq");
    let named = Filter { name: Some(&only_b), ..Filter::default() };
    assert_eq!(registry.text(&named), "cluster.b.rq_2xx: 0\ncluster.b.rq_total: 0\n");
    assert_eq!(registry.json(&used)["stats"][0]["value"], 3);
}

#[test]
fn a_gauge_set_to_nothing_is_in_use_and_kinds_are_told_apart() {
    let registry = Registry::new();
    let stats = example(&registry, "a");
    stats.active().set(0);
    let used = Filter { used_only: true, ..Filter::default() };
    assert_eq!(registry.text(&used), "cluster.a.active: 0\n");
    stats.time().record(2);
    let kind = |kind| registry.text(&Filter { kind: Some(kind), ..Filter::default() });
    assert_eq!(kind(KindName::Gauges), "cluster.a.active: 0\n");
    assert_eq!(kind(KindName::Counters), "cluster.a.rq_2xx: 0\ncluster.a.rq_total: 0\n");
    assert!(kind(KindName::Histograms).starts_with("cluster.a.time: P0(nan,1) P25(nan,"));
}

#[test]
fn counters_are_reset_and_nothing_else() {
    let registry = Registry::new();
    let stats = example(&registry, "a");
    let counted = stats.clone();
    std::thread::spawn(move || counted.rq_total().add(3)).join().unwrap();
    stats.active().set(2);
    stats.time().record(1);
    registry.reset_counters();
    assert_eq!((stats.rq_total().value(), stats.active().value(), stats.time().samples()), (0, 2, 1));
    stats.rq_total().inc();
    assert_eq!(stats.rq_total().value(), 1);
}

#[test]
fn series_are_bounded_expire_only_when_unheld_and_overflow_is_counted() {
    let registry = Registry::new();
    let set = SeriesSet::new(&registry, vec![Spec::counter("istio_requests_total")], 2, Duration::from_secs(60));
    let start = Instant::now();
    let label = |v: &str| Labels::new([("app", v)]);
    let held = set.series_at(&label("a"), start);
    held.add(0, 1);
    set.series_at(&label("b"), start).add(0, 1);
    // Full, nothing idle long enough: overflow.
    set.series_at(&label("c"), start).add(0, 1);
    assert_eq!(registry.total("istio_requests_total", &[("app", "overflow")]), 1);
    assert_eq!(registry.total("meltemi_metric_series_overflow_total", &[]), 1);
    // Later, b and overflow are idle and unheld: d fits, a is kept since it is held.
    let later = start + Duration::from_secs(61);
    set.series_at(&label("d"), later).add(0, 1);
    let sums = ["a", "b", "d"].map(|v| registry.total("istio_requests_total", &[("app", v)]));
    assert_eq!(sums, [1, 0, 1]);
    drop(held);
    set.expire(later + Duration::from_secs(61));
    assert!(set.is_empty());
}

#[test]
fn the_same_scope_is_the_same_group() {
    let registry = Registry::new();
    let (a, again, other) = (example(&registry, "a"), example(&registry, "a"), example(&registry, "b"));
    a.rq_total().inc();
    again.rq_total().inc();
    other.rq_total().inc();
    assert_eq!((a.rq_total().value(), registry.total("envoy_cluster_rq_total", &[])), (2, 3));
    drop((a, again));
    assert_eq!(example(&registry, "a").rq_total().value(), 0, "it left with its last handle");
}
