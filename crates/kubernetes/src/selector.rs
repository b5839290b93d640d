//! Kubernetes' label selectors, as the mesh configuration's `discoverySelectors` have them.

use std::collections::BTreeMap;

use meltemi_config::Str;
use meltemi_config::mesh::{LabelSelectorRequirement, MeshLabelSelector};

/// Whether all of a selector holds. An operator that nobody knows holds for nothing.
pub(crate) fn selects(selector: &MeshLabelSelector, labels: &BTreeMap<Str, Str>) -> bool {
    let equal = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
    equal && selector.match_expressions.iter().all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &BTreeMap<Str, Str>) -> bool {
    let value = labels.get(&requirement.key);
    match &*requirement.operator {
        "In" => value.is_some_and(|value| requirement.values.contains(value)),
        // A label that is missing has none of the values.
        "NotIn" => value.is_none_or(|value| !requirement.values.contains(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
