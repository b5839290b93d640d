//! A structural schema from the shape of a type and the rules about it.

use serde_json::{Map, Value, json};

use super::rules::{AT_LEAST_1_MS, Cel, ROWS, Row, Rule, Subject};
use super::words;
use crate::kind::Kind;
use crate::shape::{Shape, Struct};

/// The schema of a kind's `spec`.
pub(super) fn of_kind(kind: Kind) -> Value {
    Place { kind, path: String::new(), of: "", field: String::new() }.schema(&Shape::of_kind(kind))
}

/// Where in a kind a value sits: by its path in `spec`, and by the struct that holds it.
struct Place {
    kind: Kind,
    path: String,
    of: &'static str,
    field: String,
}

impl Place {
    /// An element of a list or map.
    fn within(&self, suffix: &str) -> Self {
        let (path, field) = (format!("{}{suffix}", self.path), format!("{}{suffix}", self.field));
        Self { kind: self.kind, path, of: self.of, field }
    }

    fn field(&self, of: &'static str, name: &str) -> Self {
        let dot = if self.path.is_empty() { "" } else { "." };
        Self { kind: self.kind, path: format!("{}{dot}{name}", self.path), of, field: name.to_owned() }
    }

    fn rules(&self) -> impl Iterator<Item = &'static Rule> {
        let about = |row: &&Row| match row.about {
            Subject::Field(of, field) => of == self.of && field == self.field,
            Subject::Path(kind, path) => kind == self.kind && path == self.path,
            Subject::Struct(_) => false,
        };
        ROWS.iter().filter(about).flat_map(|row| row.rules)
    }

    fn schema(&self, shape: &Shape) -> Value {
        let (shape, optional) = match shape {
            Shape::Optional(inner) => (&**inner, true),
            shape => (shape, false),
        };
        let mut schema = match shape {
            Shape::List(inner) => json!({"type": "array", "items": self.within("[]").schema(inner)}),
            // What may hold anything has no schema for its entries.
            Shape::Map(inner) if **inner == Shape::Any => {
                json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
            }
            Shape::Map(inner) => json!({"type": "object", "additionalProperties": self.within("{}").schema(inner)}),
            Shape::Struct(of) => self.structure(of),
            scalar => self.scalar(scalar, optional),
        };
        if let Value::Object(schema) = &mut schema {
            apply(self.rules(), schema);
        }
        schema
    }

    fn structure(&self, of: &Struct) -> Value {
        let mut properties = Map::new();
        for (name, shape) in &of.fields {
            let schema = self.field(of.name, name).schema(shape);
            if let Some(alias) = rules_of(of.name).find_map(|rule| rule.alias_of(name)) {
                properties.insert(alias.to_owned(), described(schema.clone(), of.name, alias));
            }
            properties.insert((*name).to_owned(), described(schema, of.name, name));
        }
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!("object"));
        if !properties.is_empty() {
            schema.insert("properties".to_owned(), properties.into());
        }
        apply(rules_of(of.name), &mut schema);
        schema.into()
    }

    fn scalar(&self, shape: &Shape, optional: bool) -> Value {
        let mut schema = match shape {
            Shape::Bool => json!({"type": "boolean"}),
            Shape::Int32 => json!({"type": "integer", "format": "int32"}),
            Shape::Int64 => json!({"type": "integer"}),
            Shape::UInt32 => json!({"type": "integer", "minimum": 0, "maximum": u32::MAX}),
            Shape::UInt64 => json!({"type": "integer", "minimum": 0}),
            Shape::Double => json!({"type": "number", "format": "double"}),
            Shape::Bytes => json!({"type": "string", "format": "byte"}),
            Shape::Enum(names) => return json!({"type": "string", "enum": names}),
            Shape::Duration => {
                let mut schema = json!({"type": "string"});
                if !self.rules().any(|rule| matches!(rule, Rule::AnyDuration)) {
                    schema["x-kubernetes-validations"] = json!([AT_LEAST_1_MS.json()]);
                }
                return schema;
            }
            Shape::Any | Shape::Ignored => return json!({"x-kubernetes-preserve-unknown-fields": true}),
            _ => return json!({"type": "string"}),
        };
        // A wrapper of protobuf: null is the same as absent. A choice among fields is not.
        if optional && shape != &Shape::Bytes && !rules_of(self.of).any(|rule| rule.chooses(&self.field)) {
            schema["nullable"] = json!(true);
        }
        schema
    }
}

/// A field's schema with words about it before everything else.
fn described(schema: Value, of: &str, field: &str) -> Value {
    let (Value::Object(keywords), Some(words)) = (&schema, words::about(of, field)) else { return schema };
    let mut out = Map::new();
    out.insert("description".to_owned(), json!(words));
    out.extend(keywords.clone());
    out.into()
}

fn rules_of(of: &str) -> impl Iterator<Item = &'static Rule> {
    ROWS.iter().filter(move |row| matches!(row.about, Subject::Struct(name) if name == of)).flat_map(|row| row.rules)
}

fn apply(rules: impl Iterator<Item = &'static Rule>, schema: &mut Map<String, Value>) {
    let mut choices = Vec::new();
    for rule in rules {
        let (key, value) = match rule {
            Rule::Required(names) => ("required", json!(names)),
            Rule::MinItems(n) => ("minItems", json!(n)),
            Rule::MaxItems(n) => ("maxItems", json!(n)),
            Rule::MinLength(n) => ("minLength", json!(n)),
            Rule::MaxLength(n) => ("maxLength", json!(n)),
            Rule::MinProperties(n) => ("minProperties", json!(n)),
            Rule::MaxProperties(n) => ("maxProperties", json!(n)),
            Rule::Minimum(n) => ("minimum", json!(n)),
            Rule::Maximum(n) => ("maximum", json!(n)),
            Rule::Pattern(pattern) => ("pattern", json!(pattern)),
            Rule::Keyed(field) => {
                schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
                ("x-kubernetes-list-map-keys", json!([field]))
            }
            Rule::Cel(cel) => {
                push(schema, cel);
                continue;
            }
            Rule::AtMostOne(names) => {
                choices.push(at_most_one(names));
                continue;
            }
            Rule::Alias(..) | Rule::AnyDuration => continue,
        };
        schema.insert(key.to_owned(), value);
    }
    match choices.len() {
        0 => {}
        1 => {
            schema.insert("oneOf".to_owned(), choices.remove(0));
        }
        _ => {
            let all = choices.into_iter().map(|choice| json!({"oneOf": choice})).collect();
            schema.insert("allOf".to_owned(), all);
        }
    }
}

/// The branches of a `oneOf`: none of the fields, or exactly one.
fn at_most_one(names: &[&str]) -> Value {
    let each: Vec<_> = names.iter().map(|name| json!({"required": [name]})).collect();
    let none = json!({"not": {"anyOf": each}});
    std::iter::once(none).chain(each).collect()
}

fn push(schema: &mut Map<String, Value>, cel: &Cel) {
    let list = schema.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Value::Array(list) = list {
        list.push(cel.json());
    }
}
