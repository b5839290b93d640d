use serde_json::json;

use super::*;

fn merged(annotations: Value) -> Result<Value, String> {
    let mut pod =
        json!({ "metadata": { "annotations": annotations }, "spec": { "containers": [{ "name": "istio-proxy" }] } });
    merge(&mut pod, &MeshConfig::default()).map_err(|error| error.to_string())?;
    Ok(pod)
}

fn told(annotations: Value) -> Option<String> {
    let pod = merged(annotations).unwrap();
    pod["spec"]["containers"][0]["env"][0]["value"].as_str().map(str::to_owned)
}

#[test]
fn prometheus_asks_the_agent_and_the_agent_the_application() {
    let pod = merged(json!({ "prometheus.io/port": "80", "prometheus.io.path": "/m", "prometheus_io/scrape": "true" }))
        .unwrap();
    assert_eq!(
        pod["metadata"]["annotations"],
        json!({ "prometheus.io/port": "15020", "prometheus.io/path": "/stats/prometheus", "prometheus.io/scrape": "true" })
    );
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["value"], r#"{"scrape":"true","path":"/m","port":"80"}"#);
}

#[test]
fn a_pod_that_says_nothing_has_its_proxy_asked() {
    assert_eq!(merged(json!({})).unwrap()["metadata"]["annotations"]["prometheus.io/port"], "15020");
    assert_eq!(told(json!({})), None);
}

#[test]
fn several_targets_are_told_and_old_agents_get_the_first() {
    assert_eq!(
        told(json!({ "prometheus.istio.io/scrape-targets": "80:/a, 90" })).unwrap(),
        r#"{"scrape":"","path":"/a","port":"80","targets":[{"port":"80","path":"/a"},{"port":"90","path":"/metrics"}]}"#
    );
}

#[test]
fn what_is_not_to_be_merged_stays() {
    for annotations in [
        json!({ "prometheus.io/scrape": "false" }),
        json!({ "prometheus.istio.io/merge-metrics": "false", "prometheus.io/port": "80" }),
        json!({ "prometheus.io/port": "15020" }),
    ] {
        assert_eq!(merged(annotations.clone()).unwrap()["metadata"]["annotations"], annotations);
    }
}

#[test]
fn ports_that_are_no_applications_are_refused() {
    for (annotations, expected) in [
        (json!({ "prometheus.io/port": "web" }), "invalid prometheus scrape configuration: invalid port \"web\""),
        (json!({ "prometheus.io/port": "15090" }), "configuration: port 15090 is reserved for Istio (Envoy Prometheus"),
        (json!({ "prometheus.istio.io/scrape-targets": "80,0" }), "targets: invalid target port \"0\""),
        (json!({ "prometheus.istio.io/scrape-targets": "15020" }), "target port 15020 conflicts with agent port"),
    ] {
        let error = merged(annotations).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_second_injection_starts_from_before_the_first() {
    let mut pod = merged(json!({ "other": "kept" })).unwrap();
    strip(&mut pod, 15020);
    assert_eq!(pod["metadata"]["annotations"], json!({ "other": "kept" }));
}

#[test]
fn a_secure_port_is_announced_unless_the_user_does() {
    let announced = |annotations: Value, port: &str| {
        let mut pod = json!({
            "metadata": { "annotations": annotations },
            "spec": { "containers": [{ "name": "istio-proxy", "env": [{ "name": SECURE_PORT, "value": port }] }] },
        });
        announce_secure_port(&mut pod);
        pod["metadata"]["annotations"][names::SECURE_PORT].as_str().map(str::to_owned)
    };
    assert_eq!(announced(json!({}), "15092").as_deref(), Some("15092"));
    assert_eq!(announced(json!({}), "0"), None);
    assert_eq!(announced(json!({ "prometheus.istio.io/secure-port": "1" }), "15092").as_deref(), Some("1"));
}
