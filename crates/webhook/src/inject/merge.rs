//! Kubernetes' strategic merge of one document onto another: maps merge, lists merge by the key that the shape names, and
//! directives (`$patch`, `$retainKeys`, `$deleteFromPrimitiveList`, `$setElementOrder`) are obeyed.

use serde_json::{Map, Value};

use super::shape::{Field, Merge, Shape, Type};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    #[error("{path}: {key:?}, by which the list merges, is missing")]
    MissingKey { path: String, key: &'static str },
    #[error("{path}.$patch: {found} is none of replace, merge, delete")]
    Directive { path: String, found: String },
    #[error("{path}.$retainKeys: not a list of names")]
    RetainKeys { path: String },
}

/// `patch` on top of `original`.
///
/// # Errors
/// When a directive has no meaning, or an item of a list that merges by key has none.
pub fn strategic_merge(original: &Value, patch: &Value, shape: &'static Shape) -> Result<Value, MergeError> {
    let empty = Map::new();
    let (original, patch) = (original.as_object().unwrap_or(&empty), patch.as_object().unwrap_or(&empty));
    merge_maps(original, patch, shape, "").map(Value::Object)
}

type Object = Map<String, Value>;

fn merge_maps(original: &Object, patch: &Object, shape: &'static Shape, path: &str) -> Result<Object, MergeError> {
    if let Some(directive) = patch.get(PATCH) {
        return match directive.as_str() {
            Some("replace") => Ok(plain_map(patch)),
            Some("delete") => Ok(Object::new()),
            _ => Err(MergeError::Directive { path: path.to_owned(), found: directive.to_string() }),
        };
    }
    let mut merged = original.clone();
    retain(&mut merged, patch, path)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_from(&mut merged, list, value);
        }
    }
    for (key, value) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        match (merged.get(key), value) {
            (_, Value::Null) => {
                merged.shift_remove(key);
            }
            (None, _) => {
                merged.insert(key.clone(), plain(value));
            }
            (Some(present), _) => {
                let field = shape.field(key);
                let merged_field = merge_values(present, value, field, &at(path, key))?;
                merged.insert(key.clone(), merged_field);
            }
        }
    }
    order_lists(&mut merged, patch, shape);
    Ok(merged)
}

fn at(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// Of the fields of a map, `$retainKeys` says which stay.
fn retain(merged: &mut Object, patch: &Object, path: &str) -> Result<(), MergeError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else { return Ok(()) };
    let names: Option<Vec<&str>> = keys.as_array().and_then(|keys| keys.iter().map(Value::as_str).collect());
    let names = names.ok_or_else(|| MergeError::RetainKeys { path: path.to_owned() })?;
    merged.retain(|key, _| names.contains(&key.as_str()));
    Ok(())
}

fn delete_from(merged: &mut Object, list: &str, gone: &Value) {
    let gone = gone.as_array().map(Vec::as_slice).unwrap_or_default();
    if let Some(Value::Array(items)) = merged.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
}

fn merge_values(present: &Value, patch: &Value, field: Option<&Field>, path: &str) -> Result<Value, MergeError> {
    match (present, patch, field.map(|field| &field.kind)) {
        (Value::Object(present), Value::Object(patch), kind) => {
            let shape = match kind {
                Some(Type::Struct(name)) => Shape::named(name),
                _ => Shape::named(""),
            };
            merge_maps(present, patch, shape, path).map(Value::Object)
        }
        (Value::Array(present), Value::Array(patch), Some(Type::List { of, merge })) => match merge {
            Merge::Replace => Ok(plain_list(patch)),
            Merge::Union => Ok(Value::Array(union(present, patch))),
            Merge::ByKey(key) => {
                merge_lists(present, patch, Shape::named(of.unwrap_or("")), key, path).map(Value::Array)
            }
        },
        _ => Ok(plain(patch)),
    }
}

fn union(present: &[Value], patch: &[Value]) -> Vec<Value> {
    let mut merged = present.to_vec();
    for item in patch {
        if !merged.contains(item) {
            merged.push(item.clone());
        }
    }
    in_merged_order(merged, patch, present, &|a, b| a == b)
}

fn merge_lists(
    present: &[Value],
    patch: &[Value],
    shape: &'static Shape,
    key: &'static str,
    path: &str,
) -> Result<Vec<Value>, MergeError> {
    let mut merged = present.to_vec();
    let mut wanted = Vec::new();
    let mut replaces = false;
    for item in patch {
        match item.get(PATCH).map(|directive| (directive.as_str(), directive)) {
            Some((Some("delete"), _)) => {
                let gone = key_of(item, key, path)?;
                merged.retain(|present| present.get(key) != Some(gone));
            }
            Some((Some("replace"), _)) => replaces = true,
            Some((Some("merge"), _)) | None => wanted.push(item),
            Some((_, directive)) => {
                return Err(MergeError::Directive { path: path.to_owned(), found: directive.to_string() });
            }
        }
    }
    if replaces {
        return Ok(wanted.into_iter().map(plain).collect());
    }
    for item in &wanted {
        let wanted_key = key_of(item, key, path)?;
        let found = merged.iter_mut().find(|present| present.get(key) == Some(wanted_key));
        match (found, item) {
            (Some(found), Value::Object(item)) => {
                let empty = Object::new();
                let merged_item = merge_maps(found.as_object().unwrap_or(&empty), &directed(item), shape, path)?;
                *found = Value::Object(merged_item);
            }
            _ => merged.push(plain(item)),
        }
    }
    Ok(in_merged_order(merged, patch, present, &|a, b| a.get(key) == b.get(key)))
}

/// An item without the directive that said how it takes part in its list.
fn directed(item: &Object) -> Object {
    item.iter().filter(|(key, _)| *key != PATCH).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn key_of<'a>(item: &'a Value, key: &'static str, path: &str) -> Result<&'a Value, MergeError> {
    item.get(key).ok_or_else(|| MergeError::MissingKey { path: path.to_owned(), key })
}

/// What the patch names comes in its order, and before what it does not name, unless the original had that before.
fn in_merged_order(
    merged: Vec<Value>,
    patch: &[Value],
    original: &[Value],
    same: &dyn Fn(&Value, &Value) -> bool,
) -> Vec<Value> {
    let position = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item));
    let (mut named, rest): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| position(patch, item).is_some());
    named.sort_by_key(|item| position(patch, item));
    let mut ordered = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    loop {
        let rest_is_first = match (rest.peek(), named.peek()) {
            (Some(left), Some(right)) => {
                let places = (position(original, left), position(original, right));
                matches!(places, (Some(left), Some(right)) if left < right)
            }
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => return ordered,
        };
        ordered.extend(if rest_is_first { rest.next() } else { named.next() });
    }
}

/// `$setElementOrder/<list>`: the items it names come in that order.
fn order_lists(merged: &mut Object, patch: &Object, shape: &'static Shape) {
    for (key, order) in patch {
        let Some(list) = key.strip_prefix(ELEMENT_ORDER) else { continue };
        let (Some(order), Some(Value::Array(items))) = (order.as_array(), merged.get_mut(list)) else { continue };
        let key = match shape.field(list).map(|field| &field.kind) {
            Some(Type::List { merge: Merge::ByKey(key), .. }) => Some(*key),
            _ => None,
        };
        let same = |a: &Value, b: &Value| key.map_or_else(|| a == b, |key| a.get(key) == b.get(key));
        let original = items.clone();
        *items = in_merged_order(std::mem::take(items), order, &original, &same);
    }
}

/// What a patch puts where nothing was: without nulls and directives.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(plain_map(map)),
        Value::Array(items) => plain_list(items),
        other => other.clone(),
    }
}

fn plain_map(map: &Object) -> Object {
    let kept = map.iter().filter(|(key, value)| !key.starts_with('$') && !value.is_null());
    kept.map(|(key, value)| (key.clone(), plain(value))).collect()
}

fn plain_list(items: &[Value]) -> Value {
    let is_kept = |item: &&Value| item.get(PATCH).and_then(Value::as_str) != Some("delete");
    Value::Array(items.iter().filter(is_kept).map(plain).collect())
}

#[cfg(test)]
mod tests;
