//! What a literal says: numbers, texts and bytes with their escapes.

use super::value::Value;

/// A token that is known to have the form of a literal; an error where the number is out of range.
pub(super) fn value(text: &str) -> Result<Value, String> {
    match text {
        "true" => Ok(Value::Bool(true)),
        "false" => Ok(Value::Bool(false)),
        "null" => Ok(Value::Null),
        _ if text.ends_with(['"', '\'']) => quoted(text),
        _ => number(text).ok_or_else(|| format!("{text} is out of range")),
    }
}

/// The number below zero, where the token is one that may have a sign.
pub(super) fn negative(text: &str) -> Option<Value> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || c == '.') || text.ends_with(['u', 'U']) {
        return None;
    }
    match text.strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(&format!("-{hex}"), 16).ok().map(Value::Int),
        None if is_whole(text) => format!("-{text}").parse().ok().map(Value::Int),
        None => text.parse().ok().map(|number: f64| Value::Double(-number)),
    }
}

fn is_whole(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn number(text: &str) -> Option<Value> {
    let unsigned = text.strip_suffix(['u', 'U']);
    let digits = unsigned.unwrap_or(text);
    match (digits.strip_prefix("0x"), unsigned.is_some()) {
        (Some(hex), true) => u64::from_str_radix(hex, 16).ok().map(Value::UInt),
        (Some(hex), false) => i64::from_str_radix(hex, 16).ok().map(Value::Int),
        (None, true) => digits.parse().ok().map(Value::UInt),
        (None, false) if is_whole(digits) => digits.parse().ok().map(Value::Int),
        (None, false) => digits.parse().ok().filter(|number: &f64| number.is_finite()).map(Value::Double),
    }
}

fn quoted(text: &str) -> Result<Value, String> {
    let start = text.find(['"', '\'']).unwrap_or_default();
    let (prefix, rest) = text.split_at(start);
    let raw = prefix.contains(['r', 'R']);
    let is_bytes = prefix.contains(['b', 'B']);
    let long = rest.len() >= 6 && (rest.starts_with("\"\"\"") || rest.starts_with("'''"));
    let quotes = if long { 3 } else { 1 };
    let body = &rest[quotes..rest.len() - quotes];
    let mut out = Vec::with_capacity(body.len());
    let mut at = 0;
    while let Some(c) = body[at..].chars().next() {
        if c == '\\' && !raw {
            at += escape(&body[at..], is_bytes, &mut out)?;
        } else {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            at += c.len_utf8();
        }
    }
    if is_bytes {
        return Ok(Value::Bytes(out.into()));
    }
    String::from_utf8(out).map(|text| Value::text(&text)).map_err(|_| "an escape that is no character".to_owned())
}

/// Reads one escape, and returns its length. In bytes, numbers are bytes; in texts they are characters.
fn escape(rest: &str, is_bytes: bool, out: &mut Vec<u8>) -> Result<usize, String> {
    let kind = rest.as_bytes().get(1).copied().unwrap_or_default();
    let plain = match kind {
        b'a' => Some(7),
        b'b' => Some(8),
        b'f' => Some(12),
        b'n' => Some(b'\n'),
        b'r' => Some(b'\r'),
        b't' => Some(b'\t'),
        b'v' => Some(11),
        b'\\' | b'?' | b'"' | b'\'' | b'`' => Some(kind),
        _ => None,
    };
    if let Some(byte) = plain {
        out.push(byte);
        return Ok(2);
    }
    let (digits, radix) = match kind {
        b'x' | b'X' => (2..4, 16),
        b'u' => (2..6, 16),
        b'U' => (2..10, 16),
        _ => (1..4, 8),
    };
    let length = digits.end;
    let code = rest.get(digits).and_then(|digits| u32::from_str_radix(digits, radix).ok());
    match code {
        Some(code) if is_bytes && !matches!(kind, b'u' | b'U') => {
            out.push(u8::try_from(code).map_err(|_| "an escape that is no byte".to_owned())?);
        }
        code => {
            let c = code.and_then(char::from_u32).ok_or("an escape that is no character")?;
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
    }
    Ok(length)
}
