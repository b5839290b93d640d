//! The shape of a pod and of what makes pods, as Kubernetes' Go types have it: the order of fields in JSON, which zero
//! values are left out, how lists merge, and which values are quantities.
//!
//! Owns the table and the two things read off it: the canonical form of a document, and its JSON text. What the table does
//! not know (a field of a newer Kubernetes, the source of a rare volume) is kept as it is. Costs one pass over a document.

mod quantity;
mod table;

use serde_json::{Map, Value};

pub use quantity::canonical_quantity;
pub use table::{Always, Field, Merge, Shape, Type, go_name};

/// A document as Kubernetes would give it back: nothing that is null or left out as zero, quantities in their canonical
/// form, and what is always there.
#[must_use]
pub fn canonical(value: &Value, shape: &'static Shape) -> Value {
    match value {
        Value::Object(object) => Value::Object(canonical_object(object, shape)),
        other => other.clone(),
    }
}

fn canonical_object(object: &Map<String, Value>, shape: &'static Shape) -> Map<String, Value> {
    let mut out = Map::new();
    for field in &shape.fields {
        let given = object.get(field.name).map(|value| canonical_field(value, field));
        let given = given.filter(|value| !is_left_out(value, field));
        if let Some(value) = given.or_else(|| always(field)) {
            out.insert(field.name.to_owned(), value);
        }
    }
    for (name, value) in object {
        if shape.field(name).is_none() && !value.is_null() {
            out.insert(name.clone(), without_nulls(value));
        }
    }
    out
}

fn always(field: &Field) -> Option<Value> {
    let value = field.always.and_then(Always::in_documents)?;
    Some(canonical_field(&value, field))
}

fn canonical_field(value: &Value, field: &Field) -> Value {
    match (&field.kind, value) {
        (Type::Struct(name), Value::Object(_)) => canonical(value, Shape::named(name)),
        (Type::List { of: Some(name), .. }, Value::Array(items)) => {
            Value::Array(items.iter().map(|item| canonical(item, Shape::named(name))).collect())
        }
        (Type::Quantities, Value::Object(map)) => {
            Value::Object(map.iter().map(|(name, value)| (name.clone(), as_quantity(value))).collect())
        }
        (Type::Quantity, _) => as_quantity(value),
        _ => without_nulls(value),
    }
}

/// What is no quantity stays, for the API server to refuse.
fn as_quantity(value: &Value) -> Value {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        other => return other.clone(),
    };
    canonical_quantity(&text).map_or_else(|_| value.clone(), Value::String)
}

fn is_left_out(value: &Value, field: &Field) -> bool {
    let is_zero = match value {
        Value::Null => return true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        // Go writes a list that is always there as empty, if it has been made.
        Value::Array(items) => return items.is_empty() && field.always.is_none(),
        Value::Object(map) => return map.is_empty() && matches!(field.kind, Type::Map | Type::Quantities),
    };
    is_zero && !field.pointer && field.always.is_none()
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(name, value)| (name.clone(), without_nulls(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}

/// JSON text with the fields in the order of Go's types, and escapes as Go's encoder makes them.
#[must_use]
pub fn go_json(value: &Value, shape: &'static Shape) -> String {
    go_text(&in_order(&canonical(value, shape), shape))
}

/// JSON text with the escapes of Go's encoder: `<`, `>` and `&` by their code points.
#[must_use]
pub fn go_text(value: &Value) -> String {
    let text = value.to_string();
    if !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']) {
        return text;
    }
    // All of these stand only inside of strings.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029")
}

fn in_order(value: &Value, shape: &'static Shape) -> Value {
    let Value::Object(object) = value else { return value.clone() };
    let mut out = Map::new();
    for field in &shape.fields {
        match object.get(field.name) {
            Some(value) => {
                out.insert(field.name.to_owned(), ordered_field(value, field));
            }
            None => {
                if let Some(always) = field.always {
                    out.insert(field.name.to_owned(), always.in_go());
                }
            }
        }
    }
    for (name, value) in object {
        if shape.field(name).is_none() {
            out.insert(name.clone(), sorted(value));
        }
    }
    Value::Object(out)
}

fn ordered_field(value: &Value, field: &Field) -> Value {
    match (&field.kind, value) {
        (Type::Struct(name), _) => in_order(value, Shape::named(name)),
        (Type::List { of: Some(name), .. }, Value::Array(items)) => {
            Value::Array(items.iter().map(|item| in_order(item, Shape::named(name))).collect())
        }
        _ => sorted(value),
    }
}

/// As Go writes maps, and as `kubectl` writes YAML.
#[must_use]
pub fn sorted(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(name, _)| *name);
            Value::Object(entries.into_iter().map(|(name, value)| (name.clone(), sorted(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests;
