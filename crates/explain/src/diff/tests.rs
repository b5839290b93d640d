use super::*;

const MESH: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: x}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: reviews, namespace: shop}
spec:
  replicas: 1
  selector: {matchLabels: {app: reviews}}
  template:
    metadata: {labels: {app: reviews, version: v1}}
    spec: {containers: [{name: reviews, image: x}]}
---
apiVersion: v1
kind: Service
metadata: {name: reviews, namespace: shop}
spec: {selector: {app: reviews}, ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews, namespace: shop}
spec:
  host: reviews
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: shop}
spec:
  hosts: [reviews]
  http:
  - name: testers
    match: [{headers: {end-user: {exact: tester}}}]
    route: [{destination: {host: reviews, subset: v2}}]
  - name: everyone
    route:
    - {destination: {host: reviews, subset: v1}, weight: 90}
    - {destination: {host: reviews, subset: v2}, weight: 10}
    timeout: 5s
";

fn mesh(text: &str) -> Mesh {
    let mesh = Mesh::read(&[("mesh.yaml".into(), text.into())], None).unwrap();
    assert!(mesh.refused.is_empty(), "{:?}", mesh.refused);
    mesh
}

/// The text of what an edit of the mesh does.
fn edited(edits: &[(&str, &str)]) -> String {
    let mut text = MESH.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    diff(&mesh(MESH), &mesh(&text)).iter().map(Group::text).collect()
}

#[test]
fn nothing_differs_from_itself() {
    assert_eq!(edited(&[]), "");
    assert_eq!(
        edited(&[("metadata: {name: web, namespace: shop}", "metadata: {name: web, namespace: shop} # a comment")]),
        ""
    );
}

#[test]
fn a_weight_is_told_as_one_of_all_workloads_that_see_it() {
    assert_eq!(
        edited(&[("weight: 90", "weight: 50"), ("weight: 10", "weight: 50")]),
        "sidecar reviews.shop (1 replica), sidecar web.shop (2 replicas):
  route 80/reviews.shop.svc.cluster.local:80: route everyone: weight of v1 90 → 50, weight of v2 10 → 50
"
    );
}

#[test]
fn timeouts_destinations_and_orders_are_told_in_words() {
    let text = edited(&[("timeout: 5s", "timeout: 2s"), ("subset: v2}}]", "subset: v1}}]")]);
    assert!(text.contains("route testers: goes to v1 in place of v2\n"), "{text}");
    assert!(text.contains("route everyone: timeout 5s → 2s\n"), "{text}");
    let text = edited(&[(
        "  - name: testers",
        "  - name: all\n    match: [{uri: {prefix: /all}}]\n    redirect: {uri: /}\n  - name: testers",
    )]);
    assert!(text.contains("new route all: prefix /all, a redirect\n"), "{text}");
}

#[test]
fn a_subset_is_a_new_cluster_and_its_endpoints_go_without_saying() {
    let text = edited(&[(
        "{name: v2, labels: {version: v2}}",
        "{name: v2, labels: {version: v2}}, {name: v3, labels: {version: v3}}",
    )]);
    assert!(text.contains("  new cluster outbound|80|v3|reviews.shop.svc.cluster.local\n"), "{text}");
    assert!(!text.contains("endpoints"), "{text}");
}

#[test]
fn a_policy_is_told_field_by_field() {
    let text = edited(&[("  host: reviews\n", "  host: reviews\n  trafficPolicy: {loadBalancer: {simple: RANDOM}}\n")]);
    assert!(text.contains("cluster outbound|80||reviews.shop.svc.cluster.local: "), "{text}");
    assert!(text.contains("lb_policy"), "{text}");
}

#[test]
fn more_replicas_are_more_endpoints() {
    let text = edited(&[("replicas: 1", "replicas: 2")]);
    assert!(text.contains("sidecar reviews.shop (2 replicas):\n  proxy itself: replicas 1 → 2\n"), "{text}");
    assert!(text.contains("endpoints outbound|80||reviews.shop.svc.cluster.local: new: 10.244."), "{text}");
    assert!(text.contains("(reviews.shop)"), "{text}");
}

#[test]
fn workloads_come_and_go() {
    let text = edited(&[("metadata: {name: web, namespace: shop}", "metadata: {name: shop-window, namespace: shop}")]);
    assert!(text.contains("sidecar shop-window.shop (2 replicas):\n  proxy itself: is new\n"), "{text}");
    assert!(text.contains("sidecar web.shop (2 replicas):\n  proxy itself: is gone\n"), "{text}");
}

#[test]
fn json_has_the_kind_of_each_change() {
    let mesh = |text: &str| mesh(text);
    let groups =
        diff(&mesh(MESH), &mesh(&MESH.replace("weight: 90", "weight: 50").replace("weight: 10", "weight: 50")));
    let json = groups[0].json();
    assert_eq!(json["proxies"][1], json!({"name": "sidecar web.shop", "replicas": 2}));
    assert_eq!(json["changes"][0]["kind"], "route");
    assert_eq!(json["changes"][0]["change"], "changed");
}

#[test]
fn filter_chains_are_told_by_what_they_take() {
    let policy = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: default, namespace: shop}\nspec: {mtls: {mode: STRICT}}\n---";
    let text: String = diff(&mesh(MESH), &mesh(&format!("{policy}{MESH}"))).iter().map(Group::text).collect();
    assert!(text.contains("  listener virtualInbound: filter chain 0.0.0.0_80 (port 80, "), "{text}");
    assert!(text.contains("no TLS) is gone\n"), "{text}");
}

#[test]
fn a_first_rule_for_a_service_is_told_by_its_name() {
    let without = MESH.split("---\napiVersion: networking.istio.io/v1\nkind: VirtualService").next().unwrap();
    let rule = "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: first, namespace: shop}\nspec: {hosts: [reviews], http: [{timeout: 1s, route: [{destination: {host: reviews}}]}]}\n";
    let text: String = diff(&mesh(without), &mesh(&format!("{without}{rule}"))).iter().map(Group::text).collect();
    assert_eq!(
        text,
        "sidecar reviews.shop (1 replica), sidecar web.shop (2 replicas):
  route 80/reviews.shop.svc.cluster.local:80: timeout none → 1s
  route 80/reviews.shop.svc.cluster.local:80: is from virtual-service shop/first, no longer from the service alone
"
    );
}
