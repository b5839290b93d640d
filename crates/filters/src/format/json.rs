//! JSON formats: a tree whose leaves are formats, written without building a value.

use std::io::Write as _;

use meltemi_plan::format::{Count, Format, FormatOp, JsonFormat, Operator};

use super::{Missing, Scope, operators};

/// Appends the JSON of `format`. With `omit_empty`, members without a value are left out.
pub fn write_json(format: &JsonFormat, scope: &Scope<'_>, omit_empty: bool, out: &mut Vec<u8>) {
    match format {
        JsonFormat::Object(members) => {
            out.push(b'{');
            let start = out.len();
            for (key, value) in members {
                let before = out.len();
                if before > start {
                    out.push(b',');
                }
                write_string(key.as_bytes(), out);
                out.push(b':');
                let value_at = out.len();
                write_json(value, scope, omit_empty, out);
                if omit_empty && matches!(&out[value_at..], b"null" | b"\"\"" | b"{}" | b"\"-\"") {
                    out.truncate(before);
                }
            }
            out.push(b'}');
        }
        JsonFormat::List(items) => {
            out.push(b'[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(b',');
                }
                write_json(item, scope, omit_empty, out);
            }
            out.push(b']');
        }
        JsonFormat::Format(format) => write_leaf(format, scope, omit_empty, out),
        JsonFormat::Literal(value) => {
            // Writing to memory does not fail.
            let _ = write!(out, "{value}");
        }
    }
}

/// The same as a value.
pub fn to_json(format: &JsonFormat, scope: &Scope<'_>, omit_empty: bool) -> serde_json::Value {
    let mut out = Vec::new();
    write_json(format, scope, omit_empty, &mut out);
    serde_json::from_slice(&out).unwrap_or_default()
}

/// A lone command keeps its type and is `null` without a value; text is a string.
fn write_leaf(format: &Format, scope: &Scope<'_>, omit_empty: bool, out: &mut Vec<u8>) {
    if let [FormatOp::Command { operator, limit }] = &*format.ops {
        let mut value = Vec::new();
        if !operators::write(operator, scope, &mut value) {
            out.extend_from_slice(b"null");
            return;
        }
        if is_number(operator) || is_json(operator) {
            out.extend_from_slice(&value);
        } else {
            value.truncate(limit.unwrap_or(usize::MAX));
            write_string(&value, out);
        }
        return;
    }
    let missing = if omit_empty { Missing::Empty } else { Missing::Dash };
    let mut value = Vec::new();
    super::write(format, scope, missing, &mut value);
    write_string(&value, out);
}

fn is_number(operator: &Operator) -> bool {
    match operator {
        Operator::Count(count) => !matches!(count, Count::ResponseTrailerBytes),
        Operator::ResponseCode
        | Operator::Duration
        | Operator::RequestDuration
        | Operator::RequestTxDuration
        | Operator::ResponseDuration
        | Operator::ResponseTxDuration
        | Operator::CommonDuration { .. }
        | Operator::ConnectionId
        | Operator::UpstreamConnectionId
        | Operator::UpstreamRequestAttemptCount => true,
        Operator::Address { part, .. } => *part == meltemi_plan::format::AddressPart::Port,
        Operator::GrpcStatus(format) => *format == meltemi_plan::format::GrpcStatusFormat::Number,
        _ => false,
    }
}

/// Whether an operator prints JSON by itself.
fn is_json(operator: &Operator) -> bool {
    matches!(operator, Operator::FilterState { plain: false, .. })
}

/// A JSON string of what may be any bytes; those that are not UTF-8 are replaced.
pub(crate) fn write_string(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    for part in text.utf8_chunks() {
        for c in part.valid().chars() {
            match c {
                '"' => out.extend_from_slice(b"\\\""),
                '\\' => out.extend_from_slice(b"\\\\"),
                '\n' => out.extend_from_slice(b"\\n"),
                '\r' => out.extend_from_slice(b"\\r"),
                '\t' => out.extend_from_slice(b"\\t"),
                c if c < ' ' => {
                    let _ = write!(out, "\\u{:04x}", c as u32);
                }
                c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !part.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
    out.push(b'"');
}
