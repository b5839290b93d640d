//! What an API server makes of a document before it judges it: unknown fields and meaningless nulls go, defaults come.

use serde_json::Value;

use super::Schema;

/// Of a whole resource, whose own definition an API server adds.
const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

impl Schema {
    pub(super) fn settle(&self, document: &mut Value) {
        self.prune(document, true);
        self.fill(document);
    }

    fn prune(&self, value: &mut Value, is_resource: bool) {
        match value {
            Value::Object(fields) => {
                let keeps_meta = is_resource || self.embedded;
                fields.retain(|name, inner| match self.within(name) {
                    _ if keeps_meta && META.contains(&name.as_str()) => true,
                    Some(schema) => !(inner.is_null() && !schema.nullable && schema.default.is_none()),
                    None => self.preserves,
                });
                for (name, inner) in fields.iter_mut() {
                    if let Some(schema) = self.within(name).filter(|_| !(keeps_meta && META.contains(&name.as_str()))) {
                        schema.prune(inner, false);
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    if let Some(schema) = &self.items {
                        schema.prune(item, false);
                    }
                }
            }
            _ => {}
        }
    }

    fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.properties {
                    let Some(default) = &schema.default else { continue };
                    let place = fields.entry(name.clone()).or_insert(Value::Null);
                    if place.is_null() && !schema.nullable {
                        place.clone_from(default);
                    }
                }
                for (name, inner) in fields.iter_mut() {
                    if let Some(schema) = self.within(name) {
                        schema.fill(inner);
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    if let Some(schema) = &self.items {
                        schema.fill(item);
                    }
                }
            }
            _ => {}
        }
    }

    /// The schema of a field or of an entry, if there is one.
    pub(super) fn within(&self, name: &str) -> Option<&Schema> {
        self.properties.get(name).or(self.entries.as_deref())
    }
}
