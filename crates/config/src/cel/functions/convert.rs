//! From one type to another, and what is asked of any type.

use jiff::SignedDuration;

use super::time;
use crate::cel::evaluate::{Budget, Failure, Outcome};
use crate::cel::value::Value;

pub(super) const FUNCTIONS: &[&str] =
    &["bool", "bytes", "double", "duration", "dyn", "int", "size", "string", "timestamp", "type", "uint"];

pub(super) fn function(name: &str, arguments: &[Value], _: &Budget) -> Option<Outcome> {
    let [value] = arguments else { return None };
    match name {
        "bool" => boolean(value),
        "bytes" => bytes(value),
        "double" => double(value),
        "duration" => duration(value),
        "dyn" => Some(Ok(value.clone())),
        "int" => int(value),
        "size" => super::list::size(value).map(Ok),
        "string" => string(value),
        "timestamp" => timestamp(value),
        "type" => Some(Ok(Value::Type(value.kind()))),
        _ => uint(value),
    }
}

fn wrong<T>(wanted: &str) -> Result<T, Failure> {
    Err(Failure(format!("type conversion error from 'string' to '{wanted}'")))
}

fn boolean(value: &Value) -> Option<Outcome> {
    match value {
        Value::Bool(_) => Some(Ok(value.clone())),
        Value::Text(text) => Some(match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Value::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Value::Bool(false)),
            _ => wrong("bool"),
        }),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<Outcome> {
    match value {
        Value::Bytes(_) => Some(Ok(value.clone())),
        Value::Text(text) => Some(Ok(Value::Bytes(text.as_bytes().into()))),
        _ => None,
    }
}

fn double(value: &Value) -> Option<Outcome> {
    Some(match value {
        Value::Double(_) => Ok(value.clone()),
        Value::Int(number) => Ok(Value::Double(*number as f64)),
        Value::UInt(number) => Ok(Value::Double(*number as f64)),
        Value::Text(text) => text.parse().map(Value::Double).or_else(|_| wrong("double")),
        _ => return None,
    })
}

fn int(value: &Value) -> Option<Outcome> {
    Some(match value {
        Value::Int(_) => Ok(value.clone()),
        Value::UInt(number) => i64::try_from(*number).map(Value::Int).map_err(|_| "integer overflow".into()),
        Value::Double(number) if number.abs() < 9.2e18 => Ok(Value::Int(number.trunc() as i64)),
        Value::Double(_) => Err("integer overflow".into()),
        Value::Text(text) => text.parse().map(Value::Int).or_else(|_| wrong("int")),
        Value::Timestamp(at) => Ok(Value::Int(at.as_second())),
        Value::Duration(value) => {
            i64::try_from(value.as_nanos()).map(Value::Int).map_err(|_| "integer overflow".into())
        }
        _ => return None,
    })
}

fn uint(value: &Value) -> Option<Outcome> {
    Some(match value {
        Value::UInt(_) => Ok(value.clone()),
        Value::Int(number) => u64::try_from(*number).map(Value::UInt).map_err(|_| "unsigned integer overflow".into()),
        Value::Double(number) if (0.0..1.8e19).contains(number) => Ok(Value::UInt(number.trunc() as u64)),
        Value::Double(_) => Err("unsigned integer overflow".into()),
        Value::Text(text) => text.parse().map(Value::UInt).or_else(|_| wrong("uint")),
        _ => return None,
    })
}

fn string(value: &Value) -> Option<Outcome> {
    match value {
        Value::Bytes(bytes) => Some(match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Value::text(text)),
            Err(_) => Err("invalid UTF-8 in bytes, cannot convert to string".into()),
        }),
        Value::Null | Value::List(_) | Value::Map(_) | Value::Type(_) => None,
        other => Some(Ok(Value::text(&shown(other)))),
    }
}

fn duration(value: &Value) -> Option<Outcome> {
    match value {
        Value::Duration(_) => Some(Ok(value.clone())),
        Value::Text(text) => {
            Some(time::duration(text).map(Value::Duration).or_else(|()| wrong("google.protobuf.Duration")))
        }
        Value::Int(nanos) => Some(Ok(Value::Duration(SignedDuration::from_nanos(*nanos)))),
        _ => None,
    }
}

fn timestamp(value: &Value) -> Option<Outcome> {
    Some(match value {
        Value::Timestamp(_) => Ok(value.clone()),
        Value::Text(text) => text.parse().map(Value::Timestamp).or_else(|_| wrong("google.protobuf.Timestamp")),
        Value::Int(seconds) => {
            jiff::Timestamp::from_second(*seconds).map(Value::Timestamp).map_err(|_| "timestamp overflow".into())
        }
        _ => return None,
    })
}

/// A scalar as text.
pub(crate) fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Text(text) => text.to_string(),
        Value::Duration(value) => time::seconds(*value),
        Value::Timestamp(at) => at.to_string(),
        Value::Url(url) => url.text.clone(),
        Value::Ip(ip) => ip.to_string(),
        Value::Cidr(net) => net.to_string(),
        other => other.kind().to_owned(),
    }
}
