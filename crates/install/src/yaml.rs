//! YAML as manifests have it: written in block style, in the order of the fields; read as JSON values.
//!
//! Owns: when a string needs quotes (also for readers of YAML 1.1, as kubectl and Helm are), and how long ones are laid out.

use std::fmt::Write as _;

use serde_json::Value;

/// Words that YAML 1.1 takes for something else than text.
const RESERVED: [&str; 10] = ["true", "false", "yes", "no", "on", "off", "null", "y", "n", "~"];

/// A document without its `---`, ending in a newline.
pub fn write(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => write_map(&mut out, value, 0),
        Value::Array(list) if !list.is_empty() => write_list(&mut out, value, 0),
        scalar => {
            let _ = writeln!(out, "{}", inline(scalar));
        }
    }
    out
}

/// Reads one document; an empty one is null.
pub fn read(text: &str) -> Result<Value, String> {
    let blank = text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#') || line == "---");
    if blank {
        return Ok(Value::Null);
    }
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

fn write_map(out: &mut String, value: &Value, indent: usize) {
    for (index, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
        // The first key of a list's member stands behind its dash.
        if index > 0 || !out.ends_with("- ") {
            pad(out, indent);
        }
        out.push_str(&text(key));
        out.push(':');
        write_value(out, value, indent);
    }
}

fn write_value(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            write_map(out, value, indent + 2);
        }
        Value::Array(list) if !list.is_empty() => {
            out.push('\n');
            write_list(out, value, indent);
        }
        Value::String(string) if is_block(string) => write_block(out, string, indent + 2),
        scalar => {
            let _ = writeln!(out, " {}", inline(scalar));
        }
    }
}

fn write_list(out: &mut String, value: &Value, indent: usize) {
    for member in value.as_array().into_iter().flatten() {
        pad(out, indent);
        match member {
            Value::Object(map) if !map.is_empty() => {
                out.push_str("- ");
                write_map(out, member, indent + 2);
            }
            Value::Array(list) if !list.is_empty() => {
                out.push_str("-\n");
                write_list(out, member, indent + 2);
            }
            Value::String(string) if is_block(string) => {
                out.push('-');
                write_block(out, string, indent + 2);
            }
            scalar => {
                let _ = writeln!(out, "- {}", inline(scalar));
            }
        }
    }
}

fn pad(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn inline(value: &Value) -> String {
    match value {
        Value::Object(_) => "{}".to_owned(),
        Value::Array(_) => "[]".to_owned(),
        Value::String(string) => text(string),
        other => other.to_string(),
    }
}

/// Several lines that a literal block holds unchanged.
fn is_block(string: &str) -> bool {
    string.contains('\n')
        && !string.starts_with([' ', '\n'])
        && !string.ends_with("\n\n")
        && !string.chars().any(|c| c.is_control() && c != '\n')
        && string.lines().any(|line| !line.trim().is_empty())
}

fn write_block(out: &mut String, string: &str, indent: usize) {
    out.push_str(if string.ends_with('\n') { " |\n" } else { " |-\n" });
    for line in string.trim_end_matches('\n').split('\n') {
        if !line.is_empty() {
            pad(out, indent);
        }
        out.push_str(line);
        out.push('\n');
    }
}

/// A string on one line: bare where no reader takes it for something else.
fn text(string: &str) -> String {
    // Amounts and durations: `500m`, `2Gi`, `30m`.
    let unit = string.trim_start_matches(|c: char| c.is_ascii_digit());
    if unit.len() < string.len() && ["m", "h", "s", "ms", "Ki", "Mi", "Gi", "%"].contains(&unit) {
        return string.to_owned();
    }
    let first = string.chars().next();
    let plain = first.is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '/' | '_' | '.' | '$'))
        && string.chars().all(|c| c.is_ascii_alphanumeric() || "/_.-$()@+=%,; ~^".contains(c) || c == ':')
        && !string.contains(": ")
        && !string.ends_with([':', ' '])
        && !RESERVED.contains(&&*string.to_lowercase())
        && string.parse::<f64>().is_err()
        && !string.starts_with('.');
    if plain { string.to_owned() } else { Value::from(string).to_string() }
}

#[cfg(test)]
mod tests;
