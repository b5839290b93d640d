//! The CustomResourceDefinitions of every kind that a cluster serves for us: Istio's, and our own.
//!
//! Owns how a type becomes a structural schema. The fields and their types come from the types that parse the documents
//! (`shape`), what else is demanded of them from one table (`rules`), the names from another (`catalog`). Pure.

mod catalog;
mod rules;
mod schema;
mod status;

use serde_json::{Value, json};

use self::catalog::{Column, Served};
use crate::kind::Kind;

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
    let mut spec = schema::of_kind(served.kind);
    spec["description"] = json!(served.description);
    let mut schema = json!({"type": "object", "properties": {"spec": spec, "status": status::schema()}});
    if served.needs_spec {
        schema["required"] = json!(["spec"]);
    }
    schema
}

/// True if a cluster serves the kind by one of our definitions.
pub fn is_served(kind: Kind) -> bool {
    catalog::SERVED.iter().any(|served| served.kind == kind)
}

#[cfg(test)]
mod tests;
