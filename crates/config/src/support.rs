//! The one table that says which field of which kind takes effect.
//!
//! Owns the answer to "is this enforced?": for the CLI as a list of every field, for a document as warnings. A field
//! that is in no row is enforced. The list of fields comes from the types themselves, so it cannot fall behind them.

mod fields;
mod rows;

use serde_json::Value;

pub use self::fields::Usage;
use self::rows::{MESH_ROWS, ROWS, Row};
use crate::kind::{Kind, Shape};
use crate::mesh::MeshConfig;
use crate::object::Object;
use crate::validate::Finding;

/// Whether a field takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Enforced,
    /// Only some values take effect; these do not.
    PartlyEnforced(&'static [&'static str]),
    /// Accepted and validated, and reported with a warning where it is set.
    NotEnforced,
    /// Accepted, and without effect as in Istio; reported with a warning where it is set.
    NoEffect,
    /// Part of Kubernetes' type and without meaning for a mesh: accepted without a word.
    NotUsed,
}

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// `VirtualService`, or `MeshConfig`.
    pub of: &'static str,
    /// `spec.http[].route[].weight`; `{}` stands for the key of a map.
    pub path: String,
    pub status: Status,
    /// Why it is not enforced, or what to use instead. May be empty.
    pub note: &'static str,
}

/// Every field of every kind and of MeshConfig.
pub fn fields() -> impl Iterator<Item = Field> {
    Kind::all().flat_map(fields_of).chain(mesh_fields())
}

/// Every field of a kind.
pub fn fields_of(kind: Kind) -> impl Iterator<Item = Field> {
    let rows: Vec<&'static Row> = ROWS.iter().filter(|r| r.kinds.contains(&kind)).collect();
    // Some keys of a map are a field of their own.
    let keys = rows.iter().filter(|r| r.path.replace("{}", "").contains('{')).map(|r| (r.path.to_owned(), Usage::Used));
    let all: Vec<_> = fields::of_kind(kind).into_iter().chain(keys).collect();
    all.into_iter().map(move |(path, usage)| field(kind.as_str(), path, usage, &rows))
}

/// Every field of MeshConfig.
pub fn mesh_fields() -> impl Iterator<Item = Field> {
    let rows: Vec<&'static Row> = MESH_ROWS.iter().collect();
    fields::of_type::<MeshConfig>().into_iter().map(move |(path, usage)| field("MeshConfig", path, usage, &rows))
}

fn field(of: &'static str, path: String, usage: Usage, rows: &[&'static Row]) -> Field {
    let row = rows.iter().find(|r| covers(r.path, &path));
    let status = match (usage, row) {
        (Usage::NotUsed, _) => Status::NotUsed,
        (Usage::Used, None) => Status::Enforced,
        (Usage::Used, Some(row)) if row.inert => Status::NoEffect,
        (Usage::Used, Some(row)) if row.values.is_empty() => Status::NotEnforced,
        (Usage::Used, Some(row)) => Status::PartlyEnforced(row.values),
    };
    Field { of, path, status, note: row.map_or("", |r| r.note) }
}

/// True if `path` is the row's field or lies in it.
fn covers(row: &str, path: &str) -> bool {
    path.strip_prefix(row).is_some_and(|rest| row.is_empty() || rest.is_empty() || rest.starts_with(['.', '[', '{']))
}

/// Fields of an object that are set and do not take effect yet.
pub fn unsupported(object: &Object) -> Vec<Finding> {
    let kind = object.kind();
    let mut rows = ROWS.iter().filter(|r| r.kinds.contains(&kind)).peekable();
    if rows.peek().is_none() {
        return Vec::new();
    }
    let Ok(value) = serde_json::to_value(&object.spec) else { return Vec::new() };
    let mut found = Vec::new();
    for row in rows {
        if row.path.is_empty() {
            let message = sentence(kind.as_str(), row);
            found.push(Finding { path: String::new(), message });
            continue;
        }
        match (kind.info().shape, row.path.strip_prefix("spec.")) {
            (Shape::Spec, Some(inside)) => walk(&value, inside, "spec", row, &mut found),
            (Shape::Spec, None) | (Shape::Document, _) => walk(&value, row.path, "", row, &mut found),
        }
    }
    found
}

/// Fields of a MeshConfig that are set and do not take effect yet.
pub fn unsupported_mesh(config: &MeshConfig) -> Vec<Finding> {
    let (Ok(value), Ok(default)) = (serde_json::to_value(config), serde_json::to_value(MeshConfig::default())) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for row in MESH_ROWS {
        let mut set = Vec::new();
        walk(&value, row.path, "", row, &mut set);
        let mut by_default = Vec::new();
        walk(&default, row.path, "", row, &mut by_default);
        found.extend(
            set.into_iter().filter(|f| at(&value, &f.path) != at(&default, &f.path) || !by_default.contains(f)),
        );
    }
    found
}

/// Follows the rest of a row's path through a value; reports where it ends in something that is set.
fn walk(value: &Value, rest: &str, at: &str, row: &Row, found: &mut Vec<Finding>) {
    if let Some(rest) = rest.strip_prefix("[]") {
        for (i, item) in value.as_array().into_iter().flatten().enumerate() {
            walk(item, rest, &format!("{at}[{i}]"), row, found);
        }
        return;
    }
    if let Some((prefix, rest)) = rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
        for (key, item) in value.as_object().into_iter().flatten().filter(|(key, _)| key.starts_with(prefix)) {
            walk(item, rest, &format!("{at}[\"{key}\"]"), row, found);
        }
        return;
    }
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    if rest.is_empty() {
        let matches = row.values.is_empty() || value.as_str().is_some_and(|t| row.values.contains(&t));
        if matches && !value.is_null() {
            let what = value.as_str().filter(|_| !row.values.is_empty());
            // The key of a map may hold dots: the name starts after the last one before it.
            let names = at.split_once("[\"").map_or(at, |(names, _)| names);
            let last = &at[names.rfind('.').map_or(0, |dot| dot + 1)..];
            let message = sentence(&what.map_or_else(|| last.to_owned(), |w| format!("{last} {w}")), row);
            found.push(Finding { path: at.to_owned(), message });
        }
        return;
    }
    let end = rest.find(['.', '[', '{']).unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    if let Some(inner) = value.get(name) {
        let path = if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        walk(inner, tail, &path, row, found);
    }
}

/// The value at a plain path of fields.
fn at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| value.get(name))
}

fn sentence(what: &str, row: &Row) -> String {
    let state = if row.inert { "accepted and has no effect, as in Istio" } else { "accepted but not enforced yet" };
    match row.note {
        "" => format!("{what} is {state}"),
        note => format!("{what} is {state}: {note}"),
    }
}

#[cfg(test)]
mod tests;
