//! The schema of `status`: conditions and validation messages, as Istio's tools read them. More may be kept.

use serde_json::{Value, json};

pub(super) fn schema() -> Value {
    let text = || json!({"type": "string"});
    let time = || json!({"type": "string", "format": "date-time"});
    json!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "properties": {
            "conditions": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "lastProbeTime": time(),
                        "lastTransitionTime": time(),
                        "message": text(),
                        "observedGeneration": generation(),
                        "reason": text(),
                        "status": text(),
                        "type": text(),
                    },
                },
            },
            "observedGeneration": generation(),
            "validationMessages": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "documentationUrl": text(),
                        "level": {"type": "string", "enum": ["UNKNOWN", "ERROR", "WARNING", "INFO"]},
                        "type": {"type": "object", "properties": {"code": text(), "name": text()}},
                    },
                },
            },
        },
    })
}

/// protojson writes 64 bits as a string.
fn generation() -> Value {
    json!({"anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true})
}
