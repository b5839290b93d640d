//! Messages to JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, Value as Proto};
use serde_json::{Map, Number, Value};

use super::sensitive::is_sensitive;
use super::{Secrets, descriptor, time};

const REDACTED: &str = "[redacted]";

/// How one value is printed: plainly, with its sensitive fields hidden, or hidden itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Shown,
    Watchful,
    Hidden,
}

pub(super) fn message(message: &DynamicMessage, secrets: Secrets) -> Value {
    fields(message, mode(secrets))
}

pub(super) fn any(type_url: &str, bytes: &Bytes, secrets: Secrets) -> Value {
    packed(type_url, bytes, mode(secrets))
}

fn mode(secrets: Secrets) -> Mode {
    match secrets {
        Secrets::Shown => Mode::Shown,
        Secrets::Redacted => Mode::Watchful,
    }
}

fn packed(type_url: &str, bytes: &Bytes, mode: Mode) -> Value {
    let mut object = Map::new();
    if type_url.is_empty() && bytes.is_empty() {
        return Value::Object(object);
    }
    object.insert("@type".to_owned(), type_url.into());
    let known = descriptor(type_url.rsplit('/').next().unwrap_or_default());
    match known.and_then(|known| DynamicMessage::decode(known, bytes.clone()).ok()) {
        Some(message) => match fields(&message, mode) {
            Value::Object(inner) if !has_own_form(message_name(&message)) => object.extend(inner),
            special => {
                object.insert("value".to_owned(), special);
            }
        },
        // What we cannot look into may hold a secret.
        None if mode != Mode::Shown => {
            object.insert("value".to_owned(), REDACTED.into());
        }
        None => {
            object.insert("value".to_owned(), STANDARD.encode(bytes).into());
        }
    }
    Value::Object(object)
}

fn message_name(message: &DynamicMessage) -> &'static str {
    use prost_reflect::ReflectMessage as _;
    WELL_KNOWN.iter().copied().find(|name| *name == message.descriptor().full_name()).unwrap_or_default()
}

/// Messages whose JSON is not an object of their fields.
const WELL_KNOWN: [&str; 16] = [
    "google.protobuf.Any",
    "google.protobuf.Duration",
    "google.protobuf.Timestamp",
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    "google.protobuf.FieldMask",
    "google.protobuf.BoolValue",
    "google.protobuf.StringValue",
    "google.protobuf.BytesValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.FloatValue",
    "google.protobuf.Int32Value",
    "google.protobuf.UInt32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.UInt64Value",
];

fn has_own_form(name: &str) -> bool {
    WELL_KNOWN.contains(&name)
}

fn fields(message: &DynamicMessage, mode: Mode) -> Value {
    let name = message_name(message);
    if has_own_form(name) {
        return well_known(name, message, mode);
    }
    let mut object = Map::new();
    for (field, value) in message.fields() {
        object.insert(field.name().to_owned(), field_value(&field, value, mode));
    }
    Value::Object(object)
}

fn field_value(field: &FieldDescriptor, value: &Proto, mode: Mode) -> Value {
    let mode = if mode == Mode::Watchful && is_sensitive(field.full_name()) { Mode::Hidden } else { mode };
    match value {
        Proto::List(items) => items.iter().map(|item| scalar(&field.kind(), item, mode)).collect(),
        Proto::Map(entries) => {
            let kind = field.kind();
            let Some(entry) = kind.as_message() else { return Value::Null };
            let kind = entry.map_entry_value_field().kind();
            let mut sorted: Vec<_> =
                entries.iter().map(|(key, value)| (key_text(key), scalar(&kind, value, mode))).collect();
            sorted.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(sorted.into_iter().collect())
        }
        single => scalar(&field.kind(), single, mode),
    }
}

fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn scalar(kind: &Kind, value: &Proto, mode: Mode) -> Value {
    let hidden = mode == Mode::Hidden;
    match value {
        Proto::String(_) if hidden => REDACTED.into(),
        Proto::Bytes(_) if hidden => STANDARD.encode(REDACTED).into(),
        Proto::Bool(_) if hidden => Value::Bool(false),
        Proto::I32(_) | Proto::I64(_) | Proto::U32(_) | Proto::U64(_) | Proto::F32(_) | Proto::F64(_) if hidden => {
            Value::from(0)
        }
        Proto::Bool(value) => Value::Bool(*value),
        Proto::I32(value) => Value::from(*value),
        Proto::U32(value) => Value::from(*value),
        // 64-bit integers are strings in protobuf's JSON: JavaScript has no such numbers.
        Proto::I64(value) => value.to_string().into(),
        Proto::U64(value) => value.to_string().into(),
        Proto::F32(value) => value.to_string().parse().map_or(Value::Null, number),
        Proto::F64(value) => number(*value),
        Proto::String(value) => value.as_str().into(),
        Proto::Bytes(value) => STANDARD.encode(value).into(),
        Proto::EnumNumber(number) => enum_value(kind, *number),
        Proto::Message(message) => fields(message, mode),
        Proto::List(_) | Proto::Map(_) => Value::Null,
    }
}

fn enum_value(kind: &Kind, number: i32) -> Value {
    let Some(descriptor) = kind.as_enum() else { return Value::from(number) };
    if descriptor.full_name() == "google.protobuf.NullValue" {
        return Value::Null;
    }
    descriptor.get_value(number).map_or(Value::from(number), |value| value.name().into())
}

/// A number as Envoy prints it: without a fraction where there is none.
pub(super) fn number(value: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else if value.fract() == 0.0 && value.abs() < EXACT {
        Value::from(value as i64)
    } else {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}

fn well_known(name: &str, message: &DynamicMessage, mode: Mode) -> Value {
    let integers = || {
        let seconds = message.get_field_by_name("seconds").and_then(|v| v.as_i64()).unwrap_or_default();
        let nanos = message.get_field_by_name("nanos").and_then(|v| v.as_i32()).unwrap_or_default();
        (seconds, nanos)
    };
    match name {
        "google.protobuf.Any" => {
            let type_url =
                message.get_field_by_name("type_url").and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
            let bytes = message.get_field_by_name("value").and_then(|v| v.as_bytes().cloned()).unwrap_or_default();
            packed(&type_url, &bytes, mode)
        }
        "google.protobuf.Duration" => {
            let (seconds, nanos) = integers();
            time::format_duration(seconds, nanos).into()
        }
        "google.protobuf.Timestamp" => {
            let (seconds, nanos) = integers();
            time::format_timestamp(seconds, nanos).into()
        }
        "google.protobuf.FieldMask" => {
            let paths = message.get_field_by_name("paths");
            let paths = paths.as_deref().and_then(Proto::as_list).unwrap_or_default();
            paths.iter().filter_map(Proto::as_str).collect::<Vec<_>>().join(",").into()
        }
        // A Value is whichever of its fields is set.
        "google.protobuf.Value" => {
            message.fields().next().map_or(Value::Null, |(field, value)| field_value(&field, value, mode))
        }
        // The rest wrap one field, which is printed even at its default.
        _ => {
            use prost_reflect::ReflectMessage as _;
            let Some(field) = message.descriptor().get_field(1) else { return Value::Null };
            field_value(&field, &message.get_field(&field), mode)
        }
    }
}
