use serde_json::json;

use super::*;

fn installed(spec: Value, flags: &[&str]) -> Installation {
    let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
    Installation::new(&spec, &flags).unwrap()
}

#[test]
fn nothing_said_is_the_defaults() {
    let installation = installed(json!(null), &[]);
    assert_eq!(installation.values, defaults());
    assert_eq!(installation.mesh["defaultConfig"]["discoveryAddress"], "istiod.istio-system.svc:15012");
}

#[test]
fn flags_are_laid_over_the_operators_values() {
    let spec = json!({ "values": { "global": { "network": "n1", "proxy": { "logLevel": "debug" } } } });
    let values = installed(
        spec,
        &[
            "values.global.network=n2",
            "values.global.proxy.excludeInboundPorts=4,5,6",
            "values.global.proxy.statusPort=0",
            "values.global.mountMtlsCerts=true",
            r"values.sidecarInjectorWebhook.injectedAnnotations.a\.b/c=d",
        ],
    )
    .values;
    assert_eq!(values["global"]["network"], "n2");
    assert_eq!(values["global"]["proxy"]["logLevel"], "debug");
    assert_eq!(values["global"]["proxy"]["excludeInboundPorts"], "4,5,6");
    assert_eq!(values["global"]["proxy"]["statusPort"], 0);
    assert_eq!(values["global"]["mountMtlsCerts"], true);
    assert_eq!(values["sidecarInjectorWebhook"]["injectedAnnotations"]["a.b/c"], "d");
}

#[test]
fn the_network_plugin_is_a_component_or_a_value() {
    let cni = |flags: &[&str]| installed(json!({}), flags).values["pilot"]["cni"].clone();
    assert_eq!(cni(&["components.cni.enabled=true"]), json!({ "enabled": true, "provider": "default" }));
    let both = cni(&["components.cni.enabled=true", "values.cni.provider=multus"]);
    assert_eq!(both, json!({ "enabled": true, "provider": "multus" }));
    assert_eq!(cni(&["values.pilot.cni.enabled=true"])["enabled"], true);
}

#[test]
fn the_mesh_follows_the_values_and_its_own_section_wins() {
    let mesh = installed(
        json!({ "revision": "canary", "meshConfig": { "trustDomain": "td", "defaultConfig": { "statusPort": 1 } } }),
        &["values.global.istioNamespace=mesh", "values.global.variant=distroless", "values.global.proxy.tracer=zipkin"],
    )
    .mesh;
    assert_eq!(mesh["defaultConfig"]["discoveryAddress"], "istiod-canary.mesh.svc:15012");
    assert_eq!(mesh["defaultConfig"]["image"]["imageType"], "distroless");
    assert_eq!(mesh["defaultConfig"]["tracing"]["zipkin"]["address"], "zipkin.mesh:9411");
    assert_eq!(mesh["defaultConfig"]["statusPort"], 1);
    assert_eq!(mesh["trustDomain"], "td");
}

#[test]
fn templates_of_users_stand_beside_and_in_place_of_ours() {
    let values =
        json!({ "values": { "sidecarInjectorWebhook": { "templates": { "sidecar": "mine", "more": "text" } } } });
    let config = installed(values, &[]).injector_config();
    assert_eq!(config["templates"]["sidecar"], "mine");
    assert_eq!(config["templates"]["more"], "text");
    assert!(config["templates"]["gateway"].is_string());
}

#[test]
fn a_null_takes_a_default_away() {
    let values = json!({ "values": { "global": { "proxy": { "resources": { "limits": { "cpu": null } } } } } });
    let limits = installed(values, &[]).values["global"]["proxy"]["resources"]["limits"].clone();
    assert_eq!(limits, json!({ "cpu": null, "memory": "1024Mi" }));
}

#[test]
fn flags_that_say_nothing_are_refused() {
    let refused = |flag: &str| Installation::new(&json!({ "hub": "h" }), &[flag.to_owned()]).unwrap_err().to_string();
    assert_eq!(refused("values.global"), "--set \"values.global\": not of the form path=value");
    assert_eq!(refused("a..b=1"), "--set \"a..b=1\": not of the form path=value");
    assert_eq!(refused("hub.x=1"), "--set \"hub.x=1\": hub is not a map");
}
