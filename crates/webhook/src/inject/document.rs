//! YAML in and out, as `istioctl` and `kubectl` have it.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Why a text is no YAML, and on which of its lines, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    pub line: u64,
    pub message: String,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.message)
    }
}

/// # Errors
/// When the text is no YAML, or another type's.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, SyntaxError> {
    // As Kubernetes reads YAML: of version 1.1.
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        let message = error.to_string();
        // The place is told by us.
        let message = message.split(" at line ").next().unwrap_or(&message);
        let message = message.strip_prefix("error: ").unwrap_or(message);
        let message =
            message.split_once(": ").filter(|(place, _)| place.starts_with("line ")).map_or(message, |(_, rest)| rest);
        SyntaxError { line, message: message.trim_end_matches(',').to_owned() }
    })
}

/// # Errors
/// When the text is no YAML document; a text without a value is an empty map.
pub fn value(text: &str) -> Result<Value, SyntaxError> {
    Ok(read::<Option<Value>>(text)?.unwrap_or_else(|| Value::Object(Map::new())))
}

/// # Errors
/// Never, for what has come from JSON.
pub fn yaml(value: &impl Serialize) -> Result<String, String> {
    serde_saphyr::to_string(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests;
