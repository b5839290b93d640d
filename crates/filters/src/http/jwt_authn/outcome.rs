//! What verified tokens leave behind: headers, metadata, and whether the route is to be chosen anew.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use meltemi_http::{HeaderName, HeaderValue, RequestHead};
use meltemi_plan::jwt::{ClaimToHeader, JwtProvider};
use serde_json::{Map, Value, json};

use super::extract::Found;
use crate::jwt::{Status, Token};

#[derive(Default)]
pub(super) struct Outcome {
    pub metadata: Map<String, Value>,
    pub reroute: bool,
}

impl Outcome {
    /// A token was refused.
    pub fn failed(&mut self, status: Status, provider: Option<&JwtProvider>) {
        if let Some(key) = provider.and_then(|provider| provider.failed_status_in_metadata.as_ref()) {
            self.metadata.insert(key.to_string(), json!({ "code": status.code(), "message": status.text() }));
        }
    }

    /// A token was accepted: the request tells those behind us what it says.
    pub fn accepted(&mut self, provider: &JwtProvider, token: &Token, found: &Found, head: &mut RequestHead) {
        if let Some(name) = &provider.forward_payload_header {
            let payload = token.encoded_payload();
            let padding = if provider.pad_forward_payload_header { payload.len().wrapping_neg() % 4 } else { 0 };
            append(head, name, &format!("{payload}{}", &"==="[..padding]));
        }
        let mut added = false;
        for claim in &provider.claim_to_headers {
            added |= add_claim(claim, token, head);
        }
        self.reroute |= provider.clear_route_cache && (added || provider.payload_in_metadata.is_some());
        if !provider.forward {
            found.remove(head);
        }
        if let Some(key) = &provider.header_in_metadata {
            self.metadata.insert(key.to_string(), Value::Object(token.header.clone()));
        }
        if let Some(key) = &provider.payload_in_metadata {
            self.metadata.insert(key.to_string(), Value::Object(payload(provider, token)));
        }
    }
}

fn append(head: &mut RequestHead, name: &HeaderName, value: &str) -> bool {
    let value = HeaderValue::from_str(value).ok().filter(|value| !value.is_empty());
    let found = value.is_some();
    if let Some(value) = value {
        head.headers.append(name.clone(), value);
    }
    found
}

fn add_claim(claim: &ClaimToHeader, token: &Token, head: &mut RequestHead) -> bool {
    token.claim(&claim.path).is_some_and(|value| append(head, &claim.header, &claim_text(value)))
}

/// A claim as a header has it: lists and objects in base64.
fn claim_text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => match (number.as_u64(), number.as_f64()) {
            (Some(whole), _) => whole.to_string(),
            (None, Some(number)) if number >= 0.0 && number.fract() == 0.0 && number < WHOLE => format!("{number:.0}"),
            (None, Some(number)) => format!("{number:.6}"),
            (None, None) => String::new(),
        },
        Value::String(text) => text.clone(),
        Value::Array(_) | Value::Object(_) => STANDARD.encode(value.to_string()),
    }
}

/// Two to the sixty-fourth.
const WHOLE: f64 = 18_446_744_073_709_551_616.0;

/// The payload with the claims that are lists of words as lists.
fn payload(provider: &JwtProvider, token: &Token) -> Map<String, Value> {
    let mut fields = token.payload.clone();
    for claim in &provider.space_delimited_claims {
        if let Some(value @ Value::String(_)) = fields.get_mut(&**claim) {
            let words = value.as_str().unwrap_or_default().split(' ').filter(|word| !word.is_empty());
            *value = words.map(Value::from).collect();
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_as_headers() {
        for (value, expected) in [
            (json!("text"), "text"),
            (json!(true), "true"),
            (json!(17), "17"),
            (json!(-17), "-17.000000"),
            (json!(1.5), "1.500000"),
            (json!(2e3), "2000"),
            (json!(null), ""),
            (json!(["a"]), "WyJhIl0="),
        ] {
            assert_eq!(claim_text(&value), expected, "{value}");
        }
    }
}
