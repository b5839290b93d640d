use serde_json::json;

use super::*;

fn told_of(text: &str) -> String {
    told(&overlaid(&ProxyConfig::default(), text).unwrap()).to_string()
}

#[test]
fn a_proxy_is_told_only_what_differs_from_the_default() {
    assert_eq!(told(&ProxyConfig::default()), json!({}));
    assert_eq!(told_of("configPath: ./etc/istio/proxy\ndrainDuration: 45s\ninterceptionMode: REDIRECT"), "{}");
    assert_eq!(
        told_of("proxyMetadata: {foo: barr}\ndrainDuration: 7s\nconfigPath: /foo/bar"),
        r#"{"configPath":"/foo/bar","drainDuration":"7s","proxyMetadata":{"foo":"barr"}}"#
    );
    assert_eq!(told_of("concurrency: 0\ntracing: {}"), r#"{"concurrency":0,"tracing":{}}"#);
}

#[test]
fn an_overlay_joins_metadata_and_replaces_the_rest() {
    let base = overlaid(&ProxyConfig::default(), "proxyMetadata: {A: '1', B: '2'}\ndrain_duration: 9s").unwrap();
    let merged = overlaid(&base, "proxyMetadata: {B: '3'}\nstatusPort: 1234").unwrap();
    assert_eq!(
        told(&merged),
        json!({ "drainDuration": "9s", "proxyMetadata": { "A": "1", "B": "3" }, "statusPort": 1234 })
    );
}

#[test]
fn fractions_of_seconds_are_told_in_groups_of_three_digits() {
    let config = overlaid(
        &ProxyConfig::default(),
        "{terminationDrainDuration: 0.5s, privateKeyProvider: {qat: {pollDelay: 0.0125s}}}",
    );
    let told = told(&config.unwrap());
    assert_eq!(told["terminationDrainDuration"], "0.500s");
    assert_eq!(told["privateKeyProvider"]["qat"]["pollDelay"], "0.012500s");
}

#[test]
fn numbers_are_told_without_a_point_where_they_are_whole() {
    let told = |text: &str| told(&overlaid(&ProxyConfig::default(), text).unwrap())["tracing"].to_string();
    assert_eq!(told("tracing: {sampling: 10}"), r#"{"sampling":10}"#);
    assert_eq!(told("tracing: {sampling: 0.5}"), r#"{"sampling":0.5}"#);
    let long = told("tracing: {stackdriver: {maxNumberOfAttributes: 200}}");
    assert_eq!(long, r#"{"stackdriver":{"maxNumberOfAttributes":"200"}}"#);
}

#[test]
fn headers_that_an_overlay_does_not_name_stay() {
    let base = overlaid(&ProxyConfig::default(), "proxyHeaders: {server: {disabled: true}}").unwrap();
    let merged = overlaid(&base, "proxyHeaders: {requestId: {disabled: true}}").unwrap();
    let headers = &told(&merged)["proxyHeaders"];
    assert_eq!(headers["server"]["disabled"], true);
    assert_eq!(headers["requestId"]["disabled"], true);
}

#[test]
fn what_is_no_proxy_config_is_refused_with_its_field() {
    let error = overlaid(&ProxyConfig::default(), "drainDuration: soon").unwrap_err().to_string();
    assert!(error.contains("drainDuration"), "{error}");
}

#[test]
fn a_patch_changes_what_it_names() {
    let patch = json!({ "defaultConfig": { "interceptionMode": "TPROXY" }, "trustDomain": "td" });
    let mesh = patched(&MeshConfig::default(), &patch).unwrap();
    assert_eq!(told(&mesh.default_config), json!({ "interceptionMode": "TPROXY" }));
    assert_eq!(&*mesh.trust_domain, "td");
    assert_eq!(patched(&MeshConfig::default(), &json!({})).unwrap(), MeshConfig::default());
}
