use serde_json::json;

use super::*;

fn pod(container: Value) -> Value {
    json!({ "spec": { "containers": [container, { "name": "istio-proxy", "env": [] }] } })
}

fn told(pod: &Value) -> Value {
    let variable =
        pod["spec"]["containers"][1]["env"].as_array().unwrap().iter().find(|v| v["name"] == PROBERS).unwrap();
    serde_json::from_str(variable["value"].as_str().unwrap()).unwrap()
}

#[test]
fn the_port_of_the_annotation_is_where_the_agent_is_asked() {
    let mut pod = pod(json!({ "name": "app", "livenessProbe": { "tcpSocket": { "port": 90 } } }));
    pod["metadata"]["annotations"][names::STATUS_PORT] = json!("15099");
    rewrite(&mut pod, true, 15020);
    let asked = &pod["spec"]["containers"][0]["livenessProbe"]["httpGet"];
    assert_eq!(*asked, json!({ "path": "/app-health/app/livez", "port": 15099 }));
}

#[test]
fn every_kind_of_probe_goes_to_the_agent() {
    let mut pod = pod(json!({
        "name": "app",
        "ports": [{ "name": "web", "containerPort": 80 }],
        "readinessProbe": { "httpGet": { "path": "/r", "port": "web", "scheme": "HTTPS" }, "timeoutSeconds": 5 },
        "livenessProbe": { "tcpSocket": { "port": 90 } },
        "startupProbe": { "grpc": { "port": 91 }, "periodSeconds": 7 },
        "lifecycle": { "preStop": { "httpGet": { "path": "/s", "port": 80 } }, "postStart": { "exec": { "command": ["x"] } } },
    }));
    rewrite(&mut pod, true, 15020);
    let container = &pod["spec"]["containers"][0];
    let asked = |path: &str| json!({ "path": path, "port": 15020 });
    let mut https = asked("/app-health/app/readyz");
    https["scheme"] = json!("HTTP");
    assert_eq!(container["readinessProbe"], json!({ "httpGet": https, "timeoutSeconds": 5 }));
    assert_eq!(container["livenessProbe"], json!({ "httpGet": asked("/app-health/app/livez") }));
    assert_eq!(container["startupProbe"], json!({ "httpGet": asked("/app-health/app/startupz"), "periodSeconds": 7 }));
    assert_eq!(container["lifecycle"]["preStop"], json!({ "httpGet": asked("/app-lifecycle/app/prestopz") }));
    assert_eq!(container["lifecycle"]["postStart"], json!({ "exec": { "command": ["x"] } }));
    assert_eq!(
        told(&pod),
        json!({
            "/app-health/app/livez": { "tcpSocket": { "port": 90 } },
            "/app-health/app/readyz": { "httpGet": { "path": "/r", "port": 80, "scheme": "HTTPS" }, "timeoutSeconds": 5 },
            "/app-health/app/startupz": { "grpc": { "port": 91, "service": null } },
            "/app-lifecycle/app/prestopz": { "httpGet": { "path": "/s", "port": 80 } },
        })
    );
}

#[test]
fn what_asks_the_agent_already_and_names_without_a_port_are_not_told() {
    let mut pod = pod(json!({
        "name": "app",
        "readinessProbe": { "httpGet": { "path": "/app-health/app/readyz", "port": 15020 } },
        "livenessProbe": { "httpGet": { "path": "/l", "port": "nowhere" } },
    }));
    rewrite(&mut pod, true, 15020);
    assert_eq!(pod["spec"]["containers"][1]["env"], json!([]));
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], 15020);
}

#[test]
fn the_pods_annotation_wins_over_the_values() {
    for (said, by_default, expected) in [
        (None, true, true),
        (None, false, false),
        (Some("false"), true, false),
        (Some("true"), false, true),
        (Some("?"), true, true),
    ] {
        let mut pod = pod(json!({ "name": "app", "livenessProbe": { "httpGet": { "port": 80 } } }));
        if let Some(said) = said {
            pod["metadata"]["annotations"][names::REWRITE_PROBERS] = json!(said);
        }
        rewrite(&mut pod, by_default, 15020);
        let is_rewritten = pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"] == 15020;
        assert_eq!(is_rewritten, expected, "{said:?} {by_default}");
    }
}

#[test]
fn without_a_proxy_nothing_is_changed() {
    let before =
        json!({ "spec": { "containers": [{ "name": "app", "livenessProbe": { "tcpSocket": { "port": 80 } } }] } });
    let mut pod = before.clone();
    rewrite(&mut pod, true, 15020);
    assert_eq!(pod, before);
}

#[test]
fn a_second_injection_joins_what_is_told() {
    let mut pod = pod(json!({ "name": "late", "livenessProbe": { "tcpSocket": { "port": 80 } } }));
    pod["metadata"]["annotations"][names::STATUS] = json!("{}");
    pod["spec"]["containers"][1]["env"] =
        json!([{ "name": PROBERS, "value": r#"{"/app-health/app/livez":{"tcpSocket":{"port":1}}}"# }]);
    rewrite(&mut pod, true, 15020);
    assert_eq!(
        told(&pod),
        json!({ "/app-health/app/livez": { "tcpSocket": { "port": 1 } }, "/app-health/late/livez": { "tcpSocket": { "port": 80 } } })
    );
}
