use meltemi_model::{Change, Node, Snapshot};
use meltemi_proto::envoy::config::listener::v3::Listener;
use meltemi_proto::json::{self, Secrets};
use serde_json::{Value, json};

use crate::generator::Generator;
use crate::testing::{mesh, node, with_mesh_config};
use crate::{Affected, Clusters, Listeners, affected, type_urls};

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: a}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 90, targetPort: 9090}]}
---
apiVersion: v1
kind: Service
metadata: {name: ext, namespace: a}
spec: {clusterIP: 10.0.0.2, ports: [{name: grpc, port: 9000}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: a}
spec: {selector: {app: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}
";

const PROVIDER: &str =
    "extensionProviders: [{name: p, envoyExtAuthzGrpc: {service: ext.a.svc.cluster.local, port: 9000}}]";

fn policy(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: a}}\nspec: {{{spec}}}\n"
    )
}

fn policies() -> String {
    [
        policy("AuthorizationPolicy", "allow", "rules: [{}]"),
        policy("AuthorizationPolicy", "deny", "action: DENY, rules: [{to: [{operation: {ports: ['1']}}]}]"),
        policy("AuthorizationPolicy", "ask", "action: CUSTOM, provider: {name: p}, rules: [{}]"),
        policy("RequestAuthentication", "jwt", "jwtRules: [{issuer: i, jwks: '{\"keys\":[]}'}]"),
    ]
    .concat()
}

fn listeners(snapshot: &Snapshot, node: &Node) -> Vec<(String, Value)> {
    let built = Listeners::all(snapshot, node).into_iter().map(|(name, input)| {
        let listener: Listener = meltemi_proto::unpack_listener(&Listeners::build(&input)).unwrap();
        (name.to_string(), json::to_value(&listener, Secrets::Shown))
    });
    built.collect()
}

fn names(filters: &Value) -> Vec<String> {
    let name = |filter: &Value| filter["name"].as_str().unwrap_or_default().replace("envoy.filters.", "");
    filters.as_array().into_iter().flatten().map(name).collect()
}

/// The filters of each chain of a listener; in the place of the connection manager, those of its own.
fn chains(listener: &Value) -> Vec<Vec<String>> {
    let of_chain = |chain: &Value| {
        let manager =
            chain["filters"].as_array().into_iter().flatten().find(|f| f["typed_config"]["http_filters"].is_array());
        manager.map_or_else(|| names(&chain["filters"]), |manager| names(&manager["typed_config"]["http_filters"]))
    };
    listener["filter_chains"].as_array().into_iter().flatten().map(of_chain).collect()
}

fn web(dialect: &str) -> Node {
    node("sidecar", "1.1.1.1", "a", json!({"LABELS": {"app": "web"}, "DIALECT": dialect}))
}

const HTTP: [&str; 5] = ["http.rbac", "http.ext_authz", "http.jwt_authn", "http.rbac", "http.rbac"];
const TCP: [&str; 4] = ["network.rbac", "network.ext_authz", "network.rbac", "network.rbac"];

#[test]
fn what_a_workload_receives_is_asked_about_authenticated_and_authorized_in_this_order() {
    let snapshot = with_mesh_config(&[SERVICES, &policies()].concat(), PROVIDER);
    for dialect in ["envoy", "istio-proxy"] {
        let istio = dialect == "istio-proxy";
        for (name, listener) in listeners(&snapshot, &web(dialect)) {
            for chain in chains(&listener) {
                let security: Vec<&str> =
                    chain.iter().map(String::as_str).filter(|name| HTTP.contains(name) || TCP.contains(name)).collect();
                let http = chain.last().is_some_and(|last| last == "http.router");
                match (&*name, http) {
                    ("virtualInbound", true) => {
                        assert_eq!(security, HTTP, "{dialect} {chain:?}");
                        assert_eq!(chain.iter().position(|name| name == "http.rbac"), Some(usize::from(istio)));
                    }
                    ("virtualInbound", false) if !security.is_empty() => {
                        assert_eq!(security, TCP);
                        assert_eq!(chain.iter().position(|name| name == "network.rbac"), Some(usize::from(istio)));
                    }
                    // What leaves is the other side's to authorize.
                    _ => assert!(security.is_empty(), "{name} {chain:?}"),
                }
            }
            if name == "virtualInbound" {
                let of =
                    |kind: &str| chains(&listener).iter().filter(|c| c.iter().any(|f| f.starts_with(kind))).count();
                // All but the trap, which leads nowhere.
                assert_eq!(of("network.rbac") + of("http.jwt_authn") + 1, chains(&listener).len());
            }
        }
    }
}

#[test]
fn a_gateway_authenticates_and_authorizes_too() {
    let snapshot = with_mesh_config(&[SERVICES, &policies()].concat(), PROVIDER);
    let edge = node("router", "1.1.1.2", "a", json!({"LABELS": {"app": "edge"}}));
    let found = listeners(&snapshot, &edge);
    let chain = chains(&found[0].1).remove(0);
    let security: Vec<&String> = chain.iter().filter(|name| HTTP.contains(&name.as_str())).collect();
    assert_eq!(security, HTTP);
}

#[test]
fn a_policy_for_another_workload_changes_nothing_here() {
    let other = policy("AuthorizationPolicy", "other", "selector: {matchLabels: {app: other}}, rules: [{}]");
    let token =
        policy("RequestAuthentication", "jwt", "selector: {matchLabels: {app: other}}, jwtRules: [{issuer: i}]");
    let before = mesh(SERVICES);
    let after = mesh(&[SERVICES, &other, &token].concat());
    let node = web("istio-proxy");
    assert!(Listeners::all(&before, &node) == Listeners::all(&after, &node));
    let own = policy("AuthorizationPolicy", "own", "selector: {matchLabels: {app: web}}, rules: [{}]");
    let after = mesh(&[SERVICES, &own].concat());
    assert!(Listeners::all(&before, &node) != Listeners::all(&after, &node));
}

fn change(before: &str, after: &str) -> (Snapshot, Change) {
    let objects = meltemi_config::objects("test.yaml", after).unwrap();
    mesh(before).next(&meltemi_registry::Registry::default().load(&objects))
}

#[test]
fn a_changed_policy_touches_the_listeners_of_those_whom_it_selects() {
    let of = |app: &str| {
        policy("AuthorizationPolicy", "p", &format!("selector: {{matchLabels: {{app: {app}}}}}, rules: [{{}}]"))
    };
    let (snapshot, change) = change(&of("web"), &of("api"));
    let touched = |app: &str, namespace: &str, extra: Value| {
        let mut metadata = json!({"LABELS": {"app": app}});
        metadata.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let node = node("sidecar", "1.1.1.1", namespace, metadata);
        let types = [
            ("cds", type_urls::CLUSTER),
            ("eds", type_urls::ENDPOINT),
            ("lds", type_urls::LISTENER),
            ("rds", type_urls::ROUTE),
        ];
        let touched =
            types.into_iter().filter(|(_, url)| affected(&change, &snapshot, &node, url) != Affected::Nothing);
        touched.map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(touched("web", "a", json!({})), ["lds"]);
    assert_eq!(touched("api", "a", json!({})), ["lds"]);
    assert_eq!(touched("db", "a", json!({})), [""; 0]);
    assert_eq!(touched("web", "b", json!({})), [""; 0]);
    // Of services it is sent only those that its policies need.
    assert_eq!(touched("web", "a", json!({"ON_DEMAND": "true"})), ["cds", "lds"]);
}

#[test]
fn a_sidecar_that_asks_on_demand_gets_the_clusters_that_its_policies_need() {
    let yaml =
        [SERVICES, &policy("AuthorizationPolicy", "ask", "action: CUSTOM, provider: {name: p}, rules: [{}]")].concat();
    assert!(is_sent_the_provider(&with_mesh_config(&yaml, PROVIDER), "a"));
}

fn is_sent_the_provider(snapshot: &Snapshot, namespace: &str) -> bool {
    let node = node("sidecar", "1.1.1.1", namespace, json!({"ON_DEMAND": "true"}));
    Clusters::all(snapshot, &node).into_iter().any(|(name, _)| &*name == "outbound|9000||ext.a.svc.cluster.local")
}

/// Connections that began under a policy ask its provider until they end, though the policy is gone.
#[test]
fn the_cluster_of_an_authorizer_stays_when_no_policy_asks_it_any_more() {
    assert!(is_sent_the_provider(&with_mesh_config(SERVICES, PROVIDER), "a"));
    assert!(is_sent_the_provider(&with_mesh_config(SERVICES, PROVIDER), "b"));
    assert!(!is_sent_the_provider(&with_mesh_config(SERVICES, ""), "a"));
}

/// The listener that a gRPC server asks for, as JSON; null where there is none.
fn server(yaml: &str, labels: Value, port: u32) -> Value {
    let snapshot = with_mesh_config(&[SERVICES, yaml].concat(), PROVIDER);
    let node = node("sidecar", "1.1.1.1", "a", json!({"LABELS": labels, "GENERATOR": "grpc", "DIALECT": ""}));
    let name = format!("xds.istio.io/grpc/lds/inbound/0.0.0.0:{port}");
    let Some(input) = Listeners::inputs(&snapshot, &node, &name) else { return Value::Null };
    let listener: Listener = meltemi_proto::unpack_listener(&Listeners::build(&input)).unwrap();
    assert_eq!(listener.name, name);
    json::to_value(&listener, Secrets::Shown)
}

#[test]
fn a_grpc_server_denies_then_allows_and_denies_what_nobody_can_be_asked_about() {
    let dry = policy("AuthorizationPolicy", "dry", "action: DENY, rules: [{}]")
        .replace("namespace: a}", "namespace: a, annotations: {istio.io/dry-run: 'true'}}");
    let audit = policy("AuthorizationPolicy", "audit", "action: AUDIT, rules: [{}]");
    let listener = server(&[policies(), dry, audit].concat(), json!({"app": "web"}), 8080);
    let manager = &listener["filter_chains"][0]["filters"][0]["typed_config"];
    assert_eq!(names(&manager["http_filters"]), ["http.rbac.DENY", "http.rbac", "http.router"]);
    let rules = |index: usize| -> Vec<String> {
        let policies = &manager["http_filters"][index]["typed_config"]["rules"]["policies"];
        policies.as_object().unwrap().keys().cloned().collect()
    };
    let rule = |name: &str| format!("ns[a]-policy[{name}]-rule[0]");
    assert_eq!((rules(0), rules(1)), (vec![rule("ask"), rule("deny")], vec![rule("allow")]));
    assert!(manager["route_config"]["virtual_hosts"][0]["routes"][0]["non_forwarding_action"].is_object());
    assert_eq!(listener["filter_chains"][0]["transport_socket"], Value::Null);
    assert_eq!(server("", json!({"app": "web"}), 8081), Value::Null);
    assert_eq!(server("", json!({"app": "other"}), 8080), Value::Null);
}

#[test]
fn a_grpc_server_takes_mutual_tls_where_the_mesh_or_its_label_says_so() {
    let mode = |mode: &str, labels: Value| {
        let yaml = policy("PeerAuthentication", "mtls", &format!("mtls: {{mode: {mode}}}"));
        server(&yaml, labels, 8080)["filter_chains"][0].clone()
    };
    let labelled = || json!({"app": "web", "security.istio.io/tlsMode": "istio"});
    let plain = || json!({"app": "web"});
    for (chain, name) in [
        (mode("STRICT", plain()), "inbound-mtls"),
        (mode("PERMISSIVE", labelled()), "inbound-mtls"),
        (mode("PERMISSIVE", plain()), "inbound-plaintext"),
        (mode("DISABLE", labelled()), "inbound-plaintext"),
    ] {
        assert_eq!(chain["name"], name);
        let tls = &chain["transport_socket"]["typed_config"];
        assert_eq!(tls["require_client_certificate"] == true, name == "inbound-mtls");
    }
}

#[test]
fn a_policy_finds_the_proxies_of_a_gateway_by_the_service_that_it_names() {
    let yaml = "
apiVersion: v1
kind: Service
metadata: {name: edge-svc, namespace: a}
spec: {clusterIP: 10.0.0.3, selector: {app: edge-pods}, ports: [{name: http, port: 80}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: istio}
spec: {controllerName: istio.io/gateway-controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: door, namespace: a}
spec: {gatewayClassName: istio, addresses: [{type: Hostname, value: edge-svc.a.svc.cluster.local}], listeners: [{name: http, port: 80, protocol: HTTP}]}
";
    let to = |name: &str| {
        let target =
            format!("targetRefs: [{{group: gateway.networking.k8s.io, kind: Gateway, name: {name}}}], rules: [{{}}]");
        let snapshot = mesh(&[yaml, &policy("AuthorizationPolicy", "p", &target)].concat());
        let proxy = node("router", "1.1.1.2", "a", json!({"LABELS": {"app": "edge-pods"}}));
        let found = listeners(&snapshot, &proxy);
        assert_eq!(found.len(), 1);
        chains(&found[0].1)[0].iter().filter(|name| *name == "http.rbac").count()
    };
    assert_eq!((to("door"), to("window")), (1, 0));
}
