//! To which workload a pod belongs, as its metadata tell.

use serde_json::Value;

use super::pod;

/// What made a pod, by the name that users know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Workload {
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl Workload {
    /// Behind the controller that made the pod is often another: a Deployment behind a ReplicaSet, a CronJob behind a Job.
    pub fn of_pod(pod: &Value) -> Self {
        let metadata = &pod["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut workload = Self {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: text(&metadata["namespace"]),
            name: text(&metadata["name"]),
        };
        let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
        let is_generated = !text(&metadata["generateName"]).is_empty();
        let Some(controller) = owners.iter().find(|owner| is_generated && owner["controller"] == true) else {
            return workload;
        };
        (workload.api_version, workload.kind) = (text(&controller["apiVersion"]), text(&controller["kind"]));
        let name = text(&controller["name"]);
        match workload.behind(pod, &name) {
            Some((kind, version, behind)) => {
                workload.kind = kind.to_owned();
                workload.api_version = version.map_or(workload.api_version, str::to_owned);
                workload.name = behind;
            }
            None if !name.is_empty() => workload.name = name,
            None => {}
        }
        workload
    }

    /// Kind, version where it differs, and name of what is behind a controller.
    fn behind(&self, pod: &Value, name: &str) -> Option<(&'static str, Option<&'static str>, String)> {
        let label = |key: &str| pod::label(pod, key).filter(|value| !value.is_empty());
        let without_hash = |hash: &str| {
            name.ends_with(hash)
                .then(|| name.strip_suffix(hash).and_then(|name| name.strip_suffix('-')).unwrap_or(name).to_owned())
        };
        match self.kind.as_str() {
            "ReplicaSet" => {
                let deployment = label("pod-template-hash").and_then(without_hash);
                let rollout = || label("rollouts-pod-template-hash").and_then(without_hash);
                deployment
                    .map(|name| ("Deployment", None, name))
                    .or_else(|| rollout().map(|name| ("Rollout", Some("v1alpha1"), name)))
            }
            "ReplicationController" => {
                label("deploymentconfig").map(|name| ("DeploymentConfig", None, name.to_owned()))
            }
            "Job" => cron_job(name).map(|name| ("CronJob", Some("batch/v1"), name.to_owned())),
            _ => None,
        }
    }
}

/// Jobs of a CronJob are named after it and the minute, in eight to ten digits.
fn cron_job(name: &str) -> Option<&str> {
    let (cron_job, minute) = name.rsplit_once('-')?;
    let is_minute = (8..=10).contains(&minute.len()) && minute.bytes().all(|byte| byte.is_ascii_digit());
    (is_minute && !cron_job.is_empty()).then_some(cron_job)
}

#[cfg(test)]
mod tests;
