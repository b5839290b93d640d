//! `google.protobuf.Struct`, which is JSON already.

use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value as Proto};
use serde_json::Value;

use super::write::number;

/// `fields` as a JSON object.
pub fn struct_to_value(fields: &Struct) -> Value {
    Value::Object(fields.fields.iter().map(|(key, value)| (key.clone(), to_value(value))).collect())
}

/// A JSON object as a `Struct`. Anything else gives `None`.
pub fn struct_from_value(value: &Value) -> Option<Struct> {
    let object = value.as_object()?;
    Some(Struct { fields: object.iter().map(|(key, value)| (key.clone(), from_value(value))).collect() })
}

fn to_value(value: &Proto) -> Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::NumberValue(value)) => number(*value),
        Some(Kind::StringValue(text)) => text.as_str().into(),
        Some(Kind::BoolValue(flag)) => Value::Bool(*flag),
        Some(Kind::StructValue(fields)) => struct_to_value(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(to_value).collect(),
    }
}

fn from_value(value: &Value) -> Proto {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(flag) => Kind::BoolValue(*flag),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(items) => Kind::ListValue(ListValue { values: items.iter().map(from_value).collect() }),
        Value::Object(_) => Kind::StructValue(struct_from_value(value).unwrap_or_default()),
    };
    Proto { kind: Some(kind) }
}
