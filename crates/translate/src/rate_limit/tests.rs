use meltemi_model::{Change, Node, Snapshot};
use meltemi_proto::envoy::config::listener::v3::Listener;
use meltemi_proto::json::{self, Secrets};
use serde_json::{Value, json};

use super::*;
use crate::generator::Generator;
use crate::testing::{mesh, node};
use crate::{Affected, Listeners, RouteConfigurations, affected, type_urls};

const MESH: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: a, labels: {app: web}}
spec: {containers: [{name: web}]}
status: {podIP: 10.1.0.1, phase: Running}
---
apiVersion: v1
kind: Service
metadata: {name: ratelimit, namespace: infra}
spec: {clusterIP: 10.0.0.2, ports: [{name: grpc, port: 8081}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: a}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: a}
spec: {hosts: [example.com], gateways: [edge], http: [{route: [{destination: {host: web}}]}]}
";

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: meltemi.io/v1alpha1\nkind: RateLimitPolicy\nmetadata: {{name: {name}, namespace: a}}\nspec: {{{spec}}}\n"
    )
}

fn rules(rules: &str) -> String {
    policy("p", &format!("rules: [{rules}]"))
}

fn with(documents: &str) -> Snapshot {
    mesh(&format!("{MESH}{documents}"))
}

fn web() -> Node {
    node("sidecar", "10.1.0.1", "a", json!({"LABELS": {"app": "web"}}))
}

fn edge() -> Node {
    node("router", "10.1.0.9", "a", json!({"LABELS": {"app": "edge"}}))
}

fn limits(documents: &str) -> RateLimits {
    let snapshot = with(documents);
    RateLimits::of(&View::new(&snapshot, &web()))
}

/// Without what says of which message each is.
fn filters(limits: &RateLimits) -> Vec<(String, Value)> {
    let one = |filter: &HttpFilter| {
        let mut value = json::to_value(filter, Secrets::Shown)["typed_config"].take();
        value.as_object_mut().expect("a message").remove("@type");
        (filter.name.replace("envoy.filters.http.", ""), value)
    };
    limits.filters().iter().map(one).collect()
}

fn actions(limits: &RateLimits) -> Vec<Value> {
    limits.actions().iter().map(|own| json::to_value(own, Secrets::Shown)).collect()
}

#[test]
fn a_local_rule_is_a_bucket_for_each_value() {
    let limits = limits(&rules("{name: users, limit: {requests: 5, unit: MINUTE, burst: 9}, by: [{header: X-User}]}"));
    let all = |numerator: u32| json!({ "default_value": if numerator == 0 { json!({}) } else { json!({ "numerator": numerator }) } });
    assert_eq!(
        filters(&limits),
        [(
            "local_ratelimit".to_owned(),
            json!({
                "stat_prefix": "rate_limit.a.p",
                "filter_enabled": all(100),
                "filter_enforced": all(100),
                "descriptors": [{
                    "entries": [{ "key": "rule", "value": "a/p/users" }, { "key": "request.headers[x-user]" }],
                    "token_bucket": { "max_tokens": 9, "tokens_per_fill": 5, "fill_interval": "60s" },
                }],
                "always_consume_default_token_bucket": false,
                "max_dynamic_descriptors": 10000,
                "rate_limited_as_resource_exhausted": true,
            })
        )]
    );
    assert_eq!(
        actions(&limits),
        [json!({ "actions": [
            { "generic_key": { "descriptor_value": "a/p/users", "descriptor_key": "rule" } },
            { "request_headers": { "header_name": "X-User", "descriptor_key": "request.headers[x-user]" } },
        ] })]
    );
    assert!(RateLimits::default().filters().is_empty() && RateLimits::default().actions().is_empty());
}

#[test]
fn a_global_rule_asks_its_server_at_a_stage_of_its_own() {
    let global = "scope: GLOBAL, limit: {requests: 5, unit: MINUTE}";
    let limits = limits(&rules(&format!(
        "{{{global}, provider: {{address: 'ratelimit.infra:8081', failOpen: false, timeout: 1s}}}}, \
         {{{global}, provider: {{address: 'elsewhere.example.com:9', domain: own}}, dryRun: true, \
           response: {{status: 503, headers: {{retry-after: '7'}}}}}}, \
         {{limit: {{requests: 1, interval: 100ms}}}}"
    )));
    let found = filters(&limits);
    let names: Vec<_> = found.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["local_ratelimit", "ratelimit", "ratelimit"]);
    let service = |filter: &Value| filter["rate_limit_service"]["grpc_service"]["envoy_grpc"]["cluster_name"].clone();
    let (first, second) = (&found[1].1, &found[2].1);
    assert_eq!(service(first), "outbound|8081||ratelimit.infra.svc.cluster.local");
    assert_eq!((&first["domain"], &first["stage"], &first["timeout"]), (&json!("meltemi"), &json!(1), &json!("1s")));
    assert_eq!((&first["failure_mode_deny"], &first["filter_enforced"]), (&json!(true), &Value::Null));
    assert_eq!(service(second), "outbound|9||elsewhere.example.com");
    assert_eq!((&second["domain"], &second["stage"], &second["timeout"]), (&json!("own"), &json!(2), &json!("0.020s")));
    assert_eq!(
        (&second["failure_mode_deny"], &second["rate_limited_status"]["code"]),
        (&Value::Null, &json!("ServiceUnavailable"))
    );
    assert_eq!(second["response_headers_to_add"][0]["header"], json!({ "key": "retry-after", "value": "7" }));
    assert!(second["filter_enforced"].is_object());
    let stages: Vec<_> = actions(&limits).iter().map(|own| own["stage"].clone()).collect();
    assert_eq!(stages, [Value::Null, json!(1), json!(2)]);
    let clusters: Vec<_> = limits.clusters().map(|name| &**name).collect();
    assert_eq!(clusters, ["outbound|9||elsewhere.example.com", "outbound|8081||ratelimit.infra.svc.cluster.local"]);
}

#[test]
fn rules_with_other_answers_have_filters_of_their_own() {
    let limit = "limit: {requests: 1, unit: SECOND}";
    let two = [
        rules(&format!("{{{limit}}}, {{{limit}, dryRun: true}}, {{{limit}, response: {{status: 503}}}}, {{{limit}}}")),
        policy("q", &format!("rules: [{{{limit}}}]")),
    ];
    let found = filters(&limits(&two.concat()));
    let shape = |filter: &Value| {
        let enforced = filter["filter_enforced"]["default_value"]["numerator"].as_u64().unwrap_or_default();
        let count = filter["descriptors"].as_array().map_or(0, Vec::len);
        (filter["stat_prefix"].clone(), count, enforced, filter["status"]["code"].clone())
    };
    let shapes: Vec<_> = found.iter().map(|(_, filter)| shape(filter)).collect();
    let (p, q) = (json!("rate_limit.a.p"), json!("rate_limit.a.q"));
    assert_eq!(
        shapes,
        [
            (p.clone(), 2, 100, Value::Null),
            (p.clone(), 1, 0, Value::Null),
            (p, 1, 100, json!("ServiceUnavailable")),
            (q, 1, 100, Value::Null),
        ]
    );
}

#[test]
fn a_match_is_one_of_headers() {
    let matching = "match: {hosts: ['*.example.com', a.b], methods: [GET], paths: [/exact, /api/*, '*.png'], headers: {x: {prefix: v}}}";
    let limits = limits(&rules(&format!("{{limit: {{requests: 1, unit: SECOND}}, {matching}}}")));
    let found = actions(&limits);
    let own = &found[0]["actions"][0]["header_value_match"];
    assert_eq!((&own["descriptor_key"], &own["descriptor_value"]), (&json!("rule"), &json!("a/p/0")));
    let regex =
        |index: usize| own["headers"][index]["string_match"]["safe_regex"]["regex"].as_str().unwrap_or_default();
    let matches = |index: usize, text: &str| {
        meltemi_matchers::FullRegex::new(regex(index)).expect("a regular expression").matches(text.as_bytes())
    };
    for (index, text, expected) in [
        (0, "www.example.com", true),
        (0, "WWW.EXAMPLE.com:8080", true),
        (0, "example.com", false),
        (0, "a.b", true),
        (0, "axb", false),
        (0, "a.b.c", false),
        (1, "GET", true),
        (1, "GETS", false),
        (2, "/exact", true),
        (2, "/exact?x=1", true),
        (2, "/exact/more", false),
        (2, "/api/", true),
        (2, "/api/x?y=/z", true),
        (2, "/apis", false),
        (2, "/a/b.png", true),
        (2, "/a/b.png?c", true),
        (2, "/a/b?c.png", false),
    ] {
        assert_eq!(matches(index, text), expected, "{} {text}", regex(index));
    }
    assert_eq!(own["headers"][3], json!({ "name": "x", "string_match": { "prefix": "v" } }));
}

#[test]
fn what_actions_cannot_read_comes_in_headers_that_clients_cannot_set() {
    let limits = limits(&rules(
        "{limit: {requests: 1, unit: SECOND}, by: [{sourcePrincipal: true}, {path: true}, {method: true}, {host: true}, \
          {remoteAddress: true}, {claim: '[realm][group]'}, {value: gold}]}",
    ));
    let found = filters(&limits);
    let names: Vec<_> = found.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["header_mutation", "local_ratelimit", "header_mutation"]);
    let mutations = &found[0].1["mutations"]["request_mutations"];
    let removed = |at: usize| mutations[at]["remove"].as_str().unwrap_or_default().to_owned();
    let added = |at: usize| mutations[at]["append"]["header"].clone();
    let path = "x-meltemi-rate-limit-path";
    let principal = "x-meltemi-rate-limit-principal";
    assert_eq!([removed(0), removed(2)], [path, principal], "first what a client may have said");
    assert_eq!(added(1), json!({ "key": path, "value": "%PATH(NQ)%" }));
    assert_eq!(added(3), json!({ "key": principal, "value": "%DOWNSTREAM_PEER_URI_SAN%" }));
    assert_eq!(found[2].1["mutations"]["request_mutations"], json!([{ "remove": path }, { "remove": principal }]));
    let sent = actions(&limits);
    let kinds: Vec<String> = sent[0]["actions"].as_array().unwrap().iter().map(|action| action.to_string()).collect();
    for (index, expected) in [
        (1, principal),
        (2, path),
        (3, ":method"),
        (4, ":authority"),
        (5, "remote_address"),
        (6, "\"key\":\"envoy.filters.http.jwt_authn\""),
        (7, "\"descriptor_value\":\"gold\""),
    ] {
        assert!(kinds[index].contains(expected), "{}", kinds[index]);
    }
    let entries = &found[1].1["descriptors"][0]["entries"];
    let keys: Vec<_> =
        entries.as_array().unwrap().iter().map(|entry| entry["key"].as_str().unwrap_or_default()).collect();
    assert_eq!(
        keys,
        [
            "rule",
            "source.principal",
            "request.path",
            "request.method",
            "request.host",
            "remote_address",
            "request.auth.claims[realm][group]",
            "value",
        ]
    );
}

fn manager(snapshot: &Snapshot, node: &Node, listener: &str, chain: &str) -> Value {
    let (_, input) =
        Listeners::all(snapshot, node).into_iter().find(|(name, _)| **name == *listener).expect("the listener");
    let listener: Listener = meltemi_proto::unpack_listener(&Listeners::build(&input)).unwrap();
    meltemi_plan::listener(&listener).unwrap_or_else(|error| panic!("our proxy refuses it: {error}"));
    let value = json::to_value(&listener, Secrets::Shown);
    let chains = value["filter_chains"].as_array().unwrap();
    let chain = chains.iter().find(|own| own["name"] == chain || chains.len() == 1).expect("the chain");
    let own = |filter: &&Value| filter["name"] == "envoy.filters.network.http_connection_manager";
    chain["filters"].as_array().unwrap().iter().find(own).expect("HTTP")["typed_config"].clone()
}

const LIMIT: &str = "{limit: {requests: 5, unit: SECOND}}";

#[test]
fn our_proxy_takes_everything_that_a_policy_can_say() {
    let everything = "{name: all, match: {hosts: ['*.example.com'], methods: [GET], paths: [/a/*], headers: {x: {regex: v.*}}}, \
        limit: {requests: 5, interval: 100ms, burst: 9}, dryRun: true, response: {status: 503, headers: {x-limited: 'yes'}}, \
        by: [{header: x-user}, {claim: '[realm][group]'}, {path: true}, {method: true}, {host: true}, \
             {remoteAddress: true}, {sourcePrincipal: true}, {value: gold}]}";
    let global = everything
        .replace(
            "name: all",
            "name: global, scope: GLOBAL, provider: {address: 'ratelimit.infra:8081', failOpen: false}",
        )
        .replace("interval: 100ms, burst: 9", "unit: DAY");
    let snapshot = with(&rules(&format!("{everything}, {global}")));
    let manager = manager(&snapshot, &web(), "virtualInbound", "0.0.0.0_8080");
    assert_eq!(manager["route_config"]["virtual_hosts"][0]["rate_limits"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_workload_is_limited_after_it_is_authorized() {
    let deny = "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: d, namespace: a}\nspec: {action: DENY, rules: [{}]}\n";
    let snapshot = with(&(rules(LIMIT) + deny));
    let manager = manager(&snapshot, &web(), "virtualInbound", "0.0.0.0_8080");
    let names: Vec<_> =
        manager["http_filters"].as_array().unwrap().iter().map(|own| own["name"].as_str().unwrap()).collect();
    let place = |name: &str| names.iter().position(|own| *own == format!("envoy.filters.http.{name}")).expect(name);
    assert!(place("rbac") < place("local_ratelimit") && place("local_ratelimit") < place("router"), "{names:?}");
    assert_eq!(manager["route_config"]["virtual_hosts"][0]["rate_limits"].as_array().map(Vec::len), Some(1));
}

#[test]
fn a_gateways_routes_say_what_to_count() {
    let snapshot = with(&policy("g", &format!("selector: {{matchLabels: {{app: edge}}}}, rules: [{LIMIT}]")));
    let manager = manager(&snapshot, &edge(), "0.0.0.0_80", "");
    let filters = manager["http_filters"].as_array().unwrap();
    assert!(filters.iter().any(|own| own["name"] == "envoy.filters.http.local_ratelimit"));
    let routes = |node: &Node| {
        let built = RouteConfigurations::all(&snapshot, node).into_iter().map(|(_, input)| {
            let routes = meltemi_proto::unpack_route_configuration(&RouteConfigurations::build(&input)).unwrap();
            meltemi_plan::route_configuration(&routes)
                .unwrap_or_else(|error| panic!("our proxy refuses them: {error}"));
            routes.virtual_hosts.iter().map(|host| host.rate_limits.len()).collect::<Vec<_>>()
        });
        built.flatten().collect::<Vec<_>>()
    };
    assert_eq!(routes(&edge()), [1]);
    assert!(routes(&web()).iter().all(|count| *count == 0), "requests that leave are not limited");
}

#[test]
fn a_policy_for_others_changes_nothing_here() {
    let before = with("");
    let others = policy("p", &format!("selector: {{matchLabels: {{app: other}}}}, rules: [{LIMIT}]"));
    let after = with(&others);
    let inputs = |snapshot: &Snapshot, node: &Node| Listeners::all(snapshot, node);
    assert!(inputs(&before, &web()) == inputs(&after, &web()));
    let own = with(&policy("p", &format!("selector: {{matchLabels: {{app: web}}}}, rules: [{LIMIT}]")));
    assert!(inputs(&before, &web()) != inputs(&own, &web()));
    assert!(inputs(&before, &edge()) == inputs(&own, &edge()));
}

#[test]
fn a_change_concerns_whom_it_selects() {
    let update = |snapshot: &Snapshot, spec: &str| -> Change {
        let objects = meltemi_config::objects("test.yaml", &policy("p", spec)).unwrap();
        let mut registry = meltemi_registry::Registry::default();
        snapshot.next(&registry.load(&objects)).1
    };
    let snapshot = with("");
    let change = update(&snapshot, &format!("selector: {{matchLabels: {{app: edge}}}}, rules: [{LIMIT}]"));
    let listeners = |node: &Node| affected(&change, &snapshot, node, type_urls::LISTENER);
    let routes = |node: &Node| affected(&change, &snapshot, node, type_urls::ROUTE);
    assert_eq!((listeners(&edge()), routes(&edge())), (Affected::Everything, Affected::Everything));
    assert_eq!((listeners(&web()), routes(&web())), (Affected::Nothing, Affected::Nothing));
}
