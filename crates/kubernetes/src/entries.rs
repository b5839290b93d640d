//! WorkloadEntries of workloads that register themselves, written to the API server, from where every replica reads them.
//!
//! Owns what is still to be written. Each entry says which replica wrote it last; one that another has taken over since,
//! because the workload is connected there now, is left alone. Writing is tried until it succeeds or is refused for good. Once
//! an entry is written, others can see that this replica lives.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use meltemi_base::Backoff;
use meltemi_config::{Key, Kind, Object, Str};
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};

use crate::MANAGER;
use crate::error::{is_conflict, is_final, is_not_found, reason};
use crate::presence::Presence;
use crate::served::Served;
use crate::watched;

/// istiod's annotations.
pub(crate) const CONTROLLER: &str = "istio.io/workloadController";
pub(crate) const CONNECTED: &str = "istio.io/connectedAt";

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub struct Replica<'a> {
    pub namespace: &'a str,
    /// What it is called in what it writes: [`crate::Election::identity`].
    pub identity: &'a str,
    /// The pod that it runs in, or what it calls itself.
    pub pod: &'a str,
}

/// What is to become of entries. There are no more than there are registered workloads, whose number is bounded.
pub struct EntryWriter {
    client: Client,
    served: watch::Receiver<Served>,
    namespace: String,
    replica: String,
    presence: Presence,
    pending: Mutex<BTreeMap<Key, Option<Object>>>,
    more: Notify,
}

impl EntryWriter {
    pub(crate) fn new(client: Client, served: watch::Receiver<Served>, replica: &Replica<'_>) -> Self {
        let (pending, more) = (Mutex::default(), Notify::new());
        let presence = Presence::new(client.clone(), replica.namespace, replica.identity, replica.pod);
        let (namespace, replica) = (replica.namespace.to_owned(), replica.identity.to_owned());
        Self { client, served, namespace, replica, presence, pending, more }
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
        tokio::join!(self.write_all(), self.presence.keep());
    }

    async fn write_all(&self) {
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
        let Some(entry) = entry else {
            let is_ours =
                |annotations: &Annotations| annotations.get(CONTROLLER).is_some_and(|it| **it == *self.replica);
            return self.delete(key, is_ours).await.map(drop);
        };
        self.presence.need();
        let resource = self.resource();
        let document = document(entry, &resource.api_version, &self.replica, Timestamp::now());
        let parameters = PatchParams::apply(MANAGER).force();
        self.entries(key, &resource).patch(&key.name, &parameters, &Patch::Apply(&document)).await.map(drop)
    }

    /// As the server has the kind.
    fn resource(&self) -> ApiResource {
        let kind = Kind::WorkloadEntry;
        let served = self.served.borrow().as_ref().and_then(|served| served.get(&kind)).copied();
        watched::resource(kind, served.or(kind.info().versions.first().copied()).unwrap_or("v1"))
    }

    fn entries(&self, key: &Key, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &key.namespace, resource)
    }

    /// Where replicas keep their Leases.
    pub(crate) fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Deletes the entry if what it says of itself now is `so`; true where it did.
    pub(crate) async fn delete(&self, key: &Key, so: impl Fn(&Annotations) -> bool) -> kube::Result<bool> {
        let entries = self.entries(key, &self.resource());
        let Some(found) = entries.get_opt(&key.name).await? else { return Ok(false) };
        let said = found.metadata.annotations.unwrap_or_default().into_iter();
        if !so(&said.map(|(name, value)| (name.into(), value.into())).collect()) {
            return Ok(false);
        }
        // As it was when it said so.
        let preconditions =
            Preconditions { resource_version: found.metadata.resource_version, uid: found.metadata.uid };
        match entries.delete(&key.name, &DeleteParams::default().preconditions(preconditions)).await {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Of an entry.
pub(crate) type Annotations = BTreeMap<Str, Str>;

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
