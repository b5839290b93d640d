//! Waits until objects do what they are for.
//!
//! Owns: what ready means for each kind. The look at an object is pure; how often it is looked at is here.

use std::time::Duration;

use meltemi_kubernetes::apply::Cluster;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Event, LifecycleError, Listener, live};
use crate::object::Object;

/// Between two looks at the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Until all are ready, at most `limit`.
pub async fn wait(
    cluster: &Cluster,
    objects: &[Object],
    limit: Duration,
    listener: Listener<'_>,
) -> Result<(), LifecycleError> {
    let deadline = Instant::now() + limit;
    let mut said = Vec::new();
    loop {
        let mut lacking = Vec::new();
        for object in objects.iter().filter(|object| is_waited_for(object.kind())) {
            let key = object.key();
            let state = live(cluster, &key).await?;
            if let Some(lack) = state.as_ref().map_or(Some("is not there".to_owned()), unready) {
                lacking.push(format!("{key} {lack}"));
            }
        }
        if lacking.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(LifecycleError::NotReady(limit, lacking));
        }
        if lacking != said {
            listener(Event::Waiting(lacking.clone()));
            said = lacking;
        }
        sleep(LOOK_EVERY).await;
    }
}

fn is_waited_for(kind: &str) -> bool {
    matches!(kind, "Namespace" | "CustomResourceDefinition" | "Deployment" | "DaemonSet")
}

/// What an object lacks to be ready.
pub fn unready(object: &Value) -> Option<String> {
    match object["kind"].as_str()? {
        "CustomResourceDefinition" => {
            let is = |condition: &&Value| condition["type"] == "Established" && condition["status"] == "True";
            let conditions = object["status"]["conditions"].as_array();
            let established = conditions.is_some_and(|conditions| conditions.iter().any(|it| is(&it)));
            (!established).then(|| "is not established".to_owned())
        }
        "Namespace" => (object["status"]["phase"] == "Terminating").then(|| "is being removed".to_owned()),
        "Deployment" => {
            let wanted = object["spec"]["replicas"].as_u64().unwrap_or(1);
            rolled_out(object, wanted, "updatedReplicas", "availableReplicas")
        }
        "DaemonSet" => {
            let wanted = object["status"]["desiredNumberScheduled"].as_u64().unwrap_or(0);
            rolled_out(object, wanted, "updatedNumberScheduled", "numberAvailable")
        }
        _ => None,
    }
}

fn rolled_out(object: &Value, wanted: u64, updated: &str, available: &str) -> Option<String> {
    let seen = object["status"]["observedGeneration"].as_u64().unwrap_or(0);
    if seen < object["metadata"]["generation"].as_u64().unwrap_or(0) {
        return Some("is not looked at yet".to_owned());
    }
    let count = |field: &str| object["status"][field].as_u64().unwrap_or(0);
    let ready = count(updated).min(count(available));
    (ready < wanted).then(|| format!("has {ready} of {wanted} pods ready"))
}

#[cfg(test)]
mod tests;
