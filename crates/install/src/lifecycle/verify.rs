//! Whether a cluster holds an installation: each object there, as it was made, and ready.

use meltemi_kubernetes::apply::Cluster;
use serde::Serialize;
use serde_json::Value;

use super::{LifecycleError, apply::carried_over, live, ready::unready};
use crate::object::{Object, ObjectKey};
use crate::path::kind_of;

/// What is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    #[serde(serialize_with = "super::text")]
    pub object: ObjectKey,
    /// Empty where all is well.
    pub problems: Vec<String>,
}

/// Looks at each object.
pub async fn verify(cluster: &Cluster, objects: &[Object]) -> Result<Vec<Verdict>, LifecycleError> {
    let mut verdicts = Vec::new();
    for object in objects {
        let key = object.key();
        let problems = match live(cluster, &key).await? {
            None => vec!["is not there".to_owned()],
            Some(live) => {
                let mut problems = Vec::new();
                let wanted = carried_over(object.value(), Some(&live));
                // A namespace is somebody else's as well as ours.
                if key.kind != "Namespace" {
                    differences(&wanted, &live, "", &mut problems);
                }
                problems.extend(unready(&live));
                problems
            }
        };
        verdicts.push(Verdict { object: key, problems });
    }
    Ok(verdicts)
}

/// Differences that are shown of one object.
const MAX_DIFFERENCES: usize = 10;

/// Fields of `wanted` that are otherwise in `live`; what only `live` has was added by the API server or by others.
fn differences(wanted: &Value, live: &Value, at: &str, found: &mut Vec<String>) {
    if found.len() >= MAX_DIFFERENCES || same_amount(wanted, live) {
        return;
    }
    match (wanted, live) {
        (Value::Object(wanted), Value::Object(live)) => {
            for (key, value) in wanted {
                let at = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                match live.get(key) {
                    Some(live) => differences(value, live, &at, found),
                    None if is_nothing(value) => {}
                    None => found.push(format!("{at} is not there")),
                }
            }
        }
        (Value::Array(wanted), Value::Array(live)) => {
            for (index, value) in wanted.iter().enumerate() {
                let named = |other: &&Value| value.get("name").is_some() && value.get("name") == other.get("name");
                match live.iter().find(named).or_else(|| live.get(index)) {
                    Some(live) => differences(value, live, &format!("{at}[{index}]"), found),
                    None => found.push(format!("{at}[{index}] is not there")),
                }
            }
        }
        (wanted, live) if wanted == live => {}
        (wanted @ (Value::Object(_) | Value::Array(_)), live) => {
            found.push(format!("{at} is {}, not {}", kind_of(live), kind_of(wanted)));
        }
        (wanted, live) => found.push(format!("{at} is {}, not {}", shown(live), shown(wanted))),
    }
}

/// The API server leaves out what says nothing.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Number(number) => number.as_f64() == Some(0.0),
    }
}

/// The API server writes amounts in its own way: `2000m` is `2`, `1024Mi` is `1Gi`.
fn same_amount(wanted: &Value, live: &Value) -> bool {
    matches!((wanted.as_str().and_then(amount), live.as_str().and_then(amount)), (Some(wanted), Some(live)) if wanted == live)
}

/// In thousandths.
fn amount(text: &str) -> Option<u128> {
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let thousandths: u128 = match &text[number.len()..] {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        _ => return None,
    };
    number.parse::<u128>().ok()?.checked_mul(thousandths)
}

/// A value in a message: long texts are not shown.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.len() > 60 { "another text".to_owned() } else { text }
}

#[cfg(test)]
mod tests;
