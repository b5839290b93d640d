use meltemi_proto::json::{self, Secrets};
use serde_json::{Value, json};

use super::*;
use crate::testing::{mesh, with_mesh_config};

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {{{spec}}}\n"
    )
}

fn of(yaml: &str) -> Authorization {
    let snapshot = mesh(yaml);
    Authorization {
        policies: snapshot.authorization.iter().cloned().collect(),
        trust_domains: vec!["cluster.local".into()],
        ..Authorization::default()
    }
}

fn http(filters: &[HttpFilter]) -> Vec<Value> {
    filters.iter().map(|filter| json::to_value(filter, Secrets::Shown)).collect()
}

fn tcp(filters: &[Filter]) -> Vec<Value> {
    filters.iter().map(|filter| json::to_value(filter, Secrets::Shown)).collect()
}

/// The rules of the only filter's only policy, as HTTP and as TCP have them.
fn rule(action: &str, rule: &str) -> [Value; 2] {
    let authorization = of(&policy("p", &format!("action: {action}, rules: [{{{rule}}}]")));
    let only = |filters: Vec<Value>| filters[0]["typed_config"]["rules"]["policies"]["ns[a]-policy[p]-rule[0]"].clone();
    [only(http(&authorization.local_http())), only(tcp(&authorization.local_tcp()))]
}

fn permissions(policy: &Value) -> &Value {
    &policy["permissions"][0]["and_rules"]["rules"]
}

fn principals(policy: &Value) -> &Value {
    &policy["principals"][0]["and_ids"]["ids"]
}

#[test]
fn actions_are_evaluated_in_istios_order() {
    let yaml = [
        policy("allow", "rules: [{}]"),
        policy("deny", "action: DENY, rules: [{}]"),
        policy("audit", "action: AUDIT, rules: [{}]"),
    ];
    let authorization = of(&yaml.concat());
    let actions = |filters: Vec<Value>| -> Vec<Value> {
        filters.iter().map(|filter| filter["typed_config"]["rules"]["action"].clone()).collect()
    };
    assert_eq!(actions(http(&authorization.local_http())), [json!("LOG"), json!("DENY"), Value::Null]);
    assert_eq!(actions(tcp(&authorization.local_tcp())), [json!("LOG"), json!("DENY"), Value::Null]);
    assert!(authorization.external_http().is_empty() && authorization.external_tcp().is_empty());
    assert!(Authorization::default().local_http().is_empty());
}

#[test]
fn a_policy_without_rules_allows_nothing_and_an_empty_rule_means_everything() {
    let filters = http(&of(&policy("p", "")).local_http());
    let never = &filters[0]["typed_config"]["rules"]["policies"]["ns[a]-policy[p]-rule[0]"];
    assert_eq!(
        *never,
        json!({"permissions": [{"not_rule": {"any": true}}], "principals": [{"not_id": {"any": true}}]})
    );
    for (policy, _) in [(&rule("ALLOW", "")[0], 0), (&rule("DENY", "")[1], 0)] {
        assert_eq!(*permissions(policy), json!([{"any": true}]));
        assert_eq!(*principals(policy), json!([{"any": true}]));
    }
}

#[test]
fn over_tcp_an_allow_rule_about_http_is_left_out_and_a_deny_rule_keeps_the_rest() {
    let about =
        "to: [{operation: {methods: [GET], ports: ['80']}}], when: [{key: 'request.auth.audiences', values: [x]}]";
    let [http, tcp] = rule("ALLOW", about);
    assert!(http.is_object() && tcp.is_null());
    let [http, tcp] = rule("DENY", about);
    assert_eq!(permissions(&http).as_array().map(Vec::len), Some(2));
    assert_eq!(*permissions(&tcp), json!([{"or_rules": {"rules": [{"destination_port": 80}]}}]));
    assert_eq!(*principals(&tcp), json!([{"any": true}]));
    // Nothing is left of it: all connections are denied, as no request can be told from another.
    let [_, tcp] = rule("DENY", "to: [{operation: {notPaths: [/x]}}]");
    assert_eq!(*permissions(&tcp), json!([{"any": true}]));
}

#[test]
fn a_template_that_no_proxy_takes_makes_a_policy_stricter() {
    for template in ["{*}", "{**}/a"] {
        let [allow, _] = rule("ALLOW", &format!("to: [{{operation: {{paths: ['{template}']}}}}]"));
        assert!(allow.is_null(), "{template}: {allow}");
        let [deny, _] = rule("DENY", &format!("to: [{{operation: {{paths: ['{template}'], methods: [GET]}}}}]"));
        assert_eq!(permissions(&deny).as_array().map(Vec::len), Some(1), "{template}: {deny}");
        let [deny, _] = rule("DENY", &format!("to: [{{operation: {{paths: ['{template}', /b]}}}}]"));
        assert_eq!(permissions(&deny)[0]["or_rules"]["rules"].as_array().map(Vec::len), Some(1), "{template}: {deny}");
    }
}

#[test]
fn a_header_that_none_can_be_makes_a_policy_stricter() {
    let of = |action: &str, name: &str| {
        let when =
            format!("when: [{{key: 'request.headers[{name}]', values: [v]}}, {{key: source.ip, values: [1.2.3.4]}}]");
        rule(action, &when)[0].clone()
    };
    for name in ["a b", "a:b", ":unknown", "\u{e9}"] {
        assert!(of("ALLOW", name).is_null(), "{name}");
        assert_eq!(principals(&of("DENY", name)).as_array().map(Vec::len), Some(1), "{name}");
    }
    for name in ["X-A", ":method", ":authority", "x_y!"] {
        assert_eq!(principals(&of("ALLOW", name)).as_array().map(Vec::len), Some(2), "{name}");
    }
}

#[test]
fn identities_are_matched_by_their_parts() {
    let authenticated = |source: &str, index: usize| {
        let [http, _] = rule("ALLOW", &format!("from: [{{source: {{{source}}}}}]"));
        principals(&http)[0]["or_ids"]["ids"][index]["authenticated"]["principal_name"].clone()
    };
    let regex = |text: &str| json!({"safe_regex": {"regex": text}});
    assert_eq!(
        authenticated("principals: [cluster.local/ns/x/sa/y]", 0),
        json!({"exact": "spiffe://cluster.local/ns/x/sa/y"})
    );
    assert_eq!(authenticated("principals: ['*']", 0), regex(".+"));
    assert_eq!(authenticated("principals: ['*/sa.y']", 0), regex(r"spiffe://.*/sa\.y"));
    assert_eq!(authenticated("principals: ['td/*']", 0), json!({"prefix": "spiffe://td/"}));
    assert_eq!(authenticated("namespaces: ['x.*']", 0), regex(r".*/ns/x\..*/.*"));
    assert_eq!(authenticated("serviceAccounts: [acc]", 0), regex("spiffe://.+/ns/a/(.+/|)sa/acc(/.+)?"));
    assert_eq!(authenticated("serviceAccounts: [x/acc]", 0), regex("spiffe://.+/ns/x/(.+/|)sa/acc(/.+)?"));
    // CVE-2026-39350.
    assert_eq!(authenticated("serviceAccounts: [a.io]", 0), regex(r"spiffe://.+/ns/a/(.+/|)sa/a\.io(/.+)?"));
    assert_eq!(authenticated("trustDomains: ['*']", 0), json!({"prefix": "spiffe://"}));
    assert_eq!(authenticated("trustDomains: ['td-*']", 0), regex("spiffe://td-[^/]*/.*"));
}

#[test]
fn a_request_principal_is_issuer_and_subject() {
    let any = json!({"string_match": {"safe_regex": {"regex": ".+"}}});
    let exact = |text: &str| json!({"string_match": {"exact": text}});
    let suffix = |text: &str| json!({"string_match": {"suffix": text}});
    let prefix = |text: &str| json!({"string_match": {"prefix": text}});
    for (value, issuer, subject) in [
        ("*", any.clone(), any.clone()),
        ("https://i/x/sub", exact("https://i/x"), exact("sub")),
        ("*/sub", any.clone(), exact("sub")),
        ("*.com/sub", suffix(".com"), exact("sub")),
        ("iss/*", exact("iss"), any.clone()),
        ("iss/s*", exact("iss"), prefix("s")),
        ("*sub", any.clone(), suffix("sub")),
        ("iss*", prefix("iss"), any.clone()),
        ("iss", exact("iss"), exact("")),
    ] {
        let [http, _] = rule("ALLOW", &format!("from: [{{source: {{requestPrincipals: ['{value}']}}}}]"));
        let parts = &principals(&http)[0]["and_ids"]["ids"];
        assert_eq!(parts[0]["metadata"]["value"], issuer, "{value}");
        assert_eq!(parts[1]["metadata"]["value"], subject, "{value}");
    }
}

#[test]
fn conditions_go_to_the_side_that_they_are_about() {
    let when = [
        ("destination.ip", "'10.0.0.0/8'"),
        ("connection.sni", "a.com"),
        ("experimental.envoy.filters.http.x[key]", "'[v]'"),
        ("source.ip", "1.2.3.4"),
        ("request.headers[x-a]", "'v*'"),
        ("request.auth.claims[a][b]", "c"),
    ];
    let list: Vec<String> = when.iter().map(|(key, value)| format!("{{key: '{key}', notValues: [{value}]}}")).collect();
    let [http, _] = rule("DENY", &format!("when: [{}]", list.join(", ")));
    let list = permissions(&http).as_array().unwrap();
    let inner = |value: &Value| value["not_rule"]["or_rules"]["rules"][0].clone();
    assert_eq!(inner(&list[0]), json!({"destination_ip": {"address_prefix": "10.0.0.0", "prefix_len": 8}}));
    assert_eq!(inner(&list[1]), json!({"requested_server_name": {"exact": "a.com"}}));
    let element = json!({"list_match": {"one_of": {"string_match": {"exact": "v"}}}});
    let metadata = json!({"filter": "envoy.filters.http.x", "path": [{"key": "key"}], "value": element});
    assert_eq!(list[2], json!({"not_rule": {"metadata": metadata}}));
    let list = principals(&http).as_array().unwrap();
    let inner = |value: &Value| value["not_id"]["or_ids"]["ids"][0].clone();
    assert_eq!(inner(&list[0]), json!({"direct_remote_ip": {"address_prefix": "1.2.3.4", "prefix_len": 32}}));
    assert_eq!(inner(&list[1]), json!({"header": {"name": "x-a", "string_match": {"prefix": "v"}}}));
    let path = json!([{"key": "payload"}, {"key": "a"}, {"key": "b"}]);
    assert_eq!(list[2]["not_id"]["metadata"]["path"], path);
}

#[test]
fn a_dry_run_is_shadow_rules() {
    let dry = |name: &str, action: &str| {
        policy(name, &format!("action: {action}, rules: [{{}}]"))
            .replace("namespace: a}", "namespace: a, annotations: {istio.io/dry-run: 'true'}}")
    };
    let authorization = of(&[dry("d", "DENY"), dry("a", "ALLOW"), policy("real", "rules: [{}]")].concat());
    let filters = http(&authorization.local_http());
    let config = |index: usize| filters[index]["typed_config"].clone();
    assert_eq!(config(0)["rules"], Value::Null);
    assert_eq!(config(0)["shadow_rules_stat_prefix"], "istio_dry_run_deny_");
    assert!(config(1)["rules"]["policies"]["ns[a]-policy[real]-rule[0]"].is_object());
    assert!(config(1)["shadow_rules"]["policies"]["ns[a]-policy[a]-rule[0]"].is_object());
    assert_eq!(config(1)["shadow_rules_stat_prefix"], "istio_dry_run_allow_");
}

const AUTHORIZERS: &str = "
extensionProviders:
- {name: grpc, envoyExtAuthzGrpc: {service: ext.a.svc.cluster.local, port: 9000, failOpen: true}}
- {name: http, envoyExtAuthzHttp: {service: ext.a.svc.cluster.local, port: 8000, includeHeadersInCheck: ['x-*']}}
- {name: lost, envoyExtAuthzGrpc: {service: nowhere.a.svc.cluster.local, port: 9000}}
";

fn custom(providers: &[&str], several: bool) -> Authorization {
    let yaml: String = providers
        .iter()
        .map(|name| policy(name, &format!("action: CUSTOM, provider: {{name: {name}}}, rules: [{{}}]")))
        .collect();
    let snapshot = with_mesh_config(&yaml, AUTHORIZERS);
    let find = |name: &str| (name == "ext.a.svc.cluster.local").then(|| name.into());
    let resolve = |name: &&str| Authorizer::resolve(&snapshot.mesh, &Str::from(*name), find);
    Authorization {
        policies: snapshot.authorization.iter().cloned().collect(),
        authorizers: providers.iter().filter_map(resolve).collect(),
        several_authorizers: several,
        ..Authorization::default()
    }
}

#[test]
fn requests_that_nobody_can_be_asked_about_are_denied() {
    let denied = |authorization: &Authorization| -> Vec<String> {
        let filters = http(&authorization.external_http());
        let rules = filters.iter().filter_map(|filter| filter["typed_config"]["rules"]["policies"].as_object());
        rules.flat_map(|policies| policies.keys().cloned()).collect()
    };
    let suffix = "-rule[0]-deny-due-to-bad-CUSTOM-action";
    for lost in ["lost", "unknown"] {
        assert_eq!(denied(&custom(&[lost], false)), [format!("istio-ext-authz-{lost}-ns[a]-policy[{lost}]{suffix}")]);
    }
    assert_eq!(denied(&custom(&["grpc", "http"], false)).len(), 2);
    assert!(denied(&custom(&["grpc", "http"], true)).is_empty());
    assert_eq!(http(&custom(&["grpc", "http"], true).external_http()).len(), 4);
}

#[test]
fn a_provider_whose_settings_cannot_be_is_none() {
    let askable = |settings: &str| {
        // Not validated, as validation would refuse it.
        let mesh = serde_saphyr::from_str(&format!("extensionProviders: [{{name: p, {settings}}}]")).unwrap();
        Authorizer::resolve(&mesh, &"p".into(), |name| Some(name.into())).is_some()
    };
    let http = |more: &str| askable(&format!("envoyExtAuthzHttp: {{service: e.a, {more}}}"));
    let grpc = |more: &str| askable(&format!("envoyExtAuthzGrpc: {{service: e.a, {more}}}"));
    assert!(http("port: 8000, pathPrefix: /check, headersToUpstreamOnAllow: ['x-*']") && grpc("port: 65535"));
    for wrong in ["port: 0", "port: 65536", "port: 80, statusOnError: '999'"] {
        assert!(!http(wrong) && !grpc(wrong), "{wrong}");
    }
    for wrong in [
        "pathPrefix: check",
        "pathPrefix: /%zz",
        "includeHeadersInCheck: ['*']",
        "headersToDownstreamOnDeny: [x-a, '*']",
    ] {
        assert!(!http(&format!("port: 80, {wrong}")), "{wrong}");
    }
}

#[test]
fn an_http_service_is_not_asked_about_connections() {
    let grpc = custom(&["grpc"], false);
    let names = |filters: Vec<Value>| -> Vec<Value> { filters.iter().map(|filter| filter["name"].clone()).collect() };
    assert_eq!(names(tcp(&grpc.external_tcp())), ["envoy.filters.network.rbac", "envoy.filters.network.ext_authz"]);
    let ask = &http(&grpc.external_http())[1]["typed_config"];
    assert_eq!(ask["grpc_service"]["timeout"], "600s");
    assert_eq!(ask["failure_mode_allow"], true);
    let only_http = custom(&["http"], false);
    assert!(only_http.external_tcp().is_empty());
    let ask = &http(&only_http.external_http())[1]["typed_config"];
    assert_eq!(ask["allowed_headers"], json!({"patterns": [{"prefix": "x-", "ignore_case": true}]}));
    assert_eq!(ask["http_service"]["server_uri"]["cluster"], "outbound|8000||ext.a.svc.cluster.local");
}

#[test]
fn principals_of_one_trust_domain_stand_for_those_of_all() {
    let domains: Vec<Str> = ["new".into(), "old".into()].into();
    let check = |value: &str, expected: &[&str]| {
        let found = trust_domain::principals(&[value.into()], &domains);
        assert_eq!(found.iter().map(|text| &**text).collect::<Vec<_>>(), expected, "{value}");
    };
    check("cluster.local/ns/x/sa/y", &["new/ns/x/sa/y", "old/ns/x/sa/y"]);
    check("old/ns/x/sa/y", &["new/ns/x/sa/y", "old/ns/x/sa/y"]);
    check("*ld/ns/x/sa/y", &["new/ns/x/sa/y", "*ld/ns/x/sa/y"]);
    check("other/ns/x/sa/y", &["other/ns/x/sa/y"]);
    check("*/ns/x/sa/y", &["*/ns/x/sa/y"]);
    check("*", &["*"]);
    let expanded = trust_domain::expanded(&["old".into(), "new".into(), "other".into()], &domains);
    assert_eq!(expanded, ["new".into(), "old".into(), "other".into()] as [Str; 3]);
}
