//! What the evaluator takes each matcher for.

use serde_json::{Value, json};

use super::super::messages::Evaluator;
use super::super::{Call, Certificate, Step, Verdict};

fn call() -> Call {
    let mut call = Call {
        certificate: Some(Certificate {
            uri_sans: vec!["spiffe://td/ns/x/sa/y".into()],
            dns_sans: vec!["y.example".into()],
            subject: "CN=y".into(),
        }),
        path: "/a/b?q#f".into(),
        headers: vec![("x-a".into(), "1".into()), ("x-a".into(), "two".into())],
        ..Call::plain(true)
    };
    call.claim(&["groups".into()], Some(json!(["g", 7, null])));
    call
}

#[test]
fn matchers_hold_as_envoy_says() {
    let evaluator = Evaluator::default();
    let metadata = |value: Value, invert: bool| {
        json!({"metadata": {"filter": "envoy.filters.http.jwt_authn", "path": [{"key": "payload"}, {"key": "groups"}],
            "value": value, "invert": invert}})
    };
    let header = |more: Value| {
        let mut header = json!({"name": "X-A"});
        header.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "header": header })
    };
    let template = |text: &str| json!({"uri_template": {"name": "t", "typed_config": {"path_template": text}}});
    let named = |name: &str| json!({"authenticated": {"principal_name": {"exact": name}}});
    for (matcher, expected) in [
        (named("spiffe://td/ns/x/sa/y"), true),
        (named("y.example"), true),
        (named("CN=y"), true),
        (named("y"), false),
        (json!({"authenticated": {}}), true),
        (json!({"url_path": {"path": {"exact": "/a/b"}}}), true),
        (json!({"url_path": {"path": {"exact": "/A/b"}}}), false),
        (json!({"url_path": {"path": {"exact": "/A/b", "ignore_case": true}}}), true),
        (template("/a/*"), true),
        (template("/*"), false),
        (template("/**"), true),
        (template("/a/b/**"), false),
        (header(json!({"string_match": {"exact": "two"}})), true),
        (header(json!({"string_match": {"exact": "1,two"}})), false),
        (header(json!({"string_match": {"exact": "two"}, "invert_match": true})), false),
        (header(json!({"range_match": {"start": "1", "end": "2"}})), true),
        (header(json!({"present_match": false})), false),
        (json!({"header": {"name": "x-b", "string_match": {"exact": "v"}, "invert_match": true}}), false),
        (json!({"header": {"name": "x-b", "present_match": true, "invert_match": true}}), true),
        (metadata(json!({"list_match": {"one_of": {"string_match": {"exact": "g"}}}}), false), true),
        (metadata(json!({"list_match": {"one_of": {"null_match": {}}}}), false), true),
        (metadata(json!({"string_match": {"exact": "g"}}), false), false),
        (metadata(json!({"string_match": {"exact": "g"}}), true), true),
        (json!({"remote_ip": {"address_prefix": "203.0.113.0", "prefix_len": 29}}), true),
        (json!({"direct_remote_ip": {"address_prefix": "203.0.113.0", "prefix_len": 30}}), false),
        (json!({"destination_ip": {"address_prefix": "::", "prefix_len": 0}}), false),
        (json!({"destination_port_range": {"start": 50000, "end": 50001}}), true),
        (json!({"destination_port_range": {"start": 49999, "end": 50000}}), false),
        (json!({"requested_server_name": {"exact": ""}}), true),
        (json!({"filter_state": {"key": "io.istio.peer_principal", "string_match": {"suffix": "/y"}}}), true),
        (json!({"or_rules": {"rules": [{"not_rule": {"any": true}}, {"any": true}]}}), true),
        (json!({"and_ids": {"ids": [{"any": true}, {"not_id": {"any": true}}]}}), false),
    ] {
        assert_eq!(evaluator.holds(&matcher, &call()), Ok(expected), "{matcher}");
    }
    for unknown in [
        json!({"matcher": {"name": "cel"}}),
        json!({"any": true, "destination_port": 80}),
        json!({"header": {"name": ":scheme", "string_match": {"exact": "http"}}}),
        json!({"url_path": {"path": {"custom": {}}}}),
        json!({"remote_ip": {"address_prefix": "10.0.0.0", "prefix_len": 33}}),
        json!({"sourced_metadata": {"metadata_source": "ROUTE"}}),
        template("/{name}"),
    ] {
        assert!(evaluator.holds(&unknown, &call()).is_err(), "{unknown}");
    }
}

#[test]
fn rules_in_shadow_choose_what_is_asked_about_and_nothing_comes_behind_a_denial() {
    let policy = |permission: Value| json!({"permissions": [permission], "principals": [{"any": true}]});
    let path = |path: &str| json!({"url_path": {"path": {"exact": path}}});
    let rbac = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC";
    let shadow = json!({"typed_config": {"@type": rbac, "shadow_rules_stat_prefix": "p_", "shadow_rules": {"action": "DENY",
        "policies": {"ask-b": policy(json!({"any": true})), "ask-a": policy(path("/a"))}}}});
    let chosen = json!({"filter": "envoy.filters.http.rbac", "path": [{"key": "p_shadow_effective_policy_id"}],
        "value": {"string_match": {"exact": "ask-a"}}});
    let ask = json!({"typed_config": {"filter_enabled_metadata": chosen,
        "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"}});
    let allow = json!({"typed_config": {"@type": rbac, "rules": {"policies": {"allow": policy(path("/a"))}}}});
    let filters = [shadow, ask, allow.clone(), allow];
    let steps = |path: &str| Evaluator::default().decide(&filters, &Call { path: path.into(), ..call() }).unwrap();
    let verdict = |allowed: bool, policy: Option<&str>| Verdict { allowed, policy: policy.map(str::to_owned) };
    let allowed = Step::Rules(verdict(true, Some("allow")));
    let expected = [Step::Shadow(verdict(false, Some("ask-a"))), Step::Asked(true), allowed.clone(), allowed];
    assert_eq!(steps("/a"), expected);
    let expected = [Step::Shadow(verdict(false, Some("ask-b"))), Step::Asked(false), Step::Rules(verdict(false, None))];
    assert_eq!(steps("/b"), expected);
    let other = json!({"typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua"}});
    assert!(Evaluator::default().decide(&[other], &call()).is_err());
}
