//! YAML in and out, as `istioctl` and `kubectl` have it.

use serde::Serialize;
use serde_json::Value;

/// # Errors
/// When the text is no YAML document; a text without a value is an empty map.
pub fn value(text: &str) -> Result<Value, String> {
    let value: Option<Value> = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    Ok(value.unwrap_or_else(|| Value::Object(serde_json::Map::new())))
}

/// # Errors
/// Never, for what has come from JSON.
pub fn yaml(value: &impl Serialize) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| error.to_string())
}
