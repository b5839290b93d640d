//! protojson's leniences, which files may have and API servers do not take: names in `snake_case`, numbers in quotes,
//! values of enums by number.

use serde_json::{Map, Number, Value};

use super::{Schema, Type};
use crate::parse::camel_case;
use crate::path::Path;

impl Schema {
    /// Writes a document as an API server wants it, where protojson leaves a choice. Returns where that was necessary, and
    /// what is wanted there.
    pub(crate) fn make_strict(&self, document: &mut Value) -> Vec<(String, String)> {
        let mut found = Vec::new();
        self.strict(document, &Path::root(""), &mut found);
        found
    }

    fn strict(&self, value: &mut Value, at: &Path<'_>, found: &mut Vec<(String, String)>) {
        if let Some(strict) = self.strict_scalar(value) {
            found.push((at.to_string(), format!("an API server takes {strict} alone, not {value}")));
            *value = strict;
        }
        match value {
            Value::Object(fields) => {
                self.strict_names(fields, at, found);
                for (name, inner) in fields.iter_mut() {
                    if let Some(schema) = self.within(name) {
                        schema.strict(inner, &at.field(name), found);
                    }
                }
            }
            Value::Array(items) => {
                for (i, item) in items.iter_mut().enumerate() {
                    if let Some(schema) = &self.items {
                        schema.strict(item, &at.index(i), found);
                    }
                }
            }
            _ => {}
        }
    }

    fn strict_scalar(&self, value: &Value) -> Option<Value> {
        let choices = self.checks.choices.as_ref();
        match (value, self.of) {
            (Value::Number(number), Some(Type::String)) => {
                let position = number.as_u64().and_then(|number| usize::try_from(number).ok())?;
                choices?.get(position).cloned()
            }
            (Value::String(text), Some(Type::Integer)) => text.parse::<i64>().ok().map(Value::from),
            (Value::String(text), Some(Type::Number)) => {
                text.parse().ok().and_then(Number::from_f64).map(Value::Number)
            }
            _ => None,
        }
    }

    fn strict_names(&self, fields: &mut Map<String, Value>, at: &Path<'_>, found: &mut Vec<(String, String)>) {
        if self.properties.is_empty() {
            return;
        }
        let meant = |name: &String| Some(camel_case(name)).filter(|camel| self.properties.contains_key(camel));
        let other = fields.keys().filter(|name| !self.properties.contains_key(*name));
        let renamed: Vec<_> = other.filter_map(|name| Some((name.clone(), meant(name)?))).collect();
        for (name, camel) in renamed {
            found.push((at.field(&name).to_string(), format!("an API server knows it as {camel:?} alone")));
            if let Some(value) = fields.shift_remove(&name) {
                fields.entry(camel).or_insert(value);
            }
        }
    }
}
