//! A trial finds what is translated wrong: each matcher of filters, made a little wrong, shows in a request.

use meltemi_config::{Spec, parse_documents};
use meltemi_model::Config;
use meltemi_proto::json::{self as proto_json, Secrets};
use meltemi_translate::authorization::Authorization;
use serde_json::{Value, json};

use super::super::messages::Evaluator;
use super::super::{Engine, Filters, Report, SEED, change, of_policies, search};

/// Rules of one attribute each, so that no other hides it.
const POLICIES: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: each, namespace: a}
spec:
  action: ACTION
  rules:
  - from: [{source: {principals: ['cluster.local/ns/x/sa/web', 'far/*']}}]
    to: [{operation: {ports: ['1001']}}]
  - from: [{source: {namespaces: ['y', 'z*']}}]
    to: [{operation: {ports: ['1002']}}]
  - from: [{source: {notServiceAccounts: ['web', 'y/db']}}]
    to: [{operation: {ports: ['1003']}}]
  - from: [{source: {trustDomains: ['far', 'f*r']}}]
    to: [{operation: {ports: ['1004']}}]
  - from: [{source: {ipBlocks: ['10.1.0.0/16'], notIpBlocks: ['10.1.2.3', '10.1.128.0/17']}}]
    to: [{operation: {ports: ['1005']}}]
  - from: [{source: {remoteIpBlocks: ['2001:db8::/32', '192.0.2.1']}}]
    to: [{operation: {ports: ['1006']}}]
  - from: [{source: {requestPrincipals: ['https://issuer/x/me', 'other/*']}}]
    to: [{operation: {ports: ['1007']}}]
  - to: [{operation: {hosts: ['A.example', '*.b.example'], ports: ['1008']}}]
  - to: [{operation: {methods: ['PUT'], notPaths: ['/x', '/y/*', '*.z', '/t/{*}/u/{**}'], ports: ['1009']}}]
  - to: [{operation: {ports: ['1010']}}]
    when:
    - {key: 'request.headers[X-A]', values: ['v', 'w*']}
    - {key: 'request.auth.claims[groups][inner]', values: ['g']}
    - {key: 'request.auth.claims[left]', notValues: ['*h']}
    - {key: 'request.auth.audiences', values: ['one', 'two']}
    - {key: connection.sni, values: ['s.example', '*.t']}
    - {key: destination.ip, values: ['172.16.0.0/12']}
    - {key: 'experimental.envoy.filters.a.b[c]', values: ['exact', '[inlist]']}
";

fn filters(action: &str) -> (Vec<Value>, Authorization) {
    let documents = parse_documents("policies", &POLICIES.replace("ACTION", action));
    let policies = documents.iter().map(|document| {
        let object = document.object.as_ref().unwrap_or_else(|| panic!("{:?}", document.problems));
        let Spec::AuthorizationPolicy(spec) = &object.spec else { panic!("not a policy") };
        Config::shared(&object.meta, spec)
    });
    let trust_domains = vec!["new".into(), "old".into()];
    let authorization = Authorization { policies: policies.collect(), trust_domains, ..Authorization::default() };
    let json = authorization.local_http().iter().map(|one| proto_json::to_value(one, Secrets::Shown)).collect();
    (json, authorization)
}

fn tried(expected: &[Value], found: &[Value], authorization: &Authorization) -> Report {
    let trust_domains = authorization.trust_domains.iter().map(ToString::to_string).collect();
    let mentions = of_policies(&authorization.policies);
    Filters { expected, found, is_http: true, mentions, trust_domains }.tried(SEED).unwrap()
}

/// Each copy of the filters in which one matcher is a little different.
fn mutations(filters: &[Value]) -> Vec<(String, Vec<Value>)> {
    let whole = Value::from(filters);
    let mut found = Vec::new();
    collect(&whole, &whole, "", &mut found);
    let whole = |(path, value): (String, Value)| (path, value.as_array().cloned().unwrap());
    found.into_iter().map(whole).collect()
}

fn collect(whole: &Value, at: &Value, path: &str, found: &mut Vec<(String, Value)>) {
    let mut put = |path: &str, wrong: Value| {
        let mut copy = whole.clone();
        *copy.pointer_mut(path).unwrap() = wrong;
        found.push((format!("{path} {}", copy.pointer(path).unwrap()), copy));
    };
    match at {
        Value::Object(fields) => {
            if let Some(text) = fields.get("exact") {
                put(path, json!({ "prefix": text }));
            }
            if let Some(text) = fields.get("prefix").or(fields.get("suffix")) {
                put(path, json!({ "contains": text }));
            }
            if let Some(regex) = fields.get("regex").and_then(Value::as_str) {
                // Without its last letter, where it has one.
                if let Some(at) = regex.rfind(|c: char| c.is_ascii_alphanumeric()) {
                    put(path, json!({ "regex": format!("{}{}", &regex[..at], &regex[at + 1..]) }));
                }
            }
            if let Some(length) = fields.get("prefix_len").and_then(Value::as_u64) {
                put(&format!("{path}/prefix_len"), json!(length - 1));
            }
            if let Some(port) = fields.get("destination_port").and_then(Value::as_u64) {
                put(&format!("{path}/destination_port"), json!(port + 1));
            }
            if let Some(template) = fields.get("path_template").and_then(Value::as_str) {
                put(
                    &format!("{path}/path_template"),
                    json!(template.replacen("/*/", "/**/", 1).replace("u/**", "u/x")),
                );
            }
            if fields.get("ignore_case").is_some() {
                put(&format!("{path}/ignore_case"), json!(false));
            }
            if let Some(not) = fields.get("not_rule").or(fields.get("not_id")) {
                put(path, not.clone());
            }
            for (key, inner) in fields {
                let key = key.replace('~', "~0").replace('/', "~1");
                collect(whole, inner, &format!("{path}/{key}"), found);
            }
        }
        Value::Array(list) => {
            for (index, inner) in list.iter().enumerate() {
                collect(whole, inner, &format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn each_matcher_that_is_a_little_wrong_shows_in_a_request() {
    let (filters, authorization) = filters("ALLOW");
    let same = tried(&filters, &filters, &authorization);
    assert_eq!(same.disagreement, None);
    assert!(same.allowed > 100 && same.denied > 100, "{same:?}");
    assert_eq!(same.notes, Vec::<String>::new());
    let evaluator = Evaluator::default();
    let domains: Vec<String> = authorization.trust_domains.iter().map(ToString::to_string).collect();
    let aspects = change::changes(&of_policies(&authorization.policies), &domains, true);
    let calls = search::calls((&evaluator, &filters), &aspects, true, SEED).unwrap();
    let right = Engine::of(&filters, true).unwrap();
    let decided: Vec<_> = calls.iter().map(|call| (call, right.decide(call))).collect();
    let mutations = mutations(&filters);
    assert!(mutations.len() > 50, "{}", mutations.len());
    let unseen = mutations.into_iter().filter(|(_, wrong)| {
        let wrong = Engine::of(wrong, true).unwrap();
        decided.iter().all(|(call, steps)| wrong.decide(call) == *steps)
    });
    assert_eq!(unseen.map(|(what, _)| what).collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn a_rule_of_another_name_is_told() {
    let (filters, authorization) = filters("DENY");
    let renamed = serde_json::to_string(&filters).unwrap().replace("rule[4]", "rule[14]");
    let renamed: Vec<Value> = serde_json::from_str(&renamed).unwrap();
    let disagreement = tried(&filters, &renamed, &authorization).disagreement.unwrap();
    assert_eq!(disagreement.expected[0]["policy"], "ns[a]-policy[each]-rule[4]");
    assert_eq!(disagreement.found[0]["policy"], "ns[a]-policy[each]-rule[14]");
}
