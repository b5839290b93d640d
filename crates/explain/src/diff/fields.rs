//! Two JSON documents, field by field.

use std::collections::BTreeSet;
use std::fmt;

use serde_json::{Value, json};

/// A longer value is cut where a person reads it.
const MAX_SHOWN: usize = 120;

/// A field that differs.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// `filter_chains[0.0.0.0_80].filters[0].typed_config.stat_prefix`.
    pub path: String,
    /// `None`: not there.
    pub old: Option<Value>,
    pub new: Option<Value>,
}

impl Field {
    pub fn json(&self) -> Value {
        json!({"path": self.path, "old": self.old, "new": self.new})
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Value| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            match text.char_indices().nth(MAX_SHOWN) {
                Some((at, _)) => format!("{}…", &text[..at]),
                None => text,
            }
        };
        match (&self.old, &self.new) {
            (None, Some(new)) => write!(f, "{} is set: {}", self.path, shown(new)),
            (Some(old), None) => write!(f, "{} is no longer set (was {})", self.path, shown(old)),
            (Some(old), Some(new)) => write!(f, "{} {} → {}", self.path, shown(old), shown(new)),
            (None, None) => write!(f, "{}", self.path),
        }
    }
}

/// Every field that differs, in the order of the documents.
pub(super) fn differing(old: &Value, new: &Value) -> Vec<Field> {
    let mut fields = Vec::new();
    compare("", Some(old), Some(new), &mut fields);
    fields
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, fields: &mut Vec<Field>) {
    match (old, new) {
        (Some(old), Some(new)) if old == new => {}
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                compare(&path, old.get(key), new.get(key), fields);
            }
        }
        (Some(Value::Array(old)), Some(Value::Array(new))) => lists(path, old, new, fields),
        (old, new) => fields.push(Field { path: path.to_owned(), old: old.cloned(), new: new.cloned() }),
    }
}

/// Elements that have names are compared by name, others by place.
fn lists(path: &str, old: &[Value], new: &[Value], fields: &mut Vec<Field>) {
    let names = |list: &[Value]| -> Option<Vec<String>> {
        let named = list.iter().map(|value| value["name"].as_str().filter(|name| !name.is_empty()).map(str::to_owned));
        let names: Vec<String> = named.collect::<Option<_>>()?;
        let distinct: BTreeSet<&String> = names.iter().collect();
        (distinct.len() == names.len()).then_some(names)
    };
    let (Some(before), Some(after)) = (names(old), names(new)) else {
        for index in 0..old.len().max(new.len()) {
            compare(&format!("{path}[{index}]"), old.get(index), new.get(index), fields);
        }
        return;
    };
    let all = before.iter().chain(after.iter().filter(|name| !before.contains(name)));
    let at = |names: &[String], name: &String| names.iter().position(|own| own == name);
    for name in all {
        let (was, is) = (at(&before, name).map(|at| &old[at]), at(&after, name).map(|at| &new[at]));
        compare(&format!("{path}[{name}]"), was, is, fields);
    }
    let kept = |names: &[String], others: &[String]| -> Vec<String> {
        names.iter().filter(|name| others.contains(name)).cloned().collect()
    };
    let (was, is) = (kept(&before, &after), kept(&after, &before));
    if was != is {
        fields.push(Field { path: format!("order of {path}"), old: Some(json!(was)), new: Some(json!(is)) });
    }
}
