//! The ValidatingWebhookConfiguration as it should be: whom to ask, whom to trust, and what to do when nobody answers.
//!
//! Until this replica has seen a question reach it and be refused, an API server lets everything pass (`Ignore`): a mesh
//! that is being installed must not lock itself out. From then on it refuses what nobody has looked at (`Fail`).

use meltemi_config::ALWAYS_REJECT;
use serde_json::{Value, json};

/// What is known of the way from the API server to the webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// No answer has come back yet.
    Unknown,
    /// The probe was refused by the webhook.
    Refuses,
}

impl Readiness {
    /// What the answer to the probe proves. `error` is what the API server said; `None`: it stored the probe.
    #[must_use]
    pub fn of_probe(error: Option<&str>) -> Self {
        let Some(error) = error else { return Self::Unknown };
        // Where the kind is not served, or another webhook knows no dry run, no probe will ever come back.
        let known =
            ["denied the request", "the server could not find the requested resource", "does not support dry run"];
        if known.iter().any(|text| error.contains(text)) { Self::Refuses } else { Self::Unknown }
    }
}

/// A Gateway to create on trial: it must be refused, or documents do not come here.
#[must_use]
pub fn probe(namespace: &str, revision: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {
            "name": "invalid-gateway",
            "namespace": namespace,
            "labels": {"istio.io/rev": revision},
            "annotations": {ALWAYS_REJECT: "true"},
        },
        "spec": {},
    })
}

/// The configuration that should be there in the place of `current`; `None` if nothing is to be changed. `ca_bundle` is
/// PEM in base64. What was `Fail` never becomes `Ignore` again.
#[must_use]
pub fn desired(current: &Value, ca_bundle: &str, readiness: Readiness) -> Option<Value> {
    let mut wanted = current.clone();
    for webhook in wanted["webhooks"].as_array_mut().into_iter().flatten() {
        let by_url = webhook["clientConfig"]["url"].is_string();
        let trusts = webhook["clientConfig"]["caBundle"].as_str().is_some_and(|bundle| !bundle.is_empty());
        // Who names a URL and whom to trust there has another webhook in mind.
        if !(by_url && trusts) {
            webhook["clientConfig"]["caBundle"] = json!(ca_bundle);
        }
        if readiness == Readiness::Refuses {
            webhook["failurePolicy"] = json!("Fail");
        }
    }
    (wanted != *current).then_some(wanted)
}

#[cfg(test)]
mod tests;
