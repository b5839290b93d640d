use crate::key_set::KeySource;
use crate::testing::{node, snapshot, update};
use crate::{Labels, Node, Snapshot, Update, Workload};

fn policy(kind: &str, namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"
    )
}

fn allow(namespace: &str, name: &str, spec: &str) -> String {
    policy("AuthorizationPolicy", namespace, name, spec)
}

fn names(snapshot: &Snapshot, node: &Node) -> Vec<String> {
    snapshot.authorization_policies(&snapshot.workload(node)).iter().map(|policy| policy.name.to_string()).collect()
}

#[test]
fn a_policy_selects_by_labels_in_its_namespace_or_from_the_root_namespace_in_all() {
    let web = "selector: {matchLabels: {app: web}}";
    let yaml = [
        allow("istio-system", "root", ""),
        allow("istio-system", "root-web", web),
        allow("a", "all", ""),
        allow("a", "web", web),
        allow("a", "api", "selector: {matchLabels: {app: api}}"),
        allow("b", "other", ""),
        allow("a", "gateway", "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]"),
    ];
    let snapshot = snapshot(&yaml.concat(), &[]);
    assert_eq!(names(&snapshot, &node("sidecar", "a", &[("app", "web")])), ["root", "root-web", "all", "web"]);
    assert_eq!(names(&snapshot, &node("sidecar", "b", &[])), ["root", "other"]);
    assert_eq!(names(&snapshot, &node("sidecar", "istio-system", &[("app", "web")])), ["root", "root-web"]);
}

#[test]
fn a_reference_selects_instances_of_a_gateway_of_its_own_namespace() {
    let to =
        |kind: &str, group: &str, name: &str| format!("targetRefs: [{{group: '{group}', kind: {kind}, name: {name}}}]");
    let group = "gateway.networking.k8s.io";
    let yaml = [
        allow("a", "edge", &to("Gateway", group, "edge")),
        allow("a", "inner", &to("Gateway", group, "inner")),
        allow("a", "service", &to("Service", "", "edge")),
        allow("b", "elsewhere", &to("Gateway", group, "edge")),
        allow("a", "old", &format!("targetRef: {{group: {group}, kind: Gateway, name: edge}}")),
    ];
    let snapshot = snapshot(&yaml.concat(), &[]);
    let edge = node("router", "a", &[("gateway.networking.k8s.io/gateway-name", "edge")]);
    assert_eq!(names(&snapshot, &edge), ["edge", "old"]);
    // A gateway of Istio's own API is nobody's instance.
    assert!(names(&snapshot, &node("router", "a", &[("istio", "ingressgateway")])).is_empty());
}

#[test]
fn a_change_says_whom_a_policy_selected_and_selects() {
    let web = allow("a", "p", "selector: {matchLabels: {app: web}}");
    let api = allow("a", "p", "selector: {matchLabels: {app: api}}");
    let (after, change) = snapshot(&web, &[]).next(&update(&api));
    let touched = |app: &str| {
        let node = node("sidecar", "a", &[("app", app)]);
        change.selections.iter().any(|s| s.selects(&after.workload(&node), after.root_namespace()))
    };
    assert_eq!([touched("web"), touched("api"), touched("db")], [true, true, false]);
    let (_, same) = after.next(&update(&api));
    assert!(same.is_empty());
}

#[test]
fn new_keys_concern_those_whose_tokens_they_verify() {
    let with = |namespace: &str, issuer: &str| {
        policy(
            "RequestAuthentication",
            namespace,
            "jwt",
            &format!("jwtRules: [{{issuer: {issuer}, jwksUri: 'http://k/'}}]"),
        )
    };
    let before = snapshot(&[with("a", "one"), with("b", "two")].concat(), &[]);
    let source = KeySource { issuer: "one".into(), uri: "http://k/".into() };
    let keys =
        |keys: Option<&str>| Update { key_sets: vec![(source.clone(), keys.map(Into::into))], ..Update::default() };
    let (after, change) = before.next(&keys(Some("{}")));
    assert!(!change.is_endpoints_only() && after.shape > before.shape);
    let selects = |namespace: &str| {
        change.selections.iter().any(|s| s.selects(&Workload::new(namespace, &Labels::new()), "root"))
    };
    assert_eq!([selects("a"), selects("b")], [true, false]);
    assert!(after.next(&keys(Some("{}"))).1.is_empty());
    assert!(after.next(&keys(None)).0.key_sets.is_empty());
}
