//! What is written to an object's status: ours, in the place of what was ours, with what others wrote left as it is.
//!
//! Works on values in the form of documents, since what others write has fields that nobody here knows. No clock: the caller
//! says what time it is.

use crate::class::{GATEWAY_CONTROLLER, MESH_CONTROLLER};
use crate::parent::text;
use crate::status::Status;
use meltemi_config::gateway_api::ParentReference;
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// How many ancestors the CRD of a policy has room for.
const MAX_ANCESTORS: usize = 16;
/// How many parents the CRD of an XBackend has room for.
const MAX_BACKEND_PARENTS: usize = 32;
/// Conditions that are there only while they hold.
const PASSING: &[&str] = &["InsecureFrontendValidationMode"];

/// The status to write. `existing` is the object's as it was read (null where it has none), `namespace` the object's; `now` is for
/// conditions that changed.
pub fn written(existing: &Value, own: &Status, namespace: &str, now: &str) -> Value {
    let mut new = json!(own);
    match own {
        Status::Route(_) => {
            entries(&existing["parents"], &mut new["parents"], &|entry| place(entry, namespace), now);
        }
        Status::Policy(_) => {
            entries(&existing["ancestors"], &mut new["ancestors"], &|entry| exact(entry, "ancestorRef"), now);
            shorten(&mut new["ancestors"], MAX_ANCESTORS);
        }
        Status::Backend(_) => {
            entries(&existing["parents"], &mut new["parents"], &|entry| exact(entry, "parentRef"), now);
            shorten(&mut new["parents"], MAX_BACKEND_PARENTS);
        }
        Status::Gateway(_) => {
            whole(existing, &mut new, now);
            // What was told as an address stays told.
            if new["addresses"].is_null() && !existing["addresses"].is_null() {
                new["addresses"] = existing["addresses"].clone();
            }
        }
        Status::GatewayClass(_) | Status::ListenerSet(_) => whole(existing, &mut new, now),
        Status::Ingress(_) => {}
    }
    new
}

fn shorten(list: &mut Value, most: usize) {
    if let Some(list) = list.as_array_mut() {
        list.truncate(most);
    }
}

/// A status with conditions of its own, and those of its listeners.
fn whole(existing: &Value, new: &mut Value, now: &str) {
    carry_on(&existing["conditions"], &mut new["conditions"], now);
    for listener in new.get_mut("listeners").and_then(Value::as_array_mut).into_iter().flatten() {
        let all = existing["listeners"].as_array().into_iter().flatten();
        let before = all.into_iter().find(|other| other["name"] == listener["name"]);
        carry_on(before.map_or(&Value::Null, |before| &before["conditions"]), &mut listener["conditions"], now);
    }
}

/// Which parent an entry of a route is about, however the reference to it is spelt.
fn place(entry: &Value, namespace: &str) -> String {
    ParentReference::deserialize(&entry["parentRef"]).map_or_else(|_| String::new(), |own| text(&own, namespace))
}

fn exact(entry: &Value, field: &str) -> String {
    entry[field].to_string()
}

fn is_ours(entry: &Value) -> bool {
    entry["controllerName"].as_str().is_some_and(|name| [GATEWAY_CONTROLLER, MESH_CONTROLLER].contains(&name))
}

/// Entries of several controllers: others' stay, ours are replaced where they are or leave, new ones come last.
fn entries(existing: &Value, new: &mut Value, key: &dyn Fn(&Value) -> String, now: &str) {
    let mut own: Vec<Value> = new.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for before in existing.as_array().into_iter().flatten() {
        if !is_ours(before) {
            all.push(before.clone());
            continue;
        }
        if let Some(position) = own.iter().position(|entry| key(entry) == key(before)) {
            let mut entry = own.remove(position);
            carry_on(&before["conditions"], &mut entry["conditions"], now);
            all.push(entry);
        }
    }
    for mut entry in own {
        carry_on(&Value::Null, &mut entry["conditions"], now);
        all.push(entry);
    }
    *new = Value::Array(all);
}

/// Conditions of types that are not ours stay; one that is as it was keeps its time.
pub fn carry_on(existing: &Value, new: &mut Value, now: &str) {
    let mut own: Vec<Value> = new.as_array().cloned().unwrap_or_default();
    let mut all = Vec::new();
    for before in existing.as_array().into_iter().flatten() {
        match own.iter().position(|condition| condition["type"] == before["type"]) {
            Some(position) => all.push(timed(own.remove(position), Some(before), now)),
            None if PASSING.iter().any(|kind| before["type"] == *kind) => {}
            None => all.push(before.clone()),
        }
    }
    all.extend(own.into_iter().map(|condition| timed(condition, None, now)));
    *new = Value::Array(all);
}

fn timed(mut condition: Value, before: Option<&Value>, now: &str) -> Value {
    let same = before.filter(|before| before["status"] == condition["status"]);
    let time = same.and_then(|before| before["lastTransitionTime"].as_str()).unwrap_or(now).to_owned();
    if let Some(fields) = condition.as_object_mut() {
        let fields: &mut Map<String, Value> = fields;
        fields.insert("lastTransitionTime".into(), time.into());
    }
    condition
}

#[cfg(test)]
mod tests;
