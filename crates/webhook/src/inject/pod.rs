//! Looking into and changing a pod as JSON.

use serde_json::{Map, Value, json};

/// The two lists of containers that injection touches.
pub const LISTS: [&str; 2] = ["containers", "initContainers"];

pub fn label<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod["metadata"]["labels"].get(name).and_then(Value::as_str)
}

pub fn annotation<'a>(pod: &'a Value, name: &str) -> Option<&'a str> {
    pod["metadata"]["annotations"].get(name).and_then(Value::as_str)
}

pub fn annotations(pod: &Value) -> Map<String, Value> {
    pod["metadata"]["annotations"].as_object().cloned().unwrap_or_default()
}

/// Labels or annotations, made where there are none.
pub fn metadata_map<'a>(pod: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    object(object(object_of(pod), "metadata"), name)
}

/// The object at a key, made where there is none.
pub fn object<'a>(parent: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let value = parent.entry(key).or_insert(Value::Null);
    object_of(value)
}

fn object_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it has just been made an object")
}

/// The list of containers of a name, made where there is none.
pub fn list_mut<'a>(pod: &'a mut Value, list: &str) -> &'a mut Vec<Value> {
    let value = object(object_of(pod), "spec").entry(list).or_insert(Value::Null);
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it has just been made a list")
}

pub fn list<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    pod["spec"][list].as_array().map(Vec::as_slice).unwrap_or_default()
}

pub fn name_of(container: &Value) -> &str {
    container["name"].as_str().unwrap_or_default()
}

pub fn find<'a>(containers: &'a [Value], name: &str) -> Option<&'a Value> {
    containers.iter().find(|container| name_of(container) == name)
}

/// A container of either list, the ordinary ones first.
pub fn container<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    LISTS.iter().find_map(|kind| find(list(pod, kind), name))
}

pub fn container_mut<'a>(pod: &'a mut Value, name: &str) -> Option<&'a mut Map<String, Value>> {
    let kind = LISTS.into_iter().find(|kind| find(list(pod, kind), name).is_some())?;
    let found = list_mut(pod, kind).iter_mut().find(|container| name_of(container) == name)?;
    found.as_object_mut()
}

/// Adds a variable to the end of a container's environment.
pub fn append_variable(container: &mut Map<String, Value>, name: &str, value: String) {
    let variables = container.entry("env").or_insert_with(|| json!([]));
    if let Some(variables) = variables.as_array_mut() {
        variables.push(json!({ "name": name, "value": value }));
    }
}

/// For people: a pod that a controller makes has no name yet.
pub fn potential_name(pod: &Value) -> String {
    let metadata = &pod["metadata"];
    match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        (Some(name), _) if !name.is_empty() => name.to_owned(),
        (_, Some(prefix)) if !prefix.is_empty() => format!("{prefix}***** (actual name not yet known)"),
        _ => String::new(),
    }
}
