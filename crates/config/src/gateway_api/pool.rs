//! InferencePool: pods that serve a model, as what routes send to.

use std::collections::BTreeMap;

use crate::wire::{Str, message};

message! {
    /// `inference.networking.k8s.io` InferencePool.
    struct InferencePool {
        selector: PoolSelector,
        target_ports: Vec<PoolPort>,
        /// `http` or `kubernetes.io/h2c`.
        app_protocol: Str,
        endpoint_picker_ref: EndpointPickerReference,
    }

    struct PoolSelector {
        match_labels: BTreeMap<Str, Str>,
    }

    struct PoolPort {
        number: u32,
    }

    /// Who chooses among the pods.
    struct EndpointPickerReference {
        /// Default: the core group.
        group: Option<Str>,
        /// Default: `Service`.
        kind: Option<Str>,
        name: Str,
        port: Option<PoolPort>,
        /// `FailOpen` or `FailClose`; default `FailClose`.
        failure_mode: Str,
    }
}
