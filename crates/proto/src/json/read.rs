//! JSON to messages.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost::Message as _;
use prost_reflect::{DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value as Proto};
use serde_json::{Map, Value};

use super::path::{Path, Step};
use super::{JsonError, descriptor, time};

type Result<T> = std::result::Result<T, JsonError>;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

pub(super) fn message(descriptor: &MessageDescriptor, value: &Value, path: &mut Path) -> Result<DynamicMessage> {
    match descriptor.full_name() {
        "google.protobuf.Any" => {
            let (type_url, bytes) = any(value, path)?;
            pair(descriptor, Proto::String(type_url), Proto::Bytes(bytes.into()))
        }
        "google.protobuf.Duration" => {
            let text = value.as_str().ok_or_else(|| path.error(expected("a duration such as \"1.5s\"", value)))?;
            let (seconds, nanos) = time::parse_duration(text)
                .ok_or_else(|| path.error(format!("{text:?} is not a duration such as \"1.5s\"")))?;
            pair(descriptor, Proto::I64(seconds), Proto::I32(nanos))
        }
        "google.protobuf.Timestamp" => {
            let text = value.as_str().ok_or_else(|| path.error(expected("an RFC 3339 time", value)))?;
            let (seconds, nanos) =
                time::parse_timestamp(text).ok_or_else(|| path.error(format!("{text:?} is not an RFC 3339 time")))?;
            pair(descriptor, Proto::I64(seconds), Proto::I32(nanos))
        }
        "google.protobuf.FieldMask" => {
            let text = value.as_str().ok_or_else(|| path.error(expected("a comma-separated field mask", value)))?;
            let paths = text.split(',').filter(|p| !p.is_empty()).map(|p| Proto::String(p.to_owned())).collect();
            single(descriptor, 1, Proto::List(paths))
        }
        "google.protobuf.Value" => any_value(descriptor, value, path),
        name if wraps_one_field(name) => {
            let field = descriptor.get_field(1).ok_or_else(|| path.error("wrapper without a field"))?;
            let inner = field_value(&field, value, path)?;
            single(descriptor, 1, inner)
        }
        _ => object(descriptor, value, path),
    }
}

fn wraps_one_field(name: &str) -> bool {
    matches!(
        name.strip_prefix("google.protobuf."),
        Some(
            "Struct"
                | "ListValue"
                | "BoolValue"
                | "StringValue"
                | "BytesValue"
                | "DoubleValue"
                | "FloatValue"
                | "Int32Value"
                | "UInt32Value"
                | "Int64Value"
                | "UInt64Value"
        )
    )
}

fn pair(descriptor: &MessageDescriptor, first: Proto, second: Proto) -> Result<DynamicMessage> {
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_number(1, first);
    message.set_field_by_number(2, second);
    Ok(message)
}

fn single(descriptor: &MessageDescriptor, number: u32, value: Proto) -> Result<DynamicMessage> {
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_number(number, value);
    Ok(message)
}

/// `google.protobuf.Value`: null, number, string, bool, struct and list are its fields 1 to 6.
fn any_value(descriptor: &MessageDescriptor, value: &Value, path: &mut Path) -> Result<DynamicMessage> {
    let nested = |number: u32, path: &mut Path| {
        let field = descriptor.get_field(number).ok_or_else(|| path.error("Value without a field"))?;
        field_value(&field, value, path)
    };
    match value {
        Value::Null => single(descriptor, 1, Proto::EnumNumber(0)),
        Value::Number(number) => single(descriptor, 2, Proto::F64(number.as_f64().unwrap_or_default())),
        Value::String(text) => single(descriptor, 3, Proto::String(text.clone())),
        Value::Bool(flag) => single(descriptor, 4, Proto::Bool(*flag)),
        Value::Object(_) => single(descriptor, 5, nested(5, path)?),
        Value::Array(_) => single(descriptor, 6, nested(6, path)?),
    }
}

fn object(descriptor: &MessageDescriptor, value: &Value, path: &mut Path) -> Result<DynamicMessage> {
    let Value::Object(entries) = value else {
        return Err(path.error(expected(&format!("an object ({})", descriptor.full_name()), value)));
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    for (key, value) in entries.iter().filter(|(key, _)| *key != "@type") {
        path.at(Step::Field(key.clone()), |path| set(&mut message, descriptor, key, value, path))?;
    }
    Ok(message)
}

fn set(
    message: &mut DynamicMessage,
    descriptor: &MessageDescriptor,
    key: &str,
    value: &Value,
    path: &mut Path,
) -> Result<()> {
    let Some(field) = descriptor.get_field_by_name(key).or_else(|| descriptor.get_field_by_json_name(key)) else {
        return Err(path.error(unknown_field(descriptor, key)));
    };
    if value.is_null() && !accepts_null(&field) {
        return Ok(());
    }
    if let Some(oneof) = field.containing_oneof().filter(|oneof| !oneof.is_synthetic()) {
        if let Some(other) = oneof.fields().find(|other| message.has_field(other)) {
            return Err(path.error(format!("{} is set already: only one of {} may be", other.name(), oneof.name())));
        }
    } else if message.has_field(&field) {
        return Err(path.error("field given twice"));
    }
    let value = field_value(&field, value, path)?;
    message.set_field(&field, value);
    Ok(())
}

/// Null means absent, but for the types that can hold it.
fn accepts_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(message) => message.full_name() == "google.protobuf.Value" && !field.is_list() && !field.is_map(),
        Kind::Enum(values) => values.full_name() == "google.protobuf.NullValue",
        _ => false,
    }
}

fn field_value(field: &FieldDescriptor, value: &Value, path: &mut Path) -> Result<Proto> {
    if field.is_map() {
        return map(field, value, path);
    }
    if !field.is_list() {
        return scalar(&field.kind(), value, path);
    }
    let Value::Array(items) = value else { return Err(path.error(expected("a list", value))) };
    let kind = field.kind();
    let items = items.iter().enumerate().map(|(i, item)| path.at(Step::Index(i), |path| scalar(&kind, item, path)));
    Ok(Proto::List(items.collect::<Result<_>>()?))
}

fn map(field: &FieldDescriptor, value: &Value, path: &mut Path) -> Result<Proto> {
    let Value::Object(entries) = value else { return Err(path.error(expected("an object", value))) };
    let kind = field.kind();
    let entry = kind.as_message().ok_or_else(|| path.error("map without an entry type"))?;
    let (key_kind, value_kind) = (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
    let mut map = std::collections::HashMap::with_capacity(entries.len());
    for (key, value) in entries {
        path.at(Step::Field(key.clone()), |path| {
            let key = map_key(&key_kind, key, path)?;
            map.insert(key, scalar(&value_kind, value, path)?);
            Ok(())
        })?;
    }
    Ok(Proto::Map(map))
}

fn map_key(kind: &Kind, key: &str, path: &Path) -> Result<MapKey> {
    let parsed = match kind {
        Kind::String => Some(MapKey::String(key.to_owned())),
        Kind::Bool => key.parse().ok().map(MapKey::Bool),
        Kind::Uint32 | Kind::Fixed32 => key.parse().ok().map(MapKey::U32),
        Kind::Uint64 | Kind::Fixed64 => key.parse().ok().map(MapKey::U64),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => key.parse().ok().map(MapKey::I32),
        _ => key.parse().ok().map(MapKey::I64),
    };
    parsed.ok_or_else(|| path.error(format!("{key:?} is not a map key of the right type")))
}

fn scalar(kind: &Kind, value: &Value, path: &mut Path) -> Result<Proto> {
    let wrong = |what: &str| path.error(expected(what, value));
    Ok(match kind {
        Kind::Message(descriptor) => Proto::Message(message(descriptor, value, path)?),
        Kind::Enum(values) => Proto::EnumNumber(enum_number(values, value, path)?),
        Kind::Bool => Proto::Bool(match value {
            Value::String(text) if text == "true" => true,
            Value::String(text) if text == "false" => false,
            other => other.as_bool().ok_or_else(|| wrong("true or false"))?,
        }),
        Kind::String => Proto::String(value.as_str().ok_or_else(|| wrong("a string"))?.to_owned()),
        Kind::Bytes => {
            let text = value.as_str().ok_or_else(|| wrong("base64 text"))?;
            let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
            Proto::Bytes(bytes.map_err(|_| path.error("not base64"))?.into())
        }
        Kind::Double => Proto::F64(float(value).ok_or_else(|| wrong("a number"))?),
        Kind::Float => Proto::F32(float(value).ok_or_else(|| wrong("a number"))? as f32),
        integer => return integer_value(integer, value, path),
    })
}

fn integer_value(kind: &Kind, value: &Value, path: &Path) -> Result<Proto> {
    let number = integer(value).ok_or_else(|| path.error(expected("an integer", value)))?;
    let out_of_range = |_| path.error(format!("{number} is out of range"));
    Ok(match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => Proto::I32(number.try_into().map_err(out_of_range)?),
        Kind::Uint32 | Kind::Fixed32 => Proto::U32(number.try_into().map_err(out_of_range)?),
        Kind::Uint64 | Kind::Fixed64 => Proto::U64(number.try_into().map_err(out_of_range)?),
        _ => Proto::I64(number.try_into().map_err(out_of_range)?),
    })
}

fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => {
            number.as_i64().map(i128::from).or_else(|| number.as_u64().map(i128::from)).or_else(|| {
                let float = number.as_f64()?;
                (float.fract() == 0.0 && float.abs() < 1e18).then_some(float as i128)
            })
        }
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn float(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            other => other.parse().ok().filter(|number: &f64| number.is_finite()),
        },
        _ => None,
    }
}

fn enum_number(values: &EnumDescriptor, value: &Value, path: &Path) -> Result<i32> {
    match value {
        Value::Null if values.full_name() == "google.protobuf.NullValue" => Ok(0),
        Value::String(name) => match values.get_value_by_name(name) {
            Some(value) => Ok(value.number()),
            None => {
                let names: Vec<_> = values.values().map(|value| value.name().to_owned()).collect();
                Err(path.error(format!("{name:?} is not one of {}", names.join(", "))))
            }
        },
        other => integer(other)
            .and_then(|n| i32::try_from(n).ok())
            .ok_or_else(|| path.error(expected("an enum name", value))),
    }
}

/// The type URL and bytes of an expanded `Any`.
pub(super) fn any(value: &Value, path: &mut Path) -> Result<(String, Vec<u8>)> {
    let Value::Object(entries) = value else { return Err(path.error(expected("an object with \"@type\"", value))) };
    if entries.is_empty() {
        return Ok(Default::default());
    }
    let Some(type_url) = entries.get("@type").and_then(Value::as_str) else {
        return Err(path.error("an Any needs \"@type\""));
    };
    let Some(descriptor) = descriptor(type_url.rsplit('/').next().unwrap_or_default()) else {
        return opaque(type_url, entries, path);
    };
    let name = descriptor.full_name();
    let has_own_form = wraps_one_field(name)
        || matches!(
            name.strip_prefix("google.protobuf."),
            Some("Any" | "Duration" | "Timestamp" | "FieldMask" | "Value")
        );
    let message = if has_own_form {
        let inner = entries.get("value").unwrap_or(&Value::Null);
        path.at(Step::Field("value".to_owned()), |path| message(&descriptor, inner, path))?
    } else {
        object(&descriptor, value, path)?
    };
    Ok((type_url.to_owned(), message.encode_to_vec()))
}

/// A type that we do not know is carried as bytes, where its bytes are given.
fn opaque(type_url: &str, entries: &Map<String, Value>, path: &Path) -> Result<(String, Vec<u8>)> {
    let bytes = match entries.get("value") {
        None if entries.len() == 1 => Some(Vec::new()),
        Some(Value::String(text)) if entries.len() == 2 => STANDARD.decode(text).ok(),
        _ => None,
    };
    let bytes = bytes.ok_or_else(|| path.error(format!("unknown message type {type_url:?}")))?;
    Ok((type_url.to_owned(), bytes))
}

fn expected(what: &str, found: &Value) -> String {
    let found = match found {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.len() <= 60 => format!("{text:?}"),
        Value::String(_) => "a string".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    format!("expected {what}, found {found}")
}

fn unknown_field(descriptor: &MessageDescriptor, key: &str) -> String {
    let nearest =
        descriptor.fields().map(|field| (distance(field.name(), key), field)).min_by_key(|(distance, _)| *distance);
    let hint = match nearest {
        Some((distance, field)) if distance <= 3 && distance < key.len() => {
            format!(", did you mean {:?}?", field.name())
        }
        _ => String::new(),
    };
    format!("unknown field of {}{hint}", descriptor.full_name())
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
