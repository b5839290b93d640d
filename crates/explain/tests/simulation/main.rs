//! Istio's own traffic expectations, played against the configuration that we generate, by the runner of `explain --case`.
//!
//! The cases are data beside the workspace (`../shared/peer/simulation`); where they are absent the test says so and passes.
#![allow(clippy::unwrap_used, reason = "a test's own helpers may fail the test")]

mod envoy;
mod policies;

use std::path::{Path, PathBuf};

use meltemi_config::mesh::MeshConfig;
use meltemi_config::parse_mesh_config;
use meltemi_explain::case::{self, Case, Dialect, MeshOfCase};

/// What a dialect without Istio's filters changes must not change where traffic goes.
const DIALECTS: [Dialect; 2] = [Dialect::IstioProxy, Dialect::Envoy];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/simulation")
}

/// `None` where the data is not there.
fn cases() -> Option<Vec<Case>> {
    let entries = std::fs::read_dir(folder().join("cases")).ok()?;
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    Some(paths.iter().map(|path| case::read(path).unwrap()).collect())
}

#[test]
fn istio_s_simulation_cases_hold() {
    let Some(cases) = cases() else {
        println!("skipped: ../shared/peer/simulation is not there");
        return;
    };
    assert!(cases.len() > 50, "only {} cases found", cases.len());
    let mut failures = Vec::new();
    let mut passed = 0;
    for case in &cases {
        let problems: Vec<String> = DIALECTS.iter().flat_map(|dialect| run(case, *dialect)).collect();
        if problems.is_empty() {
            passed += 1;
        } else {
            failures.push(format!("{} ({})\n  {}", case.name, case.file, problems.join("\n  ")));
        }
    }
    println!("{passed} of {} cases pass", cases.len());
    assert!(failures.is_empty(), "{} cases fail:\n{}", failures.len(), failures.join("\n"));
}

fn run(case: &Case, dialect: Dialect) -> Vec<String> {
    let name = dialect.name();
    let mesh = match MeshOfCase::build(case, dialect) {
        Ok(mesh) => mesh,
        Err(problem) => return vec![format!("[{name}] {problem}")],
    };
    let played = case::play_on(case, &mesh);
    let failed = played.iter().filter(|played| !played.passed());
    let mut problems: Vec<String> = failed.map(|played| played.json().to_string()).collect();
    problems.extend(mesh.sent.refusals().into_iter().map(|refusal| format!("plan refuses {refusal}")));
    if dialect == Dialect::Envoy {
        let file = Path::new(&case.file).file_name().unwrap().to_string_lossy().into_owned();
        problems.extend(envoy::refusal(&mesh.sent, &file));
    }
    problems.into_iter().map(|problem| format!("[{name}] {problem}")).collect()
}

#[test]
fn a_mesh_without_settings_is_istio_s() {
    let Ok(text) = std::fs::read_to_string(folder().join("default_mesh_config.yaml")) else {
        println!("skipped: ../shared/peer/simulation is not there");
        return;
    };
    let theirs = parse_mesh_config("default_mesh_config.yaml", &text).unwrap().value;
    let ours = MeshConfig::default();
    let (theirs, ours) = (serde_json::to_value(theirs).unwrap(), serde_json::to_value(ours).unwrap());
    for (key, value) in ours.as_object().unwrap() {
        assert_eq!(theirs.get(key), Some(value), "{key}");
    }
    assert_eq!(theirs, ours);
}
