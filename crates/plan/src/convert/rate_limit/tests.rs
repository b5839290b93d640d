use super::*;
use meltemi_proto::json::from_value;
use serde_json::{Value, json};

fn read(actions: Value) -> Result<Vec<RateLimitPolicy>> {
    policies(&[from_value::<route::RateLimit>(&json!({ "actions": actions })).unwrap()])
}

fn service(rest: Value) -> Result<RateLimit> {
    let mut value = json!({ "domain": "d", "rate_limit_service": { "transport_api_version": "V3",
        "grpc_service": { "envoy_grpc": { "cluster_name": "limits" } } } });
    value.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    filter(&from_value::<proto::RateLimit>(&value).unwrap())
}

#[test]
fn actions_have_envoys_default_keys() {
    let actions = json!([
        { "generic_key": { "descriptor_value": "v" } },
        { "header_value_match": { "descriptor_value": "v", "headers": [{ "name": "a", "present_match": true }] } },
        { "masked_remote_address": { "v4_prefix_mask_len": 24 } },
        { "request_headers": { "header_name": ":path", "descriptor_key": "path", "skip_if_absent": true } }]);
    let policy = read(actions).unwrap().remove(0);
    let [
        DescriptorAction::GenericKey { key, .. },
        DescriptorAction::HeaderMatch { key: other, expect: true, .. },
        masked,
        path,
    ] = &policy.actions[..]
    else {
        panic!("{policy:?}")
    };
    assert_eq!((&**key, &**other, policy.stage), ("generic_key", "header_match", 0));
    assert_eq!(*masked, DescriptorAction::MaskedRemoteAddress { v4: 24, v6: 128 });
    assert!(matches!(path, DescriptorAction::RequestHeader { header: HeaderKey::Path, skip_if_absent: true, .. }));
}

#[test]
fn what_cannot_be_is_refused_with_its_path() {
    let cases = [
        (json!([]), "rate_limits[0]: actions"),
        (json!([{}]), "rate_limits[0].actions[0].action_specifier"),
        (json!([{ "generic_key": {} }]), "rate_limits[0].actions[0].generic_key: descriptor_value"),
        (
            json!([{ "generic_key": { "descriptor_value": "%REQ(a)%" } }]),
            "rate_limits[0].actions[0].generic_key: descriptor_value",
        ),
        (
            json!([{ "request_headers": { "header_name": "a b", "descriptor_key": "k" } }]),
            "rate_limits[0].actions[0].request_headers.header_name",
        ),
        (
            json!([{ "masked_remote_address": { "v4_prefix_mask_len": 33 } }]),
            "rate_limits[0].actions[0].masked_remote_address.v4_prefix_mask_len",
        ),
    ];
    for (actions, path) in cases {
        let error = read(actions).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
    }
    for (rest, path) in [
        (json!({ "domain": "" }), "domain"),
        (json!({ "stage": 11 }), "stage"),
        (json!({ "request_type": "other" }), "request_type"),
        (json!({ "timeout": "0s" }), "timeout"),
        (json!({ "rate_limit_service": {} }), "rate_limit_service"),
    ] {
        let error = service(rest).unwrap_err().to_string();
        assert!(error.starts_with(path), "{error}");
    }
}

#[test]
fn a_filters_own_policies_have_no_stage() {
    let staged = json!({ "stage": 0, "actions": [{ "remote_address": {} }] });
    let value = from_value::<proto::RateLimitPerRoute>(&json!({ "rate_limits": [staged] })).unwrap();
    let error = per_route(&value).unwrap_err().to_string();
    assert!(error.starts_with("rate_limits[0]: stage"), "{error}");
}

#[test]
fn a_service_without_more_is_as_envoy_has_it() {
    let config = service(json!({ "rate_limited_status": { "code": "OK" } })).unwrap();
    assert_eq!((config.status, config.status_on_error, config.service.timeout), (429, 500, Duration::from_millis(20)));
    assert!(config.marks_limited && !config.quota_headers && !config.failure_mode_deny);
    assert_eq!(config.requests, RequestKind::Both);
}
