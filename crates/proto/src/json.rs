//! Protobuf JSON by descriptor, the dialect Envoy reads and writes.
//!
//! Owns the conversion both ways between any message we know and JSON or YAML, with `Any` expanded under `@type`. It must
//! never be used on a request path: a conversion walks the descriptors of every field. The descriptor pool is decoded once, at
//! first use (some tens of milliseconds, a few megabytes). Names are printed as in the .proto files, as Envoy's
//! `/config_dump` does; both spellings are read.

mod path;
mod read;
mod sensitive;
mod structs;
mod text;
mod time;
mod write;

#[cfg(test)]
mod tests;

pub use structs::{struct_from_value, struct_to_value};

use std::sync::{PoisonError, RwLock};

use prost::{Message, Name};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use serde_json::Value;

use crate::xds::r#type::v3::TypedStruct;
use crate::{Any, udpa};

/// Decoded, the descriptors take some 30 MB, so they are decoded when first needed and may be given back.
static POOL: RwLock<Option<DescriptorPool>> = RwLock::new(None);

fn pool() -> DescriptorPool {
    if let Some(pool) = &*POOL.read().unwrap_or_else(PoisonError::into_inner) {
        return pool.clone();
    }
    let pool = DescriptorPool::decode(include_bytes!("descriptors.bin").as_slice())
        .expect("the committed descriptors are well-formed");
    *POOL.write().unwrap_or_else(PoisonError::into_inner) = Some(pool.clone());
    pool
}

/// Gives the memory of the descriptors back until JSON is next read or written. For processes that convert at start and then
/// serve for weeks.
pub fn release_descriptors() {
    *POOL.write().unwrap_or_else(PoisonError::into_inner) = None;
}

/// Whether fields that Envoy's API marks sensitive (private keys, passwords, tokens) are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    Shown,
    /// Printed as `[redacted]`, at any depth below a sensitive field.
    Redacted,
}

/// Why a document is not the message it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{}{}{message}", line.map(|l| format!("line {l}: ")).unwrap_or_default(), path, if path.is_empty() { "" } else { ": " })]
pub struct JsonError {
    /// Field path, such as `static_resources.listeners[0].name`. Empty for the document itself.
    pub path: String,
    /// Line in the text, from 1, where there was a text.
    pub line: Option<u64>,
    pub message: String,
}

/// `message` as JSON.
pub fn to_value<M: Message + Name>(message: &M, secrets: Secrets) -> Value {
    let Some(descriptor) = descriptor(&M::full_name()) else { return Value::Null };
    match DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()) {
        Ok(dynamic) => write::message(&dynamic, secrets),
        Err(_) => Value::Null,
    }
}

/// The packed message as JSON with `@type` first. A message of a type we do not know, or that does not decode, is printed as
/// its bytes in base64 under `value`.
pub fn any_to_value(any: &Any, secrets: Secrets) -> Value {
    write::any(&any.type_url, &any.value, secrets)
}

/// Reads an `M` from JSON. Unknown fields are errors.
pub fn from_value<M: Message + Name + Default>(value: &Value) -> Result<M, JsonError> {
    let descriptor =
        descriptor(&M::full_name()).ok_or_else(|| JsonError::bare(format!("no descriptor of {}", M::full_name())))?;
    let dynamic = read::message(&descriptor, value, &mut path::Path::default())?;
    M::decode(dynamic.encode_to_vec().as_slice()).map_err(|cause| JsonError::bare(cause.to_string()))
}

/// Reads an `M` from one document of JSON or YAML text; errors carry the line.
pub fn from_text<M: Message + Name + Default>(text: &str) -> Result<M, JsonError> {
    let value = text::parse(text)?;
    from_value(&value).map_err(|error| text::locate(error, text))
}

/// JSON or YAML text as a value.
pub fn value_from_text(text: &str) -> Result<Value, JsonError> {
    text::parse(text)
}

/// Reads a packed message from JSON with `@type`.
pub fn any_from_value(value: &Value) -> Result<Any, JsonError> {
    let (type_url, bytes) = read::any(value, &mut path::Path::default())?;
    Ok(Any { type_url, value: bytes.into() })
}

/// The message that a `TypedStruct` stands for, where `any` holds one of a type we know; else `any` itself.
///
/// Envoy configures an extension from either form; so do we.
pub fn resolve_typed_struct(any: &Any) -> Result<Any, JsonError> {
    let malformed = |error: crate::DecodeError| JsonError::bare(error.to_string());
    let (type_url, fields) = if any.is::<TypedStruct>() {
        let typed: TypedStruct = any.unpack().map_err(malformed)?;
        (typed.type_url, typed.value)
    } else if any.is::<udpa::r#type::v1::TypedStruct>() {
        let typed: udpa::r#type::v1::TypedStruct = any.unpack().map_err(malformed)?;
        (typed.type_url, typed.value)
    } else {
        return Ok(any.clone());
    };
    let Some(descriptor) = descriptor(type_url.rsplit('/').next().unwrap_or_default()) else { return Ok(any.clone()) };
    let value = struct_to_value(&fields.unwrap_or_default());
    let message = read::message(&descriptor, &value, &mut path::Path::default())?;
    Ok(Any { type_url, value: message.encode_to_vec().into() })
}

/// Whether we know the message that `type_url` names.
pub fn is_known(type_url: &str) -> bool {
    descriptor(type_url.rsplit('/').next().unwrap_or_default()).is_some()
}

fn descriptor(full_name: &str) -> Option<MessageDescriptor> {
    pool().get_message_by_name(full_name)
}

impl JsonError {
    fn bare(message: String) -> Self {
        Self { path: String::new(), line: None, message }
    }
}
