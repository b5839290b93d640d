//! Objects as values, compared where leaving out and writing a default are one.

use meltemi_config::{Key, Kind};
use meltemi_model::{ConfigRef, ObjectKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Kind, namespace and name of a document of a kind that is known.
pub fn document_key(document: &Value) -> Option<Key> {
    let group = document["apiVersion"].as_str()?.split_once('/').map_or("", |(group, _)| group);
    let kind = Kind::find(group, document["kind"].as_str()?)?;
    let meta = &document["metadata"];
    Some(Key::new(kind, meta["namespace"].as_str().unwrap_or_default(), meta["name"].as_str()?))
}

/// An object as the expected text has it.
pub fn written_rule<T: serde::Serialize>(config: &ConfigRef<T>) -> Value {
    let annotations: BTreeMap<_, _> = config.annotations.iter().map(|(key, value)| (&**key, &**value)).collect();
    json!({"annotations": annotations, "spec": json!(&*config.spec)})
}

/// The differences between objects that were made and those that are expected.
pub fn conversion(found: &BTreeMap<(Kind, ObjectKey), Value>, expected: &[Value]) -> Vec<String> {
    let mut differences = Vec::new();
    let mut wanted = BTreeMap::new();
    for document in expected {
        match document_key(document) {
            Some(key) => {
                let value = json!({"annotations": document["metadata"]["annotations"], "spec": document["spec"]});
                wanted.insert((key.kind, ObjectKey { namespace: key.namespace, name: key.name }), value);
            }
            None => differences.push(format!("an object of the unknown kind {}", document["kind"])),
        }
    }
    for (key, wanted) in &wanted {
        let own = canonical(found.get(key).unwrap_or(&Value::Null));
        let wanted = canonical(wanted);
        if own != wanted {
            let (kind, name) = key;
            differences.push(format!("{kind} {name}:\n    expected {wanted}\n    got      {own}"));
        }
    }
    let extra = found.keys().filter(|key| !wanted.contains_key(key));
    differences.extend(extra.map(|(kind, name)| format!("{kind} {name}: not expected")));
    differences
}

fn canonical(value: &Value) -> Value {
    let mut value = value.clone();
    deliberate(&mut value);
    strip(&mut value);
    value
}

/// Takes away what is ours by intent: the CRD's default of five seconds for `maxAge`, which Istio's tests do not apply, and that
/// the certificate of a backend must be for its host name.
fn deliberate(value: &mut Value) {
    for route in value["spec"]["http"].as_array_mut().into_iter().flatten() {
        if route["corsPolicy"]["maxAge"] == "5s"
            && let Some(policy) = route["corsPolicy"].as_object_mut()
        {
            policy.remove("maxAge");
        }
    }
    let policy = &mut value["spec"]["trafficPolicy"];
    unnamed(&mut policy["tls"]);
    policy["portLevelSettings"].as_array_mut().into_iter().flatten().for_each(|port| unnamed(&mut port["tls"]));
}

fn unnamed(tls: &mut Value) {
    if tls["subjectAltNames"] == json!([tls["sni"]])
        && let Some(fields) = tls.as_object_mut()
    {
        fields.remove("subjectAltNames");
    }
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(strip);
            map.retain(|_, inner| match inner {
                Value::Null => false,
                Value::Object(inner) => !inner.is_empty(),
                Value::Array(inner) => !inner.is_empty(),
                Value::Bool(inner) => *inner,
                Value::Number(inner) => inner.as_f64() != Some(0.0),
                Value::String(_) => true,
            });
            // An integer, or the same as a fraction.
            for inner in map.values_mut() {
                if let Some(number) = inner.as_f64() {
                    *inner = json!(number);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(strip),
        _ => {}
    }
}
