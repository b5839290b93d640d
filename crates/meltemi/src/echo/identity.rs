//! Who serves, as told by the environment, and what a request says about who asked.

use http::HeaderMap;
use serde_json::{Map, Value, json};

#[cfg(test)]
mod tests;

#[derive(Debug, Clone)]
pub struct Identity {
    pub service: String,
    pub version: String,
    pub pod: String,
    pub namespace: String,
}

impl Identity {
    pub fn new(service: &str, version: &str) -> Self {
        let first = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
        Identity {
            service: service.to_owned(),
            version: version.to_owned(),
            pod: first(&["POD_NAME", "HOSTNAME"]),
            namespace: first(&["POD_NAMESPACE"]),
        }
    }

    /// `service version pod`, for protocols without headers.
    pub fn line(&self) -> String {
        format!("{} {} {}", self.service, self.version, self.pod)
    }

    pub fn json(&self) -> Map<String, Value> {
        let mut map = Map::new();
        for (key, value) in
            [("service", &self.service), ("version", &self.version), ("pod", &self.pod), ("namespace", &self.namespace)]
        {
            map.insert(key.to_owned(), json!(value));
        }
        map
    }
}

/// Every header; one that comes several times as a list.
pub fn headers(headers: &HeaderMap) -> Value {
    let mut map = Map::new();
    for name in headers.keys() {
        let mut values: Vec<Value> =
            headers.get_all(name).iter().map(|value| json!(String::from_utf8_lossy(value.as_bytes()))).collect();
        let value = if values.len() == 1 { values.remove(0) } else { Value::Array(values) };
        map.insert(name.as_str().to_owned(), value);
    }
    Value::Object(map)
}

/// What the sidecar says of the connection on which the request came: the last element of `x-forwarded-client-cert` is
/// the nearest client.
pub fn security(headers: &HeaderMap) -> Value {
    let Some(text) = headers.get("x-forwarded-client-cert").and_then(|value| value.to_str().ok()) else {
        return json!({"mutualTls": false});
    };
    let mut security = json!({"mutualTls": true});
    for (key, value) in elements(text).last().map(|element| pairs(element)).unwrap_or_default() {
        let field = match key.to_ascii_lowercase().as_str() {
            "uri" => "peer",
            "by" => "self",
            "hash" => "certificateHash",
            "subject" => "subject",
            _ => continue,
        };
        security[field] = json!(value);
    }
    security
}

/// Splits at a separator that stands outside of quotes.
fn split(text: &str, separator: char) -> Vec<&str> {
    let (mut parts, mut start, mut quoted) = (Vec::new(), 0, false);
    for (at, character) in text.char_indices() {
        match character {
            '"' => quoted = !quoted,
            c if c == separator && !quoted => {
                parts.push(&text[start..at]);
                start = at + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn elements(text: &str) -> Vec<&str> {
    split(text, ',')
}

fn pairs(element: &str) -> Vec<(&str, &str)> {
    split(element, ';')
        .into_iter()
        .filter_map(|pair| pair.trim().split_once('='))
        .map(|(k, v)| (k, v.trim_matches('"')))
        .collect()
}
