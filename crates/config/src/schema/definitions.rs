//! Definitions that a user names: of kinds that are not ours, or of another version of ours.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Refusal, Schema, SchemaError};

/// Schemas by `apiVersion` and kind.
#[derive(Debug, Clone, Default)]
pub struct Definitions {
    schemas: BTreeMap<(String, String), Schema>,
}

impl Definitions {
    /// Adds each version of a CustomResourceDefinition; what is none is passed over. True if it was one.
    pub fn add(&mut self, definition: &Value) -> Result<bool, SchemaError> {
        if definition["kind"] != "CustomResourceDefinition" {
            return Ok(false);
        }
        let spec = &definition["spec"];
        let (Some(group), Some(kind)) = (spec["group"].as_str(), spec["names"]["kind"].as_str()) else {
            return Err(SchemaError { path: "spec".into(), message: "has no group or no kind".into() });
        };
        for (i, version) in spec["versions"].as_array().into_iter().flatten().enumerate() {
            let Some(name) = version["name"].as_str() else { continue };
            let schema = Schema::read(&version["schema"]["openAPIV3Schema"]).map_err(|error| SchemaError {
                path: format!("spec.versions[{i}].schema.openAPIV3Schema.{}", error.path).trim_end_matches('.').into(),
                ..error
            })?;
            self.schemas.insert((format!("{group}/{name}"), kind.to_owned()), schema);
        }
        Ok(true)
    }

    /// How many schemas there are: one for each version of each kind.
    pub fn len(&self) -> usize {
        self.schemas.len()
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.schemas.is_empty()
    }

    /// What a server with these definitions would refuse the document for; nothing where it has no definition of its kind.
    pub fn judge(&self, document: &Value) -> Vec<Refusal> {
        let text = |field: &str| document[field].as_str().unwrap_or_default().to_owned();
        let schema = self.schemas.get(&(text("apiVersion"), text("kind")));
        schema.map(|schema| schema.judge(document)).unwrap_or_default()
    }
}
