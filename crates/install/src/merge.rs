//! Documents laid over one another: as Helm does with values, and as Kubernetes does with strategic merge patches.
//!
//! Owns: which lists are merged, and by which field of their members. Pure.

use serde_json::Value;

/// Lays `over` on `base`: maps field by field, all else whole. Null in `over` removes the field.
pub fn overlay(base: &mut Value, over: &Value) {
    let (Value::Object(base), Value::Object(over)) = (&mut *base, over) else {
        *base = over.clone();
        return;
    };
    for (key, value) in over {
        if value.is_null() {
            base.shift_remove(key);
            continue;
        }
        match base.get_mut(key) {
            Some(present) if present.is_object() && value.is_object() => overlay(present, value),
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

/// The field that tells members of a list apart, for the lists that Kubernetes merges (`patchMergeKey` of its types).
fn merge_key(field: &str) -> Option<&'static str> {
    match field {
        "containers" | "initContainers" | "env" | "volumes" | "imagePullSecrets" | "ephemeralContainers" => {
            Some("name")
        }
        "volumeMounts" => Some("mountPath"),
        "ports" => Some("port"),
        "topologySpreadConstraints" => Some("topologyKey"),
        _ => None,
    }
}

/// Lays a strategic merge patch on an object of Kubernetes' own kinds.
pub fn strategic(base: &mut Value, patch: &Value) {
    let (Value::Object(base), Value::Object(patch)) = (&mut *base, patch) else {
        *base = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_null() {
            base.shift_remove(key);
            continue;
        }
        match (base.get_mut(key), value) {
            (Some(present @ Value::Object(_)), Value::Object(_)) => strategic(present, value),
            (Some(Value::Array(present)), Value::Array(members)) if merge_key(key).is_some() => {
                merge_members(present, members, merge_key(key).unwrap_or_default());
            }
            _ => drop(base.insert(key.clone(), value.clone())),
        }
    }
}

fn merge_members(present: &mut Vec<Value>, members: &[Value], key: &str) {
    for member in members {
        match present.iter_mut().find(|it| it.get(key).is_some() && it.get(key) == member.get(key)) {
            Some(same) => strategic(same, member),
            None => present.push(member.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
