use std::path::PathBuf;

use super::*;

/// The folders of cases that are beside the project.
fn folders() -> Vec<PathBuf> {
    let shared = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/peer/inject/cases");
    let Ok(entries) = std::fs::read_dir(&shared) else { return Vec::new() };
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    folders.sort();
    folders
}

#[test]
fn every_case_beside_the_project_passes() {
    let folders = folders();
    if folders.is_empty() {
        println!("skipped: no cases beside the project");
    }
    let mut failed = Vec::new();
    for folder in &folders {
        let problems = play(folder).unwrap_or_else(|error| vec![error]);
        if !problems.is_empty() {
            failed.push(format!("{}:\n  {}", folder.display(), problems.join("\n  ")));
        }
    }
    assert!(failed.is_empty(), "{} of {} failed\n{}", failed.len(), folders.len(), failed.join("\n"));
}

#[test]
fn lists_of_different_lengths_are_compared_by_name() {
    let ours = json!({ "env": [{ "name": "A", "value": "1" }, { "name": "B" }] });
    let theirs = json!({ "env": [{ "name": "A", "value": "2" }] });
    assert_eq!(
        differences(&ours, &theirs),
        [".env.A.value: \"1\", where \"2\" is expected", ".env.B: {\"name\":\"B\"}, where nothing is expected"]
    );
    let unnamed = json!({ "env": [{ "name": "A", "value": "1" }, {}] });
    assert_eq!(differences(&unnamed, &theirs).len(), 1);
}
