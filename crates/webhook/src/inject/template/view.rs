//! Data as templates see it: Go structs under the names of their Go fields, with what was not given as Go has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gotmpl::Value;
use serde_json::Value as Json;

use crate::inject::shape::{Field, Shape, Type, go_json, go_name, go_text};

/// Under which a struct keeps its own JSON text. No Go field has such a name.
const TEXT: &str = "\0";

/// JSON as it is: a Go `map[string]any`.
pub fn plain(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => {
            number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or_default()), Value::Int)
        }
        Json::String(text) => Value::from(text.as_str()),
        Json::Array(items) => Value::from(items.iter().map(plain).collect::<Vec<_>>()),
        Json::Object(map) => map_of(map.iter().map(|(name, value)| (name.as_str().into(), plain(value)))),
    }
}

fn map_of(entries: impl Iterator<Item = (Arc<str>, Value)>) -> Value {
    Value::from(entries.collect::<BTreeMap<Arc<str>, Value>>())
}

/// A Go struct of a known shape.
pub fn of_shape(value: &Json, shape: &'static Shape) -> Value {
    let none = serde_json::Map::new();
    let object = value.as_object().unwrap_or(&none);
    let known = shape.fields.iter().map(|field| {
        let view = object.get(field.name).filter(|value| !value.is_null()).map(|value| of_field(value, field));
        (field.go_name.as_str().into(), view.unwrap_or_else(|| zero(field)))
    });
    let more = object.iter().filter(|(name, _)| shape.field(name).is_none());
    let more = more.map(|(name, value)| (go_name(name).into(), plain(value)));
    let text = std::iter::once((TEXT.into(), Value::from(go_json(value, shape))));
    map_of(known.chain(more).chain(text))
}

fn of_field(value: &Json, field: &Field) -> Value {
    match (&field.kind, value) {
        (Type::Struct(name), _) => of_shape(value, Shape::named(name)),
        (Type::List { of: Some(name), .. }, Json::Array(items)) => {
            Value::from(items.iter().map(|item| of_shape(item, Shape::named(name))).collect::<Vec<_>>())
        }
        (Type::Map | Type::Quantities, _) => plain(value),
        _ => named(value),
    }
}

/// Fields of pods that are neither texts nor pointers.
const BOOLEANS: [&str; 8] = ["hostIPC", "hostNetwork", "hostPID", "optional", "readOnly", "stdin", "stdinOnce", "tty"];
const NUMBERS: [&str; 7] = [
    "containerPort",
    "failureThreshold",
    "hostPort",
    "initialDelaySeconds",
    "periodSeconds",
    "successThreshold",
    "timeoutSeconds",
];

/// What a field holds that was not given.
fn zero(field: &Field) -> Value {
    match field.kind {
        Type::Plain if !field.pointer && BOOLEANS.contains(&field.name) => Value::Bool(false),
        Type::Plain if !field.pointer && NUMBERS.contains(&field.name) => Value::Int(0),
        Type::List { .. } => Value::from(Vec::new()),
        Type::Map | Type::Quantities => map_of(std::iter::empty()),
        Type::Plain | Type::Quantity if !field.pointer => Value::from(""),
        Type::Plain | Type::Quantity | Type::Struct(_) => Value::Nil,
    }
}

/// A Go struct of a shape that the table does not have: every name as a field's.
fn named(value: &Json) -> Value {
    match value {
        Json::Object(map) => {
            let text = std::iter::once((TEXT.into(), Value::from(go_text(value))));
            map_of(map.iter().map(|(name, value)| (go_name(name).into(), named(value))).chain(text))
        }
        Json::Array(items) => Value::from(items.iter().map(named).collect::<Vec<_>>()),
        other => plain(other),
    }
}

/// A protobuf message in JSON, whose `maps` are maps and all else structs; `text` is its JSON for `protoToJSON`.
pub fn structure(message: &Json, maps: &[&str], text: String) -> Value {
    let none = serde_json::Map::new();
    let fields = message.as_object().unwrap_or(&none).iter().map(|(name, value)| {
        let view = if maps.contains(&name.as_str()) { plain(value) } else { named(value) };
        (Arc::from(go_name(name)), view)
    });
    map_of(fields.chain(std::iter::once((TEXT.into(), Value::from(text)))))
}

/// What `structToJSON`, `toYaml` and the like write of a value.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::Nil | Value::Function(_) => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Int(value) => Json::from(*value),
        Value::Uint(value) => Json::from(*value),
        Value::Float(value) => Json::from(*value),
        Value::String(text) => Json::from(&**text),
        Value::List(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Map(map) => match map.get(TEXT) {
            Some(text) => serde_json::from_str(text.as_str().unwrap_or_default()).unwrap_or(Json::Null),
            None => Json::Object(map.iter().map(|(name, value)| (name.to_string(), to_json(value))).collect()),
        },
    }
}

/// The JSON text of a value, with Go's escapes.
pub fn json_text(value: &Value) -> String {
    go_text(&to_json(value))
}
