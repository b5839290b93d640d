use serde_json::json;

use super::quantity::ParseQuantityError;
use super::*;

#[test]
fn quantities_have_one_form() {
    for (text, expected) in [
        ("2000m", "2"),
        ("100m", "100m"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("128Mi", "128Mi"),
        ("1.5Gi", "1536Mi"),
        ("1000", "1k"),
        ("500Mi", "500Mi"),
        ("0", "0"),
        ("1e3", "1e3"),
        ("512", "512"),
        ("-2000m", "-2"),
        ("1n", "1n"),
        ("1Ki", "1Ki"),
        ("-", "0"),
        (".", "0"),
        ("Mi", "0"),
    ] {
        assert_eq!(canonical_quantity(text).as_deref(), Ok(expected), "{text}");
    }
}

#[test]
fn what_is_no_quantity_is_refused() {
    for text in ["", "1.2.3", "abc", "1Q", "1 Gi", "--1"] {
        assert_eq!(canonical_quantity(text), Err(ParseQuantityError), "{text}");
    }
}

#[test]
fn a_canonical_pod_has_no_zero_values_but_pointers_keep_theirs() {
    let pod = json!({
        "spec": {
            "hostNetwork": false,
            "containers": [{
                "name": "web",
                "env": [{ "name": "A", "value": "" }],
                "securityContext": { "runAsUser": 0, "privileged": false },
                "readinessProbe": { "initialDelaySeconds": 0, "httpGet": { "port": 0 } },
                "resources": null,
            }],
            "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "w", "emptyDir": null }],
            "somethingNew": { "kept": 0, "gone": null },
        },
    });
    assert_eq!(
        canonical(&pod, Shape::pod()),
        json!({
            "metadata": {},
            "spec": {
                "volumes": [{ "name": "v", "emptyDir": {} }, { "name": "w" }],
                "containers": [{
                    "name": "web",
                    "env": [{ "name": "A" }],
                    "resources": {},
                    "readinessProbe": { "httpGet": { "port": 0 } },
                    "securityContext": { "privileged": false, "runAsUser": 0 },
                }],
                "somethingNew": { "kept": 0 },
            },
            "status": {},
        })
    );
}

#[test]
fn a_canonical_form_is_its_own() {
    let pod = json!({ "spec": { "containers": [{ "name": "a", "resources": { "limits": { "cpu": 2 } } }] } });
    let once = canonical(&pod, Shape::pod());
    assert_eq!(canonical(&once, Shape::pod()), once);
    assert_eq!(once["spec"]["containers"][0]["resources"]["limits"]["cpu"], "2");
}

#[test]
fn text_has_the_order_and_the_escapes_of_go() {
    let container =
        json!({ "tty": true, "image": "a&b", "name": "<x>", "ports": [{ "containerPort": 80, "name": "p" }] });
    assert_eq!(
        go_json(&container, Shape::container()),
        r#"{"name":"\u003cx\u003e","image":"a\u0026b","ports":[{"name":"p","containerPort":80}],"resources":{},"tty":true}"#
    );
}

#[test]
fn a_service_of_a_grpc_probe_is_there_in_text() {
    let probe = json!({ "grpc": { "port": 9000 } });
    assert_eq!(go_json(&probe, Shape::named("Probe")), r#"{"grpc":{"port":9000,"service":null}}"#);
}

#[test]
fn every_type_that_the_table_names_is_in_it() {
    for kind in
        ["Pod", "Deployment", "DaemonSet", "StatefulSet", "Job", "CronJob", "ReplicaSet", "ReplicationController"]
    {
        check_reachable(Shape::of_kind(kind).expect(kind), kind);
    }
}

fn check_reachable(shape: &Shape, at: &str) {
    assert!(!shape.fields.is_empty(), "{at}");
    for field in &shape.fields {
        if let Type::Struct(name) | Type::List { of: Some(name), .. } = field.kind {
            check_reachable(Shape::named(name), name);
        }
    }
}
