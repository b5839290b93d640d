//! Istio's own conversion cases: what its controller makes of Gateway API objects, and their status.
//!
//! The cases are data beside the workspace (`../shared/peer/gateway-api`); where they are absent the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

use meltemi_config::parse_documents;
use meltemi_gateway_api::case::{Surroundings, conversion_differences, status_differences};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/gateway-api")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[test]
fn istio_s_conversion_cases_hold() {
    let Ok(entries) = std::fs::read_dir(folder().join("cases")) else {
        println!("skipped: ../shared/peer/gateway-api is not there");
        return;
    };
    let fixtures = |name: &str| read(&folder().join("fixtures").join(name));
    let around =
        Surroundings::parse(&fixtures("kubernetes-objects.yaml"), &fixtures("registry-services.yaml")).unwrap();
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(cases.len() > 25, "only {} cases found", cases.len());
    let mut failures = Vec::new();
    for case in &cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let input = read(&case.join("input.yaml"));
        let mut differences = status_differences(&around, &input, &read(&case.join("expected-status.yaml"))).unwrap();
        differences.extend(conversion_differences(&around, &input, &read(&case.join("expected.yaml"))).unwrap());
        if !differences.is_empty() {
            failures.push(format!("{name}:\n  {}", differences.join("\n  ")));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases differ:\n{}", failures.len(), cases.len(), failures.join("\n"));
}

/// `namespace/expression`, of which the data use no more than anchors.
fn is_marked(mark: &str, name: &str) -> bool {
    let (Some((wanted, expression)), Some((namespace, name))) = (mark.split_once('/'), name.split_once('/')) else {
        return false;
    };
    let text = expression.trim_start_matches('^').trim_end_matches('$');
    namespace == wanted && if expression.starts_with('^') { name.starts_with(text) } else { name.contains(text) }
}

/// What a CRD would refuse is marked so in the data; everything else must pass our validation.
#[test]
fn what_the_crds_accept_is_accepted() {
    let Ok(entries) = std::fs::read_dir(folder().join("cases")) else {
        println!("skipped: ../shared/peer/gateway-api is not there");
        return;
    };
    let mut wrong = Vec::new();
    for entry in entries {
        let case = entry.unwrap().path();
        let marked: Value = serde_saphyr::from_str(&read(&case.join("case.yaml"))).unwrap();
        let marked: Vec<String> = marked["invalid_by_crd_schema"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|own| own.as_str().unwrap().to_owned())
            .collect();
        for document in parse_documents("input.yaml", &read(&case.join("input.yaml"))) {
            let name = document.key.as_ref().map(|key| format!("{}/{}", key.namespace, key.name)).unwrap_or_default();
            let excused = marked.iter().any(|own| is_marked(own, &name));
            let errors =
                document.check().into_iter().filter(|problem| problem.severity == meltemi_config::Severity::Error);
            // Names are the API server's to check, not the CRD's.
            let errors = errors.filter(|problem| problem.path != "metadata.name");
            if !excused {
                wrong.extend(errors.map(|problem| format!("{}: {problem}", case.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
