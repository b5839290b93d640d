//! `meltemi.io` ResiliencePolicy, our own kind: retries, balancing and anomaly detection that nobody has to tune.

use std::time::Duration;

use crate::security::LabelSelector;
use crate::wire::{Double, Str, enumeration, message};

message! {
    /// `meltemi.io` ResiliencePolicy: what clients do by themselves about slow and failing endpoints.
    struct ResiliencePolicy {
        /// The client workloads. None: all of the namespace; in the root namespace, of the mesh.
        selector: Option<LabelSelector>,
        /// Destinations, as `host` of a DestinationRule. Empty: all.
        hosts: Vec<Str>,
        automatic_retries: Option<AutomaticRetries>,
        adaptive_load_balancing: Option<AdaptiveLoadBalancing>,
        anomaly_detection: Option<AnomalyDetection>,
    }

    /// The same features in the spelling of `networking.istio.io/v1alpha3` Telemetry, for a whole namespace.
    struct FutureFeatures {
        automatic_retries: Option<AutomaticRetries>,
        adaptive_load_balancing: Option<AdaptiveLoadBalancing>,
        anomaly_detection: Option<AnomalyDetection>,
    }

    /// Repeats what is safe to repeat, by method and by how far the request came.
    struct AutomaticRetries {
        /// Default: true, as the feature is named at all.
        enabled: Option<bool>,
        /// The first attempt included; default 3.
        max_attempts: Option<u32>,
        budget: Option<AutomaticRetryBudget>,
    }

    /// How many retries may be in flight at once: Envoy's `circuit_breakers.thresholds.retry_budget`.
    struct AutomaticRetryBudget {
        /// Of the requests in flight and pending; default 20.
        percent: Option<Double>,
        /// Always allowed, however few requests there are; default 3.
        min_concurrency: Option<u32>,
    }

    /// Sends more to the endpoints that answer faster: peak-EWMA, power of two choices.
    struct AdaptiveLoadBalancing {
        /// Default: true.
        enabled: Option<bool>,
        /// After this time an observation counts 5 %; default 30 s.
        #[serde(with = "crate::wire::duration")]
        window_size: Option<Duration>,
    }

    /// Watches latency and errors of endpoints and routes for what is not normal.
    struct AnomalyDetection {
        /// Default: true.
        enabled: Option<bool>,
        sensitivity: Sensitivity,
        action: AnomalyAction,
    }
}

enumeration! {
    /// How far from normal is an anomaly.
    enum Sensitivity {
        Low = "low",
        #[default]
        Medium = "medium",
        High = "high",
    }

    enum AnomalyAction {
        /// Events, metrics and conditions.
        #[default]
        Observe = "OBSERVE",
        /// Also ejects the endpoint, within the limits of the cluster's outlier detection.
        Eject = "EJECT",
    }
}

impl FutureFeatures {
    /// The policy that has the same effect. An anomaly shifts traffic away: that spelling cannot say otherwise.
    pub fn policy(&self) -> ResiliencePolicy {
        let mut anomaly_detection = self.anomaly_detection.clone();
        if let Some(detection) = &mut anomaly_detection {
            detection.action = AnomalyAction::Eject;
        }
        ResiliencePolicy {
            selector: None,
            hosts: Vec::new(),
            automatic_retries: self.automatic_retries.clone(),
            adaptive_load_balancing: self.adaptive_load_balancing.clone(),
            anomaly_detection,
        }
    }
}
