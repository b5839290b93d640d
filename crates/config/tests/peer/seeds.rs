//! Documents to begin with: all that are at hand, each once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use meltemi_config::Kind;
use serde_json::{Value, json};

/// The name, among kinds, of what MeshConfig has as `defaultConfig`.
pub const PROXY: &str = "ProxyConfig of a mesh";

/// A document, and of which kind it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Seed {
    pub kind: String,
    pub document: Value,
}

/// Every document of Istio's kinds in the folders that there are, in the order of files.
pub fn all() -> Vec<Seed> {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut seeds = Vec::new();
    for folder in ["../shared/peer", "samples", "crates", "scripts"] {
        for file in files(&project.join(folder)) {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            for part in meltemi_config::split_documents(&text) {
                if let Ok(value) = serde_saphyr::from_str::<Value>(part.1) {
                    add(value, &mut seeds);
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    seeds.retain(|seed: &Seed| seen.insert(format!("{} {}", seed.kind, seed.document)));
    seeds
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|end| end == "yaml" || end == "yml") {
            found.push(path);
        }
    }
    found
}

fn add(value: Value, seeds: &mut Vec<Seed>) {
    match case(&value) {
        Some(case) => seeds.push(case),
        None if is_istios(&value) => seeds.push(Seed { kind: kind_of(&value), document: plain(value) }),
        None => within(&value, seeds),
    }
}

/// A case of `api-validation`.
fn case(value: &Value) -> Option<Seed> {
    value.get("valid")?;
    let (kind, document) = (value.get("kind")?.as_str()?.to_owned(), value.get("doc")?.clone());
    Some(Seed { kind, document })
}

/// Documents in the texts of a case of `simulation`.
fn within(value: &Value, seeds: &mut Vec<Seed>) {
    if let Some(mesh) = value.get("mesh_config").filter(|mesh| mesh.is_object()) {
        seeds.push(Seed { kind: "MeshConfig".to_owned(), document: mesh.clone() });
    }
    let text = value.get("config").and_then(Value::as_str).unwrap_or_default();
    for part in meltemi_config::split_documents(text) {
        if let Ok(value) = serde_saphyr::from_str::<Value>(part.1)
            && is_istios(&value)
        {
            seeds.push(Seed { kind: kind_of(&value), document: plain(value) });
        }
    }
}

fn kind_of(value: &Value) -> String {
    value["kind"].as_str().unwrap_or_default().to_owned()
}

fn is_istios(value: &Value) -> bool {
    let group = value["apiVersion"].as_str().and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    let kind = Kind::find(group, value["kind"].as_str().unwrap_or_default());
    kind.is_some_and(|kind| kind.is_istio() && meltemi_config::crd::is_served(kind))
}

/// With the part of its metadata that is looked at.
fn plain(mut value: Value) -> Value {
    if let Some(fields) = value.as_object_mut() {
        fields.retain(|name, _| matches!(name.as_str(), "apiVersion" | "kind" | "metadata" | "spec"));
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        if let Some(metadata) = metadata.as_object_mut() {
            metadata.retain(|name, _| matches!(name.as_str(), "name" | "namespace" | "labels" | "annotations"));
            metadata.entry("name").or_insert_with(|| json!("a"));
            metadata.entry("namespace").or_insert_with(|| json!("default"));
        }
    }
    value
}
