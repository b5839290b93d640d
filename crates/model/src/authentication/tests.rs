use super::*;
use crate::labels::labels_of;
use crate::testing::snapshot;

fn policy(namespace: &str, name: &str, spec: &str, created: u32) -> String {
    format!(
        "---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: '2026-01-01T00:00:{created:02}Z'}}
spec: {{{spec}}}
"
    )
}

fn modes(yaml: &str, ports: &[u32]) -> Vec<MtlsMode> {
    let snapshot = snapshot(yaml, &[]);
    let policy = snapshot.mtls_of_server("a", &labels_of([("app", "web")]));
    std::iter::once(policy.mode).chain(ports.iter().map(|port| policy.mode_of(*port))).collect()
}

#[test]
fn the_narrowest_policy_decides_and_the_oldest_of_equals() {
    use MtlsMode::{Disable, Permissive, Strict};
    let root = policy("istio-system", "root", "mtls: {mode: STRICT}", 0);
    let namespace = policy("a", "ns", "mtls: {mode: DISABLE}", 0);
    let web = "selector: {matchLabels: {app: web}}";
    let workload = policy("a", "web", &format!("{web}, mtls: {{mode: PERMISSIVE}}"), 0);
    assert_eq!(modes("", &[80]), [Permissive, Permissive]);
    assert_eq!(modes(&root, &[80]), [Strict, Strict]);
    assert_eq!(modes(&(root.clone() + &namespace), &[80]), [Disable, Disable]);
    assert_eq!(modes(&(root.clone() + &namespace + &workload), &[80]), [Permissive, Permissive]);
    let unset = policy("a", "ns", "mtls: {mode: UNSET}", 0);
    assert_eq!(modes(&(root.clone() + &unset), &[]), [Strict]);
    let younger = policy("a", "b", "mtls: {mode: STRICT}", 2) + &policy("a", "c", "mtls: {mode: DISABLE}", 1);
    assert_eq!(modes(&younger, &[]), [Disable]);
    let other = policy("a", "other", "selector: {matchLabels: {app: x}}, mtls: {mode: STRICT}", 0);
    assert_eq!(modes(&other, &[]), [Permissive]);
    let ports = policy("a", "web", &format!("{web}, portLevelMtls: {{80: {{mode: DISABLE}}, 90: {{mode: UNSET}}}}"), 0);
    assert_eq!(modes(&(root + &ports), &[80, 90, 100]), [Strict, Disable, Strict, Strict]);
}

#[test]
fn a_selector_in_the_root_namespace_selects_nobody() {
    let selector = "selector: {matchLabels: {app: web}}, mtls: {mode: DISABLE}, portLevelMtls: {80: {mode: DISABLE}}";
    let root = policy("istio-system", "web", selector, 0);
    assert_eq!(modes(&root, &[80]), [MtlsMode::Permissive, MtlsMode::Permissive]);
    let strict = policy("a", "ns", "mtls: {mode: STRICT}", 5);
    assert_eq!(modes(&(root + &strict), &[80]), [MtlsMode::Strict, MtlsMode::Strict]);
}
