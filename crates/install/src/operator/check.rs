//! Which fields of a `spec` take effect, and what becomes of the others.
//!
//! Owns: unknown fields, wrong shapes, retired fields, and fields that are old names of others. Pure.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use meltemi_config::nearest;
use serde_json::Value;

use super::fields::{Fate, Field, SECTIONS, Shape};
use super::notice::{Findings, Notice};
use crate::path;

/// Every field by its whole path.
static FIELDS: LazyLock<BTreeMap<String, &'static Field>> = LazyLock::new(|| {
    let fields = |section: &'static super::fields::Section| {
        section.fields.iter().map(move |field| (join(section.at, field.path), field))
    };
    SECTIONS.iter().flat_map(fields).collect()
});

fn join(at: &str, key: &str) -> String {
    if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") }
}

/// Every field that is known, by its whole path below `spec`.
pub fn fields() -> impl Iterator<Item = (&'static str, &'static Field)> {
    FIELDS.iter().map(|(path, field)| (path.as_str(), *field))
}

/// Takes what has no effect out of a `spec`, gives old fields their new names, and says so.
pub fn check(spec: &mut Value, findings: &mut Findings) {
    let mut moves = Vec::new();
    walk(spec, &Place { pattern: String::new(), shown: "spec".to_owned() }, findings, &mut moves);
    for (to, value) in moves {
        if path::find(spec, to).is_none() {
            path::put(spec, to, value);
        }
    }
}

struct Place {
    /// With `*` for members of lists.
    pattern: String,
    /// As messages name it.
    shown: String,
}

fn walk(value: &mut Value, at: &Place, findings: &mut Findings, moves: &mut Vec<(&'static str, Value)>) {
    match value {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            for key in keys {
                let place = Place { pattern: join(&at.pattern, &key), shown: format!("{}.{key}", at.shown) };
                let member = &mut map[key.as_str()];
                match judge(member, &place, findings) {
                    Verdict::Keep => {}
                    Verdict::Within => walk(member, &place, findings, moves),
                    Verdict::Drop => drop(map.shift_remove(&key)),
                    Verdict::Move(to) => moves.extend(map.shift_remove(&key).map(|value| (to, value))),
                }
            }
        }
        Value::Array(list) => {
            for (index, member) in list.iter_mut().enumerate() {
                let place = Place { pattern: join(&at.pattern, "*"), shown: format!("{}[{index}]", at.shown) };
                walk(member, &place, findings, moves);
            }
        }
        Value::Null => {}
        other => findings.refuse(&at.shown, format!("is {}, not a map", path::kind_of(other))),
    }
}

enum Verdict {
    Keep,
    Within,
    Drop,
    Move(&'static str),
}

fn judge(value: &Value, place: &Place, findings: &mut Findings) -> Verdict {
    let Some(field) = FIELDS.get(&place.pattern) else {
        let inner = format!("{}.", place.pattern);
        if FIELDS.range(inner.clone()..).next().is_some_and(|(path, _)| path.starts_with(&inner)) {
            return Verdict::Within;
        }
        findings.notice(unknown(place));
        return Verdict::Drop;
    };
    match field.fate {
        Fate::Retired(why) => {
            findings.notice(Notice::new(&place.shown, format!("has no effect: {why}")));
            Verdict::Drop
        }
        _ if !fits(value, field.shape) => {
            let expected = expected(field.shape);
            findings.refuse(&place.shown, format!("is {}, not {expected}", path::kind_of(value)));
            Verdict::Drop
        }
        Fate::Moved(to) => {
            findings.notice(Notice::new(&place.shown, format!("is taken as spec.{to}, which is its name now")));
            Verdict::Move(to)
        }
        Fate::Used => Verdict::Keep,
    }
}

fn unknown(place: &Place) -> Notice {
    let (parent, key) = place.pattern.rsplit_once('.').unwrap_or(("", &place.pattern));
    let start = if parent.is_empty() { String::new() } else { format!("{parent}.") };
    let siblings = FIELDS.keys().filter_map(|path| path.strip_prefix(&start)?.split('.').next());
    let suggestion = nearest(key, siblings).map(str::to_owned);
    Notice { suggestion, ..Notice::new(&place.shown, "is no field of an IstioOperator, and has no effect".to_owned()) }
}

fn fits(value: &Value, shape: Shape) -> bool {
    match (shape, value) {
        (_, Value::Null) | (Shape::Any, _) => true,
        (Shape::Flag, value) => value.is_boolean(),
        (Shape::Text, value) => value.is_string(),
        (Shape::Number, value) => value.is_number(),
        (Shape::Scalar, value) => value.is_string() || value.is_number(),
        (Shape::Map, value) => value.is_object(),
        (Shape::List, value) => value.is_array(),
    }
}

fn expected(shape: Shape) -> &'static str {
    match shape {
        Shape::Flag => "a boolean",
        Shape::Text => "a string",
        Shape::Number => "a number",
        Shape::Scalar => "a string or a number",
        Shape::Map => "a map",
        Shape::List => "a list",
        Shape::Any => "anything",
    }
}
