use serde_json::json;

use super::*;
use crate::envoy::config::bootstrap::v3::Bootstrap;
use crate::envoy::config::cluster::v3::Cluster;
use crate::envoy::config::listener::v3::Listener;
use crate::envoy::extensions::filters::http::router::v3::Router;
use crate::envoy::extensions::transport_sockets::tls::v3::Secret;

const BOOTSTRAP: &str = r#"
node: {id: one, cluster: two, metadata: {LABELS: {app: a}, COUNT: 5, RATE: 0.5, LIST: [1, null, true]}}
static_resources:
  listeners:
  - name: main
    address:
      socket_address: { address: 127.0.0.1, port_value: 8080 }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          statPrefix: ingress
          drain_timeout: 1m30s
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: service
    connect_timeout: 0.25s
    type: STRICT_DNS
    max_requests_per_connection: 7
"#;

#[test]
fn bootstrap_is_read_from_yaml_and_printed_as_envoy_does() {
    let bootstrap: Bootstrap = from_text(BOOTSTRAP).unwrap();
    let resources = bootstrap.static_resources.as_ref().unwrap();
    let cluster = &resources.clusters[0];
    assert_eq!(cluster.connect_timeout.as_ref().unwrap().nanos, 250_000_000);
    let value = to_value(&bootstrap, Secrets::Redacted);
    assert_eq!(
        value["node"]["metadata"],
        json!({"COUNT": 5, "LABELS": {"app": "a"}, "LIST": [1, null, true], "RATE": 0.5})
    );
    let listener = &value["static_resources"]["listeners"][0];
    assert_eq!(listener["address"], json!({"socket_address": {"address": "127.0.0.1", "port_value": 8080}}));
    let hcm = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(hcm["stat_prefix"], "ingress");
    assert_eq!(hcm["drain_timeout"], "90s");
    assert_eq!(hcm.as_object().unwrap().keys().next().unwrap(), "@type");
    let printed = &value["static_resources"]["clusters"][0];
    assert_eq!(
        *printed,
        json!({"name": "service", "type": "STRICT_DNS", "connect_timeout": "0.250s", "max_requests_per_connection": 7})
    );
    assert_eq!(from_value::<Bootstrap>(&value).unwrap(), bootstrap);
}

#[test]
fn errors_name_path_and_line() {
    let check = |from: &str, to: &str, expected: &str| {
        assert!(BOOTSTRAP.contains(from));
        let text = BOOTSTRAP.replacen(from, to, 1);
        assert_eq!(from_text::<Bootstrap>(&text).unwrap_err().to_string(), expected);
    };
    let hcm = "static_resources.listeners[0].filter_chains[0].filters[0].typed_config";
    check(
        "port_value: 8080",
        "port_value: many",
        "line 7: static_resources.listeners[0].address.socket_address.port_value: expected an integer, found \"many\"",
    );
    check(
        "statPrefix:",
        "statPrefx:",
        &format!(
            "line 13: {hcm}.statPrefx: unknown field of envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, did you mean \"stat_prefix\"?"
        ),
    );
    check("1m30s", "90", &format!("line 14: {hcm}.drain_timeout: expected a duration such as \"1.5s\", found 90"));
    check(
        "router.v3.Router",
        "router.v3.Ruter, x: 1",
        &format!(
            "line 17: {hcm}.http_filters[0].typed_config: unknown message type \"type.googleapis.com/envoy.extensions.filters.http.router.v3.Ruter\""
        ),
    );
    check("STRICT_DNS", "[]", "line 21: static_resources.clusters[0].type: expected an enum name, found a list");
    check(
        "type: STRICT",
        "cluster_type: {name: a}\n    type: STRICT",
        "line 22: static_resources.clusters[0].type: cluster_type is set already: only one of cluster_discovery_type may be",
    );
}

#[test]
fn broken_yaml_is_an_error_with_its_line() {
    let error = from_text::<Bootstrap>("node:\n  id: [1\nx: y\n").unwrap_err();
    assert!(error.line.is_some_and(|line| line >= 2), "{error}");
}

#[test]
fn unknown_and_empty_any_do_not_fail() {
    let unknown = Any { type_url: "type.googleapis.com/not.Known".to_owned(), value: vec![1, 2].into() };
    let value = any_to_value(&unknown, Secrets::Shown);
    assert_eq!(value, json!({"@type": "type.googleapis.com/not.Known", "value": "AQI="}));
    assert_eq!(any_from_value(&value).unwrap(), unknown);
    assert_eq!(any_to_value(&unknown, Secrets::Redacted)["value"], "[redacted]");
    assert_eq!(any_to_value(&Any::default(), Secrets::Shown), json!({}));
    let broken = Any { type_url: crate::type_url::<Listener>(), value: vec![0xff].into() };
    assert_eq!(any_to_value(&broken, Secrets::Shown)["value"], "/w==");
}

#[test]
fn secrets_are_redacted_at_any_depth() {
    let secret: Secret = from_text(
        "name: s\ntls_certificate:\n  certificate_chain: {inline_string: PUBLIC}\n  private_key: {inline_bytes: S0VZ}\n  password: {inline_string: PASS}\n",
    )
    .unwrap();
    let any = Any::pack(&secret);
    assert!(any_to_value(&any, Secrets::Shown).to_string().contains("S0VZ"));
    let text = any_to_value(&any, Secrets::Redacted).to_string();
    assert!(text.contains("PUBLIC") && text.contains("[redacted]"), "{text}");
    assert!(!text.contains("S0VZ") && !text.contains("PASS"), "{text}");
}

#[test]
fn key_sets_of_issuers_are_redacted() {
    let value = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
        "providers": {"p": {"issuer": "i", "local_jwks": {"inline_string": "{\"keys\":[{\"kty\":\"oct\",\"k\":\"S0VZ\"}]}"}}},
    });
    let text = any_to_value(&any_from_value(&value).unwrap(), Secrets::Redacted).to_string();
    assert!(text.contains("\"issuer\":\"i\"") && !text.contains("S0VZ"), "{text}");
}

#[test]
fn typed_struct_stands_for_the_message_it_names() {
    let value = json!({
        "@type": "type.googleapis.com/xds.type.v3.TypedStruct",
        "type_url": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        "value": {"suppress_envoy_headers": true, "dynamic_stats": false},
    });
    let resolved = resolve_typed_struct(&any_from_value(&value).unwrap()).unwrap();
    let router: Router = resolved.unpack().unwrap();
    assert!(router.suppress_envoy_headers);
    assert_eq!(router.dynamic_stats, Some(false));
}

#[test]
fn durations_in_both_dialects() {
    let check = |text: &str, expected: Option<(i64, i32)>| assert_eq!(time::parse_duration(text), expected, "{text}");
    check("1.5s", Some((1, 500_000_000)));
    check("0s", Some((0, 0)));
    check("0.000000001s", Some((0, 1)));
    check("-1.25s", Some((-1, -250_000_000)));
    check("1h2m3s", Some((3723, 0)));
    check("100ms", Some((0, 100_000_000)));
    for bad in ["", "s", "1", "1.s.s", "5x", "1s 2s", "-", "99999999999999999999s", "315576000001s"] {
        check(bad, None);
    }
    assert_eq!(time::format_duration(0, 1_000), "0.000001s");
    assert_eq!(time::format_duration(-1, -500_000_000), "-1.500s");
    assert_eq!(time::format_timestamp(1_700_000_000, 120_000_000), "2023-11-14T22:13:20.120Z");
    assert_eq!(time::parse_timestamp("2023-11-14T22:13:20.12Z"), Some((1_700_000_000, 120_000_000)));
}

#[test]
fn wide_integers_are_strings_and_both_are_read() {
    let cluster: Cluster =
        from_value(&json!({"ringHashLbConfig": {"minimumRingSize": "64", "maximum_ring_size": 128}})).unwrap();
    let value = to_value(&cluster, Secrets::Shown);
    assert_eq!(value, json!({"ring_hash_lb_config": {"minimum_ring_size": "64", "maximum_ring_size": "128"}}));
}
