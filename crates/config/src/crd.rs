//! The CustomResourceDefinitions of every kind that a cluster serves for us: Istio's, and our own.
//!
//! Owns how a type becomes a structural schema. The fields and their types come from the types that parse the documents
//! (`shape`), what else is demanded of them from one table (`rules`), the names from another (`catalog`), what is said of
//! them from a third (`words`). Pure.

mod catalog;
mod rules;
mod status;
mod structural;
mod words;

use std::sync::OnceLock;

use serde_json::{Value, json};

use self::catalog::{Column, Served};
use crate::kind::Kind;
use crate::schema::Schema;

/// All of them, in the order of the table of kinds.
///
/// Mixer's kinds and the Telemetry that Istio never had are read from files alone: a cluster has RateLimitPolicy and
/// ResiliencePolicy for what they say.
pub fn custom_resource_definitions() -> Vec<Value> {
    catalog::SERVED.iter().map(definition).collect()
}

fn definition(served: &Served) -> Value {
    let info = served.kind.info();
    let (group, name) = (info.group, info.name);
    let mut names = json!({
        "categories": catalog::categories(group),
        "kind": name,
        "listKind": format!("{name}List"),
        "plural": info.plural,
        "singular": name.to_lowercase(),
    });
    if !served.short.is_empty() {
        names["shortNames"] = json!(served.short);
    }
    let schema = document_schema(served);
    let versions: Vec<_> = info.versions.iter().map(|version| version_of(served, version, &schema)).collect();
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": format!("{}.{group}", info.plural),
            // Taking the chart away must not take the users' documents away.
            "annotations": {"helm.sh/resource-policy": "keep"},
            "labels": {"app.kubernetes.io/name": "meltemi"},
        },
        "spec": {
            "group": group,
            "names": names,
            "scope": if info.namespaced { "Namespaced" } else { "Cluster" },
            "versions": versions,
        },
    })
}

fn version_of(served: &Served, version: &str, schema: &Value) -> Value {
    let mut out = json!({
        "name": version,
        "served": true,
        "storage": version == served.storage,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    });
    if !served.columns.is_empty() {
        out["additionalPrinterColumns"] = served.columns.iter().map(Column::json).collect();
    }
    out
}

fn document_schema(served: &Served) -> Value {
    let mut spec = structural::of_kind(served.kind);
    spec["description"] = json!(served.description);
    let mut schema = json!({"type": "object", "properties": {"spec": spec, "status": status::schema()}});
    if served.needs_spec {
        schema["required"] = json!(["spec"]);
    }
    schema
}

/// The schema by which a cluster judges documents of the kind, if it is one that a cluster serves by our definitions.
pub fn schema(kind: Kind) -> Option<&'static Schema> {
    static SCHEMAS: [OnceLock<Option<Schema>>; catalog::SERVED.len()] =
        [const { OnceLock::new() }; catalog::SERVED.len()];
    let position = catalog::SERVED.iter().position(|served| served.kind == kind)?;
    // All versions have one schema; that each can be read is a test.
    SCHEMAS[position].get_or_init(|| Schema::read(&document_schema(&catalog::SERVED[position])).ok()).as_ref()
}

/// True if a cluster serves the kind by one of our definitions.
pub fn is_served(kind: Kind) -> bool {
    catalog::SERVED.iter().any(|served| served.kind == kind)
}

#[cfg(test)]
mod tests;
