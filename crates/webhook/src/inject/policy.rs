//! Whether a pod is to be injected.

use serde_json::Value;

use super::config::{InjectorConfig, LabelSelector, Policy};
use super::names;
use super::pod;

/// Namespaces of Kubernetes' own, which are never injected.
const IGNORED_NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// A pod in the host's network is never injected: its rules would be the node's.
pub fn in_host_network(pod: &Value) -> bool {
    pod["spec"]["hostNetwork"] == true
}

/// The pod's own word first, then the selectors, then the policy.
pub fn is_required(config: &InjectorConfig, pod: &Value) -> bool {
    if is_out_of_reach(pod) {
        return false;
    }
    if let Some(word) = own_word(pod) {
        return word;
    }
    let labels = |key: &str| pod::label(pod, key).map(str::to_owned);
    let selected = |selectors: &[LabelSelector]| selectors.iter().any(|selector| selector.selects(&labels));
    if selected(&config.never_inject_selector) {
        return false;
    }
    selected(&config.always_inject_selector) || config.policy == Policy::Enabled
}

/// For who asks for injection himself: all pods, but those that say no.
pub fn is_wanted_by_itself(pod: &Value) -> bool {
    !is_out_of_reach(pod) && own_word(pod).unwrap_or(true)
}

fn is_out_of_reach(pod: &Value) -> bool {
    let namespace = pod["metadata"]["namespace"].as_str().unwrap_or_default();
    in_host_network(pod) || IGNORED_NAMESPACES.contains(&namespace)
}

/// What the label `sidecar.istio.io/inject` says, else the annotation.
fn own_word(pod: &Value) -> Option<bool> {
    let word = pod::label(pod, names::INJECT).or_else(|| pod::annotation(pod, names::INJECT))?;
    match word {
        "true" => Some(true),
        "false" => Some(false),
        "" => None,
        other => {
            let pod = pod::potential_name(pod);
            tracing::warn!(pod, "{}: {other:?} is neither true nor false; the injection policy decides", names::INJECT);
            None
        }
    }
}

#[cfg(test)]
mod tests;
