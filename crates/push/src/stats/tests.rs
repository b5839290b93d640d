use super::*;
use meltemi_telemetry::metrics::Filter;

fn has(registry: &Registry, line: &str) -> bool {
    registry.prometheus(&Filter::default()).lines().any(|found| found == line)
}

#[test]
fn times_below_a_thousandth_add_up() {
    let registry = Registry::new();
    let stats = Stats::new(&registry);
    for _ in 0..100 {
        stats.push_took(types::CLUSTER, Duration::from_micros(250));
    }
    assert!(has(&registry, "pilot_xds_push_time_sum{type=\"cds\"} 0.025"));
    assert!(has(&registry, "pilot_xds_push_time_count{type=\"cds\"} 100"));
}

#[test]
fn proxies_are_counted_by_version_and_versions_are_bounded() {
    let registry = Registry::new();
    let stats = Stats::new(&registry);
    let known = stats.connection("1.32.0");
    drop((stats.connection(""), stats.connection(&"9".repeat(1000))));
    assert!(has(&registry, "pilot_xds{version=\"1.32.0\"} 1") && has(&registry, "pilot_xds{version=\"unknown\"} 1"));
    assert!(has(&registry, "pilot_xds{version=\"other\"} 1"));
    assert_eq!(stats.connected(), 3);
    known.dec();
    for version in 0..1000 {
        stats.connection(&format!("0.{version}"));
    }
    let text = registry.prometheus(&Filter::default());
    assert!(text.lines().filter(|line| line.starts_with("pilot_xds{")).count() <= MAX_VERSIONS + 2);
    assert_eq!(stats.connected(), 1002);
    assert!(has(&registry, "pilot_xds{version=\"1.32.0\"} 0"));
}
