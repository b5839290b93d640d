//! From an installation to values for Helm, for those who leave the rest to it.
//!
//! Owns: which values each chart gets. What only patches can do is said. Pure.

use serde_json::{Map, Value};

use crate::chart::{Chart, ChartError};
use crate::component::Instance;
use crate::merge::overlay;
use crate::operator::Notice;
use crate::overlay::reached_by_values;
use crate::path;

/// Values that say which charts there are, and which go into another chart's values under other names.
const NOT_OF_CHARTS: [&str; 4] =
    ["pilot.enabled", "cni.enabled", "gateways.istio-ingressgateway", "gateways.istio-egressgateway"];

/// One release of Helm's.
#[derive(Debug, Clone)]
pub struct Translated {
    pub release: String,
    pub chart: Chart,
    /// What differs from the chart's defaults.
    pub values: Value,
    pub notices: Vec<Notice>,
}

/// Without what only the choice of components looks at.
pub(crate) fn for_charts(values: &Value) -> Value {
    let mut values = values.clone();
    for at in NOT_OF_CHARTS {
        path::take(&mut values, at);
    }
    values
}

/// The release that an instance is.
pub fn translate(instance: &Instance) -> Result<Translated, ChartError> {
    let chart = instance.component.chart();
    let given = for_charts(&instance.values);
    let values = differing(&given, &chart.defaults()?, true).unwrap_or_else(|| Value::Object(Map::new()));
    let settings = instance.spec.get("k8s").and_then(Value::as_object);
    let patched = |(name, value): (&String, &Value)| {
        let reached = reached_by_values(instance, name);
        let path = format!("{}.k8s.{name}", instance.path);
        let message = "is no value of the chart: let a post-renderer patch it".to_owned();
        (!reached && !value.is_null()).then(|| Notice::new(&path, message))
    };
    let notices = settings.into_iter().flatten().filter_map(patched).collect();
    Ok(Translated { release: instance.release().to_owned(), chart, values, notices })
}

/// What `given` says otherwise than `defaults`; values of other charts are left out.
fn differing(given: &Value, defaults: &Value, known_only: bool) -> Option<Value> {
    let (Value::Object(given), Value::Object(known)) = (given, defaults) else {
        return (given != defaults).then(|| given.clone());
    };
    let mut out = Map::new();
    for (key, value) in given {
        match known.get(key) {
            None if known_only => {}
            None => drop(out.insert(key.clone(), value.clone())),
            Some(default) => {
                if let Some(value) = differing(value, default, false) {
                    out.insert(key.clone(), value);
                }
            }
        }
    }
    (!out.is_empty()).then_some(Value::Object(out))
}

impl Chart {
    /// The JSON schema of its values: the kinds of its defaults. Keys that it does not know are refused below the top.
    pub fn schema(self) -> Result<Value, ChartError> {
        let mut known = self.defaults()?;
        if self != Self::Gateway {
            // One file may have the values of these charts together.
            for chart in [Self::Base, Self::Istiod, Self::Cni] {
                overlay(&mut known, &chart.defaults()?);
            }
        }
        let mut schema = shape(&known);
        // Helm adds `global` of its own.
        path::put(&mut schema, "additionalProperties", Value::Bool(self != Self::Gateway));
        if self == Self::Gateway {
            path::put(&mut schema, "properties.global", serde_json::json!({"type": "object"}));
        }
        schema["$schema"] = Value::from("https://json-schema.org/draft-07/schema#");
        Ok(schema)
    }
}

fn shape(default: &Value) -> Value {
    let kinds = match default {
        Value::Object(map) if map.is_empty() => return serde_json::json!({"type": ["object", "null"]}),
        Value::Object(map) => {
            let properties: Map<String, Value> = map.iter().map(|(key, value)| (key.clone(), shape(value))).collect();
            // Amounts and labels have names of the user's own.
            let open =
                ["requests", "limits", "type", "enabled"].iter().any(|key| map.contains_key(*key)) || map.len() == 1;
            return serde_json::json!({"type": ["object", "null"], "properties": properties, "additionalProperties": open});
        }
        Value::Array(_) => ["array", "null", "null"],
        Value::Bool(_) => ["boolean", "null", "null"],
        Value::Number(_) => ["number", "string", "null"],
        Value::String(_) | Value::Null => ["string", "number", "null"],
    };
    let mut kinds = kinds.to_vec();
    kinds.dedup();
    serde_json::json!({"type": kinds})
}

#[cfg(test)]
mod tests;
