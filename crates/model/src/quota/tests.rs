use crate::testing::{node, snapshot, update};
use crate::{ConfigRef, Snapshot};
use meltemi_config::rate_limit::RateLimitPolicy;

const DOCUMENTS: &str = r#"
apiVersion: config.istio.io/v1alpha2
kind: memquota
metadata: {name: handler, namespace: shop}
spec:
  quotas:
  - name: requestcount.quota
    maxAmount: 1000
    validDuration: 1s
    overrides:
    - dimensions: {destination: ratings}
      maxAmount: 100
    - dimensions: {destination: ratings, source: web}
      maxAmount: 7
    - dimensions: {destination: details}
      maxAmount: 5
      validDuration: 2s
---
apiVersion: config.istio.io/v1alpha2
kind: quota
metadata: {name: requestcount, namespace: shop}
spec: {dimensions: {source: 'source.labels["app"] | "unknown"', destination: 'destination.labels["app"] | "unknown"'}}
"#;

fn of(snapshot: &Snapshot, namespace: &str, app: &str) -> Vec<ConfigRef<RateLimitPolicy>> {
    snapshot.rate_limit_policies(&snapshot.workload(&node("sidecar", namespace, &[("app", app)])))
}

#[test]
fn a_workload_has_its_override_or_else_the_quota() {
    let snapshot = snapshot(DOCUMENTS, &[]);
    for (app, requests, seconds) in [("ratings", 100, 1), ("details", 5, 2), ("web", 1000, 1)] {
        let policies = of(&snapshot, "shop", app);
        let [policy] = &policies[..] else { panic!("{app}: {policies:?}") };
        let [rule] = &policy.spec.rules[..] else { panic!("{policy:?}") };
        let limit = rule.limit.as_ref().expect("a limit");
        assert_eq!((limit.requests, limit.interval.map(|own| own.as_secs())), (requests, Some(seconds)), "{app}");
        assert!(rule.by[0].source_principal && rule.by.len() == 1, "the destination counts for itself");
        assert_eq!((&*policy.name, &*rule.name), ("memquota/handler", "requestcount"));
    }
    assert!(of(&snapshot, "elsewhere", "ratings").is_empty());
}

#[test]
fn the_root_namespace_is_for_all_and_without_a_quota_there_is_one_count() {
    let alone = DOCUMENTS.split("---").next().unwrap().replace("shop", "istio-system");
    let snapshot = snapshot(&alone, &[]);
    let policies = of(&snapshot, "anywhere", "ratings");
    assert_eq!(policies[0].spec.rules[0].limit.as_ref().map(|limit| limit.requests), Some(100));
    assert!(policies[0].spec.rules[0].by.is_empty());
}

#[test]
fn a_change_of_either_document_concerns_the_namespace() {
    let before = snapshot(DOCUMENTS, &[]);
    let mut gone = update(DOCUMENTS);
    gone.quotas[0].1 = None;
    gone.mem_quotas.clear();
    let (after, change) = before.next(&gone);
    let selects = |namespace: &str| {
        let node = node("sidecar", namespace, &[]);
        change.selections.iter().any(|own| own.selects(&before.workload(&node), "root"))
    };
    assert_eq!([selects("shop"), selects("elsewhere")], [true, false]);
    assert!(of(&after, "shop", "web")[0].spec.rules[0].by.is_empty());
    assert!(before.next(&update(DOCUMENTS)).1.is_empty(), "nothing differs");
}
