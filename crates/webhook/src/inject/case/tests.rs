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
