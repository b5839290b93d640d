//! Load assignments: which endpoints come, go, and change.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Change;
use super::fields::differing;

/// More addresses are not named one by one.
const MAX_NAMED: usize = 8;

/// What differs in words; nothing where the difference is elsewhere.
pub(super) fn words(name: &str, old: &Value, new: &Value) -> Vec<Change> {
    let (before, after) = (endpoints(old), endpoints(new));
    let mut parts = Vec::new();
    for (sign, from, to) in [("new", &after, &before), ("gone", &before, &after)] {
        let only: Vec<String> = from.iter().filter(|(address, _)| !to.contains_key(*address)).map(title).collect();
        if only.is_empty() {
            continue;
        }
        let named = only.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = only.len().checked_sub(MAX_NAMED).filter(|more| *more > 0);
        parts.push(format!("{sign}: {named}{}", more.map(|more| format!(" and {more} more")).unwrap_or_default()));
    }
    for (address, was) in &before {
        let Some(is) = after.get(address).filter(|is| *is != was) else { continue };
        let fields: Vec<String> = differing(was, is).iter().take(4).map(ToString::to_string).collect();
        parts.push(format!("{address}: {}", fields.join(", ")));
    }
    if parts.is_empty() { Vec::new() } else { vec![Change::told("endpoints", name, parts.join("; "))] }
}

/// By address, with the locality, priority and weight of where they stand.
fn endpoints(assignment: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for locality in assignment["endpoints"].as_array().into_iter().flatten() {
        for endpoint in locality["lb_endpoints"].as_array().into_iter().flatten() {
            let mut value = endpoint.clone();
            for key in ["locality", "priority"] {
                if let Some(own) = locality.get(key) {
                    value[key] = own.clone();
                }
            }
            if let Some(weight) = locality.get("load_balancing_weight") {
                value["locality_weight"] = weight.clone();
            }
            found.insert(address(&endpoint["endpoint"]["address"]), value);
        }
    }
    found
}

fn address(value: &Value) -> String {
    let socket = &value["socket_address"];
    match value["pipe"]["path"].as_str() {
        Some(path) => path.to_owned(),
        None => format!("{}:{}", socket["address"].as_str().unwrap_or_default(), socket["port_value"]),
    }
}

/// `10.244.0.5:8080 (catalog-v1.shop)`.
fn title((address, endpoint): (&String, &Value)) -> String {
    let text = endpoint["metadata"]["filter_metadata"]["istio"]["workload"].as_str().unwrap_or_default();
    let mut parts = text.split(';');
    match (parts.next(), parts.next()) {
        (Some(name), Some(namespace)) if !name.is_empty() => format!("{address} ({name}.{namespace})"),
        _ => address.clone(),
    }
}
