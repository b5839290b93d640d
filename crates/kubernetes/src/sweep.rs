//! Entries of workloads that registered themselves and whose replica is gone, taken away a grace after. A replica of ours is gone
//! when its Lease rests; istiod notes in an entry when the workload left (`istio.io/disconnectedAt`).
//!
//! Owns what has been seen of replicas. For the leader alone. Costs a look at the entries every few seconds, and a read of a Lease
//! for each replica that they name.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use meltemi_config::{Key, Kind, Object};
use tokio::time::Instant;

use crate::entries::{Annotations, CONNECTED, CONTROLLER, EntryWriter};
use crate::error::reason;
use crate::presence::{LEASE, Pulses, lease_of};
use crate::world::World;

const GROUP: &str = "istio.io/autoRegistrationGroup";
const DISCONNECTED: &str = "istio.io/disconnectedAt";

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What an entry says of its workload.
#[derive(Debug, PartialEq, Eq)]
enum Workload {
    /// Left then; none: at a time that cannot be read.
    Left(Option<Timestamp>),
    /// Connected, when that was written, to the replica with this Lease.
    Held(String),
    /// Nothing that we could judge by.
    Unknown,
}

impl Workload {
    fn of(annotations: &Annotations) -> Self {
        let said = |name: &str| annotations.get(name).map(|text| &**text).filter(|text| !text.is_empty());
        if said(GROUP).is_none() {
            return Self::Unknown;
        }
        match (said(CONNECTED), said(DISCONNECTED)) {
            (None, Some(time)) => Self::Left(time.parse().ok()),
            _ => said(CONTROLLER).and_then(lease_of).map_or(Self::Unknown, Self::Held),
        }
    }
}

/// Takes entries away.
pub struct Sweeper {
    world: Arc<Mutex<World>>,
    writer: Arc<EntryWriter>,
    leases: Api<Lease>,
    grace: Duration,
    pulses: Pulses,
}

impl Sweeper {
    pub(crate) fn new(world: Arc<Mutex<World>>, writer: Arc<EntryWriter>, grace: Duration) -> Self {
        let leases = writer.leases();
        Self { world, writer, leases, grace, pulses: Pulses::default() }
    }

    /// Looks again and again for as long as it is awaited.
    pub async fn run(mut self) {
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut told = String::new();
        loop {
            ticks.tick().await;
            match self.look().await {
                Ok(()) => told.clear(),
                Err(error) => {
                    let reason = reason(&error);
                    if told != reason {
                        tracing::warn!("entries of workloads whose replica is gone: {reason}");
                        told = reason;
                    }
                }
            }
        }
    }

    async fn look(&mut self) -> kube::Result<()> {
        let entries = self.entries();
        let held = |lease: &str| entries.iter().any(|(_, workload)| *workload == Workload::Held(lease.to_owned()));
        self.pulses.retain(held);
        let mut rested: BTreeMap<&str, Duration> = BTreeMap::new();
        for (key, workload) in &entries {
            let over = match workload {
                Workload::Unknown => false,
                Workload::Left(time) => {
                    let since = time.map(|time| Timestamp::now().duration_since(time));
                    since.is_none_or(|since| since.unsigned_abs() >= self.grace && since.is_positive())
                }
                Workload::Held(lease) => {
                    if !rested.contains_key(&**lease) {
                        let found = self.leases.get_opt(lease).await?;
                        let renewed = found.and_then(|lease| lease.spec?.renew_time).map(|time| time.0);
                        rested.insert(lease, self.pulses.rested(lease, renewed, Instant::now()));
                    }
                    rested[&**lease] >= LEASE + self.grace
                }
            };
            if over && self.writer.delete(key, |annotations| Workload::of(annotations) == *workload).await? {
                tracing::info!(entry = %key, "registered workload is gone, and so is the replica that knew it");
            }
        }
        Ok(())
    }

    /// Everything that may be taken away.
    fn entries(&self) -> Vec<(Key, Workload)> {
        let world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let judged = |object: &Object| (object.key(), Workload::of(&object.meta.annotations));
        world.of_kind(Kind::WorkloadEntry).map(judged).filter(|(_, workload)| *workload != Workload::Unknown).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_judged_by_who_holds_it_or_when_its_workload_left() {
        let own = "istiod-1_00ff00ff00ff00ff";
        let held = || Workload::Held("meltemi-replica-00ff00ff00ff00ff".to_owned());
        let time = "2026-01-01T00:00:00.5Z";
        for (group, controller, connected, disconnected, expected) in [
            ("vm", own, time, "", held()),
            ("vm", own, time, time, held()),
            ("vm", own, "", "", held()),
            ("", own, time, "", Workload::Unknown),
            ("vm", "istiod-1", time, "", Workload::Unknown),
            ("vm", "", time, "", Workload::Unknown),
            ("vm", "istiod-1", "", time, Workload::Left(time.parse().ok())),
            ("vm", own, "", time, Workload::Left(time.parse().ok())),
            ("vm", "istiod-1", "", "yesterday", Workload::Left(None)),
        ] {
            let said = [(GROUP, group), (CONTROLLER, controller), (CONNECTED, connected), (DISCONNECTED, disconnected)];
            let annotations = said.map(|(name, value)| (name.into(), value.into())).into();
            assert_eq!(Workload::of(&annotations), expected, "{said:?}");
        }
    }
}
