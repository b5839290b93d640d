//! Workloads that register themselves: a proxy that names a WorkloadGroup (`AUTO_REGISTER_GROUP` in its node's metadata)
//! becomes a WorkloadEntry made from the group's template while it is connected, and for a grace period after
//! (`PILOT_WORKLOAD_ENTRY_GRACE_PERIOD`), as istiod's autoregistration has it.
//!
//! Owns who is registered, by how many streams, and whether its probe says that it serves. Where the entries are written
//! is [`Entries`]' part. A proxy with a `readinessProbe` has no entry in force until it has said that it is healthy. At
//! most as many are registered as streams may be served.

mod entry;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use meltemi_config::{Key, Kind, Object};
use meltemi_model::Node;
use meltemi_push::Incoming;
use meltemi_store::{ChangeSet, ConfigSet, OverlayStore};
use meltemi_telemetry::metrics::Labels;
use meltemi_telemetry::{Counter, Registry};
use meltemi_tls::SpiffeId;
use meltemi_xds::types::HEALTH_INFORMATION;
use tokio::sync::Notify;
use tokio::time::Instant;
use tonic::Status;

/// Where registered workloads become known: the memory of this process, or an API that keeps objects.
pub(crate) trait Entries: Send + Sync {
    /// Adds or replaces a WorkloadEntry.
    fn put(&self, entry: Object);
    fn remove(&self, key: &Key);
}

impl Entries for OverlayStore {
    fn put(&self, entry: Object) {
        OverlayStore::put(self, entry);
    }

    fn remove(&self, key: &Key) {
        OverlayStore::remove(self, key);
    }
}

/// istiod's counters.
#[derive(Clone)]
pub(crate) struct RegistrationStats {
    success: Counter,
    updates: Counter,
    unregistered: Counter,
    deleted: Counter,
    errors: Counter,
}

impl RegistrationStats {
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name| registry.counter(name, Labels::default());
        Self {
            success: counter("auto_registration_success_total"),
            updates: counter("auto_registration_updates_total"),
            unregistered: counter("auto_registration_unregister_total"),
            deleted: counter("auto_registration_deletes_total"),
            errors: counter("auto_registration_errors_total"),
        }
    }
}

/// Everyone who is registered.
pub(crate) struct Registrations {
    entries: Arc<dyn Entries>,
    grace: Duration,
    most: usize,
    stats: RegistrationStats,
    workloads: Mutex<BTreeMap<Key, Workload>>,
    left: Notify,
}

struct Workload {
    group: Key,
    node: Arc<Node>,
    entry: Object,
    streams: usize,
    /// Since the last stream ended.
    deadline: Option<Instant>,
    /// `None`: it has no probe.
    healthy: Option<bool>,
    /// Its group is gone, and so is the entry until the group is there again.
    orphaned: bool,
}

impl Workload {
    /// Puts the entry in force or takes it back, as its group and its health have it.
    fn settle(&self, entries: &dyn Entries) {
        if self.is_in_force() {
            entries.put(self.entry.clone());
        } else {
            entries.remove(&self.entry.key());
        }
    }

    fn is_in_force(&self) -> bool {
        !self.orphaned && self.healthy != Some(false)
    }
}

impl Registrations {
    /// `most` at once, each kept for `grace` after its last stream.
    pub(crate) fn new(entries: Arc<dyn Entries>, grace: Duration, most: usize, stats: RegistrationStats) -> Self {
        Self { entries, grace, most, stats, workloads: Mutex::default(), left: Notify::new() }
    }

    /// Registers the workload of a new stream, if its node names a group. An error refuses the stream: no such group, no
    /// proven identity, or another one than the group's entries have.
    pub(crate) fn connect(
        self: &Arc<Self>,
        set: &ConfigSet,
        node: &Arc<Node>,
        identity: Option<&SpiffeId>,
    ) -> Result<Registration, Status> {
        let Some(group) = node.text("AUTO_REGISTER_GROUP").filter(|group| !group.is_empty()) else {
            return Ok(Registration { registrations: self.clone(), key: None });
        };
        let joined = self.join(set, node, group, identity);
        let key = joined.inspect_err(|_| self.stats.errors.inc())?;
        Ok(Registration { registrations: self.clone(), key: Some(key) })
    }

    fn join(&self, set: &ConfigSet, node: &Arc<Node>, group: &str, identity: Option<&SpiffeId>) -> Result<Key, Status> {
        let key = entry::key(node, group);
        let mut workloads = self.lock();
        if let Some(known) = workloads.get_mut(&key) {
            entry::check(&known.entry, identity)?;
            known.streams += 1;
            if known.deadline.take().is_some() {
                self.stats.updates.inc();
                tracing::info!(entry = %key, "registered workload is connected again");
            }
            return Ok(key);
        }
        if workloads.len() >= self.most {
            return Err(Status::resource_exhausted(format!(
                "{} workloads are registered, which is the limit",
                self.most
            )));
        }
        let group = Key::new(Kind::WorkloadGroup, &node.namespace, group);
        let found = set.get(&group).ok_or_else(|| {
            let name = format!("{}/{}", group.namespace, group.name);
            Status::failed_precondition(format!("registration of {}: cannot find WorkloadGroup {name}", node.id))
        })?;
        let entry = entry::of_group(&key, node, found);
        entry::check(&entry, identity)?;
        let healthy = entry::has_probe(node).then_some(false);
        let workload =
            Workload { group, node: node.clone(), entry, streams: 1, deadline: None, healthy, orphaned: false };
        workload.settle(&*self.entries);
        self.stats.success.inc();
        tracing::info!(entry = %key, health_checked = healthy.is_some(), "registered workload");
        workloads.insert(key.clone(), workload);
        Ok(key)
    }

    fn leave(&self, key: &Key) {
        let mut workloads = self.lock();
        let Some(workload) = workloads.get_mut(key) else { return };
        workload.streams = workload.streams.saturating_sub(1);
        if workload.streams == 0 {
            workload.deadline = Some(Instant::now() + self.grace);
            self.stats.unregistered.inc();
            tracing::info!(entry = %key, grace = ?self.grace, "registered workload is disconnected");
            self.left.notify_one();
        }
    }

    fn report(&self, key: &Key, healthy: bool, message: &str) {
        let mut workloads = self.lock();
        let Some(workload) = workloads.get_mut(key) else { return };
        if workload.healthy.is_some_and(|before| before != healthy) {
            workload.healthy = Some(healthy);
            workload.settle(&*self.entries);
            tracing::info!(entry = %key, healthy, message, "health of a registered workload");
        }
    }

    /// Entries go with their group, and come again with it. One that somebody else took away, as a storage does that is restored
    /// from a copy, is written again.
    pub(crate) fn follow(&self, set: &ConfigSet, changes: &ChangeSet) {
        if changes.touches(Kind::WorkloadEntry) {
            let workloads = self.lock();
            let lost = changes.keys().filter(|key| set.get(key).is_none()).filter_map(|key| workloads.get(key));
            lost.filter(|workload| workload.is_in_force()).for_each(|workload| workload.settle(&*self.entries));
        }
        if !changes.touches(Kind::WorkloadGroup) {
            return;
        }
        for workload in self.lock().values_mut() {
            let group = set.get(&workload.group);
            if let Some(group) = group.filter(|_| workload.orphaned) {
                workload.entry = entry::of_group(&workload.entry.key(), &workload.node, group);
            }
            if group.is_none() != workload.orphaned {
                workload.orphaned = group.is_none();
                workload.settle(&*self.entries);
            }
        }
    }

    /// Removes those whose grace is over. Never resolves.
    pub(crate) async fn reap(&self) {
        loop {
            let next = self.expire(Instant::now());
            let left = self.left.notified();
            match next {
                None => left.await,
                Some(deadline) => tokio::select! {
                    () = tokio::time::sleep_until(deadline) => {}
                    () = left => {}
                },
            }
        }
    }

    /// When to look again, if there is anyone to wait for.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut workloads = self.lock();
        workloads.retain(|key, workload| {
            let over = workload.deadline.is_some_and(|deadline| deadline <= now);
            if over {
                self.entries.remove(key);
                self.stats.deleted.inc();
                tracing::info!(entry = %key, "registered workload is gone");
            }
            !over
        });
        workloads.values().filter_map(|workload| workload.deadline).min()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Workload>> {
        self.workloads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One stream's part in a registration, if its proxy registers itself at all; given up when the stream ends, however it
/// does.
pub(crate) struct Registration {
    registrations: Arc<Registrations>,
    key: Option<Key>,
}

impl Registration {
    /// Takes a report of health (`istio.v1.HealthInformation`) out of what a proxy sends; anything else is given back.
    pub(crate) fn intercept(&self, request: Incoming) -> Option<Incoming> {
        let (type_url, error) = match &request {
            Incoming::Delta(request) => (&request.type_url, &request.error_detail),
            Incoming::StateOfTheWorld(request) => (&request.type_url, &request.error_detail),
        };
        if type_url != HEALTH_INFORMATION {
            return Some(request);
        }
        if let Some(key) = &self.key {
            let message = error.as_ref().map_or("", |error| &error.message);
            self.registrations.report(key, error.is_none(), message);
        }
        None
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.registrations.leave(key);
        }
    }
}

#[cfg(test)]
mod tests;
