use super::*;
use crate::testing::{service, snapshot};

fn rule(namespace: &str, name: &str, spec: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{{spec}, trafficPolicy: {{loadBalancer: {{simple: RANDOM}}}}}}
"
    )
}

/// Names of the rules that a client gets for `a/web.a.svc.cluster.local`.
fn found(yaml: &str, client: &str, labels: &[(&str, &str)]) -> Vec<String> {
    let snapshot = snapshot(yaml, &[]);
    let labels = crate::labels::labels_of(labels.iter().copied());
    let service = service("a/web.a.svc.cluster.local");
    let rule = snapshot.destination_rules.lookup(client, "istio-system", &service, Some(&labels));
    rule.map(|rule| rule.from.iter().map(|key| key.to_string()).collect()).unwrap_or_default()
}

#[test]
fn the_client_s_namespace_comes_first_then_the_service_s_then_the_root() {
    let host = "host: web.a.svc.cluster.local";
    let own = rule("c", "own", host);
    let service = rule("a", "short", "host: web");
    let root = rule("istio-system", "root", "host: '*.local'");
    let all = format!("{own}{service}{root}");
    assert_eq!(found(&all, "c", &[]), ["c/own"]);
    assert_eq!(found(&all, "d", &[]), ["a/short"]);
    assert_eq!(found(&all, "istio-system", &[]), ["a/short"], "defaults do not shadow a service's own rule");
    assert_eq!(found(&format!("{own}{root}"), "d", &[]), ["istio-system/root"]);
    assert_eq!(found(&own, "d", &[]), [""; 0], "another client's rule is not for us");
}

#[test]
fn export_and_specificity_decide() {
    let private = rule("a", "private", "host: web, exportTo: ['.']");
    assert_eq!(found(&private, "d", &[]), [""; 0]);
    assert_eq!(found(&private, "a", &[]), ["a/private"]);
    let to_d = rule("a", "to-d", "host: web, exportTo: [d]");
    assert_eq!(found(&to_d, "d", &[]), ["a/to-d"]);
    assert_eq!(found(&to_d, "e", &[]), [""; 0]);
    let wide = rule("a", "wide", "host: '*.a.svc.cluster.local'") + &rule("a", "exact", "host: web");
    assert_eq!(found(&wide, "d", &[]), ["a/exact"]);
}

#[test]
fn rules_for_one_host_merge_and_a_selector_chooses_clients() {
    let merged = rule("a", "one", "host: web, subsets: [{name: v1}]")
        + &rule("a", "two", "host: web, subsets: [{name: v1}, {name: v2}]");
    assert_eq!(found(&merged, "d", &[]), ["a/one", "a/two"]);
    let subsets = snapshot(&merged, &[]).destination_rules.lookup(
        "d",
        "istio-system",
        &service("a/web.a.svc.cluster.local"),
        None,
    );
    assert_eq!(subsets.unwrap().spec().subsets.iter().map(|s| s.name.to_string()).collect::<Vec<_>>(), ["v1", "v2"]);
    let selected =
        rule("a", "all", "host: web") + &rule("a", "some", "host: web, workloadSelector: {matchLabels: {app: x}}");
    assert_eq!(found(&selected, "a", &[("app", "x")]), ["a/some"]);
    assert_eq!(found(&selected, "a", &[("app", "y")]), ["a/all"]);
    assert_eq!(found(&selected, "d", &[("app", "x")]), ["a/all"], "a selector is for its own namespace");
}

#[test]
fn a_port_s_settings_replace_and_a_subset_s_go_over() {
    let yaml = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: r, namespace: a}
spec:
  host: web
  trafficPolicy:
    loadBalancer: {simple: RANDOM}
    connectionPool: {tcp: {maxConnections: 1}}
    portLevelSettings: [{port: {number: 90}, loadBalancer: {simple: ROUND_ROBIN}}]
  subsets:
  - {name: v1, labels: {v: '1'}, trafficPolicy: {connectionPool: {tcp: {maxConnections: 2}}}}
";
    let snapshot = snapshot(yaml, &[]);
    let rule =
        snapshot.destination_rules.lookup("a", "istio-system", &service("a/web.a.svc.cluster.local"), None).unwrap();
    let policy = rule.spec().traffic_policy.as_ref();
    let ninety = for_port(policy, 90).unwrap();
    assert!(ninety.connection_pool.is_none(), "nothing is inherited");
    assert_eq!(ninety.load_balancer.unwrap().simple.unwrap().as_str(), "ROUND_ROBIN");
    let eighty = for_subset(for_port(policy, 80), rule.subset("v1").unwrap(), 80).unwrap();
    assert_eq!(eighty.load_balancer.unwrap().simple.unwrap().as_str(), "RANDOM");
    assert_eq!(eighty.connection_pool.unwrap().tcp.unwrap().max_connections, 2);
}

/// A rule as a policy for a backend becomes one, but for its annotation.
fn made(spec: &str) -> String {
    format!(
        "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: made, namespace: a}}
spec: {{host: web.a.svc.cluster.local, {spec}}}
"
    )
}

#[test]
fn what_policies_for_backends_say_is_beneath_the_users_own_rule() {
    let user = "---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: z, namespace: a, creationTimestamp: '2030-01-01T00:00:00Z'}
spec:
  host: web
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 7}}}
";
    let tls = "trafficPolicy: {retryBudget: {percent: 30}, portLevelSettings: [{port: {number: 443}, tls: {mode: SIMPLE, sni: x.y}}]}";
    let lookup = |yaml: &str| {
        let mut update = crate::testing::update(yaml);
        for (_, rule) in update.destination_rules.iter_mut().filter(|(key, _)| &*key.name == "made") {
            let mut marked = (**rule.as_ref().unwrap()).clone();
            marked.annotations.insert(semantics::PARENTS.into(), "BackendTLSPolicy/a.p".into());
            *rule = Some(Shared::new(marked));
        }
        let snapshot = crate::Snapshot::build(crate::Options::default(), &update);
        snapshot.destination_rules.lookup("d", "istio-system", &service("a/web.a.svc.cluster.local"), None).unwrap()
    };
    let merged = lookup(&format!("{}{user}", made(tls)));
    assert_eq!(merged.from.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a/z", "a/made"]);
    let policy = merged.spec().traffic_policy.as_ref().unwrap();
    assert!(policy.retry_budget.is_some());
    // The port's entry inherits nothing later, so it has the user's pool now.
    let port = for_port(Some(policy), 443).unwrap();
    assert_eq!(port.tls.as_ref().map(|tls| &*tls.sni), Some("x.y"));
    assert_eq!(port.connection_pool, policy.connection_pool);
    // A user's own TLS stays, and a private rule hides nothing from others.
    let own = lookup(&format!(
        "{}{}",
        made(tls),
        user.replace("connectionPool: {tcp: {maxConnections: 7}}", "tls: {mode: DISABLE}")
    ));
    let port = for_port(own.spec().traffic_policy.as_ref(), 443).unwrap();
    assert_eq!(port.tls.map(|tls| tls.mode), Some(meltemi_config::networking::ClientTlsMode::Disable));
    let private = lookup(&format!("{}{}", made(tls), user.replace("host: web", "host: web\n  exportTo: ['.']")));
    assert_eq!(private.from.iter().map(ToString::to_string).collect::<Vec<_>>(), ["a/made"]);
}
