use super::*;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};

fn read(value: Value) -> Result<ExtAuthz> {
    ext_authz(&from_value::<proto::ExtAuthz>(&value).unwrap())
}

fn grpc(rest: Value) -> Value {
    with(json!({ "grpc_service": { "envoy_grpc": { "cluster_name": "authz" } } }), rest)
}

fn http(service: Value) -> Value {
    let uri = json!({ "uri": "http://authz", "cluster": "authz", "timeout": "1s" });
    json!({ "transport_api_version": "V3", "http_service": with(json!({ "server_uri": uri }), service) })
}

fn with(mut value: Value, rest: Value) -> Value {
    value["transport_api_version"] = json!("V3");
    value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    value
}

fn plain(mut value: Value) -> Value {
    value["http_service"].as_object_mut().unwrap().remove("transport_api_version");
    value
}

#[test]
fn what_is_not_said_is_as_envoy_has_it() {
    let config = read(grpc(json!({}))).unwrap();
    let AuthzService::Grpc(target) = &config.service else { panic!("HTTP") };
    assert_eq!((&*target.cluster, target.timeout), ("authz", Duration::from_millis(200)));
    assert_eq!((config.status_on_error, config.enabled), (403, Fraction::ALWAYS));
    assert!(config.allowed_headers.is_none() && config.takes_dynamic_metadata && !config.failure_mode_allow);
}

#[test]
fn an_http_service_says_which_headers_pass() {
    let patterns = |name: &str| json!({ "patterns": [{ "exact": name }] });
    let service = json!({
        "path_prefix": "/check",
        "authorization_request": { "allowed_headers": patterns("x-in"), "headers_to_add": [{ "key": "x-add", "value": "1" }] },
        "authorization_response": { "allowed_upstream_headers": patterns("x-up"), "allowed_client_headers": { "patterns": [] } } });
    let config = read(plain(http(service))).unwrap();
    assert_eq!(config.allowed_headers, Some(vec![StringMatcher::exact("x-in")]));
    let AuthzService::Http(service) = &config.service else { panic!("gRPC") };
    assert_eq!((&*service.path_prefix, service.client_headers.is_none()), ("/check", true));
    assert_eq!(service.upstream_headers, [StringMatcher::exact("x-up")]);
    assert_eq!(service.headers_to_add[0].0, "x-add");
}

#[test]
fn what_cannot_be_is_refused_with_its_path() {
    let cases = [
        (json!({ "transport_api_version": "V3" }), "grpc_service"),
        (grpc(json!({ "transport_api_version": "V2" })), "transport_api_version"),
        (grpc(json!({ "with_request_body": {} })), "with_request_body: max_request_bytes"),
        (
            grpc(json!({ "with_request_body": { "max_request_bytes": 1_000_000_000 } })),
            "with_request_body: max_request_bytes",
        ),
        (grpc(json!({ "status_on_error": { "code": "Empty" } })), "status_on_error"),
        (plain(http(json!({ "path_prefix": "check" }))), "http_service: path_prefix"),
        (
            plain(http(json!({ "server_uri": { "uri": "http://a", "cluster": "c" } }))),
            "http_service.server_uri.timeout",
        ),
    ];
    for (config, path) in cases {
        let error = read(config).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
    }
}

#[test]
fn a_route_has_its_own_settings_or_none() {
    let read = |value: Value| per_route(&from_value::<proto::ExtAuthzPerRoute>(&value).unwrap());
    assert!(matches!(read(json!({ "disabled": true })), Ok(FilterOverride::Disabled)));
    let own =
        json!({ "check_settings": { "context_extensions": { "a": "b" }, "disable_request_body_buffering": true } });
    let Ok(FilterOverride::ExtAuthz(own)) = read(own) else { panic!("refused") };
    assert_eq!((own.context_extensions["a"].as_str(), own.body), ("b", AuthzBodyOverride::Never));
    let both = json!({ "check_settings": { "with_request_body": { "max_request_bytes": 1 }, "disable_request_body_buffering": true } });
    for wrong in [json!({}), json!({ "disabled": false }), both] {
        assert!(read(wrong).is_err());
    }
}
