use crate::testing::{node, snapshot};
use meltemi_config::resilience::Sensitivity;

const HOST: &str = "cart.shop.svc.cluster.local";

/// Attempts and window (in seconds) that a workload of `shop` with the label `app: web` has towards the cart.
#[track_caller]
fn check(policies: &[(&str, &str)], attempts: Option<u32>, window: Option<u64>) {
    let documents: Vec<String> = policies
        .iter()
        .enumerate()
        .map(|(age, (meta, spec))| {
            format!(
                "apiVersion: meltemi.io/v1alpha1\nkind: ResiliencePolicy\n\
                 metadata: {{{meta}, creationTimestamp: '2026-01-01T00:00:{age:02}Z'}}\nspec: {spec}\n"
            )
        })
        .collect();
    let snapshot = snapshot(&documents.join("---\n"), &["shop/cart.shop.svc.cluster.local:80"]);
    let client = node("sidecar", "shop", &[("app", "web")]);
    let found = snapshot.resilience(&client, HOST);
    assert_eq!(found.retries.map(|retries| retries.max_attempts), attempts, "{policies:?}");
    assert_eq!(found.balancing_window.map(|window| window.as_secs()), window, "{policies:?}");
}

const MESH: (&str, &str) =
    ("name: mesh, namespace: istio-system", "{automaticRetries: {maxAttempts: 2}, adaptiveLoadBalancing: {}}");
const NAMESPACE: (&str, &str) = ("name: all, namespace: shop", "{automaticRetries: {maxAttempts: 4}}");
const WORKLOAD: (&str, &str) =
    ("name: web, namespace: shop", "{selector: {matchLabels: {app: web}}, automaticRetries: {maxAttempts: 5}}");

#[test]
fn the_closest_policy_that_names_a_feature_decides_it() {
    check(&[], None, None);
    check(&[MESH], Some(2), Some(30));
    check(&[MESH, NAMESPACE], Some(4), Some(30));
    check(&[MESH, NAMESPACE, WORKLOAD], Some(5), Some(30));
    check(&[WORKLOAD, NAMESPACE], Some(5), None);
    let others = ("name: api, namespace: shop", "{selector: {matchLabels: {app: api}}, automaticRetries: {}}");
    check(&[others, NAMESPACE], Some(4), None);
    let elsewhere = ("name: all, namespace: other", "{automaticRetries: {}}");
    check(&[elsewhere], None, None);
}

#[test]
fn of_equals_the_oldest_decides_and_off_is_a_decision() {
    let younger = ("name: a, namespace: shop", "{automaticRetries: {maxAttempts: 9}, adaptiveLoadBalancing: {}}");
    check(&[NAMESPACE, younger], Some(4), Some(30));
    let off = ("name: never, namespace: shop", "{automaticRetries: {enabled: false}}");
    check(&[off, MESH], None, Some(30));
}

#[test]
fn hosts_are_written_as_in_a_destination_rule() {
    let to = |hosts: &str| format!("{{hosts: [{hosts}], automaticRetries: {{}}}}");
    for hosts in ["cart", "cart.shop.svc.cluster.local", "'*.shop.svc.cluster.local'", "'*'", "other, cart"] {
        check(&[("name: all, namespace: shop", &to(hosts))], Some(3), None);
    }
    for hosts in ["other", "'*.web.svc.cluster.local'", "cart.shop"] {
        check(&[("name: all, namespace: shop", &to(hosts))], None, None);
    }
    // A short name is one of the policy's own namespace.
    check(&[("name: all, namespace: istio-system", &to("cart"))], None, None);
}

#[test]
fn anomalies_are_decided_like_the_other_features() {
    let found = |spec: &str| {
        let document = format!(
            "apiVersion: meltemi.io/v1alpha1\nkind: ResiliencePolicy\nmetadata: {{name: calm, namespace: shop}}\nspec: {spec}\n"
        );
        let snapshot = snapshot(&document, &["shop/cart.shop.svc.cluster.local:80"]);
        let found = snapshot.resilience(&node("sidecar", "shop", &[]), HOST).anomalies;
        found.map(|own| (own.sensitivity, own.eject, own.policy.to_string()))
    };
    let policy = || "shop/calm".to_owned();
    assert_eq!(found("{anomalyDetection: {}}"), Some((Sensitivity::Medium, false, policy())));
    let eject = "{anomalyDetection: {sensitivity: low, action: EJECT}}";
    assert_eq!(found(eject), Some((Sensitivity::Low, true, policy())));
    assert_eq!(found("{anomalyDetection: {enabled: false}}"), None);
    assert_eq!(found("{automaticRetries: {}}"), None);
}
