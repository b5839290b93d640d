//! Which replicas live: each that has registered workloads keeps a Lease of its own, and renews it until it ends. Kubernetes
//! takes it away with the pod.
//!
//! Owns that Lease, and how long others' have rested, measured here: clocks of machines are not compared.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Timestamp, Unit};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::MANAGER;
use crate::error::reason;

const PREFIX: &str = "meltemi-replica-";
/// A replica whose Lease rests for so long is gone.
pub(crate) const LEASE: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(4);
/// Digits of an identity that are its own: [`crate::Election`] makes them.
const OWN_DIGITS: usize = 16;

/// The Lease of the replica that is called so; none of names that no replica of ours has.
pub(crate) fn lease_of(identity: &str) -> Option<String> {
    let (_, own) = identity.rsplit_once('_')?;
    let is_own = own.len() == OWN_DIGITS && own.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_own.then(|| format!("{PREFIX}{own}"))
}

/// This replica's own Lease.
pub(crate) struct Presence {
    client: Client,
    namespace: String,
    identity: String,
    /// The pod that it runs in, if it runs in one.
    pod: String,
    needed: Notify,
}

impl Presence {
    pub fn new(client: Client, namespace: &str, identity: &str, pod: &str) -> Self {
        let [namespace, identity, pod] = [namespace, identity, pod].map(str::to_owned);
        Self { client, namespace, identity, pod, needed: Notify::new() }
    }

    /// From now on others must know that this replica lives.
    pub fn need(&self) {
        self.needed.notify_one();
    }

    /// Renews the Lease for as long as it is awaited, once it is needed. Nothing is kept of a replica that no Lease can be of.
    pub async fn keep(&self) {
        self.needed.notified().await;
        let Some(name) = lease_of(&self.identity) else { return std::future::pending().await };
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut owner = None;
        let mut told = String::new();
        loop {
            if owner.is_none() {
                owner = self.owner().await;
            }
            let lease = document(&name, &self.identity, owner.as_ref(), Timestamp::now());
            match leases.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&lease)).await {
                Ok(_) => told.clear(),
                Err(error) => {
                    let reason = reason(&error);
                    if told != reason {
                        tracing::warn!(lease = name, "not renewed: {reason}");
                        told = reason;
                    }
                }
            }
            tokio::time::sleep(RENEW).await;
        }
    }

    /// The pod as an owner.
    async fn owner(&self) -> Option<Value> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let uid = pods.get_opt(&self.pod).await.ok()??.metadata.uid?;
        Some(json!({ "apiVersion": "v1", "kind": "Pod", "name": self.pod, "uid": uid }))
    }
}

fn document(name: &str, identity: &str, owner: Option<&Value>, now: Timestamp) -> Value {
    // What a `MicroTime` has.
    let now = now.round(Unit::Microsecond).unwrap_or(now);
    let mut lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": { "name": name },
        "spec": {
            "holderIdentity": identity, "leaseDurationSeconds": LEASE.as_secs(),
            "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        },
    });
    if let Some(owner) = owner {
        lease["metadata"]["ownerReferences"] = json!([owner]);
    }
    lease
}

/// What has been seen of Leases, and since when they say it.
#[derive(Debug, Default)]
pub(crate) struct Pulses(BTreeMap<String, (Option<Timestamp>, Instant)>);

impl Pulses {
    /// How long a Lease has said that it was renewed then, or has not been there.
    pub fn rested(&mut self, lease: &str, renewed: Option<Timestamp>, now: Instant) -> Duration {
        let seen = self.0.entry(lease.to_owned()).or_insert((renewed, now));
        if seen.0 != renewed {
            *seen = (renewed, now);
        }
        now.saturating_duration_since(seen.1)
    }

    /// Forgets all others.
    pub fn retain(&mut self, leases: impl Fn(&str) -> bool) {
        self.0.retain(|lease, _| leases(lease));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_of_ours_have_a_lease_and_istiods_have_none() {
        for (identity, expected) in [
            ("istiod-5d4f_00ff00ff00ff00ff", Some("meltemi-replica-00ff00ff00ff00ff")),
            ("a_b_00ff00ff00ff00ff", Some("meltemi-replica-00ff00ff00ff00ff")),
            ("istiod-5d4f8c7b9-abcde", None),
            ("istiod_00ff", None),
            ("istiod_00ff00ff00ff00fg", None),
        ] {
            assert_eq!(lease_of(identity).as_deref(), expected, "{identity}");
        }
    }

    #[test]
    fn a_lease_rests_since_it_was_last_seen_to_change() {
        let (mut pulses, start, second) = (Pulses::default(), Instant::now(), Duration::from_secs(1));
        let (first, later) = (Some(Timestamp::UNIX_EPOCH), Some(Timestamp::UNIX_EPOCH + second));
        for (renewed, after, expected) in
            [(first, 0, 0), (first, 9, 9), (later, 10, 0), (later, 12, 2), (None, 13, 0), (None, 20, 7)]
        {
            assert_eq!(pulses.rested("x", renewed, start + after * second), expected * second, "after {after} s");
        }
        pulses.retain(|lease| lease != "x");
        assert_eq!(pulses.rested("x", None, start + 30 * second), Duration::ZERO, "seen anew");
    }

    #[test]
    fn a_lease_goes_with_its_pod() {
        let owner = json!({ "kind": "Pod", "name": "istiod-1" });
        let lease = document("l", "istiod-1_x", Some(&owner), "2026-01-01T00:00:00.1234567Z".parse().unwrap());
        assert_eq!(lease["metadata"]["ownerReferences"][0], owner);
        assert_eq!(lease["spec"]["renewTime"], "2026-01-01T00:00:00.123457Z");
        let _: Lease = serde_json::from_value(lease).unwrap();
        assert!(document("l", "x", None, Timestamp::now())["metadata"].get("ownerReferences").is_none());
    }
}
