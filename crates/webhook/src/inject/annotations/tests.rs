use serde_json::json;

use super::*;

fn check(name: &str, value: &str) -> Vec<String> {
    problems(json!({ name: value }).as_object().unwrap())
}

#[test]
fn values_that_istio_takes_are_taken() {
    for (name, value) in [
        ("sidecar.istio.io/interceptionMode", "NONE"),
        ("status.sidecar.istio.io/port", " 15020"),
        ("readiness.status.sidecar.istio.io/periodSeconds", "4294967295"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "*"),
        ("traffic.sidecar.istio.io/includeOutboundIPRanges", "10.96.0.1/24,fd00::/8"),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", ""),
        ("traffic.sidecar.istio.io/includeInboundPorts", ""),
        ("traffic.sidecar.istio.io/excludeOutboundPorts", "1,2, 3"),
        ("traffic.sidecar.istio.io/kubevirtInterfaces", "net1, k6t.net-2"),
        ("prometheus.istio.io/merge-metrics", "T"),
        ("proxy.istio.io/config", "concurrency: 2"),
        ("sidecar.istio.io/proxyCPU", "100m"),
        ("unknown.example/annotation", "anything"),
    ] {
        assert_eq!(check(name, value), Vec::<String>::new(), "{name}: {value}");
    }
}

#[test]
fn wrong_values_are_refused_with_istios_words() {
    for (name, value, expected) in [
        (
            "sidecar.istio.io/interceptionMode",
            "redirect",
            "interceptionMode invalid, use REDIRECT,TPROXY,NONE: redirect",
        ),
        ("status.sidecar.istio.io/port", "65536", "failed parsing port '65536'"),
        ("readiness.status.sidecar.istio.io/initialDelaySeconds", "-1", "\"-1\" is not a number"),
        ("readiness.status.sidecar.istio.io/failureThreshold", "+1", "\"+1\" is not a number"),
        (
            "traffic.sidecar.istio.io/includeOutboundIPRanges",
            "10.0.0.0/33",
            "includeIPRanges invalid: failed parsing cidr",
        ),
        (
            "traffic.sidecar.istio.io/excludeOutboundIPRanges",
            "10.0.0.0",
            "excludeIPRanges invalid: failed parsing cidr",
        ),
        ("traffic.sidecar.istio.io/excludeOutboundIPRanges", "*", "excludeIPRanges invalid"),
        (
            "traffic.sidecar.istio.io/includeInboundPorts",
            "bad",
            "includeInboundPorts invalid: failed parsing port 'bad'",
        ),
        ("traffic.sidecar.istio.io/excludeInboundPorts", "*", "excludeInboundPorts invalid"),
        (
            "traffic.sidecar.istio.io/excludeOutboundPorts",
            "80,,90",
            "excludeOutboundPorts invalid: failed parsing port ''",
        ),
        ("traffic.sidecar.istio.io/excludeInterfaces", "0eth", "contains invalid characters"),
        ("istio.io/reroute-virtual-interfaces", "a,,b", "empty interface name"),
        ("traffic.sidecar.istio.io/kubevirtInterfaces", "abcdefghijklmnop", "too long (max 15 chars)"),
        ("prometheus.istio.io/merge-metrics", "yes", "is not a boolean"),
        ("proxy.istio.io/config", "concurency: 2", "concurency"),
        ("sidecar.istio.io/proxyMemory", "1Gi\n", "control characters"),
        ("sidecar.istio.io/proxyMemoryLimit", "much", "quantities must match"),
    ] {
        let found = check(name, value).concat();
        assert!(found.contains(expected), "{name}: {value}: {found}");
        assert!(found.starts_with(&format!("invalid value '{value}' for annotation '{name}'")), "{found}");
    }
}
