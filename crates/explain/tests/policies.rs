//! Istio's own expectations of what becomes of policies, by the runner of `x authz-case`.
//!
//! The cases are data beside the workspace (`../shared/peer/authz`); where they are absent the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use std::path::{Path, PathBuf};

use meltemi_explain::case::{Judgement, play_policies};
use meltemi_explain::trial::SEED;

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
    let (mut failures, mut one_sided) = (Vec::new(), Vec::new());
    for folder in filters.iter().chain(&ambient) {
        let judged = play_policies(folder, SEED).unwrap();
        if !judged.passed() {
            failures.push(format!("{} {}", folder.display(), judged.json()));
        }
        let Some(trial) = judged.trial else { continue };
        assert!(trial.calls > 400, "{}: {} requests", folder.display(), trial.calls);
        if trial.notes.iter().any(|note| note.starts_with("every request was ")) {
            one_sided.extend(folder.file_name().unwrap().to_str().map(str::to_owned));
        }
    }
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
    assert_eq!(one_sided, ONE_SIDED);
}

/// Cases whose rules contradict themselves, ask for a method that is none, or (over TCP) have nothing left to ask.
const ONE_SIDED: [&str; 4] =
    ["http-allow-path", "http-trust-domain-one-alias", "tcp-audit-both-http-tcp", "tcp-custom-both-http-tcp"];

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
        let expected = expected(port);
        let folder = case(&[("case.yaml", head), ("input.yaml", POLICY), ("expected.yaml", &expected)]);
        play_policies(folder.path(), SEED).unwrap()
    };
    assert!(play(80).passed());
    let Judgement { problems, .. } = play(81);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].contains("destination_port: expected 81, got 80"), "{problems:?}");
    let folder = case(&[("case.yaml", "filter_kind: tcp\naction_set: local\nexpected: []\n"), ("input.yaml", POLICY)]);
    assert_eq!(play_policies(folder.path(), SEED).unwrap().problems, ["expected 0 filters, got 1"]);
    assert!(play_policies(Path::new("/nowhere"), SEED).is_err());
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
    let problems = play_policies(folder.path(), SEED).unwrap().problems;
    assert!(problems.iter().any(|problem| problem.starts_with("our proxy refuses it: ")), "{problems:?}");
}
