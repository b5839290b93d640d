use meltemi_model::{KeyFetch, Options, Snapshot, Update};
use meltemi_proto::json::{self, Secrets};
use serde_json::{Value, json};

use super::*;
use crate::testing::{mesh, node, sidecar};

const SERVICE: &str = "---
apiVersion: v1
kind: Service
metadata: {name: idp, namespace: a}
spec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 8080}]}
";

fn policy(name: &str, rules: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: a}}\nspec: {{jwtRules: [{rules}]}}\n"
    )
}

fn config(snapshot: &Snapshot, kind: &str) -> Value {
    let node = node(kind, "1.1.1.1", "a", json!({}));
    let filter = Authentication::of(&View::new(snapshot, &node)).http_filter();
    filter.map_or(Value::Null, |filter| json::to_value(&filter, Secrets::Shown)["typed_config"].clone())
}

/// One RSA key of somebody.
const KEYS: &str = concat!("{\"keys\": [", include_str!("nobodys_key.json"), "]}");

const INLINE: &str = "jwks: '{\"keys\":[]}'";

#[test]
fn every_field_of_a_rule_is_one_of_the_provider() {
    let rule = format!(
        "{{issuer: i, {INLINE}, audiences: [x], fromHeaders: [{{name: x-jwt, prefix: 'B '}}], fromParams: [q], fromCookies: [c], \
         outputPayloadToHeader: x-payload, outputClaimToHeaders: [{{header: x-sub, claim: sub}}], forwardOriginalToken: true, \
         spaceDelimitedClaims: [groups, scope]}}"
    );
    let config = config(&mesh(&policy("p", &rule)), "router");
    let expected = json!({
        "issuer": "i",
        "audiences": ["x"],
        "forward": true,
        "from_headers": [{"name": "x-jwt", "value_prefix": "B "}],
        "from_params": ["q"],
        "from_cookies": ["c"],
        "forward_payload_header": "x-payload",
        "payload_in_metadata": "payload",
        "normalize_payload_in_metadata": {"space_delimited_claims": ["groups", "permission", "scope"]},
        "claim_to_headers": [{"header_name": "x-sub", "claim_name": "sub"}],
        "clear_route_cache": true,
        "local_jwks": {"inline_string": key_set::none()},
    });
    assert_eq!(config["providers"]["origins-0"], expected);
    assert_eq!(config["bypass_cors_preflight"], true);
}

#[test]
fn one_rule_takes_a_valid_token_or_none_and_several_take_one_of_any() {
    let one = |issuer: &str| format!("{{issuer: {issuer}, {INLINE}}}");
    let requires = |yaml: &str| config(&mesh(yaml), "sidecar")["rules"][0]["requires"].clone();
    let optional = |index: usize| json!({"requires_any": {"requirements": [{"provider_name": format!("origins-{index}")}, {"allow_missing": {}}]}});
    assert_eq!(requires(&policy("p", &one("i"))), optional(0));
    let both = [policy("p", &one("z")), policy("q", &one("b"))].concat();
    let all = json!({"requires_all": {"requirements": [optional(0), optional(1)]}});
    let expected = json!({"requires_any": {"requirements": [{"provider_name": "origins-0"}, {"provider_name": "origins-1"}, all]}});
    assert_eq!(requires(&both), expected);
    let found = config(&mesh(&both), "sidecar");
    assert_eq!(found["providers"]["origins-0"]["issuer"], "b");
    assert_eq!(found["providers"]["origins-0"]["clear_route_cache"], Value::Null);
    assert_eq!(config(&mesh(""), "sidecar"), Value::Null);
}

#[test]
fn keys_that_nobody_has_yet_verify_nothing_and_those_that_come_take_their_place() {
    let yaml = policy("p", "{issuer: i, jwksUri: 'https://keys.example.com/k'}, {issuer: j}");
    let before = mesh(&yaml);
    let keys = |snapshot: &Snapshot, index: usize| {
        config(snapshot, "sidecar")["providers"][format!("origins-{index}")]["local_jwks"]["inline_string"].clone()
    };
    assert_eq!(keys(&before, 0), key_set::none());
    assert_eq!(keys(&before, 1), key_set::none());
    let source = KeySource { issuer: "i".into(), uri: "https://keys.example.com/k".into() };
    let (after, _) = before.next(&Update { key_sets: vec![(source, Some(KEYS.into()))], ..Update::default() });
    assert_eq!(keys(&after, 0), KEYS);
    assert_eq!(keys(&after, 1), key_set::none());
}

/// Where the keys of a rule at this URL come from: a cluster, or the control plane.
fn fetched_by(mode: KeyFetch, url: &str) -> Option<String> {
    let rule = format!("{{issuer: i, jwksUri: '{url}', timeout: 2s}}");
    let mut snapshot = mesh(&[SERVICE, &policy("p", &rule)].concat());
    snapshot.options = Arc::new(Options { key_fetch: mode, ..Options::default() });
    let config = config(&snapshot, "sidecar");
    let remote = &config["providers"]["origins-0"]["remote_jwks"];
    if remote.is_object() {
        assert_eq!(remote["http_uri"]["timeout"], "2s");
        assert_eq!(remote["cache_duration"], "300s");
    }
    remote["http_uri"]["cluster"].as_str().map(str::to_owned)
}

#[test]
fn who_fetches_keys_is_as_the_mode_says() {
    let (inside, outside) = ("http://idp.a.svc.cluster.local:8080/keys", "https://idp.example.com/keys");
    let service = Some("outbound|8080||idp.a.svc.cluster.local".to_owned());
    assert_eq!(fetched_by(KeyFetch::ControlPlane, inside), None);
    assert_eq!(fetched_by(KeyFetch::Hybrid, inside), service);
    assert_eq!(fetched_by(KeyFetch::Hybrid, outside), None);
    assert_eq!(fetched_by(KeyFetch::Proxy, inside), service);
    assert_eq!(fetched_by(KeyFetch::Proxy, outside), Some("outbound|443||idp.example.com".to_owned()));
}

#[test]
fn a_sidecar_has_the_rules_of_its_namespace_and_of_the_root() {
    let yaml = policy("p", &format!("{{issuer: i, {INLINE}}}"));
    let snapshot = mesh(&yaml);
    let other = sidecar("1.1.1.1", "b");
    assert!(Authentication::of(&View::new(&snapshot, &other)).http_filter().is_none());
    let root = mesh(&yaml.replace("namespace: a", "namespace: istio-system"));
    assert!(Authentication::of(&View::new(&root, &other)).http_filter().is_some());
}
