//! What makes pods: Deployment, StatefulSet, ReplicaSet, DaemonSet, Job.

use std::collections::BTreeMap;

use super::PodTemplate;
use crate::wire::{Ignored, Str, message};

message! {
    /// `apps/v1` Deployment.
    struct Deployment {
        spec: DeploymentSpec,
        status: Ignored,
    }

    struct DeploymentSpec {
        /// Absent is 1.
        replicas: Option<i32>,
        selector: WorkloadLabelSelector,
        template: PodTemplate,
        min_ready_seconds: Ignored,
        paused: Ignored,
        progress_deadline_seconds: Ignored,
        revision_history_limit: Ignored,
        strategy: Ignored,
    }

    struct WorkloadLabelSelector {
        match_labels: BTreeMap<Str, Str>,
        match_expressions: Ignored,
    }

    /// `apps/v1` StatefulSet.
    struct StatefulSet {
        spec: StatefulSetSpec,
        status: Ignored,
    }

    struct StatefulSetSpec {
        /// Absent is 1.
        replicas: Option<i32>,
        selector: WorkloadLabelSelector,
        template: PodTemplate,
        service_name: Str,
        min_ready_seconds: Ignored,
        ordinals: Ignored,
        persistent_volume_claim_retention_policy: Ignored,
        pod_management_policy: Ignored,
        revision_history_limit: Ignored,
        update_strategy: Ignored,
        volume_claim_templates: Ignored,
    }

    /// `apps/v1` ReplicaSet.
    struct ReplicaSet {
        spec: ReplicaSetSpec,
        status: Ignored,
    }

    struct ReplicaSetSpec {
        /// Absent is 1.
        replicas: Option<i32>,
        selector: WorkloadLabelSelector,
        template: PodTemplate,
        min_ready_seconds: Ignored,
    }

    /// `apps/v1` DaemonSet.
    struct DaemonSet {
        spec: DaemonSetSpec,
        status: Ignored,
    }

    struct DaemonSetSpec {
        selector: WorkloadLabelSelector,
        template: PodTemplate,
        min_ready_seconds: Ignored,
        revision_history_limit: Ignored,
        update_strategy: Ignored,
    }

    /// `batch/v1` Job.
    struct Job {
        spec: JobSpec,
        status: Ignored,
    }

    struct JobSpec {
        template: PodTemplate,
        active_deadline_seconds: Ignored,
        backoff_limit: Ignored,
        backoff_limit_per_index: Ignored,
        completion_mode: Ignored,
        completions: Ignored,
        managed_by: Ignored,
        manual_selector: Ignored,
        max_failed_indexes: Ignored,
        parallelism: Ignored,
        pod_failure_policy: Ignored,
        pod_replacement_policy: Ignored,
        selector: Ignored,
        success_policy: Ignored,
        suspend: Ignored,
        ttl_seconds_after_finished: Ignored,
    }
}
