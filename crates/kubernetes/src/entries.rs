//! WorkloadEntries of workloads that register themselves, written to the API server, from where every replica reads them.
//!
//! Owns what is still to be written. Each entry says which replica wrote it last; one that another has taken over since,
//! because the workload is connected there now, is left alone. Writing is tried until it succeeds or is refused for good.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use meltemi_base::Backoff;
use meltemi_config::{Key, Kind, Object};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::MANAGER;
use crate::error::{is_conflict, is_final, is_not_found, reason};
use crate::served::Served;
use crate::watched;

/// istiod's annotations.
const CONTROLLER: &str = "istio.io/workloadController";
const CONNECTED: &str = "istio.io/connectedAt";

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What is to become of entries. There are no more than there are registered workloads, whose number is bounded.
pub struct EntryWriter {
    client: Client,
    served: watch::Receiver<Served>,
    replica: String,
    pending: Mutex<BTreeMap<Key, Option<Object>>>,
    more: Notify,
}

impl EntryWriter {
    pub(crate) fn new(client: Client, served: watch::Receiver<Served>, replica: &str) -> Self {
        let (pending, more) = (Mutex::default(), Notify::new());
        Self { client, served, replica: replica.to_owned(), pending, more }
    }

    /// To be made, or to be replaced.
    pub fn put(&self, entry: Object) {
        self.queue(entry.key(), Some(entry));
    }

    /// To be deleted, if it is still ours.
    pub fn remove(&self, key: &Key) {
        self.queue(key.clone(), None);
    }

    fn queue(&self, key: Key, entry: Option<Object>) {
        self.pending().insert(key, entry);
        self.more.notify_one();
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<Key, Option<Object>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next in turn, so that one that cannot be written holds up no other.
    fn after(&self, last: Option<Key>) -> Option<(Key, Option<Object>)> {
        let pending = self.pending();
        let next = last.and_then(|last| pending.range((Bound::Excluded(last), Bound::Unbounded)).next());
        next.or_else(|| pending.iter().next()).map(|(key, entry)| (key.clone(), entry.clone()))
    }

    /// Writes for as long as it is awaited.
    pub async fn run(&self) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        let mut last = None;
        loop {
            let Some((key, entry)) = self.after(last.take()) else {
                self.more.notified().await;
                continue;
            };
            last = Some(key.clone());
            match self.write(&key, entry.as_ref()).await {
                Ok(()) => backoff.reset(),
                Err(error) if is_final(&error) && !is_conflict(&error) => {
                    tracing::warn!(entry = %key, "the workload's entry is refused: {}", reason(&error));
                }
                Err(error) => {
                    tracing::warn!(entry = %key, "the workload's entry is not written yet: {}", reason(&error));
                    tokio::time::sleep(backoff.next()).await;
                    continue;
                }
            }
            // Unless something else is to become of it by now.
            let mut pending = self.pending();
            if pending.get(&key) == Some(&entry) {
                pending.remove(&key);
            }
        }
    }

    async fn write(&self, key: &Key, entry: Option<&Object>) -> kube::Result<()> {
        let kind = Kind::WorkloadEntry;
        let served = self.served.borrow().as_ref().and_then(|served| served.get(&kind)).copied();
        let version = served.or(kind.info().versions.first().copied()).unwrap_or("v1");
        let resource = watched::resource(kind, version);
        let entries: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &key.namespace, &resource);
        let Some(entry) = entry else { return self.delete(&entries, key).await };
        let document = document(entry, &resource.api_version, &self.replica, Timestamp::now());
        entries.patch(&key.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&document)).await.map(drop)
    }

    async fn delete(&self, entries: &Api<DynamicObject>, key: &Key) -> kube::Result<()> {
        let Some(found) = entries.get_opt(&key.name).await? else { return Ok(()) };
        let writer = found.metadata.annotations.as_ref().and_then(|annotations| annotations.get(CONTROLLER));
        if writer != Some(&self.replica) {
            return Ok(());
        }
        // As it was when it was ours.
        let preconditions =
            Preconditions { resource_version: found.metadata.resource_version, uid: found.metadata.uid };
        match entries.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await {
            Err(error) if !is_not_found(&error) => Err(error),
            _ => Ok(()),
        }
    }
}

fn document(entry: &Object, api_version: &str, replica: &str, now: Timestamp) -> Value {
    let meta = &entry.meta;
    let mut annotations: BTreeMap<&str, &str> =
        meta.annotations.iter().map(|(key, value)| (&**key, &**value)).collect();
    let connected = now.to_string();
    annotations.insert(CONTROLLER, replica);
    annotations.insert(CONNECTED, &connected);
    json!({
        "apiVersion": api_version, "kind": "WorkloadEntry",
        "metadata": {
            "name": &*meta.name, "namespace": &*meta.namespace, "labels": meta.labels, "annotations": annotations,
        },
        "spec": entry.spec,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use meltemi_config::networking::WorkloadEntry;
    use meltemi_config::{Meta, Spec};

    use super::*;

    #[test]
    fn an_entry_says_who_wrote_it_and_when() {
        let labels = [("app".into(), "web".into())].into();
        let meta = Meta { name: "web-1".into(), namespace: "vm".into(), labels, ..Meta::default() };
        let spec = WorkloadEntry { address: "10.0.0.1".into(), ..WorkloadEntry::default() };
        let entry = Object::new(meta, Spec::WorkloadEntry(Arc::new(spec)));
        let document = document(&entry, "networking.istio.io/v1", "istiod-1", "2026-01-01T00:00:00Z".parse().unwrap());
        let expected = json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry",
            "metadata": {
                "name": "web-1", "namespace": "vm", "labels": { "app": "web" },
                "annotations": { "istio.io/connectedAt": "2026-01-01T00:00:00Z", "istio.io/workloadController": "istiod-1" },
            },
            "spec": { "address": "10.0.0.1" },
        });
        assert_eq!(document, expected);
    }
}
