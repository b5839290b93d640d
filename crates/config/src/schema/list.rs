//! Lists whose elements must differ: whole, or in their keys.

use serde_json::{Map, Value};

use super::{ListKind, Reason, Refusal, Schema};
use crate::path::Path;

impl Schema {
    pub(super) fn check_lists(&self, document: &Value, path: &str, out: &mut Vec<Refusal>) {
        self.lists(document, &Path::root(path), out);
    }

    fn lists(&self, value: &Value, at: &Path<'_>, out: &mut Vec<Refusal>) {
        match value {
            Value::Array(items) => {
                self.elements(items, at, out);
                if let Some(schema) = &self.items {
                    items.iter().enumerate().for_each(|(i, item)| schema.lists(item, &at.index(i), out));
                }
            }
            Value::Object(fields) => {
                for (name, inner) in fields {
                    if let Some(schema) = self.within(name) {
                        schema.lists(inner, &at.field(name), out);
                    }
                }
            }
            _ => {}
        }
    }

    fn elements(&self, items: &[Value], at: &Path<'_>, out: &mut Vec<Refusal>) {
        let keys: Vec<Value> = match &self.list {
            ListKind::Atomic => return,
            ListKind::Set => items.to_vec(),
            ListKind::Map(keys) => items.iter().map(|item| key(item, keys)).collect(),
        };
        for (i, key) in keys.iter().enumerate() {
            // The second of its kind: those after it say nothing new.
            if keys[..i].iter().filter(|other| *other == key).count() == 1 {
                out.push(Refusal { path: at.index(i).to_string(), reason: Reason::Duplicate, detail: key.to_string() });
            }
        }
    }
}

fn key(item: &Value, keys: &[String]) -> Value {
    let parts = keys.iter().filter_map(|key| item.get(key).map(|value| (key.clone(), value.clone())));
    Value::Object(parts.collect::<Map<_, _>>())
}
