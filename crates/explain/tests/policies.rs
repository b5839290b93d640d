//! Istio's own expectations of what becomes of policies, by the runner of `x authz-case`.
//!
//! The cases are data beside the workspace (`../shared/peer/authz`); where they are absent the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::path::{Path, PathBuf};

use meltemi_explain::case::play_policies;

fn folders(name: &str) -> Option<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/authz").join(name);
    let mut folders: Vec<PathBuf> = std::fs::read_dir(folder).ok()?.map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    Some(folders)
}

#[test]
fn istio_s_authorization_cases_hold() {
    let (Some(filters), Some(ambient)) = (folders("cases"), folders("ambient")) else {
        println!("skipped: ../shared/peer/authz is not there");
        return;
    };
    assert!(filters.len() > 10 && ambient.len() > 10, "{} and {} cases found", filters.len(), ambient.len());
    let mut failures = Vec::new();
    for folder in filters.iter().chain(&ambient) {
        let problems = play_policies(folder).unwrap_or_else(|error| vec![error.to_string()]);
        if !problems.is_empty() {
            failures.push(format!("{}\n  {}", folder.display(), problems.join("\n  ")));
        }
    }
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}

fn case(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

const POLICY: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: foo}
spec: {rules: [{to: [{operation: {ports: ['80']}}]}]}
";

#[test]
fn a_case_tells_where_a_filter_differs() {
    let head = "filter_kind: tcp\naction_set: local\nexpected: [expected.yaml]\n";
    let expected = |port: u16| {
        format!(
            "
name: envoy.filters.network.rbac
typedConfig:
  '@type': type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC
  rules:
    policies:
      ns[foo]-policy[p]-rule[0]:
        permissions: [{{andRules: {{rules: [{{orRules: {{rules: [{{destinationPort: {port}}}]}}}}]}}}}]
        principals: [{{andIds: {{ids: [{{any: true}}]}}}}]
  shadowRulesStatPrefix: istio_dry_run_allow_
  statPrefix: tcp.
"
        )
    };
    let play = |port: u16| {
        play_policies(case(&[("case.yaml", head), ("input.yaml", POLICY), ("expected.yaml", &expected(port))]).path())
    };
    assert_eq!(play(80).unwrap(), Vec::<String>::new());
    let problems = play(81).unwrap();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("destination_port: expected 81, got 80"), "{problems:?}");
    let none = play_policies(
        case(&[("case.yaml", "filter_kind: tcp\naction_set: local\nexpected: []\n"), ("input.yaml", POLICY)]).path(),
    );
    assert_eq!(none.unwrap(), ["expected 0 filters, got 1"]);
    assert!(play_policies(Path::new("/nowhere")).is_err());
}

#[test]
fn a_matcher_that_our_proxy_does_not_know_is_no_pass() {
    let head = "filter_kind: http\naction_set: local\nexpected: [expected.yaml]\n";
    let expected = "
name: envoy.filters.http.rbac
typedConfig:
  '@type': type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
  rules:
    policies:
      ns[foo]-policy[p]-rule[0]:
        permissions: [{any: true}]
        principals: [{any: true}]
        condition: {constExpr: {boolValue: true}}
  shadowRulesStatPrefix: istio_dry_run_allow_
";
    let folder = case(&[("case.yaml", head), ("input.yaml", POLICY), ("expected.yaml", expected)]);
    let problems = play_policies(folder.path()).unwrap();
    assert!(problems.iter().any(|problem| problem.starts_with("our proxy refuses it: ")), "{problems:?}");
}
