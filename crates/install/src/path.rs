//! Paths into documents, in the form that `--set` and overlays have: `a.b.[0].c`, `a.[name:x].b`, `a.[:leaf]` or
//! `a.[leaf]`, `a.b\.c`.
//!
//! Owns: reading a path, and setting, finding and removing what it leads to. A path that does not fit the document is an
//! error; nothing is overwritten on the way.

use serde_json::{Map, Number, Value};
use thiserror::Error;

/// One step of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    /// `[2]`.
    Index(usize),
    /// `[-1]`: behind the last.
    Append,
    /// `[name:x]`: the member whose field has this value.
    Member(String, String),
    /// `[:x]` or `[x]`: the member that is this value.
    Leaf(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PathError {
    #[error("{0:?}: the path is empty or a part of it is")]
    Empty(String),
    #[error("{0:?}: {1:?} is neither an index, [KEY:VALUE] nor [VALUE]")]
    Selector(String, String),
    #[error("{0}: is {1}, not {2}")]
    Kind(String, &'static str, &'static str),
    #[error("{0}: nothing there")]
    Missing(String),
}

/// Reads a path. Dots within brackets or behind a backslash are no separators; `a[0]` is `a.[0]`.
pub fn parse(text: &str) -> Result<Vec<Step>, PathError> {
    let mut steps = Vec::new();
    for part in split(text) {
        let Some(inner) = part.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
            if part.is_empty() {
                return Err(PathError::Empty(text.to_owned()));
            }
            steps.push(Step::Key(part));
            continue;
        };
        steps.push(selector(inner).ok_or_else(|| PathError::Selector(text.to_owned(), inner.to_owned()))?);
    }
    if steps.is_empty() { Err(PathError::Empty(text.to_owned())) } else { Ok(steps) }
}

fn selector(inner: &str) -> Option<Step> {
    if inner == "-1" {
        return Some(Step::Append);
    }
    if let Ok(index) = inner.parse() {
        return Some(Step::Index(index));
    }
    match inner.split_once(':') {
        Some(("", value)) => Some(Step::Leaf(value.to_owned())),
        Some((key, value)) => Some(Step::Member(key.to_owned(), value.to_owned())),
        None => (!inner.is_empty()).then(|| Step::Leaf(inner.to_owned())),
    }
}

fn split(text: &str) -> Vec<String> {
    let mut parts = Vec::new();
    let mut part = String::new();
    let (mut bracketed, mut characters) = (false, text.chars().peekable());
    while let Some(character) = characters.next() {
        match character {
            '\\' if characters.peek().is_some() => part.extend(characters.next()),
            '.' if !bracketed => {
                // Behind a closed bracket the part has been taken already.
                if !(part.is_empty() && parts.last().is_some_and(|last: &String| last.ends_with(']'))) {
                    parts.push(std::mem::take(&mut part));
                }
            }
            '[' if !bracketed => {
                bracketed = true;
                if !part.is_empty() {
                    parts.push(std::mem::take(&mut part));
                }
                part.push('[');
            }
            ']' if bracketed => {
                bracketed = false;
                part.push(']');
                parts.push(std::mem::take(&mut part));
            }
            other => part.push(other),
        }
    }
    if !part.is_empty() || text.is_empty() || text.ends_with('.') {
        parts.push(part);
    }
    parts
}

/// The path as it is written in messages.
pub fn text(steps: &[Step]) -> String {
    let mut out = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                out.push_str(&key.replace('.', "\\."));
            }
            Step::Index(index) => out.push_str(&format!("[{index}]")),
            Step::Append => out.push_str("[-1]"),
            Step::Member(key, value) => out.push_str(&format!("[{key}:{value}]")),
            Step::Leaf(value) => out.push_str(&format!("[:{value}]")),
        }
    }
    out
}

pub fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// What lies at a path of plain keys, `a.b.c`.
pub fn find<'a>(root: &'a Value, dotted: &str) -> Option<&'a Value> {
    dotted.split('.').try_fold(root, |value, key| value.get(key)).filter(|value| !value.is_null())
}

/// Sets what lies at a path of plain keys; whatever is in the way is replaced.
pub fn put(root: &mut Value, dotted: &str, value: Value) {
    let mut at = root;
    for key in dotted.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = &mut at[key];
    }
    *at = value;
}

/// Takes what lies at a path of plain keys away.
pub fn take(root: &mut Value, dotted: &str) -> Option<Value> {
    let (parent, key) = match dotted.rsplit_once('.') {
        Some((parent, key)) => (parent.split('.').try_fold(root, |value, key| value.get_mut(key))?, key),
        None => (root, dotted),
    };
    parent.as_object_mut()?.shift_remove(key)
}

/// Sets the value at a path, making the maps on the way that are missing. Null removes what is there.
pub fn set(root: &mut Value, steps: &[Step], value: Value) -> Result<(), PathError> {
    let Some((last, way)) = steps.split_last() else { return Err(PathError::Empty(String::new())) };
    let mut at = root;
    for (index, step) in way.iter().enumerate() {
        at = descend(at, step, steps.get(index + 1), &steps[..index])?;
    }
    place(at, last, value, steps)
}

/// What a missing place becomes, by the step that leads further.
fn fresh(next: Option<&Step>) -> Value {
    match next {
        Some(Step::Key(_)) | None => Value::Object(Map::new()),
        Some(_) => Value::Array(Vec::new()),
    }
}

fn descend<'a>(
    at: &'a mut Value,
    step: &Step,
    next: Option<&Step>,
    before: &[Step],
) -> Result<&'a mut Value, PathError> {
    let here = |step: &Step| text(&[before, std::slice::from_ref(step)].concat());
    if let Step::Key(key) = step {
        let map = map_at(at, before)?;
        let entry = map.entry(key.clone()).or_insert(Value::Null);
        if entry.is_null() {
            *entry = fresh(next);
        }
        return Ok(entry);
    }
    let list = list_at(at, before)?;
    if matches!(step, Step::Append) || matches!(step, Step::Index(index) if *index == list.len()) {
        list.push(fresh(next));
        return list.last_mut().ok_or_else(|| PathError::Missing(here(step)));
    }
    let index = position(list, step).ok_or_else(|| PathError::Missing(here(step)))?;
    Ok(&mut list[index])
}

fn map_at<'a>(at: &'a mut Value, before: &[Step]) -> Result<&'a mut Map<String, Value>, PathError> {
    let kind = kind_of(at);
    at.as_object_mut().ok_or_else(|| PathError::Kind(text(before), kind, "a map"))
}

fn list_at<'a>(at: &'a mut Value, before: &[Step]) -> Result<&'a mut Vec<Value>, PathError> {
    let kind = kind_of(at);
    at.as_array_mut().ok_or_else(|| PathError::Kind(text(before), kind, "a list"))
}

/// Where in a list a step leads.
fn position(list: &[Value], step: &Step) -> Option<usize> {
    match step {
        Step::Index(index) => (*index < list.len()).then_some(*index),
        Step::Member(key, value) => list.iter().position(|member| member.get(key).is_some_and(|it| is(it, value))),
        Step::Leaf(value) => list.iter().position(|member| is(member, value)),
        Step::Key(_) | Step::Append => None,
    }
}

fn is(value: &Value, text: &str) -> bool {
    match value {
        Value::String(string) => string == text,
        Value::Bool(flag) => text == if *flag { "true" } else { "false" },
        Value::Number(number) => text.parse::<Number>().is_ok_and(|wanted| wanted == *number),
        _ => false,
    }
}

fn place(at: &mut Value, last: &Step, value: Value, steps: &[Step]) -> Result<(), PathError> {
    let before = &steps[..steps.len() - 1];
    if let Step::Key(key) = last {
        let map = map_at(at, before)?;
        if value.is_null() {
            map.shift_remove(key);
        } else {
            map.insert(key.clone(), value);
        }
        return Ok(());
    }
    let list = list_at(at, before)?;
    match position(list, last) {
        Some(index) if value.is_null() => drop(list.remove(index)),
        Some(index) => list[index] = value,
        None if value.is_null() => return Err(PathError::Missing(text(steps))),
        None if matches!(last, Step::Append) || matches!(last, Step::Index(index) if *index == list.len()) => {
            list.push(value);
        }
        None => return Err(PathError::Missing(text(steps))),
    }
    Ok(())
}

/// The value of a `--set`: a number, a boolean, a list or map in JSON, a list as Helm writes it (`{a,b}`), else text.
pub fn scalar(text: &str) -> Value {
    let structured = text.starts_with(['[', '{', '"']) || text.parse::<f64>().is_ok();
    if structured && let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    if let Some(inner) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        return members(inner).iter().map(|member| scalar(member.trim())).collect();
    }
    match text {
        _ if text.eq_ignore_ascii_case("true") => Value::Bool(true),
        _ if text.eq_ignore_ascii_case("false") => Value::Bool(false),
        "null" => Value::Null,
        _ => Value::String(plain(text)),
    }
}

/// A text without the backslashes before its commas, which Helm wants there.
pub fn plain(text: &str) -> String {
    text.replace("\\,", ",")
}

/// Split at commas, but for those behind a backslash and those within brackets.
fn members(text: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth, mut escaped) = (Vec::new(), 0, 0_usize, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => {}
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                found.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        escaped = character == '\\' && !escaped;
    }
    found.push(&text[start..]);
    found
}

#[cfg(test)]
mod tests;
