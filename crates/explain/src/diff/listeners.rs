//! Listeners: which filter chains come, go, and change.

use serde_json::Value;

use super::fields::differing;
use super::{Change, What};

/// What differs, told by filter chain; nothing where the difference is elsewhere alone.
pub(super) fn words(name: &str, old: &Value, new: &Value) -> Vec<Change> {
    let (before, after) = (list(&old["filter_chains"]), list(&new["filter_chains"]));
    let mut changes = Vec::new();
    let told = |text: String| Change::told("listener", name, text);
    let mut left: Vec<&Value> = before.iter().filter(|chain| !after.contains(chain)).collect();
    for chain in after.iter().filter(|chain| !before.contains(chain)) {
        let same =
            |own: &&&Value| own["name"] == chain["name"] && own["filter_chain_match"] == chain["filter_chain_match"];
        let Some(was) = left.iter().position(|own| same(&own)).map(|at| left.swap_remove(at)) else {
            changes.push(told(format!("new filter chain {}", title(chain))));
            continue;
        };
        let fields: Vec<String> =
            differing(was, chain).iter().take(super::MAX_FIELDS).map(ToString::to_string).collect();
        changes.push(told(format!("filter chain {}: {}", title(chain), fields.join("; "))));
    }
    changes.extend(left.into_iter().map(|chain| told(format!("filter chain {} is gone", title(chain)))));
    let without = |value: &Value| {
        let mut value = value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.shift_remove("filter_chains");
        }
        value
    };
    let rest = differing(&without(old), &without(new));
    if !rest.is_empty() {
        changes.push(Change { kind: "listener", name: name.to_owned(), what: What::Fields(rest) });
    }
    changes
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// `0.0.0.0_8080 (port 8080, TLS, to inbound|8080||)`.
fn title(chain: &Value) -> String {
    let wanted = &chain["filter_chain_match"];
    let texts =
        |key: &str| -> String { list(&wanted[key]).iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ") };
    let mut parts = Vec::new();
    if let Some(port) = wanted["destination_port"].as_u64() {
        parts.push(format!("port {port}"));
    }
    let ranges = list(&wanted["prefix_ranges"]).iter();
    let ranges: Vec<&str> = ranges.filter_map(|range| range["address_prefix"].as_str()).collect();
    if !ranges.is_empty() {
        parts.push(format!("destination {}", ranges.join(" or ")));
    }
    for (key, what) in [("server_names", "SNI"), ("application_protocols", "ALPN")] {
        let text = texts(key);
        if !text.is_empty() {
            parts.push(format!("{what} {text}"));
        }
    }
    match wanted["transport_protocol"].as_str() {
        Some("tls") => parts.push("TLS".to_owned()),
        Some("raw_buffer") => parts.push("no TLS".to_owned()),
        _ => {}
    }
    let name = chain["name"].as_str().unwrap_or("without a name");
    if parts.is_empty() { name.to_owned() } else { format!("{name} ({})", parts.join(", ")) }
}
